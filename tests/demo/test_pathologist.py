"""A simulated pathologist, on outlines of which it can be said what a person would do."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely import box
from shapely.geometry.base import BaseGeometry

from qpannot.demo.pathologist import GOOD_ENOUGH, STEP_UM, WOBBLE_UM, Correction, correct
from qpannot.qupath import Annotation, PathClass

TUMOR = PathClass("Tumor")
MPP = 0.5
LARGE = box(1000, 1000, 3000, 3000)
SMALL = box(0, 0, 100, 100)
"""2,500 µm², which is less than a person surely sees."""


def corrected(*proposals: BaseGeometry, tumour: BaseGeometry = LARGE, seed: int = 0) -> Correction:
    return correct(
        [Annotation(each, path_class=TUMOR, name="proposed") for each in proposals],
        tumour,
        TUMOR,
        mpp=MPP,
        rng=np.random.default_rng(seed),
    )


def dice(one: BaseGeometry, other: BaseGeometry) -> float:
    return float(2 * one.intersection(other).area / (one.area + other.area))


def test_too_large_a_proposal_is_cut_down_to_the_tumour_by_an_unsteady_hand() -> None:
    found = corrected(box(0, 0, 4000, 4000))
    ((before, after),) = found.replace
    assert after.id == before.id and after.class_name == "Tumor" and after.name == "proposed"
    assert after.geometry.is_valid and 0.97 < dice(after.geometry, LARGE) < 1
    moved = shapely.hausdorff_distance(after.geometry.boundary, LARGE.boundary) * MPP
    assert WOBBLE_UM < moved < 5 * WOBBLE_UM
    assert isinstance(after.geometry, shapely.Polygon)
    assert len(after.geometry.exterior.coords) == round(LARGE.length * MPP / STEP_UM) + 1
    assert not found.remove and not found.add and not found.is_nothing


def test_a_proposal_that_is_nearly_right_is_left_alone() -> None:
    right = LARGE.buffer(4)
    assert dice(right, LARGE) > GOOD_ENOUGH
    assert corrected(right).is_nothing


def test_a_proposal_without_tumour_is_deleted() -> None:
    wrong = box(5000, 5000, 6000, 6000)
    found = corrected(LARGE, wrong)
    assert [each.geometry for each in found.remove] == [wrong]
    assert not found.replace and not found.add


def test_a_tumour_nobody_proposed_is_drawn() -> None:
    other = box(5000, 1000, 7000, 3000)
    found = corrected(LARGE, tumour=shapely.union_all([LARGE, other]))
    (drawn,) = found.add
    assert drawn.class_name == "Tumor" and dice(drawn.geometry, other) > 0.97
    assert not found.replace and not found.remove


def test_a_proposal_becomes_all_the_tumours_it_covers() -> None:
    two = shapely.union_all([LARGE, box(3500, 1000, 5500, 3000)])
    ((_, after),) = corrected(box(500, 500, 6000, 3500), tumour=two).replace
    assert after.geometry.geom_type == "MultiPolygon" and dice(after.geometry, two) > 0.97


def test_of_two_proposals_the_one_that_covers_more_becomes_the_tumour() -> None:
    large, little = box(0, 0, 2500, 4000), box(2600, 0, 4000, 4000)
    found = corrected(large, little)
    assert [before.geometry for before, _ in found.replace] == [large]
    assert [each.geometry for each in found.remove] == [little]


def test_a_hole_in_a_tumour_is_drawn_as_well() -> None:
    ring = LARGE.difference(box(1500, 1500, 2500, 2500))
    ((_, after),) = corrected(box(0, 0, 4000, 4000), tumour=ring).replace
    assert isinstance(after.geometry, shapely.Polygon)
    assert len(after.geometry.interiors) == 1 and dice(after.geometry, ring) > 0.95


def test_small_tumours_are_overlooked_every_third_time() -> None:
    seen = [bool(corrected(tumour=SMALL, seed=seed).add) for seed in range(300)]
    assert np.mean(seen) == pytest.approx(2 / 3, abs=0.08)
    assert all(corrected(tumour=LARGE, seed=seed).add for seed in range(20))


def test_where_there_is_no_tumour_every_proposal_goes() -> None:
    found = corrected(LARGE, tumour=shapely.MultiPolygon())
    assert len(found.remove) == 1 and not found.replace and not found.add


def test_the_same_seed_draws_the_same_line() -> None:
    first, again, other = (corrected(tumour=LARGE, seed=seed).add[0] for seed in (1, 1, 2))
    assert first.geometry == again.geometry != other.geometry
