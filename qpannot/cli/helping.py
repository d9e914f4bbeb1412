"""How ``--help`` is set: paragraphs to the width of the terminal, and plain names of values."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def plain_help(app: typer.Typer) -> None:
    """Give all commands of an app, and of the apps in it, help as it is set here."""
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            plain_help(group.typer_instance)


def reflowed(text: str) -> str:
    """Return a text with each paragraph in one line, for the terminal to break.

    Typer keeps the line breaks of a docstring and wraps the lines again. Paragraphs with an
    indented line (examples, lists) stay as they are.
    """
    return "\n\n".join(
        paragraph
        if any(line[:1].isspace() for line in paragraph.splitlines())
        else " ".join(paragraph.split())
        for paragraph in text.split("\n\n")
    )


class _Command(TyperCommand):
    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        super().__init__(*args, help=reflowed(help or ""), **settings)

    def get_params(self, ctx: Any) -> Any:
        return _without_flag_types(super().get_params(ctx))


class _Group(TyperGroup):
    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        super().__init__(*args, help=reflowed(help or ""), **settings)

    def get_params(self, ctx: Any) -> Any:
        return _without_flag_types(super().get_params(ctx))


def _without_flag_types(parameters: list[Any]) -> list[Any]:
    """Return parameters of which those that take no value show none; typer writes ``<bool>``."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
