from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.affine import Affine
from qpannot.recipe.settings import OutlineSettings
from qpannot.vectorize import cleaning, polygons_of
from qpannot.vectorize.cleaning import cleaned, closing, opening

Mask = NDArray[np.bool_]


def settings_of(**changes: float) -> OutlineSettings:
    return OutlineSettings.model_validate({"min_area_um2": 0, "min_hole_area_um2": 0, **changes})


def disc(radius: float, pixel_um: tuple[float, float]) -> Mask:
    reach_x, reach_y = (int(radius / size) for size in pixel_um)
    y, x = np.mgrid[-reach_y : reach_y + 1, -reach_x : reach_x + 1]
    inside: Mask = np.hypot(x * pixel_um[0], y * pixel_um[1]) <= radius
    return inside


@hypothesis_settings(max_examples=60)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))),
    st.sampled_from([0.5, 1, 1.5, 2.3, 4]),
    st.sampled_from([(1.0, 1.0), (1.0, 0.7)]),
)
def test_closing_and_opening_are_those_by_a_disc(
    mask: Mask, radius: float, pixel_um: tuple[float, float]
) -> None:
    element = disc(radius, pixel_um)
    around = 2 * max(element.shape)
    padded = np.pad(mask, around, mode="edge")
    inner = (slice(around, -around), slice(around, -around))
    closed = ndimage.binary_erosion(
        ndimage.binary_dilation(padded, element), element, border_value=True
    )
    opened = ndimage.binary_dilation(
        ndimage.binary_erosion(padded, element, border_value=True), element
    )
    assert np.array_equal(closing(mask, radius, pixel_um), closed[inner])
    assert np.array_equal(opening(mask, radius, pixel_um), opened[inner])


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(90, 70)), 2) > 0
    whole = closing(mask, 3, (1, 1)), opening(mask, 3, (1, 1))
    monkeypatch.setattr(cleaning, "TILE_PX", 16)
    assert np.array_equal(closing(mask, 3, (1, 1)), whole[0])
    assert np.array_equal(opening(mask, 3, (1, 1)), whole[1])
    assert (whole[0] & ~mask).any() and (mask & ~whole[1]).any()


def test_gaps_up_to_twice_the_radius_are_closed_in_micrometres() -> None:
    labels = np.ones((40, 60), np.uint8)
    labels[:, 10:14], labels[:, 30:35] = 0, 0
    closed = cleaned(labels, (5.0, 5.0), settings_of(closing_um=10))
    assert closed[:, 10:14].all()
    assert not closed[:, 30:35].any()


def test_bridges_up_to_twice_the_radius_are_cut() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5:35, 5:20] = labels[5:35, 40:55] = 1
    labels[10:14, 20:40] = labels[20:25, 20:40] = 1
    opened = cleaned(labels, (5.0, 5.0), settings_of(opening_um=10))
    assert not opened[10:14, 25:35].any()
    assert opened[20:25, 20:40].all()


def test_tissue_that_goes_on_beyond_the_border_keeps_its_corners() -> None:
    labels = np.ones((20, 30), np.uint8)
    assert cleaned(labels, (1, 1), settings_of(opening_um=5)).all()


def test_holes_and_fragments_go_by_their_area() -> None:
    labels = np.zeros((30, 60), np.uint8)
    labels[5:25, 5:25] = 1
    labels[8:10, 8:10] = 0  # 4 pixels, 16 µm²
    labels[12:14, 8:11] = 0  # 6 pixels, 24 µm²
    labels[5:7, 30:32] = 1  # 16 µm²
    labels[5:7, 40:43] = 1  # 24 µm²
    found = cleaned(labels, (2, 2), settings_of(min_area_um2=20, min_hole_area_um2=20))
    assert found[8:10, 8:10].all()
    assert not found[12:14, 8:11].any()
    assert not found[5:7, 30:32].any()
    assert found[5:7, 40:43].all()
    assert not np.shares_memory(found, labels)


def test_what_is_open_to_the_border_is_no_hole() -> None:
    labels = np.ones((10, 10), np.uint8)
    labels[0:2, 3] = labels[9, 9] = 0
    assert np.array_equal(cleaned(labels, (1, 1), settings_of(min_hole_area_um2=50)), labels)


def test_a_hole_that_touches_the_outside_at_a_corner_is_a_hole() -> None:
    labels = np.zeros((6, 6), np.uint8)
    labels[1:5, 1:5] = 1
    labels[2, 2] = labels[1, 1] = 0
    found = cleaned(labels, (1, 1), settings_of(min_hole_area_um2=3))
    assert found[2, 2] == 1
    assert found[1, 1] == 0


def test_what_two_parts_enclose_that_touch_at_corners_is_no_hole() -> None:
    labels = np.zeros((6, 6), np.uint8)
    labels[1, 2:5] = labels[1:4, 4] = 1
    labels[4, 1:4] = labels[2:5, 1] = 1
    labels[1, 2] = labels[4, 3] = 1
    labels[1, 1] = labels[4, 4] = 0
    found = cleaned(labels, (1, 1), settings_of(min_hole_area_um2=20))
    assert np.array_equal(found, labels)


@hypothesis_settings(max_examples=100)
@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)
    )
)
def test_no_polygon_has_a_hole_or_an_area_below_the_limits(labels: NDArray[np.uint8]) -> None:
    found = cleaned(labels, (1, 1), settings_of(min_area_um2=6, min_hole_area_um2=4))
    for _, polygon in polygons_of(found, Affine(1, 1)):
        assert polygon.area >= 6
        assert all(shapely.Polygon(hole).area >= 4 for hole in polygon.interiors)


def test_fragments_count_with_their_filled_holes() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 1
    labels[3:6, 3:6] = 0
    found = cleaned(labels, (1, 1), settings_of(min_area_um2=20, min_hole_area_um2=10))
    assert found.sum() == 25


def test_a_fragment_within_another_class_becomes_that_class() -> None:
    labels = np.ones((12, 12), np.uint8)
    labels[3:5, 3:5] = 2
    labels[6:10, 6:10] = 2
    found = cleaned(labels, (1, 1), settings_of(min_area_um2=10, min_hole_area_um2=100))
    assert (found[3:5, 3:5] == 1).all()
    assert (found[6:10, 6:10] == 2).all()


def test_no_class_takes_a_pixel_from_another() -> None:
    labels = np.ones((20, 30), np.uint8)
    labels[:, 12:15] = 2
    found = cleaned(labels, (1, 1), settings_of(closing_um=5, min_hole_area_um2=1000))
    assert np.array_equal(found, labels)
