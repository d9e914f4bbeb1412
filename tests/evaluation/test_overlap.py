from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from qpannot.evaluation import overlap

BOX = shapely.box(0, 0, 10, 10)
NOTHING = shapely.MultiPolygon()


def test_areas_decide() -> None:
    found = overlap(shapely.box(5, 0, 15, 20), BOX)
    assert (found.true_area, found.predicted_area, found.common_area) == (100, 200, 50)
    assert found.dice == pytest.approx(100 / 300)
    assert found.iou == pytest.approx(50 / 250)
    assert found.precision == 0.25 and found.recall == 0.5


def test_nothing_found_where_nothing_is_agrees_fully() -> None:
    found = overlap(NOTHING, shapely.Polygon())
    assert (found.dice, found.iou, found.precision, found.recall) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("prediction", "truth", "precision", "recall"),
    [(BOX, NOTHING, 0, math.nan), (NOTHING, BOX, math.nan, 0)],
    ids=["all-of-it-wrong", "all-of-it-missed"],
)
def test_one_empty_is_no_agreement(
    prediction: BaseGeometry, truth: BaseGeometry, precision: float, recall: float
) -> None:
    found = overlap(prediction, truth)
    assert found.dice == 0 and found.iou == 0
    assert found.precision == pytest.approx(precision, nan_ok=True)
    assert found.recall == pytest.approx(recall, nan_ok=True)


def test_only_what_lies_within_counts() -> None:
    found = overlap(
        shapely.box(0, 0, 10, 10), shapely.box(0, 0, 5, 10), within=shapely.box(0, 0, 6, 5)
    )
    assert found.predicted_area == 30 and found.true_area == 25
    assert found.dice == pytest.approx(50 / 55)
    outside = overlap(BOX, NOTHING, within=shapely.box(20, 20, 30, 30))
    assert outside.dice == 1 and outside.predicted_area == 0


def test_a_bow_tie_counts_both_of_its_halves() -> None:
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    assert not bow_tie.is_valid
    assert overlap(bow_tie, BOX).common_area == pytest.approx(50)


def test_overlapping_parts_count_once_and_lines_not_at_all() -> None:
    parts = shapely.MultiPolygon([shapely.box(0, 0, 6, 10), shapely.box(4, 0, 10, 10)])
    assert overlap(parts, BOX).dice == 1
    mixed = shapely.GeometryCollection(
        [
            shapely.GeometryCollection([BOX, BOX]),
            shapely.Point(3, 3),
            shapely.LineString([(0, 0), (99, 0)]),
        ]
    )
    assert overlap(mixed, BOX).dice == 1
    assert overlap(shapely.LineString([(0, 0), (9, 9)]), BOX).predicted_area == 0


def test_holes_are_no_area() -> None:
    ring = BOX.difference(shapely.box(2, 2, 8, 8))
    assert overlap(ring, BOX).recall == pytest.approx(0.64)


boxes = st.lists(
    st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 15)] * 2), min_size=1, max_size=5
)


def area_of(some: list[tuple[int, int, int, int]]) -> BaseGeometry:
    return shapely.union_all([shapely.box(x, y, x + w, y + h) for x, y, w, h in some])


def pixels_of(
    some: list[tuple[int, int, int, int]],
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros((48, 48), bool)
    for x, y, width, height in some:
        mask[y : y + height, x : x + width] = True
    return mask


@given(boxes, boxes)
def test_on_whole_pixels_it_is_the_pixel_metric(
    one: list[tuple[int, int, int, int]], other: list[tuple[int, int, int, int]]
) -> None:
    found = overlap(area_of(one), area_of(other))
    predicted, true = pixels_of(one), pixels_of(other)
    common = (predicted & true).sum()
    assert found.dice == pytest.approx(2 * common / (predicted.sum() + true.sum()))
    assert found.iou == pytest.approx(common / (predicted | true).sum())
    assert found.precision == pytest.approx(common / predicted.sum())
    assert found.recall == pytest.approx(common / true.sum())
