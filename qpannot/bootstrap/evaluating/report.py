"""An evaluation as one HTML page that needs nothing beside it, the worst slides first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from qpannot.bootstrap.evaluating.evaluation import Evaluation
from qpannot.bootstrap.pages import page
from qpannot.evaluation.tables import Table
from qpannot.evaluation.typesetting import NOTHING, shown
from qpannot.pictures import AFTER_COLOR, BEFORE_COLOR


@dataclass(frozen=True)
class SlideRow:
    """A slide in the report.

    Parameters
    ----------
    cells
        Of the table of slides, beside the name.
    dices
        Of each design that was measured there.
    picture
        PNG: what the judged design predicts and what is true.
    """

    name: str
    cells: tuple[str, ...]
    dices: Mapping[str, float]
    picture: bytes | None = None


SLIDE_COLUMNS = ("Slide", "part", "DSC", "Recall", "Precision", "HD95 (µm)", "ECE")


def render(
    evaluation: Evaluation,
    tables: Mapping[str, Table],
    figures: Mapping[str, Markup],
    slides: Sequence[SlideRow],
    date: str,
) -> str:
    """Return the report.

    Parameters
    ----------
    slides
        As the judged design does on them, the worst first.
    date
        When it was made.
    """
    return page("evaluating/report.html.j2").render(
        evaluation=evaluation,
        tables=tables,
        figures=figures,
        slides=slides,
        columns=SLIDE_COLUMNS,
        pictured=[row for row in slides if row.picture],
        before_color=BEFORE_COLOR,
        after_color=AFTER_COLOR,
        settings=evaluation.recipe.evaluation,
        date=date,
        shown=shown,
    )


def number(value: float, decimals: int = 3) -> str:
    """Return a metric of one slide as it is shown."""
    return NOTHING if value != value else f"{value:.{decimals}f}"
