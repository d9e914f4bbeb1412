from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from qpannot.affine import Affine
from qpannot.evaluation import metrics, overlap
from qpannot.evaluation.metrics import PixelGrid, pixel_metrics, pixel_overlap, reliability
from qpannot.geometry import Mpp, Size

pixels = st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=1, max_size=60)


def maps(drawn: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    probability, truth = zip(*drawn, strict=True)
    return np.array([probability]) / 100, np.array([truth])


def test_metrics_are_those_counted_by_hand() -> None:
    probability = np.array([[0.9, 0.7, 0.6, 0.2], [0.8, 0.1, 0.4, 0.0]])
    truth = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    found = pixel_metrics(probability, truth, bins=2)
    # taken: 4, 3 of them rightly; there: 5
    assert found["recall"] == pytest.approx(3 / 5)
    assert found["precision"] == pytest.approx(3 / 4)
    assert found["dice"] == pytest.approx(6 / 9)
    assert found["iou"] == pytest.approx(3 / 6)
    # below 0.5: 0.7 said of 2 pixels; above: 3.0 said of 3
    assert found["ece"] == pytest.approx((abs(0.7 - 2) + abs(3.0 - 3)) / 8)


@settings(max_examples=30)
@given(pixels, st.integers(1, 99))
def test_of_masks_it_is_what_scikit_learn_finds(drawn: list[tuple[int, bool]], cut: int) -> None:
    probability, truth = maps(drawn)
    found = pixel_overlap(probability, truth, threshold=cut / 100)
    true, predicted = truth.ravel(), (probability >= cut / 100).ravel()
    expected = {
        "recall": recall_score(true, predicted, zero_division=np.nan),
        "precision": precision_score(true, predicted, zero_division=np.nan),
        "dice": f1_score(true, predicted, zero_division=1.0),
        "iou": jaccard_score(true, predicted, zero_division=1.0),
    }
    if not true.any() and not predicted.any():
        expected |= {"recall": 1.0, "precision": 1.0}  # nothing to find, nothing found
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, nan_ok=True), name


def test_empty_truth_and_empty_prediction_are_what_they_are_of_areas() -> None:
    nothing, all_of_it = np.zeros((3, 4)), np.ones((3, 4))
    agreed = pixel_overlap(nothing, nothing)
    assert (agreed.dice, agreed.iou, agreed.precision, agreed.recall) == (1, 1, 1, 1)
    wrong = pixel_overlap(all_of_it, nothing)
    assert (wrong.dice, wrong.iou, wrong.precision) == (0, 0, 0) and math.isnan(wrong.recall)
    missed = pixel_overlap(nothing, all_of_it)
    assert (missed.dice, missed.iou, missed.recall) == (0, 0, 0) and math.isnan(missed.precision)


def test_a_pixel_that_reaches_the_threshold_is_taken_as_outlines_take_it() -> None:
    probability = np.array([[0.7, np.nextafter(np.float32(0.7), np.float32(0))]], np.float32)
    # 0.7 as a double is more than 0.7 as a float
    assert pixel_overlap(probability, np.ones((1, 2)), threshold=0.7).predicted_area == 1


def test_where_nothing_was_predicted_is_a_miss_but_not_ill_calibrated() -> None:
    probability = np.array([[np.nan, 1.0, np.nan]])
    found = pixel_metrics(probability, np.array([[True, True, False]]))
    assert (found["recall"], found["precision"], found["ece"]) == (0.5, 1, 0)
    assert math.isnan(reliability(np.full((2, 2), np.nan), np.zeros((2, 2))).error)


def test_only_pixels_within_count() -> None:
    probability, truth = np.array([[0.9, 0.9, 0.1]]), np.array([[1.0, 0.0, 1.0]])
    within = np.array([[True, False, False]])
    found = pixel_metrics(probability, truth, within=within)
    assert (found["recall"], found["precision"]) == (1, 1)
    assert found["ece"] == pytest.approx(0.1)


corners = st.tuples(*[st.floats(0, 80).map(lambda value: round(value, 2))] * 4)


@given(st.lists(corners, min_size=1, max_size=3), st.integers(0, 2**12 - 1))
def test_of_parts_of_pixels_it_is_the_metric_of_the_areas(
    boxes: list[tuple[float, float, float, float]], taken: int
) -> None:
    truth = [shapely.box(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    grid = PixelGrid.of(Size(80, 60), Mpp(0.5, 0.25), 10)
    assert grid.shape == (2, 4) and (grid.affine.dx, grid.affine.dy) == (20, 40)
    is_predicted = np.array([bool(taken >> k & 1) for k in range(8)]).reshape(2, 4)
    squares = [
        shapely.box(20 * column, 40 * row, 20 * column + 20, 40 * row + 40)
        for row, column in np.argwhere(is_predicted)
    ]
    areas = overlap(shapely.union_all(squares), shapely.union_all(truth))
    found = pixel_overlap(is_predicted.astype(np.float32), grid.covered(truth))
    assert found.predicted_area * 800 == pytest.approx(areas.predicted_area)
    assert found.true_area * 800 == pytest.approx(areas.true_area, abs=1e-2)
    assert found.common_area * 800 == pytest.approx(areas.common_area, abs=1e-2)


def test_a_grid_covers_the_slide_whatever_its_pixels_measure() -> None:
    grid = PixelGrid.of(Size(1001, 500), Mpp(0.25, 0.5), 2)
    assert grid.shape == (125, 126)
    assert grid.affine.pixel_um(Mpp(0.25, 0.5)) == (2, 2)
    # 0.6 / 0.2 is 2.9999999999999996: no second pixel for that
    assert PixelGrid.of(Size(3, 3), Mpp.square(0.2), 0.6).shape == (1, 1)
    assert PixelGrid.of(Size(5, 5), Mpp.square(0.1), 99).shape == (1, 1)


def test_a_mask_has_the_pixels_whose_middles_are_inside() -> None:
    grid = PixelGrid.of(Size(40, 20), Mpp.square(1), 10)
    area = shapely.box(0, 0, 16, 4)
    assert grid.mask([area]).tolist() == [[False] * 4, [False] * 4]
    assert grid.mask([shapely.box(0, 0, 16, 6)]).tolist() == [
        [True, True, False, False],
        [False] * 4,
    ]
    assert grid.covered([area])[0].tolist() == pytest.approx([0.4, 0.24, 0, 0])


def test_a_heatmap_is_read_where_it_lies_and_nowhere_else() -> None:
    grid = PixelGrid.of(Size(16, 8), Mpp.square(1), 2)
    # the middles lie at 1, 3, 5 ... 15, the heatmap's pixels from 2.5 to 8 and from 8 to 13.5
    found = grid.sampled(np.array([[0.25, 0.75]], np.float32), Affine(5.5, 4, x=2.5, y=2.5))
    row = [math.nan, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75, math.nan]
    nothing = [math.nan] * 8
    np.testing.assert_array_equal(found, np.array([nothing, row, row, nothing], np.float32))


@given(pixels)
def test_reliability_bins_are_scikit_learns(drawn: list[tuple[int, bool]]) -> None:
    probability, truth = maps(drawn)
    found = reliability(probability, truth, bins=10)
    frequency, confidence = calibration_curve(truth.ravel(), probability.ravel(), n_bins=10)
    filled = found.counts > 0
    assert found.frequency[filled] == pytest.approx(frequency)
    assert found.confidence[filled] == pytest.approx(confidence)
    gaps = np.abs(frequency - confidence) * found.counts[filled]
    assert found.error == pytest.approx(gaps.sum() / len(drawn))


def test_slides_add_up_and_blocks_of_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    probability, truth = generator.random((7, 5)), generator.random((7, 5))
    whole = reliability(probability, truth)
    parts = reliability(probability[:3], truth[:3]) + reliability(probability[3:], truth[3:])
    monkeypatch.setattr(metrics, "BLOCK_PX", 10)
    for same in (parts, reliability(probability, truth)):
        assert same.counts.tolist() == whole.counts.tolist() and whole.counts.sum() == 35
        assert same.error == pytest.approx(whole.error)
        assert same.truth_sums == pytest.approx(whole.truth_sums)
    assert len(whole.edges) == 16 and np.isnan(reliability(truth[:1], truth[:1]).frequency).any()
    with pytest.raises(ValueError, match="do not add up"):
        whole + reliability(probability, truth, bins=3)


@pytest.mark.parametrize(
    ("probability", "truth", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "one shape"),
        (np.zeros(3), np.zeros(3), "one shape"),
        (np.full((1, 2), 255, np.uint8), np.zeros((1, 2)), "floating-point"),
        (np.full((1, 2), 1.5), np.zeros((1, 2)), "from 0 to 1"),
        (np.zeros((1, 2)), np.full((1, 2), 255), "part of a pixel"),
        (np.zeros((1, 2)), np.full((1, 2), np.nan), "part of a pixel"),
    ],
)
def test_what_is_no_map_is_refused(
    probability: NDArray[np.float64], truth: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pixel_metrics(probability, truth)
