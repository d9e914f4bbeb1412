"""``qpannot export geojson`` and ``qpannot import geojson``: objects out of a project and in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpannot.cli.common import SKIPPED, BackendOption, JsonOption, select_images
from qpannot.cli.exchanged import (
    exported_json,
    failed_json,
    imported_json,
    show_changes,
    show_imported,
    show_states_that_stay,
    show_what_next,
    take_back,
)

if TYPE_CHECKING:
    from qpannot.errors import QpannotError
    from qpannot.qupath import Project, ProjectImage

export_app = typer.Typer(help="Write what a project holds to other formats.", no_args_is_help=True)
import_app = typer.Typer(help="Bring other formats into a project.", no_args_is_help=True)

_ProjectArgument = Annotated[
    Path, typer.Argument(metavar="PROJECT", help="A .qpproj file or its folder.")
]


@export_app.command("geojson")
def export_geojson(
    project: _ProjectArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="PLACE",
            help="A folder, made if need be: a file for each image, named after it. "
            "For a single image it may be a file, such as case-1.geojson.",
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            metavar="IMAGE",
            help="Only these: a name, an ID or a pattern; repeatable.",
        ),
    ] = None,
    annotations_only: Annotated[
        bool,
        typer.Option(
            "--annotations-only",
            help="Leave out detections, cells, tiles and TMA cores. "
            "By default all objects are written, as QuPath's export does.",
        ),
    ] = False,
    compress: Annotated[
        bool,
        typer.Option("--gzip", help="Write .geojson.gz, which QuPath reads as well."),
    ] = False,
    pretty: Annotated[
        bool, typer.Option("--pretty", help="Over many lines, for people to read.")
    ] = False,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Write the objects of a project's images as GeoJSON, in QuPath's dialect.

    QuPath 0.4 to 0.7 and what reads their exports can read the files. Outlines that cross
    themselves are repaired in the file, and enormous ones split: QuPath would refuse the whole
    file otherwise. What was repaired is shown. The project is not changed.

    The state of a slide (proposed, reviewed, approved) is the project's, and in no GeoJSON. What
    is in it is where each proposal came from, so that it waits for a person elsewhere too.

    Examples:

      qpannot export geojson study -o annotations

      qpannot export geojson study -o case-1.geojson --image case-1.svs
    """
    from qpannot.console import counted, progress, say, show_json, show_skipped
    from qpannot.exchange import export_geojson as export
    from qpannot.qupath import open_project

    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        only = select_images(opened, images) if images else None
        with progress("Exporting") as advance:
            result = export(
                opened,
                output,
                images=only,
                annotations_only=annotations_only,
                compress=compress,
                pretty=pretty,
                each=lambda image, done, total: advance(image.name, done, total),
            )
    if json:
        show_json(
            {
                "project": str(opened.path),
                "exported": [exported_json(each) for each in result.exported],
                "failed": failed_json((image.name, error) for image, error in result.failed),
            }
        )
    else:
        show_skipped((image.name, error) for image, error in result.failed)
        for each in result.exported:
            fitted = each.fitted
            show_changes(each.image.name, fitted.repairs, fitted.splits, fitted.left_out)
        for each in result.exported:
            say(f"  {each.path}: {counted(len(each.fitted.objects), 'object')}")
        skipped = f", {len(result.failed)} skipped" if result.failed else ""
        say(f"{counted(len(result.exported), 'image')} exported{skipped}.")
        show_states_that_stay(result.exported)
    if result.failed:
        raise typer.Exit(SKIPPED if result.exported else 1)


@import_app.command("geojson")
def import_geojson(
    project: _ProjectArgument,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="GeoJSON files (.gz, .zip too), or folders of them."),
    ],
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "-i",
            metavar="IMAGE",
            help="The image they are of: a name or an ID. By default a file is of the image it is "
            "named after, with the slide's suffix or without.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Take the files' version of annotations that differ. What a file leaves out "
            "(name, colour, lock, measurements, metadata) stays as it is.",
        ),
    ] = False,
    as_proposals: Annotated[
        bool,
        typer.Option(
            "--as-proposals",
            help="The files are a program's: their annotations wait for a person to correct and "
            "approve them. Without this they count as a person's work.",
        ),
    ] = False,
    by: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The files are what this person drew, in another copy of the project perhaps: it "
            "stands beside what others drew, under this name, as a reading of its own.",
        ),
    ] = "",
    as_pixels: Annotated[
        bool,
        typer.Option(
            "--as-pixels",
            help="Take coordinates for pixels though they look like degrees of a map, or "
            "fractions of the image.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")
    ] = False,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Add the objects of GeoJSON files to the images of a project.

    What an image has already is left alone, so the command can be repeated. An object that it
    has with other values is not overwritten but named, and the exit code is 3. Broken
    outlines are repaired and shown with their areas; a feature that cannot be understood is left
    out and named, and the others are imported. Each image is saved in one step, with a snapshot
    of what was there.

    Annotations that are imported count as drawn by a person, and their slides as reviewed. With
    --as-proposals they wait for a person; slides that are reviewed already are left alone then.
    States of slides (reviewed, approved) are not in GeoJSON: say them with 'qpannot approve'.

    With --by, the files are all that one of several people drew on these slides: proposals that
    the person left in place are that person's too, and the slides count as read by that person.
    How the readings of several become one is the recipe's 'annotators.rule'.

    Examples:

      qpannot import geojson study annotations/

      qpannot import geojson study from-bee/ --by Bee

      qpannot import geojson study predictions/ --as-proposals

      qpannot import geojson study model.geojson --image case-1.svs --dry-run
    """
    from qpannot.bootstrap.review import say as say_of
    from qpannot.bootstrap.review import still_waiting
    from qpannot.bootstrap.states import State
    from qpannot.console import counted, progress, say, show_json, show_skipped
    from qpannot.errors import UsageError
    from qpannot.exchange import find_geojson
    from qpannot.exchange import import_geojson as bring_in
    from qpannot.qupath import open_project

    if by and as_proposals:
        raise UsageError("--by is a person, --as-proposals a program: they do not go together.")
    found = find_geojson(files)
    with open_project(project, "r" if dry_run else "r+", backend) as opened:  # type: ignore[arg-type]
        target = select_images(opened, [image]) if image else [None]
        if len(target) != 1:
            raise UsageError(
                f"--image {image}: these are {len(target)} images.",
                hint="Name one, by its ID if need be; 'qpannot status' shows the IDs.",
            )
        with still_waiting(opened), progress("Importing") as advance:
            result = bring_in(
                opened,
                found,
                image=target[0],
                replace=replace,
                as_proposals=as_proposals,
                by=by,
                as_pixels=as_pixels,
                dry_run=dry_run,
                check=_refuse_reviewed(opened) if as_proposals else lambda image: None,
                each=lambda image, done, total: advance(image.name, done, total),
            )
        unsaid: Sequence[tuple[ProjectImage, QpannotError]] = ()
        if by and not dry_run:
            read = [each.image for each in result.images if not each.conflicts]
            unsaid = say_of(opened, read, State.REVIEWED, by=by, independent=True).skipped
    if json:
        show_json(
            {
                "project": str(opened.path),
                "dry_run": dry_run,
                "images": [imported_json(each) for each in result.images],
                "failed": failed_json(
                    [*result.failed, *((image.name, error) for image, error in unsaid)]
                ),
            }
        )
    else:
        show_skipped([*result.failed, *((image.name, error) for image, error in unsaid)])
        for each in result.images:
            show_imported(each, would="would be " if dry_run else "")
        say(f"{counted(len(result.images), 'image')}{', nothing changed' if dry_run else ''}.")
        show_what_next(result, opened, replace=replace, dry_run=dry_run, by=by)
    if not result.images:
        raise typer.Exit(1)
    if unsaid or not result.is_complete:
        raise typer.Exit(SKIPPED)


def _refuse_reviewed(project: Project) -> Callable[[ProjectImage], None]:
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.states import State, status_of
    from qpannot.errors import ProjectError

    def check(image: ProjectImage) -> None:
        status = status_of(image, Ledger.of(project))
        if status.state in (State.REVIEWED, State.APPROVED):
            raise ProjectError(
                image.name,
                f"it is {status.state} ({status.reason}), and what is added now would pass for "
                "that as well.",
                hint="Make it wait for a person first, then import again: "
                + take_back(project, [image]),
            )

    return check
