"""``qpannot init`` and ``qpannot relink``: projects and where their slides are."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpannot.cli.common import SKIPPED, BackendOption, JsonOption, MppOption, parse_mpp

if TYPE_CHECKING:
    from qpannot.linking import Relinked
    from qpannot.qupath.protocol import Mode

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
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder of the project, made if need be."
        ),
    ],
    image_type: Annotated[
        str,
        typer.Option(
            metavar="TYPE",
            help="The stain, QuPath's image type: he, h-dab, other, or unset to be asked in "
            "QuPath.",
        ),
    ] = "he",
    mpp: MppOption = None,
    backend: BackendOption = "auto",
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
            backend=backend,  # type: ignore[arg-type]
            each=lambda file, done, total: advance(file.name, done, total),
        )
    if json and result.project:
        show_json(
            {
                "project": str(result.project),
                "added": [image.name for image in result.added],
                "known": len(result.known),
                "mpp_stated": result.stated,
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
        if result.stated:
            known = counted(result.stated, "slide")
            say(f"{known} that the project had already got the resolution {mpp} µm/px.")
        show_next([f"qpannot bootstrap {shlex.quote(str(output))}"])
    if result.failed:
        raise typer.Exit(SKIPPED)


def relink(
    project: Annotated[
        Path, typer.Argument(metavar="PROJECT", help="A .qpproj file or its folder.")
    ],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Where slides are now; searched to their depths."),
    ] = None,
    old: Annotated[
        str | None, typer.Option("--from", metavar="PLACE", help="A share, drive or folder that")
    ] = None,
    new: Annotated[
        str | None, typer.Option("--to", metavar="PLACE", help="has this name or place now.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            metavar="IMAGE",
            help="Point this image to the one FILE given, whatever its picture.",
        ),
    ] = None,
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified",
            help="Take also what cannot be checked: places that this machine cannot reach, slides "
            "without a picture to compare, files that were changed.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")
    ] = False,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Find slides that moved, or whose place another took, and point the project to them.

    A file is taken when it is the slide: by its fingerprint, whatever its name is now, or by its
    name, size and picture (QuPath's thumbnail). Where several files could be it, they are named
    and none is taken. With --from and --to, shares and drives that were renamed are followed.

    Examples:

      qpannot relink study /archive/slides

      qpannot relink study --from //old-server/slides --to //new-server/slides

      qpannot relink study --image case-1.svs /archive/case-1-rescanned.svs
    """
    from qpannot import linking
    from qpannot.cli.common import select_images
    from qpannot.console import progress, show_json
    from qpannot.errors import UsageError
    from qpannot.qupath import open_project
    from qpannot.qupath.places import PlaceChange

    places = list(folders or ())
    _check_relink(places, old, new, images)
    for place in places:
        if not place.exists():
            raise UsageError(f"{place}: there is no such file or folder.")
    mode: Mode = "r" if dry_run else "r+"
    with (
        open_project(project, mode, backend) as opened,  # type: ignore[arg-type]
        progress("Relinking") as each,
    ):
        if images:
            chosen = select_images(opened, images)
            results = linking.link_to(
                opened, chosen, places[0], unverified=unverified, dry_run=dry_run
            )
        elif old and new:
            change = PlaceChange.of(old, new)
            results = linking.rename_places(
                opened, change, unverified=unverified, dry_run=dry_run, each=each
            )
        else:
            results = linking.relink(
                opened, places, unverified=unverified, dry_run=dry_run, each=each
            )
        path = opened.path
    if json:
        show_json(
            {
                "project": str(path),
                "dry_run": dry_run,
                "images": [_relinked_json(result) for result in results],
            }
        )
    else:
        _show_relinked(results, dry_run)
    if any(result.found is None for result in results):
        raise typer.Exit(SKIPPED)


def _check_relink(
    places: list[Path], old: str | None, new: str | None, images: list[str] | None
) -> None:
    from qpannot.errors import UsageError

    if bool(old) != bool(new):
        raise UsageError("--from and --to go together.")
    if images and (old or len(places) != 1 or places[0].is_dir()):
        raise UsageError(
            "--image goes with one slide file.",
            hint="For example: qpannot relink study --image case-1.svs /archive/case-1.svs",
        )
    if bool(old) == bool(places):
        raise UsageError(
            "Where are the slides now?",
            hint="Give the folders to search, or what has another name: --from PLACE --to PLACE.",
        )


def _relinked_json(result: Relinked) -> dict[str, Any]:
    return {
        "image_id": result.image.id,
        "image": result.image.name,
        "found": None if result.found is None else str(result.found),
        "uris": dict(result.uris),
        "evidence": None if result.evidence is None else result.evidence.name.lower(),
        "why": result.why,
        "candidates": [str(path) for path in result.candidates],
    }


def _show_relinked(results: list[Relinked], dry_run: bool) -> None:
    from qpannot.console import counted, say, stderr
    from qpannot.linking import Evidence

    for result in results:
        found = f"{result.found} ({result.why})" if result.found else f"not found ({result.why})"
        say(f"{result.image.name}: {found}")
    relinked = [result for result in results if result.found]
    blind = sum(result.evidence is None for result in relinked)
    weak = sum(
        result.evidence is not None and result.evidence < Evidence.ALIKE for result in relinked
    )
    for number, what in (
        (blind, "the new place cannot be reached from here, so nothing was checked"),
        (weak, "that the file is the slide could not be shown; see above"),
    ):
        if number:
            stderr().print(f"[bold yellow]Unverified[/] {counted(number, 'image')}: {what}.")
    done = "would be relinked; nothing was changed" if dry_run else "relinked"
    say(f"{len(relinked)} of {counted(len(results), 'image')} {done}.")
