"""What became of an export or import, told to people and to scripts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qpannot.exchange import Exported, Imported, ImportResult
    from qpannot.qupath import Project, ProjectImage
    from qpannot.qupath.geojson.fitting import Remark, RepairedObject, SplitObject

SHOWN = 20
"""Lines of a kind that are shown on a terminal; ``--json`` has all."""


def take_back(project: Project, images: Sequence[ProjectImage]) -> str:
    """Return the command that makes images wait for a person, to be copied into a shell."""
    names = names_of(project, images)
    return shlex.join(["qpannot", "approve", *names, "-p", str(project.path), "--take-back"])


def names_of(project: Project, images: Sequence[ProjectImage]) -> list[str]:
    """Return what images are called on the command line: by name, by ID where that is no one's."""
    names = Counter(image.name for image in project.images)
    return [image.name if names[image.name] == 1 else image.id for image in images]


def show_what_next(
    result: ImportResult, project: Project, *, replace: bool, dry_run: bool, by: str = ""
) -> None:
    """Say once what to do about all that was imported, in commands to be copied.

    Parameters
    ----------
    by
        The person who drew it, if that was said.
    """
    from qpannot.bootstrap.states import is_drawn_area
    from qpannot.console import show_next
    from qpannot.qupath import Annotation

    path, steps = str(project.path), []
    if not dry_run:
        steps = [
            "undo it: " + shlex.join(["qpannot", "snapshots", path, "--image", *name])
            for each in result.images
            if each.warning and each.added
            for name in [names_of(project, [each.image])]
        ]
        drawn = [
            each.image
            for each in result.images
            if any(isinstance(new, Annotation) and is_drawn_area(new) for new in each.added)
        ]
        if drawn and not by:
            steps.append(
                "imported annotations count as a person's work; where they are a program's, make "
                "the slides wait for a person: " + take_back(project, drawn)
            )
    conflicts = [conflict for each in result.images for conflict in each.conflicts]
    if not replace and any(conflict.is_replaceable for conflict in conflicts):
        steps.append(
            "to take the file's version of annotations, run it again with --replace "
            "(detections stay as they are)"
        )
    show_next(steps)


def show_states_that_stay(exported: Sequence[Exported]) -> None:
    """Say that what persons said of slides is in no file."""
    from qpannot.bootstrap.said import STATE_KEY
    from qpannot.bootstrap.states import State
    from qpannot.console import counted, stderr

    said = [
        state
        for each in exported
        if (state := each.image.metadata.get(STATE_KEY)) in (State.REVIEWED, State.APPROVED)
    ]
    if said:
        stderr().print(
            f"That {counted(len(said), 'slide')} {'is' if len(said) == 1 else 'are'} reviewed or "
            "approved is not in the files: the project keeps it."
        )


def show_imported(each: Imported, *, would: str) -> None:
    """Say what became of the files of one image."""
    from rich.markup import escape

    from qpannot.console import counted, say, stderr

    name = each.image.name
    show_changes(name, each.repairs, each.splits, each.left_out)
    console = stderr()
    _show_some(f"[yellow]Note[/] {escape(name)}", (f"{r.where} {r.text}" for r in each.remarks))
    _show_some(
        f"[yellow]Conflict[/] {escape(name)}",
        (f"{c.label} ({c.id}) has another {', '.join(c.differs_in)}" for c in each.conflicts),
    )
    if each.warning:
        console.print(f"[bold yellow]Warning[/] {escape(name)}: {escape(each.warning)}")
    elif each.outside:
        outside = f"{counted(each.outside, 'object')} outside the image"
        console.print(f"[yellow]Note[/] {escape(name)}: {outside} ({each.image.server.size})")
    replaced = f", {len(each.replaced)} {would}replaced" if each.replaced else ""
    conflicts = f", {len(each.conflicts)} left as they are" if each.conflicts else ""
    say(
        f"  {name}: {len(each.added)} {would}added{replaced}, {each.unchanged} there already"
        f"{conflicts}"
    )


def show_changes(
    name: str,
    repairs: Sequence[RepairedObject],
    splits: Sequence[SplitObject],
    left_out: Sequence[Remark],
) -> None:
    """Say what was repaired, split and left out; the largest changes first."""
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


def exported_json(each: Exported) -> dict[str, Any]:
    """Return what became of one image, for scripts."""
    fitted = each.fitted
    return {
        "image_id": each.image.id,
        "name": each.image.name,
        "file": str(each.path),
        "objects": len(fitted.objects),
        **_changes_json(fitted.repairs, fitted.splits, fitted.left_out),
    }


def imported_json(each: Imported) -> dict[str, Any]:
    """Return what became of the files of one image, for scripts."""
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


def failed_json(failed: Any) -> list[dict[str, Any]]:
    """Return what could not be done, and what to do next, for scripts."""
    return [{"name": name, "error": error.message, "next": error.hint} for name, error in failed]
