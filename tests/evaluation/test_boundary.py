from __future__ import annotations

import math

import numpy as np
import pytest
import shapely

from qpannot.evaluation import boundary_distances, directed_distances

BOX = shapely.box(0, 0, 100, 100)


def test_the_same_outline_has_not_moved() -> None:
    found = boundary_distances(BOX, shapely.Polygon(BOX.exterior.coords[::-1]), 1)
    assert (found.mean, found.hd95, found.max) == (0, 0, 0)


def test_circles_of_one_middle_lie_their_radii_apart() -> None:
    middle = shapely.Point(50, 50)
    small, large = (middle.buffer(radius, quad_segs=200) for radius in (20, 27))
    found = boundary_distances(small, large, 0.5)
    assert found.mean == pytest.approx(7, abs=0.01)
    assert found.hd95 == pytest.approx(7, abs=0.01)
    assert found.max == pytest.approx(7, abs=0.01)


def test_distances_are_shared_by_both_directions() -> None:
    spur = shapely.union(BOX, shapely.box(100, 49, 140, 51))
    one, other = boundary_distances(BOX, spur, 0.1), boundary_distances(spur, BOX, 0.1)
    assert (one.mean, one.hd95) == pytest.approx((other.mean, other.hd95))
    assert one.max == pytest.approx(40, abs=0.1)
    # 82 of the spur's 480 units of outline lie off the box, by 20 on average; 5 % by more than 28
    assert one.hd95 == pytest.approx(28.5, abs=0.5)
    assert one.mean == pytest.approx((2 * 40 * 20 + 2 * 40) / 880, abs=0.05)


def test_a_side_counts_by_its_length_not_its_vertices() -> None:
    dense = shapely.Polygon(
        [(0, 0), *((x, 0.0) for x in np.linspace(1, 99, 5_000)), (100, 0), (100, 100), (0, 100)]
    )
    moved = shapely.box(0, 0, 100, 110)
    assert boundary_distances(dense, moved, 1).mean == pytest.approx(
        boundary_distances(BOX, moved, 1).mean, rel=0.01
    )


def test_the_edges_of_holes_are_boundaries() -> None:
    holed = BOX.difference(shapely.box(40, 40, 60, 60))
    there, back = directed_distances(BOX, holed, 1)
    assert len(there) == 400 and len(back) == 480
    assert there.max() == 0 and back.max() == 40


def test_outlines_that_cross_themselves_are_measured() -> None:
    bow_tie = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    assert boundary_distances(bow_tie, BOX, 1).max == pytest.approx(50, abs=1)


def test_nothing_lies_at_no_distance_from_nothing_and_at_none_from_something() -> None:
    nothing = shapely.MultiPolygon()
    assert boundary_distances(nothing, shapely.Polygon(), 1).hd95 == 0
    for one, other in ((BOX, nothing), (nothing, BOX)):
        found = boundary_distances(one, other, 1)
        assert math.isnan(found.mean) and math.isnan(found.hd95) and math.isnan(found.max)


def test_every_ring_is_measured_however_small() -> None:
    specks = shapely.MultiPolygon([BOX, shapely.box(200, 50, 201, 51)])
    assert boundary_distances(specks, BOX, 50).max == pytest.approx(101, abs=1)


@pytest.mark.parametrize("spacing", [0, -1, math.nan])
def test_a_spacing_is_positive(spacing: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        boundary_distances(BOX, BOX, spacing)
