from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.evaluation.measuring import ClassMeasures, mean_of_classes, measure, predicted_area
from qpannot.geometry import Mpp, Size
from qpannot.heatmap import Heatmap
from qpannot.recipe.comparing import EvaluationSettings

SIZE = Size(800, 400)
MPP = Mpp(0.5, 1.0)
SETTINGS = EvaluationSettings(mpp=4)
"""Pixels of 8 x 4 pixels of the slide: 100 columns and rows."""

NOTHING = shapely.MultiPolygon()


def heatmap(*maps: NDArray[np.float32], classes: tuple[str, ...] = ("Tumor",)) -> Heatmap:
    """Maps of 100 x 100 pixels that lie where the evaluation's do."""
    return Heatmap(np.stack(maps, axis=-1), classes, Affine(8, 4), MPP)


def block(rows: slice, columns: slice, value: float = 1.0) -> NDArray[np.float32]:
    found = np.zeros((100, 100), np.float32)
    found[rows, columns] = value
    return found


def test_what_is_predicted_as_it_was_drawn_is_perfect() -> None:
    truth = shapely.box(80, 40, 400, 200)
    own = measure(heatmap(block(slice(10, 50), slice(10, 50))), SIZE, {"Tumor": truth}, SETTINGS)[
        "Tumor"
    ]
    assert own.metrics == pytest.approx(
        {
            **{"recall": 1, "precision": 1, "dice": 1, "iou": 1},
            **{"hd95_um": 0, "distance_um": 0, "ece": 0},
        }
    )
    # 320 x 160 pixels of 0.5 x 1 µm
    assert own.true_mm2 == own.predicted_mm2 == pytest.approx(320 * 160 * 0.5 / 1e6)


def test_distances_are_in_micrometres_whatever_the_shape_of_pixels() -> None:
    """The prediction reaches ten pixels of 4 µm further to the right."""
    truth = shapely.box(80, 40, 400, 200)
    own = measure(heatmap(block(slice(10, 50), slice(10, 60))), SIZE, {"Tumor": truth}, SETTINGS)[
        "Tumor"
    ].metrics
    assert own["recall"] == 1 and own["precision"] == pytest.approx(0.8)
    assert own["dice"] == pytest.approx(2 * 0.8 / 1.8) and own["iou"] == pytest.approx(0.8)
    assert own["hd95_um"] == pytest.approx(40)
    assert 0 < own["distance_um"] < 40


def test_a_pixel_that_is_covered_in_part_counts_in_part() -> None:
    truth = shapely.box(80, 40, 404, 200)  # half a pixel further to the right
    own = measure(heatmap(block(slice(10, 50), slice(10, 50))), SIZE, {"Tumor": truth}, SETTINGS)[
        "Tumor"
    ].metrics
    assert own["precision"] == 1 and own["recall"] == pytest.approx(320 / 324)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (NOTHING, 0.0, {"dice": 1, "iou": 1, "recall": 1, "precision": 1, "hd95_um": 0}),
        (NOTHING, 1.0, {"dice": 0, "iou": 0, "recall": math.nan, "precision": 0}),
        (shapely.box(0, 0, 80, 40), 0.0, {"dice": 0, "recall": 0, "precision": math.nan}),
    ],
    ids=["nothing there, nothing found", "nothing there", "nothing found"],
)
def test_the_convention_of_what_is_empty(
    truth: shapely.Polygon, predicted: float, expected: dict[str, float]
) -> None:
    maps = heatmap(block(slice(50, 60), slice(50, 60), predicted))
    own = measure(maps, SIZE, {"Tumor": truth}, SETTINGS)["Tumor"].metrics
    assert {key: own[key] for key in expected} == pytest.approx(expected, nan_ok=True)
    if expected["dice"] == 0:
        assert math.isnan(own["hd95_um"]) and math.isnan(own["distance_um"])


def test_the_threshold_is_reached_by_what_equals_it() -> None:
    maps = heatmap(block(slice(0, 10), slice(0, 10), 0.5))
    truth = {"Tumor": shapely.box(0, 0, 80, 40)}
    assert measure(maps, SIZE, truth, SETTINGS)["Tumor"].metrics["dice"] == 1
    higher = SETTINGS.model_copy(update={"threshold": 0.51})
    assert measure(maps, SIZE, truth, higher)["Tumor"].metrics["dice"] == 0


def test_what_nobody_looked_at_counts_for_nothing() -> None:
    """A false area on the right half, where nobody looked."""
    maps = heatmap(block(slice(10, 50), slice(10, 50)) + block(slice(10, 50), slice(60, 90)))
    truth = {"Tumor": shapely.box(80, 40, 400, 200)}
    assert measure(maps, SIZE, truth, SETTINGS)["Tumor"].metrics["precision"] < 0.6
    looked = shapely.box(0, 0, 400, 400)
    own = measure(maps, SIZE, truth, SETTINGS, within=looked)["Tumor"]
    assert own.metrics["dice"] == 1 and own.metrics["hd95_um"] == 0
    assert own.reliability is not None and own.reliability.counts.sum() == 50 * 100


def test_calibration_is_of_what_was_predicted_and_of_probabilities_alone() -> None:
    maps = block(slice(0, 10), slice(0, 10), 0.75)
    maps[50:] = np.nan
    truth = {"Tumor": shapely.box(0, 0, 40, 40)}  # half of what is probable
    own = measure(heatmap(maps), SIZE, truth, SETTINGS)["Tumor"]
    assert own.reliability is not None and own.reliability.counts.sum() == 50 * 100
    assert own.metrics["ece"] == pytest.approx(100 * 0.25 / 5000)
    plain = measure(heatmap(maps), SIZE, truth, SETTINGS, is_probability=False)["Tumor"]
    assert plain.reliability is None and math.isnan(plain.metrics["ece"])
    assert plain.metrics["dice"] == own.metrics["dice"]


def test_an_answer_on_glass_does_not_flatter_the_calibration() -> None:
    """Two maps of the same faults in the tissue, of which one is right on the glass, too."""
    tissue = [shapely.box(0, 0, 400, 400)]  # the left half
    truth = {"Tumor": shapely.box(0, 0, 40, 40)}
    everywhere = block(slice(0, 10), slice(0, 10), 0.75)
    in_tissue = everywhere.copy()
    in_tissue[:, 50:] = np.nan

    def ece(maps: NDArray[np.float32], tissue: list[shapely.Polygon] | None) -> float:
        return measure(heatmap(maps), SIZE, truth, SETTINGS, tissue=tissue)["Tumor"].metrics["ece"]

    assert ece(everywhere, None) == pytest.approx(ece(in_tissue, None) / 2)
    assert ece(everywhere, tissue) == ece(in_tissue, tissue) == ece(in_tissue, None)
    in_tissue[90:] = np.nan  # tissue that nothing was said of counts as without the class
    assert ece(in_tissue, tissue) == ece(everywhere, tissue)
    overlaps = [
        measure(heatmap(everywhere), SIZE, truth, SETTINGS, tissue=own) for own in (None, tissue)
    ]
    assert overlaps[0]["Tumor"].metrics["dice"] == overlaps[1]["Tumor"].metrics["dice"]


def test_each_class_is_measured_by_its_own_channel() -> None:
    left, right = block(slice(0, 100), slice(0, 50)), block(slice(0, 100), slice(50, 100))
    maps = heatmap(left, right, classes=("Stroma", "Tumor"))
    truth = {"Tumor": shapely.box(400, 0, 800, 400), "Stroma": shapely.box(0, 0, 400, 200)}
    found = measure(maps, SIZE, truth, SETTINGS)
    assert list(found) == ["Tumor", "Stroma"]
    assert found["Tumor"].metrics["dice"] == 1
    assert found["Stroma"].metrics["precision"] == pytest.approx(0.5)
    with pytest.raises(KeyError, match="Necrosis"):
        measure(maps, SIZE, {"Necrosis": NOTHING}, SETTINGS)


def test_the_area_that_is_pictured_is_the_one_that_was_compared() -> None:
    maps = block(slice(10, 20), slice(10, 20)) + block(slice(20, 30), slice(20, 30))  # at a corner
    area = predicted_area(heatmap(maps), SIZE, "Tumor", SETTINGS)
    assert area.is_valid and area.area == 2 * 80 * 40
    assert area.bounds == (80, 40, 240, 120)


def measures(dice: float, *, true: float, predicted: float, recall: float = 1.0) -> ClassMeasures:
    metrics = dict.fromkeys(("precision", "iou", "hd95_um", "distance_um", "ece"), 0.5)
    return ClassMeasures({**metrics, "dice": dice, "recall": recall}, true, predicted)


def test_the_mean_is_over_classes_that_are_there_or_were_predicted() -> None:
    there, missed = measures(0.8, true=1, predicted=1), measures(0, true=0, predicted=2)
    absent = measures(1, true=0, predicted=0)
    assert mean_of_classes({"A": there, "B": missed, "C": absent})["dice"] == pytest.approx(0.4)
    assert mean_of_classes({"B": absent, "C": absent})["dice"] == 1


def test_what_cannot_be_measured_of_a_class_is_left_out_of_the_mean() -> None:
    there = measures(0.8, true=1, predicted=1, recall=0.6)
    false = measures(0, true=0, predicted=2, recall=math.nan)
    assert mean_of_classes({"A": there, "B": false})["recall"] == pytest.approx(0.6)
    assert math.isnan(mean_of_classes({"B": false})["recall"])
