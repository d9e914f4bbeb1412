"""The figures of an evaluation: how slides spread, and what probabilities are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qpannot.evaluation.drawing import Dot, Figure, Line, Text
from qpannot.evaluation.metrics import Reliability
from qpannot.evaluation.statistics import Summary

COLORS = ("#0b4fa8", "#e08214", "#1b7837", "#762a83", "#1a1a1a")
"""The colour-blind tell them apart; beyond them, and in grey, dashes do."""

DASHES = (0, 7, 3)
LABEL_PX, ROW_PX = 190, 34
PLOT_PX = 420
LONGEST = 30
"""Letters of a row's name; more are left out in the middle."""

_GRID = "#dddddd"


@dataclass(frozen=True)
class Row:
    """A row of slides.

    Parameters
    ----------
    label
        What the slides have in common.
    values
        Of each slide, by its name; NaN is left out.
    summary
        Of the values; its interval is drawn where there is one.
    color
        An index into `COLORS`.
    """

    label: str
    values: Sequence[tuple[str, float]]
    summary: Summary
    color: int = 0


def spread_figure(rows: Sequence[Row], label: str) -> Figure:
    """Return a dot for each slide from 0 to 1, row by row, with mean and interval.

    Parameters
    ----------
    label
        What the values are.
    """
    top, width = 34, LABEL_PX + PLOT_PX + 70
    bottom = top + ROW_PX * len(rows)

    def x(value: float) -> float:
        return LABEL_PX + PLOT_PX * value

    parts: list[Line | Dot | Text] = [Text(LABEL_PX, 16, label)]
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(Line(((x(tick), top - 6), (x(tick), bottom)), _GRID, 1))
        parts.append(Text(x(tick), bottom + 18, f"{tick:.1f}", "middle"))
    for number, row in enumerate(rows):
        y = top + ROW_PX * (number + 0.5)
        color = COLORS[row.color % len(COLORS)]
        parts.append(Text(LABEL_PX - 14, y + 4, _short(row.label), "end"))
        for place, (name, value) in enumerate(row.values):
            if not math.isnan(value):
                # equal values would hide each other
                offset = (place * 5 % 13 - 6) * 0.9
                parts.append(Dot(x(value), y + offset, 3.5, "#777777", 0.5, f"{name}: {value:.3f}"))
        mean, interval = row.summary.mean, row.summary.interval
        if interval is not None and not math.isnan(interval.low):
            parts.append(Line(((x(interval.low), y), (x(interval.high), y)), color, 3))
        if not math.isnan(mean):
            parts.append(Dot(x(mean), y, 6, color, 1, f"mean {mean:.3f}"))
            parts.append(Text(LABEL_PX + PLOT_PX + 14, y + 4, f"{mean:.3f}"))
    return Figure(width, bottom + 28, f"{label}: a dot a slide, and the mean", parts)


def reliability_figure(designs: Mapping[str, Reliability | None], class_name: str) -> Figure:
    """Return how often a class is there where designs say how probable it is (Guo et al. 2017).

    Parameters
    ----------
    designs
        Pixels of all slides, by design; ``None`` where a design tells no probability. It is left
        out, and the others have the colours that they have in `spread_figure`.
    class_name
        Of the class.
    """
    side, left, top = 300, 56, 34

    def at(probability: float, frequency: float) -> tuple[float, float]:
        return left + side * probability, top + side * (1 - frequency)

    parts: list[Line | Dot | Text] = [Text(4, 16, f"Part of the pixels that are {class_name}")]
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(Line((at(tick, 0), at(tick, 1)), _GRID, 1))
        parts.append(Line((at(0, tick), at(1, tick)), _GRID, 1))
        parts.append(Text(left - 8, at(0, tick)[1] + 4, f"{tick:.1f}", "end"))
        parts.append(Text(at(tick, 0)[0], top + side + 17, f"{tick:.1f}", "middle"))
    parts.append(Text(left + side / 2, top + side + 36, "predicted probability", "middle"))
    parts.append(Line((at(0, 0), at(1, 1)), "#777777", 1, 4))
    key, n_named = left + side + 24, 0
    parts.append(Text(key, 16, "Calibration error (ECE) of all pixels"))
    for number, (name, own) in enumerate(designs.items()):
        if own is None:
            continue
        color = COLORS[number % len(COLORS)]
        dash = DASHES[number // len(COLORS) % len(DASHES)]
        share = own.counts / max(1, own.counts.sum())
        bins = [
            (at(float(p), float(f)), float(part))
            for p, f, part in zip(own.confidence, own.frequency, share, strict=True)
            if not np.isnan(p)
        ]
        parts.append(Line([where for where, _ in bins], color, 2, dash))
        parts += [
            Dot(*where, 2 + 6 * math.sqrt(part), color, 0.7, f"{name}: {part:.1%} of pixels")
            for where, part in bins
        ]
        y = top + 10 + 20 * n_named
        n_named += 1
        parts.append(Line(((key, y), (key + 26, y)), color, 2, dash))
        parts.append(Text(key + 34, y + 4, f"{_short(name)}: {own.error:.3f}"))
    height = max(top + side + 46, top + 20 * n_named + 20)
    return Figure(left + side + 320, height, f"Calibration for {class_name}", parts)


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
