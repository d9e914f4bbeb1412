"""``qpannot export geojson`` and ``qpannot import geojson``: objects out of a project and in."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpannot.cli.common import SKIPPED, BackendOption, JsonOption, select_images

if TYPE_CHECKING:
    from qpannot.exchange import Exported, Imported
    from qpannot.qupath.geojson.fitting import Remark, RepairedObject, SplitObject

SHOWN = 20
"""Lines of a kind that are shown on a terminal; ``--json`` has all."""

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
            help="A folder, made if need be: a file for each image, named after it. "
            "For a single image it may be a file, such as case-1.geojson.gz.",
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="Only these: a name, an ID or a pattern; repeatable."),
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
        bool, typer.Option("--gzip", help="Write .geojson.gz, which QuPath reads as well.")
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

    Examples:

      qpannot export geojson study -o annotations

      qpannot export geojson study -o case-1.geojson --image case-1.svs --annotations-only
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
                "exported": [_exported_json(each) for each in result.exported],
                "failed": _failed_json((image.name, error) for image, error in result.failed),
            }
        )
    else:
        show_skipped((image.name, error) for image, error in result.failed)
        for each in result.exported:
            fitted = each.fitted
            _show_changes(each.image.name, fitted.repairs, fitted.splits, fitted.left_out)
        for each in result.exported:
            say(f"  {each.path}: {counted(len(each.fitted.objects), 'object')}")
        skipped = f", {len(result.failed)} skipped" if result.failed else ""
        say(f"{counted(len(result.exported), 'image')} exported{skipped}.")
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
            help="The image they are of: a name or an ID. By default a file is of the image it is "
            "named after, with the slide's suffix or without.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Take the files' version of annotations that differ."),
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
    of what was there. Annotations that are imported count as drawn by a person; say
    'qpannot approve IMAGE --take-back' of slides where they wait for one.

    Examples:

      qpannot import geojson study annotations/

      qpannot import geojson study model-output.geojson --image case-1.svs --dry-run
    """
    from qpannot.console import counted, progress, say, show_json, show_skipped
    from qpannot.errors import UsageError
    from qpannot.exchange import find_geojson
    from qpannot.exchange import import_geojson as bring_in
    from qpannot.qupath import open_project

    found = find_geojson(files)
    with open_project(project, "r" if dry_run else "r+", backend) as opened:  # type: ignore[arg-type]
        target = select_images(opened, [image]) if image else [None]
        if len(target) != 1:
            raise UsageError(
                f"--image {image}: these are {len(target)} images.",
                hint="Name one, by its ID if need be; 'qpannot status' shows the IDs.",
            )
        with progress("Importing") as advance:
            result = bring_in(
                opened,
                found,
                image=target[0],
                replace=replace,
                dry_run=dry_run,
                each=lambda image, done, total: advance(image.name, done, total),
            )
    if json:
        show_json(
            {
                "project": str(opened.path),
                "dry_run": dry_run,
                "images": [_imported_json(each) for each in result.images],
                "failed": _failed_json(result.failed),
            }
        )
    else:
        show_skipped(result.failed)
        for each in result.images:
            _show_imported(each, would="would be " if dry_run else "")
        say(f"{counted(len(result.images), 'image')}{', nothing changed' if dry_run else ''}.")
    if not result.images:
        raise typer.Exit(1)
    if not result.is_complete:
        raise typer.Exit(SKIPPED)


def _show_imported(each: Imported, *, would: str) -> None:
    from rich.markup import escape

    from qpannot.console import say, show_next, stderr

    name = each.image.name
    _show_changes(name, each.repairs, each.splits, each.left_out)
    console = stderr()
    _show_some(f"[yellow]Note[/] {escape(name)}", (f"{r.where} {r.text}" for r in each.remarks))
    _show_some(
        f"[yellow]Conflict[/] {escape(name)}",
        (f"{c.label} ({c.id}) has another {', '.join(c.differs_in)}" for c in each.conflicts),
    )
    if each.warning:
        console.print(f"[bold yellow]Warning[/] {escape(name)}: {escape(each.warning)}")
        if each.added and not would:
            show_next([f"undo it: qpannot snapshots PROJECT --image {shlex.quote(name)}"])
    replaced = f", {len(each.replaced)} {would}replaced" if each.replaced else ""
    conflicts = f", {len(each.conflicts)} left as they are" if each.conflicts else ""
    say(
        f"  {name}: {len(each.added)} {would}added{replaced}, {each.unchanged} there already"
        f"{conflicts}"
    )
    if each.added and not would:
        show_next(
            [
                "imported annotations count as a person's work; where they are a program's, make "
                f"the slide wait for a person: qpannot approve {shlex.quote(name)} --take-back"
            ]
        )
    if each.conflicts:
        show_next(["to take the file's version of annotations, run it again with --replace"])


def _show_changes(
    name: str,
    repairs: Sequence[RepairedObject],
    splits: Sequence[SplitObject],
    left_out: Sequence[Remark],
) -> None:
    from rich.markup import escape

    from qpannot.console import show_table

    if repairs:
        columns = ("image", "where", "object", "repaired", "px² before", "px² after", "change")
        # the largest changes first: those are to be looked at
        ranked = sorted(repairs, key=lambda each: not each.repair.is_notable)
        show_table(columns, [_repair_row(name, each) for each in ranked[:SHOWN]])
    _show_more(len(repairs), f"repaired in {name}")
    _show_some(
        f"[yellow]Split[/] {escape(name)}",
        (f"{s.where} {s.label}: {s.vertices:,} vertices, {len(s.pieces)} pieces" for s in splits),
    )
    _show_some(
        f"[yellow]Left out[/] {escape(name)}", (f"{each.where} {each.text}" for each in left_out)
    )


def _repair_row(name: str, each: RepairedObject) -> tuple[str, ...]:
    before, after = each.repair.area_before_px2, each.repair.area_after_px2
    change = f"{(after - before) / before:+.2%}" if before > 0 else "?"
    flag = " !" if each.repair.is_notable else ""
    areas = (f"{before:,.1f}", f"{after:,.1f}", change + flag)
    return (name, each.where, each.label, "; ".join(each.repair.faults), *areas)


def _show_some(title: str, lines: Any) -> None:
    from rich.markup import escape

    from qpannot.console import stderr

    console = stderr()
    shown = list(lines)
    for line in shown[:SHOWN]:
        console.print(f"{title}: {escape(line)}")
    _show_more(len(shown), "of these")


def _show_more(number: int, what: str) -> None:
    from qpannot.console import stderr

    if number > SHOWN:
        stderr().print(f"... and {number - SHOWN:,} more {what}; --json lists all.", markup=False)


def _exported_json(each: Exported) -> dict[str, Any]:
    fitted = each.fitted
    return {
        "image_id": each.image.id,
        "name": each.image.name,
        "file": str(each.path),
        "objects": len(fitted.objects),
        **_changes_json(fitted.repairs, fitted.splits, fitted.left_out),
    }


def _imported_json(each: Imported) -> dict[str, Any]:
    return {
        "image_id": each.image.id,
        "name": each.image.name,
        "files": [str(file) for file in each.files],
        "added": len(each.added),
        "replaced": [str(new.id) for new in each.replaced],
        "unchanged": each.unchanged,
        "conflicts": [
            {"id": str(c.id), "label": c.label, "differs_in": list(c.differs_in)}
            for c in each.conflicts
        ],
        "outside": each.outside,
        "warning": each.warning or None,
        "remarks": [{"where": r.where, "text": r.text} for r in each.remarks],
        **_changes_json(each.repairs, each.splits, each.left_out),
    }


def _changes_json(
    repairs: Sequence[RepairedObject], splits: Sequence[SplitObject], left_out: Sequence[Remark]
) -> dict[str, Any]:
    return {
        "repaired": [
            {
                "where": each.where,
                "id": str(each.id),
                "label": each.label,
                "faults": list(each.repair.faults),
                "area_before_px2": _finite(each.repair.area_before_px2),
                "area_after_px2": _finite(each.repair.area_after_px2),
            }
            for each in repairs
        ],
        "split": [
            {
                "where": each.where,
                "id": str(each.id),
                "label": each.label,
                "vertices": each.vertices,
                "pieces": [str(piece) for piece in each.pieces],
            }
            for each in splits
        ],
        "left_out": [{"where": each.where, "reason": each.text} for each in left_out],
    }


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None


def _failed_json(failed: Any) -> list[dict[str, Any]]:
    return [{"name": name, "error": error.message, "next": error.hint} for name, error in failed]
