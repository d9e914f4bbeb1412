"""A round's report: one HTML page that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.charts import (
    Curve,
    RoundScore,
    SlideScore,
    cost_chart,
    curve_chart,
    score_chart,
)
from qpannot.bootstrap.corrections import Change
from qpannot.bootstrap.pages import page
from qpannot.bootstrap.readers.telling import ReadersReport
from qpannot.bootstrap.refinement.telling import RefinedReport
from qpannot.geometry import Size
from qpannot.pictures import AFTER_COLOR, BEFORE_COLOR, compared, small_png

__all__ = [
    "CorrectionRow",
    "Curve",
    "EffortRow",
    "JudgedRow",
    "ProposalRow",
    "RoundReport",
    "RoundScore",
    "SlideScore",
    "comparison_picture",
    "render_report",
]

PICTURES = 24
"""So many pictures of each kind are shown, which is 2 MB of page."""


@dataclass(frozen=True)
class CorrectionRow:
    """What a person changed of one class of one slide.

    Parameters
    ----------
    picture
        PNG, as `comparison_picture` makes it.
    """

    slide: str
    class_name: str
    change: Change
    picture: bytes | None = None


@dataclass(frozen=True)
class JudgedRow:
    """A held-out slide, or the mean of some, as the model before and the round's outline it.

    Parameters
    ----------
    part
        ``validation`` or ``test``.
    before, now
        Dice; ``None`` where that model was not judged on it.
    is_mean
        Whether it is the mean of the part's slides.
    """

    slide: str
    part: str
    before: float | None
    now: float | None
    is_mean: bool = False


@dataclass(frozen=True)
class EffortRow:
    """How much people changed of proposals, as a round found it when it began.

    Parameters
    ----------
    method
        What the proposals had been made by.
    dice
        The mean over the slides; 1 where nothing was changed.
    """

    round: int
    method: str
    slides: int
    dice: float


@dataclass(frozen=True)
class ProposalRow:
    """A slide that was proposed for, and why it was chosen.

    Parameters
    ----------
    picture
        PNG.
    """

    slide: str
    reason: str
    picture: bytes | None = None


@dataclass(frozen=True)
class RoundReport:
    """All that the report of a round says. What is empty or ``None`` was not measured.

    Parameters
    ----------
    project
        Its name.
    method
        ``AN1`` or ``AN2``, and with what.
    states
        How many slides are in each state.
    scores
        Every round that was judged, first to last.
    judged
        The held-out slides by the model before and the round's, then the means of each part.
    helped
        Whether the round's model does better than the one before on the validation slides.
    model, kept_model, model_digest
        The round's model, the one that is used from now on, and the digest of that one.
    refined
        What came of the refinement stage, if the recipe asked for it.
    curves
        Of the round's training.
    corrections
        In any order; the report has the worst first.
    effort
        Of every round so far, first to last.
    readers
        Second readers, several annotators of one slide, and what corrections cost.
    failures
        Slides that were skipped, each with the reason.
    next_steps
        As the terminal tells them.
    recipe
        Its name.
    date
        When the round was finished.
    versions
        Of the software, by name.
    """

    project: str
    round: int
    method: str
    states: Mapping[str, int]
    date: str
    recipe: str
    scores: tuple[RoundScore, ...] = ()
    judged: tuple[JudgedRow, ...] = ()
    helped: bool | None = None
    model: str | None = None
    kept_model: str | None = None
    model_digest: str | None = None
    refined: RefinedReport | None = None
    curves: tuple[Curve, ...] = ()
    corrections: tuple[CorrectionRow, ...] = ()
    effort: tuple[EffortRow, ...] = ()
    readers: ReadersReport = field(default_factory=ReadersReport)
    proposals: tuple[ProposalRow, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    next_steps: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def render_report(report: RoundReport) -> str:
    """Return the report of a round as one HTML page, its pictures and charts within it."""
    corrections = sorted(report.corrections, key=lambda row: (row.change.dice, row.slide))
    curves = [
        replace(curve, points=finite)
        for curve in report.curves
        if (finite := tuple(point for point in curve.points if math.isfinite(point[1])))
    ]
    panels = groupby(sorted(curves, key=lambda each: each.panel), key=lambda each: each.panel)
    readers = report.readers
    minutes = readers.minutes_per_slide
    measured = any(score.slides for score in report.scores)
    return page("report.html.j2").render(
        report=report,
        corrections=corrections,
        comparisons=[row for row in corrections if row.picture][:PICTURES],
        comparisons_of=sum(row.picture is not None for row in corrections),
        second=sorted(readers.second, key=lambda row: (row.change.dice, row.slide)),
        agreement=sorted(readers.agreement, key=lambda row: (row.dice, row.slide)),
        cost_chart=cost_chart(minutes) if len(minutes) > 1 else None,
        proposed=[row for row in report.proposals if row.picture][:PICTURES],
        score_chart=score_chart(report.scores) if measured else None,
        rounds_by_part=_rounds_by_part(report.scores),
        curve_charts=[curve_chart(list(panel)) for _, panel in panels],
        before_color=BEFORE_COLOR,
        after_color=AFTER_COLOR,
    )


def _rounds_by_part(scores: Sequence[RoundScore]) -> dict[str, str]:
    """Return the rounds that are shown by their test slides, and those by the validation slides."""
    found: dict[str, list[str]] = {}
    for score in scores:
        if score.slides:
            found.setdefault(score.part, []).append(str(score.round))
    return {part: ", ".join(numbers) for part, numbers in found.items()}


def comparison_picture(
    overview: NDArray[np.uint8],
    full_size: Size,
    proposal: Mapping[str, BaseGeometry],
    correction: Mapping[str, BaseGeometry],
) -> bytes:
    """Return a small PNG of a slide with its proposal and what a person made of it.

    Parameters
    ----------
    overview
        RGB, shape (height, width, 3): the whole slide, in QuPath's frame.
    full_size
        The slide at full resolution, which the coordinates are in.
    proposal, correction
        The area of each class.
    """
    return small_png(compared(overview, full_size, proposal, correction))
