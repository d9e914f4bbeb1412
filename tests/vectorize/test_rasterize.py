from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.vectorize import class_mask, coverage, rasterize, spans_of

numbers = st.floats(-12, 24, allow_nan=False).map(lambda value: round(value, 3))
affines = st.builds(
    Affine, st.floats(0.5, 3), st.floats(0.5, 3), st.floats(-3, 3), st.floats(-3, 3)
)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def polygons(draw: st.DrawFn) -> BaseGeometry:
    """Return a valid polygon, perhaps with a hole, perhaps turned the other way."""
    x, y = draw(numbers), draw(numbers)
    radii = np.array(draw(st.lists(st.floats(0.5, 9), min_size=3, max_size=9)))
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) + draw(st.floats(0, 1))
    ring = np.round(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1), 3)
    polygon: BaseGeometry = shapely.Polygon(ring)
    if draw(st.booleans()):
        polygon = polygon.difference(affinity.scale(polygon, 0.5, 0.5, origin=(x, y)))
    return polygon.reverse() if draw(st.booleans()) else polygon


def middles(affine: Affine, shape: tuple[int, int]) -> NDArray[np.float64]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.moveaxis(affine.to_slide(np.stack([x + 0.5, y + 0.5], axis=-1)), -1, 0)


@settings(max_examples=150)
@given(st.lists(st.lists(polygons(), max_size=3), max_size=3), affines, shapes)
def test_a_pixel_has_the_class_its_middle_lies_in(
    classes: list[list[BaseGeometry]], affine: Affine, shape: tuple[int, int]
) -> None:
    expected = np.zeros(shape, np.uint8)
    is_clear = np.ones(shape, bool)
    for index, areas in enumerate(classes):
        for polygon in areas:
            expected[shapely.contains_xy(polygon, *middles(affine, shape))] = index + 1
            points = shapely.points(*middles(affine, shape))
            is_clear &= shapely.distance(polygon.boundary, points) > 1e-9
    found = class_mask(classes, affine, shape)
    assert np.array_equal(found[is_clear], expected[is_clear])


@given(
    st.lists(st.lists(polygons(), max_size=2).map(shapely.GeometryCollection), max_size=4),
    affines,
    shapes,
    st.integers(1, 40),
)
def test_spans_are_the_pixels_of_each_area_by_itself(
    areas: list[BaseGeometry], affine: Affine, shape: tuple[int, int], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rasterize, "BLOCK_PX", block)
        spans = spans_of(areas, affine, shape)
    assert (np.diff(spans.areas) >= 0).all()
    found = np.zeros((len(areas), *shape), np.uint8)
    for area, row, start, stop in zip(
        spans.areas, spans.rows, spans.starts, spans.stops, strict=True
    ):
        found[area, row, start:stop] = 1
    for index, area in enumerate(areas):
        assert np.array_equal(found[index], class_mask([[area]], affine, shape))


@settings(max_examples=150)
@given(st.lists(polygons(), max_size=4), affines, shapes)
def test_a_cell_is_covered_as_far_as_the_areas_reach(
    areas: list[BaseGeometry], affine: Affine, shape: tuple[int, int]
) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    low = affine.to_slide(np.stack([x, y], axis=-1))
    high = affine.to_slide(np.stack([x + 1, y + 1], axis=-1))
    cells = shapely.box(low[..., 0], low[..., 1], high[..., 0], high[..., 1])
    shared = shapely.intersection(cells, shapely.union_all(areas))
    expected = shapely.area(shared) / shapely.area(cells)
    assert np.allclose(coverage(areas, affine, shape), expected, atol=1e-6)


def test_neighbours_share_no_middle_and_leave_none_out() -> None:
    halves = [[shapely.box(0, 0, 2.5, 4)], [shapely.box(2.5, 0, 4, 4)]]
    expected = [[1, 1, 2, 2]] * 4
    affine = Affine(1, 1)
    assert class_mask(halves, affine, (4, 4)).tolist() == expected
    assert class_mask(halves[::-1], affine, (4, 4)).tolist() == [[2, 2, 1, 1]] * 4


def test_later_classes_lie_over_earlier_ones() -> None:
    region, tumor = shapely.box(0, 0, 4, 2), shapely.box(1, 0, 2, 2)
    assert class_mask([[region], [tumor]], Affine(1, 1), (1, 4)).tolist() == [[1, 2, 1, 1]]
    assert class_mask([[tumor], [region]], Affine(1, 1), (1, 4)).tolist() == [[2, 2, 2, 2]]


def test_areas_of_one_class_that_overlap_count_once() -> None:
    areas = [shapely.box(0, 0, 3, 1), shapely.box(1, 0, 4, 1)]
    assert class_mask([areas], Affine(1, 1), (1, 5)).tolist() == [[1, 1, 1, 1, 0]]
    assert coverage(areas, Affine(2, 1), (1, 3)).tolist() == [[1, 1, 0]]


def test_a_ring_that_goes_round_twice_is_filled_by_the_even_odd_rule() -> None:
    outer, inner = (
        [(0, 0), (5, 0), (5, 3), (0, 3), (0, 0)],
        [(1, 1), (4, 1), (4, 2), (1, 2), (1, 1)],
    )
    twice = shapely.Polygon(outer + inner)
    expected = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert class_mask([[twice]], Affine(1, 1), (3, 5)).tolist() == expected
    assert coverage([twice], Affine(1, 1), (3, 5)).tolist() == expected


def test_multipolygons_and_collections_count_and_lines_do_not() -> None:
    collection = shapely.GeometryCollection(
        [
            shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)]),
            shapely.LineString([(0, 0), (9, 9)]),
        ]
    )
    areas = [collection, shapely.Point(1.5, 0.5), shapely.Polygon()]
    assert class_mask([areas], Affine(1, 1), (1, 4)).tolist() == [[1, 0, 1, 0]]
    assert coverage(areas, Affine(1, 1), (1, 4)).tolist() == [[1, 0, 1, 0]]


def test_large_grids_are_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    areas = [
        shapely.Point(x, y).buffer(radius)
        for x, y, radius in rng.uniform((0, 0, 1), (90, 70, 20), (12, 3))
    ]
    affine, shape = Affine(1.3, 1.1, x=-4.2, y=5), (60, 50)
    mask, covered = (
        class_mask([areas[:6], areas[6:]], affine, shape),
        coverage(areas, affine, shape),
    )
    monkeypatch.setattr(rasterize, "BLOCK_PX", 130)
    assert np.array_equal(class_mask([areas[:6], areas[6:]], affine, shape), mask)
    assert np.allclose(coverage(areas, affine, shape), covered, atol=1e-6)
    assert 0.2 < (mask > 0).mean() < 0.95


def test_more_classes_than_a_byte_has_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="255 classes"):
        class_mask([[]] * 256, Affine(1, 1), (1, 1))
