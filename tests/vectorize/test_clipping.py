from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.geometry import Mpp
from qpannot.recipe.settings import OutlineSettings
from qpannot.vectorize import Outline, outlines_of

AFFINE, MPP = Affine(64, 64), Mpp(0.5, 0.5)


def settings_of(min_area_um2: float = 0, max_vertices: int = 20_000) -> OutlineSettings:
    return OutlineSettings(
        min_area_um2=min_area_um2,
        min_hole_area_um2=0,
        simplify_um=0,
        smoothing_um=0,
        max_vertices=max_vertices,
    )


def outlines_within(
    *within: BaseGeometry, settings: OutlineSettings | None = None
) -> list[Outline]:
    """Return the outlines of a class in the left half of 20 x 20 cells, and one in the right."""
    probabilities = np.zeros((20, 20, 2), np.float32)
    probabilities[:, :10, 0], probabilities[:, 10:, 1] = 0.75, 1
    return outlines_of(
        probabilities, AFFINE, MPP, ("a", "b"), settings or settings_of(), within=within
    )


def test_outlines_end_where_the_tissue_ends() -> None:
    tissue = shapely.Point(640, 640).buffer(500.123)
    left, right = outlines_within(tissue)
    assert (left.class_name, left.score) == ("a", 0.75)
    assert (right.class_name, right.score) == ("b", 1)
    both = left.polygon.union(right.polygon)
    assert shapely.hausdorff_distance(both, tissue) <= 0.0075
    assert left.polygon.intersection(right.polygon).area == 0
    assert left.polygon.bounds[2] == right.polygon.bounds[0] == 640


def test_clipped_outlines_are_valid_and_on_qupaths_grid() -> None:
    pieces = [shapely.Point(300 + 67.3 * n, 640).buffer(41.77) for n in range(12)]
    outlines = outlines_within(*pieces)
    assert len(outlines) == 2
    for outline in outlines:
        assert outline.polygon.is_valid
        points = shapely.get_coordinates(outline.polygon)
        assert np.array_equal(points, points.round(2))


def test_outlines_within_the_tissue_stay_as_they_are() -> None:
    plain = outlines_within(shapely.box(-1e5, -1e5, 1e5, 1e5))
    assert [outline.polygon.bounds for outline in plain] == [
        (0, 0, 640, 1280),
        (640, 0, 1280, 1280),
    ]
    tissue = shapely.box(-100, -100, 1000, 1400)
    left, right = outlines_within(tissue)
    assert left == plain[0]
    assert right.polygon.equals(shapely.box(640, 0, 1000, 1280))


def test_an_outline_in_two_pieces_of_tissue_is_two_outlines_the_larger_first() -> None:
    outlines = outlines_within(shapely.box(0, 0, 300, 200), shapely.box(0, 500, 300, 900))
    assert [outline.polygon.area for outline in outlines] == [300 * 400, 300 * 200]
    assert [outline.class_name for outline in outlines] == ["a", "a"]


def test_specks_that_clipping_leaves_are_left_out() -> None:
    pieces = (shapely.box(0, 0, 300, 200), shapely.box(0, 500, 30, 530))
    (outline,) = outlines_within(*pieces, settings=settings_of(min_area_um2=30 * 30 / 4 + 1))
    assert outline.polygon.area == 300 * 200
    assert len(outlines_within(*pieces, settings=settings_of(min_area_um2=30 * 30 / 4))) == 2


def test_holes_of_the_tissue_are_holes_of_the_outline() -> None:
    hole = shapely.box(100, 100, 200, 300)
    outlines = outlines_within(shapely.box(0, 0, 640, 1280).difference(hole))
    assert len(outlines) == 1
    assert outlines[0].polygon.area == 640 * 1280 - hole.area


def test_clipped_outlines_of_too_many_vertices_are_divided() -> None:
    tissue = shapely.Point(320, 640).buffer(250, quad_segs=300)
    outlines = outlines_within(tissue, settings=settings_of(max_vertices=150))
    assert len(outlines) > 4
    assert all(shapely.get_num_coordinates(each.polygon) <= 151 for each in outlines)
    assert sum(each.polygon.area for each in outlines) == pytest.approx(tissue.area, rel=1e-4)


def test_without_tissue_there_are_no_outlines() -> None:
    assert outlines_within() == []
