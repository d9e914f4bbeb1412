from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.affine import Affine
from qpannot.vectorize import class_mask, polygons_of, runs

PIXELS = Affine(1, 1)

masks = hnp.arrays(
    np.uint8, st.tuples(st.integers(0, 12), st.integers(1, 12)), elements=st.integers(0, 3)
)


def filled(labels: NDArray[np.uint8], affine: Affine) -> NDArray[np.uint8]:
    """Return the mask of its own polygons, found point by point."""
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    middles = affine.to_slide(np.stack([x + 0.5, y + 0.5], axis=-1))
    found = np.zeros_like(labels)
    for value, polygon in polygons_of(labels, affine):
        inside = shapely.contains_xy(polygon, middles[..., 0], middles[..., 1])
        assert not found[inside].any()
        found[inside] = value
    return found


@settings(max_examples=150)
@given(masks)
def test_filling_the_polygons_gives_the_mask(labels: NDArray[np.uint8]) -> None:
    assert np.array_equal(filled(labels, Affine(57.375, 3.5, x=-8.25, y=3)), labels)


@settings(max_examples=150)
@given(masks)
def test_each_4_connected_part_is_one_valid_polygon(labels: NDArray[np.uint8]) -> None:
    polygons = polygons_of(labels, PIXELS)
    n = sum(ndimage.label(labels == value)[1] for value in (1, 2, 3))
    assert len(polygons) == n
    assert all(polygon.is_valid for _, polygon in polygons)
    assert sum(polygon.area for _, polygon in polygons) == np.count_nonzero(labels)


def test_vertices_are_corners_only() -> None:
    labels = np.zeros((5, 9), bool)
    labels[1:4, 2:8] = True
    ((value, polygon),) = polygons_of(labels, Affine(2, 3, x=1, y=1))
    assert value == 1
    assert polygon.normalize().equals_exact(shapely.box(5, 4, 17, 13).normalize())
    assert len(polygon.exterior.coords) == 5


def test_a_hole_that_touches_the_outside_at_a_corner_stays_a_hole() -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    ((_, polygon),) = polygons_of(labels, PIXELS)
    assert polygon.is_valid
    assert [shapely.Polygon(hole).bounds for hole in polygon.interiors] == [(1, 1, 2, 2)]


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    both = [np.eye(2, dtype=bool), np.eye(2, dtype=bool)[::-1]]
    assert [len(polygons_of(labels, PIXELS)) for labels in both] == [2, 2]


def test_parts_come_in_the_order_of_their_first_pixels() -> None:
    labels = np.array([[0, 0, 2, 0], [1, 0, 2, 3], [1, 0, 0, 0]], np.uint8)
    assert [value for value, _ in polygons_of(labels, PIXELS)] == [2, 1, 3]


def test_an_island_in_a_lake_is_a_part_of_its_own() -> None:
    labels = np.ones((5, 5), bool)
    labels[1:4, 1:4] = False
    labels[2, 2] = True
    shore, island = (polygon for _, polygon in polygons_of(labels, PIXELS))
    assert (shore.area, len(shore.interiors)) == (16, 1)
    assert (island.area, len(island.interiors)) == (1, 0)


@pytest.mark.parametrize("labels", [np.zeros((4, 3), bool), np.zeros((0, 3), np.uint8)])
def test_an_empty_mask_has_no_polygons(labels: NDArray[np.bool_]) -> None:
    assert polygons_of(labels, PIXELS) == []


def test_a_mask_worked_on_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (61, 47)).astype(np.uint8)
    whole = polygons_of(labels, PIXELS)
    monkeypatch.setattr(runs, "BLOCK_PX", 100)
    assert polygons_of(labels, PIXELS) == whole
    assert np.array_equal(filled(labels, PIXELS), labels)


def test_a_large_mask_comes_back_from_its_polygons() -> None:
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(700, 900)), 2)
    labels = np.digitize(noise, np.quantile(noise, [0.5, 0.8])).astype(np.uint8)
    affine = Affine(16.0018, 15.997, x=2.5)
    polygons = polygons_of(labels, affine)
    assert len(polygons) > 1000
    layers = [[polygon for value, polygon in polygons if value == layer] for layer in (1, 2)]
    assert np.array_equal(class_mask(layers, affine, labels.shape), labels)
