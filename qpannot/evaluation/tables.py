"""The paper's tables of what was measured; `typesetting` writes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from qpannot.console import counted
from qpannot.evaluation.statistics import (
    SlideResult,
    Summary,
    TukeyTest,
    grouped,
    summarize,
    summary_of,
)


@dataclass(frozen=True)
class Metric:
    """How a metric is called and shown.

    Parameters
    ----------
    key
        In `SlideResult.metrics`.
    label
        Heading, with the unit.
    decimals
        So many are shown; CSV has all.
    best
        Which mean is the best one: ``max``, ``min``, or ``None`` where none is.
    """

    key: str
    label: str
    decimals: int = 3
    best: Callable[[Sequence[float]], float] | None = max


RECALL = Metric("recall", "Recall")
PRECISION = Metric("precision", "Precision")
DICE = Metric("dice", "DSC")
IOU = Metric("iou", "IoU")
HD95 = Metric("hd95_um", "HD95 (µm)", 1, min)
DISTANCE = Metric("distance_um", "Mean distance (µm)", 1, min)
ECE = Metric("ece", "ECE", 3, min)

PAPER_METRICS = (RECALL, PRECISION, DICE)
"""Table 1's."""

Summarized = Callable[[Sequence[SlideResult], str], Summary]
"""Makes a cell of the slides of a design and the key of a metric."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A cell of mean ± standard deviation.

    Parameters
    ----------
    summary
        What is shown.
    decimals
        Of both numbers.
    of
        How many values there should be; where there are fewer, the cell says so.
    """

    summary: Summary
    decimals: int
    of: int


@dataclass(frozen=True, slots=True)
class PValue:
    """A cell of a p-value; NaN where there is none."""

    value: float


Cell = str | Spread | PValue


@dataclass(frozen=True)
class Table:
    """A table, before it is written in any form.

    Parameters
    ----------
    caption
        What it shows, in a sentence.
    columns
        Headings, the rows' own first.
    rows
        As many cells each as there are columns.
    bold
        Row and column of what stands out.
    spanning
        Heading over all columns but the first.
    notes
        Below it, each a sentence.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    spanning: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"each row needs {len(self.columns)} cells")


def design_table(
    results: Sequence[SlideResult],
    metrics: Sequence[Metric] = PAPER_METRICS,
    *,
    baselines: Collection[str] = (),
    summarized: Summarized = summary_of,
) -> Table:
    """Return the designs' metrics over all slides (H2G-Net, Table 1).

    Parameters
    ----------
    baselines
        Designs that are no candidates, and never bold: Otsu takes all tissue, so its recall is the
        highest.
    summarized
        Of a design's slides and a metric's key; with an interval, where that is wanted
        (`qpannot.evaluation.statistics.summary_with_interval`).
    """
    slides = len({result.slide for result in results})
    columns = [_Column(metric.label, metric, _by_design(results), slides) for metric in metrics]
    caption = "Segmentation performance of the designs"
    return _of_designs(caption, columns, results, baselines, summarized)


def group_table(
    results: Sequence[SlideResult],
    key: str,
    metric: Metric = DICE,
    *,
    baselines: Collection[str] = (),
    summarized: Summarized = summary_of,
) -> Table:
    """Return the designs' metric by a key of the slides' metadata (H2G-Net, Table 2).

    Parameters
    ----------
    key
        As ``grade``. Slides without it make the last column.
    baselines, summarized
        See `design_table`.
    """
    columns = []
    for value, own in grouped(results, key).items():
        slides = len({result.slide for result in own})
        heading = f"{group_heading(key, value)} ({slides})"
        columns.append(_Column(heading, metric, _by_design(own), slides))
    slides = len({result.slide for result in results})
    table = _of_designs(
        f"{metric.label} of the designs by {key}", columns, results, baselines, summarized
    )
    return replace(table, spanning=f"{metric.label} (n={slides})")


def runtime_table(seconds: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """Return how long a slide took (H2G-Net, Table 3).

    Parameters
    ----------
    seconds
        Of each repetition, by backend and by stage (patch-wise, refinement, total).
    """
    # the row of most stages has them in order
    longest_first = sorted(seconds.values(), key=len, reverse=True)
    stages = list(dict.fromkeys(stage for each in longest_first for stage in each))
    rows: list[tuple[Cell, ...]] = []
    for name, each in seconds.items():
        rows.append((name, *(_of_runs(each.get(stage, ())) for stage in stages)))
    repeats = sorted({len(runs) for each in seconds.values() for runs in each.values()})
    shown = " or ".join(str(count) for count in repeats)
    return Table(
        "Runtime of a slide in seconds",
        ("Backend", *stages),
        tuple(rows),
        notes=(f"Mean ± standard deviation of {shown} runs.",) if repeats else (),
    )


def p_value_table(test: TukeyTest, label: str = DICE.label, *, level: float = 0.05) -> Table:
    """Return the p-values of all pairs of designs (H2G-Net, Table S1).

    Parameters
    ----------
    label
        Of the metric that was compared.
    level
        A p-value below it is bold.
    """
    rows: list[tuple[Cell, ...]] = []
    for name, values in zip(test.names, test.p_values, strict=True):
        rows.append((name, *(PValue(float(p)) for p in values)))
    bold = frozenset(
        (row, column + 1)
        for row, values in enumerate(test.p_values)
        for column, p in enumerate(values)
        if p < level
    )
    return Table(
        f"P-values of Tukey's range test on {label}",
        ("Designs", *test.names),
        tuple(rows),
        bold,
        notes=(
            f"Bold: below {level:g}.",
            *(f"{name} was not compared: {why}." for name, why in test.left_out.items()),
        ),
    )


@dataclass(frozen=True)
class _Column:
    """A metric of some slides, by design."""

    heading: str
    metric: Metric
    results: Mapping[str, Sequence[SlideResult]]
    slides: int


def _of_designs(
    caption: str,
    columns: Sequence[_Column],
    results: Sequence[SlideResult],
    baselines: Collection[str],
    summarized: Summarized,
) -> Table:
    designs = list(dict.fromkeys(result.design for result in results))
    found = [
        [summarized(column.results.get(name, ()), column.metric.key) for name in designs]
        for column in columns
    ]
    rows: list[tuple[Cell, ...]] = []
    for row, name in enumerate(designs):
        cells = zip(columns, found, strict=True)
        spreads = (Spread(own[row], each.metric.decimals, each.slides) for each, own in cells)
        rows.append((name, *spreads))
    candidates = [row for row, name in enumerate(designs) if name not in baselines]
    bold = frozenset(
        (row, place + 1)
        for place, (column, own) in enumerate(zip(columns, found, strict=True))
        for row in _best(own, candidates, column.metric)
    )
    slides = len({result.slide for result in results})
    said = f"Mean ± standard deviation over {counted(slides, 'slide')}"
    said += "; bold: the best mean." if bold else "."
    has_interval = any(
        own.interval and not math.isnan(own.interval.low) for each in found for own in each
    )
    notes = (said, "In brackets: the confidence interval of the mean.") if has_interval else (said,)
    return Table(
        caption, ("Designs", *(each.heading for each in columns)), tuple(rows), bold, "", notes
    )


def _by_design(results: Iterable[SlideResult]) -> dict[str, list[SlideResult]]:
    found: dict[str, list[SlideResult]] = {}
    for result in results:
        found.setdefault(result.design, []).append(result)
    return found


def _best(found: Sequence[Summary], candidates: Sequence[int], metric: Metric) -> list[int]:
    """Return the rows of the best mean as it is shown, all of them where some are equal."""
    means = {row: round(found[row].mean, metric.decimals) for row in candidates if found[row].count}
    if metric.best is None or len(means) < 2:
        return []
    best = metric.best(list(means.values()))
    return [row for row, mean in means.items() if mean == best]


def group_heading(key: str, value: str) -> str:
    """Return what slides with a value of a key are called.

    ``Grade II`` of ``grade`` and ``II``, or of ``grade`` and ``Grade II``.
    """
    if not value:
        name = f"no {key}"
    elif value.casefold().startswith(key.casefold()):
        name = value
    else:
        name = f"{key} {value}"
    return name[:1].upper() + name[1:]


def _of_runs(seconds: Sequence[float]) -> Spread:
    return Spread(summarize(seconds), 2, len(seconds))
