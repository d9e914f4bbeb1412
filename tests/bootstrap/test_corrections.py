from __future__ import annotations

import json

import pytest
import shapely

from qpannot.bootstrap.corrections import Correction, measure_correction
from qpannot.geometry import Mpp

HALF = Mpp.square(0.5)
TUMOR = shapely.box(0, 0, 4000, 4000)  # 2 by 2 mm at half a micrometre


def test_what_was_added_and_removed_is_told_in_square_millimetres() -> None:
    corrected = shapely.box(0, 2000, 4000, 8000)
    change = measure_correction({"Tumor": TUMOR}, {"Tumor": corrected}, HALF).overall
    assert change.area_removed_mm2 == pytest.approx(2)
    assert change.area_added_mm2 == pytest.approx(4)
    assert change.area_removed_px2 == pytest.approx(8e6)
    assert change.area_added_px2 == pytest.approx(16e6)
    assert change.dice == pytest.approx(2 * 2 / (4 + 6))
    assert change.iou == pytest.approx(2 / 8)


def test_a_proposal_left_as_it_is_has_not_changed() -> None:
    change = measure_correction({"Tumor": TUMOR}, {"Tumor": TUMOR}, HALF).overall
    assert change.dice == 1 and change.iou == 1
    assert change.area_added_mm2 == 0 and change.area_removed_mm2 == 0
    assert change.boundary_moved_mean_um == 0 and change.boundary_moved_p95_um == 0


def test_the_outline_moves_in_micrometres_also_where_pixels_are_not_square() -> None:
    mpp = Mpp(0.25, 0.5)
    taller = shapely.box(0, 0, 8000, 4100)
    wide = shapely.box(0, 0, 8000, 4000)
    change = measure_correction({"Tumor": wide}, {"Tumor": taller}, mpp).overall
    assert change.boundary_moved_p95_um == pytest.approx(50, abs=1)  # a quarter moved 100 px of 0.5
    assert change.boundary_moved_mean_um is not None
    assert 12 < change.boundary_moved_mean_um < 13
    assert change.area_added_mm2 == pytest.approx(2 * 0.05)


def test_another_class_is_a_removal_and_an_addition() -> None:
    other = shapely.box(0, 0, 1000, 4000)
    rest = TUMOR.difference(other)
    found = measure_correction({"Tumor": TUMOR}, {"Tumor": rest, "Necrosis": other}, HALF)
    assert list(found.by_class) == ["Necrosis", "Tumor"]
    assert found.by_class["Tumor"].area_removed_mm2 == pytest.approx(1)
    assert found.by_class["Tumor"].area_added_mm2 == 0
    necrosis = found.by_class["Necrosis"]
    assert necrosis.area_added_mm2 == pytest.approx(1) and necrosis.dice == 0
    assert necrosis.boundary_moved_mean_um is None  # there was none before
    assert found.overall.area_added_mm2 == found.overall.area_removed_mm2 == pytest.approx(1)
    assert found.overall.dice == pytest.approx(0.75)
    assert found.overall.boundary_moved_mean_um == found.by_class["Tumor"].boundary_moved_mean_um


def test_without_a_pixel_size_areas_are_in_pixels() -> None:
    change = measure_correction({"Tumor": TUMOR}, {"Tumor": TUMOR.buffer(10)}, None).overall
    assert change.area_added_px2 == pytest.approx(160_000, rel=0.01)
    assert change.area_added_mm2 is None and change.area_removed_mm2 is None
    assert change.boundary_moved_mean_um is None and change.boundary_moved_p95_um is None


def test_a_deleted_proposal_is_all_removed() -> None:
    change = measure_correction({"Tumor": TUMOR}, {}, HALF).overall
    assert change.dice == 0 and change.area_removed_mm2 == pytest.approx(4)
    assert change.boundary_moved_p95_um is None
    nothing = measure_correction({}, {}, HALF)
    assert nothing.overall.dice == 1 and nothing.by_class == {}


def test_the_ledger_keeps_every_number() -> None:
    found = measure_correction({"Tumor": TUMOR, "Gone": TUMOR}, {"Tumor": TUMOR.buffer(7)}, HALF)
    kept = json.loads(json.dumps(found.model_dump(), allow_nan=False))
    assert Correction.model_validate(kept) == found
