from __future__ import annotations

import math

import numpy as np
import pytest

from qpannot.evaluation.drawing import Dot, Line, Text
from qpannot.evaluation.figures import (
    COLORS,
    LABEL_PX,
    PLOT_PX,
    Row,
    reliability_figure,
    spread_figure,
)
from qpannot.evaluation.metrics import Reliability
from qpannot.evaluation.statistics import Interval, Summary


def test_a_row_has_a_dot_for_each_slide_its_mean_and_its_interval() -> None:
    values = [("one", 0.5), ("two", 1.0), ("three", math.nan)]
    row = Row("A", values, Summary(0.75, 0.35, 2, 1, Interval(0.5, 1.0)), color=1)
    figure = spread_figure([row], "DSC")
    dots = [part for part in figure.parts if isinstance(part, Dot)]
    assert [(dot.x, dot.title) for dot in dots] == [
        (LABEL_PX + 0.5 * PLOT_PX, "one: 0.500"),
        (LABEL_PX + PLOT_PX, "two: 1.000"),
        (LABEL_PX + 0.75 * PLOT_PX, "mean 0.750"),
    ]
    (interval,) = (p for p in figure.parts if isinstance(p, Line) and p.color == COLORS[1])
    assert [x for x, _ in interval.points] == [LABEL_PX + 0.5 * PLOT_PX, LABEL_PX + PLOT_PX]
    words = {part.text for part in figure.parts if isinstance(part, Text)}
    assert {"A", "DSC", "0.750"} <= words


def test_a_row_of_nothing_is_named_and_empty() -> None:
    figure = spread_figure([Row("A", [], Summary(math.nan, math.nan, 0))], "DSC")
    assert not [part for part in figure.parts if isinstance(part, Dot)]
    assert "A" in {part.text for part in figure.parts if isinstance(part, Text)}


def test_slides_of_equal_value_do_not_hide_each_other() -> None:
    row = Row("A", [("one", 0.9), ("two", 0.9)], Summary(0.9, 0, 2))
    first, second, _ = (p for p in spread_figure([row], "").parts if isinstance(p, Dot))
    assert first.x == second.x and abs(first.y - second.y) > 2


def test_calibration_is_drawn_where_there_are_pixels() -> None:
    own = Reliability(np.array([3, 0, 1]), np.array([0.3, 0, 0.9]), np.array([0.6, 0, 0.5]))
    figure = reliability_figure({"net": own}, "Tumor")
    (line,) = (
        part
        for part in figure.parts
        if isinstance(part, Line)
        and part.color == COLORS[0]
        and len(part.points) == 2
        and part.points[0][1] != part.points[1][1]
    )
    (x0, y0), (x1, y1) = line.points
    dots = [part for part in figure.parts if isinstance(part, Dot)]
    assert [(dot.x, dot.y) for dot in dots] == [(x0, y0), (x1, y1)]
    # 0.1 to 0.9 is 0.8 of the side, 0.2 to 0.5 of the height 0.3 of it
    assert (y0 - y1) / (x1 - x0) == pytest.approx(0.3 / 0.8)
    words = [part.text for part in figure.parts if isinstance(part, Text)]
    assert f"net: {own.error:.3f}" in words and own.error == pytest.approx(0.175)


def test_more_designs_than_colours_are_told_apart_by_dashes() -> None:
    own = Reliability(np.array([1, 1]), np.array([0.2, 0.8]), np.array([0.0, 1.0]))
    names = [f"design {k}" for k in range(len(COLORS) + 1)]
    figure = reliability_figure(dict.fromkeys(names, own), "Tumor")
    curves = {
        (part.color, part.dash)
        for part in figure.parts
        if isinstance(part, Line) and part.width == 2
    }
    assert len(curves) == len(names)


def test_a_design_without_probabilities_keeps_its_colour_and_is_not_drawn() -> None:
    own = Reliability(np.array([1, 1]), np.array([0.2, 0.8]), np.array([0.0, 1.0]))
    figure = reliability_figure({"Otsu": None, "net": own}, "Tumor")
    assert {part.color for part in figure.parts if isinstance(part, Dot)} == {COLORS[1]}
    words = " ".join(part.text for part in figure.parts if isinstance(part, Text))
    assert "net" in words and "Otsu" not in words


def test_the_names_beside_a_curve_end_within_the_figure() -> None:
    own = Reliability(np.array([1, 1]), np.array([0.2, 0.8]), np.array([0.0, 1.0]))
    figure = reliability_figure({"(VIII) Mob-PW-DAGUNet of all four": own}, "Tumor")
    for part in figure.parts:
        if isinstance(part, Text) and part.anchor == "start":
            assert part.x + 7 * len(part.text) <= figure.width
