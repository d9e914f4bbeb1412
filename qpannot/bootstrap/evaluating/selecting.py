"""Which reviewed slides a design may be judged on, and what must be said of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qpannot.bootstrap.evaluating.designs import Design
from qpannot.bootstrap.evaluating.seen import strictest
from qpannot.bootstrap.truth import Lesson
from qpannot.console import counted
from qpannot.errors import QpannotError
from qpannot.sampling import Part, value_of

Wanted = Literal["auto", "test", "validation", "held-out", "all"]
"""``auto``: the test slides; where there are none, those of validation."""

FEW = 10
"""Fewer slides than this say little of others; the interval of the mean is then too narrow."""

SHOWN = 5


@dataclass(frozen=True)
class Selection:
    """The slides that are evaluated.

    Parameters
    ----------
    part
        ``test``, ``validation``, ``held-out``, ``all`` or, of slides a person named, ``named``.
    lessons
        The slides, in the project's order.
    parts
        What each is to the designs, by image ID.
    """

    part: str
    lessons: tuple[Lesson, ...]
    parts: Mapping[str, Part]

    @property
    def told(self) -> str:
        """Which slides these are, in words: ``2 validation slides``."""
        count = len(self.lessons)
        named = {"named": "named slide", "all": "reviewed slide", "held-out": "held-out slide"}
        return counted(count, named.get(self.part, f"{self.part} slide"))


def parts_of(
    lessons: Sequence[Lesson], ledger_parts: Mapping[str, str], designs: Sequence[Design]
) -> dict[str, Part]:
    """Return what each slide is to the ledger and to all designs: the strictest of what they say.

    A slide that taught any of them is a training slide, and one that none of them knows is a test
    slide.
    """
    found = {}
    for lesson in lessons:
        key = lesson.image.id
        said = [Part(ledger_parts.get(key, Part.TEST))]
        said += [design.seen[key] for design in designs if key in design.seen]
        found[key] = strictest(*said)
    return found


def select(
    lessons: Sequence[Lesson],
    parts: Mapping[str, Part],
    wanted: Wanted = "auto",
    only: Collection[str] | None = None,
) -> Selection:
    """Return the slides to be evaluated.

    Parameters
    ----------
    lessons
        Reviewed slides.
    parts
        What each is for, by image ID.
    only
        IDs of images that a person named: these, whatever part they are of, unless one is asked
        for as well.

    Raises
    ------
    QpannotError
        There is no such slide; it says what there is.
    """
    named = [each for each in lessons if only is None or each.image.id in only]
    counts = {part: sum(parts[each.image.id] is part for each in named) for part in Part}
    part: str = wanted
    if wanted == "auto":
        part = "test" if counts[Part.TEST] else "validation"
        if only is not None:
            part = "named"
    accepted = {
        "held-out": {Part.TEST, Part.VALIDATION},
        "test": {Part.TEST},
        "validation": {Part.VALIDATION},
    }.get(part, set(Part))
    chosen = tuple(each for each in named if parts[each.image.id] in accepted)
    if not chosen:
        raise _nothing(lessons, named, counts, wanted)
    return Selection(part, chosen, {each.image.id: parts[each.image.id] for each in chosen})


def warnings_of(
    selection: Selection, designs: Sequence[Design], unit: str | None = None
) -> list[str]:
    """Return what a reader must know before believing the figures.

    Parameters
    ----------
    unit
        Key of the slides' metadata that tells which are no independent news, as ``patient``.
    """
    found = []
    names = {each.image.id: each.image.name for each in selection.lessons}
    for design in designs:
        fitted = [names[key] for key in names if design.seen.get(key) is Part.TRAIN]
        if fitted:
            found.append(
                f"{design.name} was trained on {_of_these(fitted, unit)}: "
                "its figures there say nothing of other slides."
            )
        chose = [names[key] for key in names if design.seen.get(key) is Part.VALIDATION]
        if chose:
            found.append(
                f"{design.name} was chosen by {_of_these(chose, unit)}: "
                "expect a little less of other slides."
            )
    data = [each.image.metadata for each in selection.lessons]
    patients = {value_of(each, unit) for each in data} if unit else {""}
    if len(names) > 1 and len(patients) == 1 and patients != {""}:
        found.append(f"All slides are of one {unit}: nothing tells how another would do.")
    if len(names) < FEW:
        found.append(
            f"{counted(len(names), 'slide')} only: means, intervals and p-values say little of "
            "others."
        )
    return found


def _of_these(names: Sequence[str], unit: str | None) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = ", ".join(names[:SHOWN]) + more
    others = f", or others of the same {unit}" if unit else ""
    return f"{len(names)} of these slides{others} ({listed})"


def _nothing(
    lessons: Sequence[Lesson], named: Sequence[Lesson], counts: Mapping[Part, int], wanted: Wanted
) -> QpannotError:
    if not lessons:
        return QpannotError(
            "No slide of the project is reviewed: there is nothing to compare with.",
            hint="Annotate slides in QuPath, or say that their proposals are right: "
            "qpannot approve IMAGE",
        )
    there = ", ".join(f"{count} {part}" for part, count in counts.items())
    missing = "test or validation" if wanted in ("auto", "held-out") else wanted
    among = counted(len(named), "reviewed slide")
    return QpannotError(
        f"There are no {missing} slides among {among} ({there}).",
        hint="Review slides that no model has seen; or take others, which are then marked: "
        "--part all",
    )
