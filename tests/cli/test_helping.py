from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from qpannot.cli import app
from qpannot.cli.helping import reflowed

WIDTH = 80


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, under in getattr(command, "commands", {}).items():
        yield from commands(under, (*path, name))


@pytest.fixture
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``--help`` of a command writes on a terminal of 80 columns, line by line."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    ended = CliRunner().invoke(app, [*request.param, "--help"])
    assert ended.exit_code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ended.output)
    return [line.rstrip() for line in plain.splitlines()]


every_command = pytest.mark.parametrize("shown", list(commands(get_command(app))), indirect=True)


@every_command
def test_help_fills_the_lines_of_each_paragraph_and_none_is_too_long(shown: list[str]) -> None:
    assert max(map(len, shown)) <= WIDTH
    prose = shown[: next(i for i, line in enumerate(shown) if line.startswith("╭"))]
    assert len(prose) > 3
    for line, following in itertools.pairwise(prose):
        if line.strip() and following.strip() and not following.startswith("  "):
            # its first word would not have fitted: typer leaves a column free on the right
            assert len(line) + 1 + len(following.split()[0]) > WIDTH - 1, (line, following)


@every_command
def test_an_example_is_one_line(shown: list[str]) -> None:
    under = [line for line in shown if re.match(r"   ?qpannot ", line)]
    after = [shown[shown.index(line) + 1] for line in under]
    assert all(not line or line.startswith("  ") or line.startswith("╭") for line in after)


@every_command
def test_values_are_named_plainly(shown: list[str]) -> None:
    options = shown[next(i for i, line in enumerate(shown) if line.startswith("╭─ Options")) :]
    assert not [line for line in options if re.search(r"<(bool|str|int|float|path|list)\b", line)]


def test_only_paragraphs_without_indented_lines_are_joined() -> None:
    text = "One\nsentence.\n\nExamples:\n\n  a b\n\n  c d\n  e"
    assert reflowed(text) == "One sentence.\n\nExamples:\n\n  a b\n\n  c d\n  e"
