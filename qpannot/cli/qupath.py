"""``qpannot qupath``: which QuPath reads and writes projects, and how to get one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpannot.cli.common import JsonOption

app = typer.Typer(
    help="Find or fetch the QuPath that projects are read and written with. None is needed.",
    no_args_is_help=True,
)

CHOOSING = (
    "To choose another, set PAQUO_QUPATH_DIR to its folder, or qupath_dir in a .paquo.toml file. "
    "With --backend builtin none is used."
)


@app.command()
def find(json: JsonOption = False) -> None:
    """Tell which QuPath installation would be used, without starting it.

    Exits with 1 when there is none.

    Example: qpannot qupath find
    """
    from qpannot.console import say, show_json, show_next
    from qpannot.qupath.paquo.installation import find_installation

    found = find_installation()
    if json:
        show_json(
            found
            and {
                "folder": str(found.folder),
                "version": found.version,
                "found_by": found.found_by,
                "supported": found.is_supported,
            }
        )
    elif found is None:
        say("No QuPath is found here: projects are read and written without it.")
        show_next(["qpannot qupath install, or set PAQUO_QUPATH_DIR to the folder of a QuPath."])
    else:
        use = "" if found.is_supported else " It is too old to be used: 0.4 or newer is needed."
        say(f"QuPath {found.version or 'of an unknown version'} at {found.folder}{use}")
        say(f"Found by {found.found_by}. {CHOOSING}")
        show_next(["qpannot doctor starts it, to see that it works."])
    if found is None:
        raise typer.Exit(1)


@app.command()
def install(
    version: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="Which; the one this version was tried with by default."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where QuPath-VERSION shall lie; a place that is searched."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Download QuPath (about 250 MB) and unpack it where it is found.

    Example: qpannot qupath install --version 0.6.0
    """
    from qpannot.console import progress, say, show_json
    from qpannot.qupath.paquo.installation import find_installation
    from qpannot.qupath.paquo.installing import DEFAULT_VERSION, default_folder, install

    version = version or DEFAULT_VERSION
    with progress(f"QuPath {version}", lines=False) as advance:
        made = install(
            version,
            (folder or default_folder()).expanduser(),
            each=lambda n_bytes: advance(f"{n_bytes / 1e6:,.0f} MB", 0, 1),
        )
    used = find_installation()
    is_used = used is not None and used.folder.resolve() == made.folder.resolve()
    if json:
        show_json({"folder": str(made.folder), "version": made.version, "found": is_used})
        return
    say(f"QuPath {made.version} is at {made.folder}")
    if not is_used:
        say(f"To use it, set PAQUO_QUPATH_DIR={made.folder.absolute()}")
