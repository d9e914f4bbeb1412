"""``qpannot scripts``: reviewing inside QuPath."""

from __future__ import annotations

from pathlib import Path

import typer

from qpannot.cli.common import JsonOption, ProjectArgument

app = typer.Typer(
    help="Put the scripts for reviewing inside QuPath into a project.", no_args_is_help=True
)


@app.callback()
def _group() -> None: ...  # so that "install" stays a word of its own


@app.command()
def install(project: ProjectArgument = Path(), json: JsonOption = False) -> None:
    """Put the scripts for reviewing inside QuPath into a project.

    QuPath lists them under Automate > Project scripts > qpannot: a click opens a script, Run
    starts it. The first opens a small window with a button for each of the others. 'qpannot
    bootstrap' puts them there, too. A script that was changed is left as it is and named; to get
    the one that ships, move yours away and run this again.

    Example:

      qpannot scripts install study
    """
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.scripts import MENU, install_scripts, shipped_scripts, show_heatmaps_of
    from qpannot.cli.common import recipe_of
    from qpannot.console import say, show_json, show_next
    from qpannot.qupath import open_project

    with open_project(project, "r+", "builtin") as opened:
        installed = install_scripts(opened)
        show_heatmaps_of(Ledger.of(opened), recipe_of(opened, None, None))
    scripts = [script for script in shipped_scripts() if script.path.parent == MENU]
    if json:
        show_json(
            {
                "project": str(opened.path),
                "menu": [{"title": each.title, "about": each.about} for each in scripts],
                "written": [str(path) for path in installed.written],
                "left": [str(path) for path in installed.left],
                "outdated": [str(path) for path in installed.outdated],
            }
        )
        return
    say(f"In QuPath, under Automate > Project scripts > {MENU.name}:")
    for script in scripts:
        say(f"  {script.title}: {script.about}")
    for path in installed.left:
        older = ", and qpannot's own is another by now" if path in installed.outdated else ""
        say(f"Left as it is, because somebody changed it{older}: {opened.folder / path}")
    show_next(["open the project in QuPath, click on the first of them, and press Run."])
