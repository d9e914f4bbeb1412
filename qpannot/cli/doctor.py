"""``qpannot doctor``: what this machine has, and what each absence means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpannot.cli.common import JsonOption


def doctor(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where projects are kept, for the free space.")
    ] = Path(),
    json: JsonOption = False,
) -> None:
    """Look at this machine: QuPath, OpenSlide, torch, GPU, disk, and what is missing.

    Exits with 1 when something that every project needs is missing.

    Example: qpannot doctor
    """
    from rich.markup import escape

    from qpannot.console import say, show_json
    from qpannot.health import examine

    marks = {"ok": "[green]ok[/]     ", "absent": "[yellow]absent[/] ", "bad": "[red]bad[/]    "}
    findings = []
    for finding in examine(folder):
        findings.append(finding)
        if not json:
            found = f"[bold]{finding.what}[/]: {escape(finding.found)}"
            say(marks[finding.verdict] + found, markup=True)
            if finding.meaning:
                say(f"        {finding.meaning}")
    if json:
        show_json([finding.__dict__ for finding in findings])
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)
