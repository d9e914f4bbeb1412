"""``qpannot init`` and ``qpannot relink``: projects and where their slides are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpannot.cli.common import SKIPPED, JsonOption, MppOption, parse_mpp

IMAGE_TYPES = {
    "he": "BRIGHTFIELD_H_E",
    "h-dab": "BRIGHTFIELD_H_DAB",
    "other": "BRIGHTFIELD_OTHER",
    "unset": "UNSET",
}


def init(
    slides: Annotated[
        list[Path],
        typer.Argument(metavar="SLIDES", help="Slide files, or folders searched for slides."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the project, made if need be.")
    ],
    image_type: Annotated[
        str,
        typer.Option(
            help="The stain, QuPath's image type: he, h-dab, other, or unset to be asked in QuPath."
        ),
    ] = "he",
    mpp: MppOption = None,
    json: JsonOption = False,
) -> None:
    """Make a QuPath project of slides, or add slides to one.

    Slides stay where they are. Those the project has already are left alone, so the command can
    be repeated as slides come in.

    Example: qpannot init slides/ more/case-7.svs -o study
    """
    from qpannot.console import counted, progress, say, show_json, show_next, show_skipped
    from qpannot.errors import QpannotError, UsageError
    from qpannot.linking import add_slides, find_slides

    if image_type.lower() not in IMAGE_TYPES:
        raise UsageError(
            f"--image-type {image_type}: there is no such type.",
            hint=f"Choose one of {', '.join(IMAGE_TYPES)}.",
        )
    with progress("Adding slides") as advance:
        result = add_slides(
            output,
            find_slides(slides),
            mpp=parse_mpp(mpp),
            image_type=IMAGE_TYPES[image_type.lower()],
            each=lambda file, done, total: advance(file.name, done, total),
        )
    if json:
        show_json(
            {
                "project": str(result.project) if result.project else None,
                "added": [image.name for image in result.added],
                "known": len(result.known),
                "parts": [str(path) for path in result.parts],
                "failed": {str(path): str(error) for path, error in result.failed},
                "images": result.images,
            }
        )
    else:
        show_skipped((str(path), error) for path, error in result.failed)
        if result.parts:
            say(f"{counted(len(result.parts), 'file')} of slides that were added by another file.")
    if result.project is None:
        raise QpannotError(
            f"None of {counted(len(result.failed), 'file')} could be added; no project was made."
        )
    if not json:
        added = counted(len(result.added), "slide")
        say(f"{result.project}: {added} added, {counted(result.images, 'image')} in all.")
        show_next([f"qpannot bootstrap {output}"])
    if result.failed:
        raise typer.Exit(SKIPPED)


def relink(
    project: Annotated[
        Path, typer.Argument(metavar="PROJECT", help="A .qpproj file or its folder.")
    ],
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Where slides are now.")],
    json: JsonOption = False,
) -> None:
    """Find slides that moved, by name and size, and point the project to them.

    Example: qpannot relink study /archive/slides
    """
    from qpannot import linking
    from qpannot.console import say, show_json
    from qpannot.errors import UsageError
    from qpannot.qupath import open_project

    for folder in folders:
        if not folder.exists():
            raise UsageError(f"{folder}: there is no such file or folder.")
    with open_project(project, "r+") as opened:
        results = linking.relink(opened, folders)
    lost = [result for result in results if result.found is None]
    if json:
        show_json(
            [
                {"image": result.image.name, "found": result.found, "why": result.why}
                for result in results
            ]
        )
    else:
        for result in results:
            say(f"{result.image.name}: {result.found or f'not found ({result.why})'}")
        say(f"{len(results) - len(lost)} of {len(results)} missing slides found.")
    if lost:
        raise typer.Exit(SKIPPED)
