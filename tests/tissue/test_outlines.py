from __future__ import annotations

import numpy as np
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from shapely.geometry import Polygon

from qpannot.tissue.outlines import filled_parts, trace


def as_mask(*rows: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_an_outline_runs_along_the_edges_of_its_pixels_as_imagejs_wand_does() -> None:
    mask = as_mask(
        "......",
        ".##.#.",
        "..##..",
        ".###..",
        "......",
    )
    ring = trace(mask)[0]
    # ImageJ 1.54 Wand.autoOutline(1, 1, ..., FOUR_CONNECTED) on the same pixels.
    wand = [(3, 2), (4, 2), (4, 4), (1, 4), (1, 3), (2, 3), (2, 2), (1, 2), (1, 1), (3, 1)]
    assert [tuple(point) for point in ring.tolist()] == wand


def test_pixels_that_touch_at_a_corner_are_apart() -> None:
    assert len(trace(as_mask("#.", ".#"))) == 2
    assert len(trace(as_mask(".#", "#."))) == 2


def test_a_part_inside_a_hole_is_swallowed() -> None:
    mask = as_mask(
        "#####",
        "#...#",
        "#.#.#",
        "#...#",
        "#####",
    )
    parts = filled_parts(mask, 1)
    assert parts.filled.all()
    assert len(parts.rings) == 1


def test_a_hole_open_at_a_corner_is_no_hole() -> None:
    mask = as_mask(
        "###.",
        "#.#.",
        "##..",
    )
    assert not filled_parts(mask, 1).filled[1, 1]


def test_the_smallest_area_counts_the_holes_and_is_kept() -> None:
    mask = as_mask("###", "#.#", "###")
    assert len(filled_parts(mask, 9).rings) == 1
    assert len(filled_parts(mask, 9.5).rings) == 0


def test_excluding_at_the_boundary_is_a_pixel_stricter_right_and_below() -> None:
    mask = np.zeros((7, 9), bool)
    mask[2, 1] = mask[2, 5] = mask[2, 7] = mask[5, 3] = True
    parts = filled_parts(mask, 1, exclude_on_boundary=True)
    assert np.argwhere(parts.filled).tolist() == [[2, 1], [2, 5]]


masks_of_any_kind = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14))


@given(masks_of_any_kind, st.integers(0, 6))
@settings(deadline=None)
def test_outlines_enclose_the_filled_parts_and_nothing_else(
    mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]], min_area: int
) -> None:
    parts = filled_parts(mask, min_area)
    areas = [Polygon(ring).area for ring in parts.rings]
    assert sum(areas) == parts.filled.sum()
    assert all(area >= min_area for area in areas)
    assert len(areas) == ndi.label(parts.filled)[1]
    for ring in parts.rings:
        edges = np.abs(np.diff(np.vstack([ring, ring[:1]]), axis=0))
        assert np.all((edges == 0).sum(axis=1) == 1)  # alternately horizontal and vertical
