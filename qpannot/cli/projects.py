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
_CHUNK = 50
"""Slides added to the project file in one write."""


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
    from qpannot.console import progress, say, show_json, show_skipped
    from qpannot.errors import QpannotError, UsageError
    from qpannot.linking import describe_slide, find_slides, identify_slide
    from qpannot.qupath import ImageSource, open_project

    if image_type.lower() not in IMAGE_TYPES:
        raise UsageError(
            f"--image-type {image_type}: there is no such type.",
            hint=f"Choose one of {', '.join(IMAGE_TYPES)}.",
        )
    resolution = parse_mpp(mpp)
    files = list(find_slides(slides))
    exists = (output.suffix == ".qpproj" and output.exists()) or bool(list(output.glob("*.qpproj")))
    added: list[str] = []
    failed: dict[str, QpannotError] = {}
    with open_project(output, "r+" if exists else "x") as project:
        known = {image.path.resolve() for image in project.images if image.path}
        new = [file for file in files if file.resolve() not in known]
        described: list[ImageSource] = []
        identities = {
            identify_slide(path)
            for path in known
            if path.suffix.lower() == ".dcm" and path.exists()
        }

        def flush() -> None:
            added.extend(image.name for image in project.add_images(described))
            described.clear()

        with progress("Adding slides") as advance:
            for done, file in enumerate(new):
                advance(file.name, done, len(new))
                try:
                    source = describe_slide(
                        file, mpp=resolution, image_type=IMAGE_TYPES[image_type.lower()]
                    )
                except QpannotError as problem:
                    failed[str(file)] = problem
                    continue
                if source.identity and source.identity in identities:
                    continue
                identities.add(source.identity)
                described.append(source)
                if len(described) == _CHUNK:
                    flush()
            flush()
        total = len(project.images)
        path = project.path
    if json:
        show_json(
            {
                "project": str(path),
                "added": added,
                "failed": {name: str(error) for name, error in failed.items()},
                "images": total,
            }
        )
    else:
        for name, error in failed.items():
            show_skipped(name, error)
        say(f"{path}: slides added: {len(added)}, in all: {total}.")
        say(f"Next: qpannot bootstrap {output}")
    if failed:
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
