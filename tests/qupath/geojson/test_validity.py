from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.qupath.geojson.validity import Fault, Repair, make_valid, rounded, split
from qpannot.qupath.qpdata.roi import on_qupath_grid

BOW_TIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def repaired(geometry: BaseGeometry) -> tuple[BaseGeometry, Repair | None]:
    made, repairs = make_valid([geometry])
    return made[0], repairs.get(0)


def winding_numbers(ring: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.int64]:
    winding = np.zeros(len(points), int)
    for (x, y), (x2, y2) in itertools.pairwise(ring.tolist()):
        side = (x2 - x) * (points[:, 1] - y) - (points[:, 0] - x) * (y2 - y)
        winding += (y <= points[:, 1]) & (y2 > points[:, 1]) & (side > 0)
        winding -= (y > points[:, 1]) & (y2 <= points[:, 1]) & (side < 0)
    return winding


def test_both_halves_of_a_bow_tie_are_kept_and_told() -> None:
    made, repair = repaired(BOW_TIE)
    assert made.is_valid and made.area == 50 and len(made.geoms) == 2  # type: ignore[attr-defined]
    assert repair == Repair((Fault.CROSSING,), 0.0, 50.0)
    assert repair.is_notable


def test_a_loop_over_itself_stays_filled_as_qupath_draws_it() -> None:
    angles = np.pi / 2 + np.arange(5) * 4 * np.pi / 5
    star = shapely.Polygon(np.column_stack([np.cos(angles), np.sin(angles)]) * 100)
    made, _ = repaired(star)
    assert made.geom_type == "Polygon" and made.contains(shapely.Point(0, 0))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=12))
def test_what_a_ring_goes_around_is_inside_its_repair(points: list[tuple[int, int]]) -> None:
    ring = np.array([*points, points[0]], float)
    made, _ = repaired(shapely.Polygon(ring))
    assert made.is_valid
    places = np.random.default_rng(0).uniform(0, 30, (200, 2))
    inside = winding_numbers(ring, places) != 0
    far = shapely.distance(shapely.points(places), shapely.LineString(ring)) > 0.02
    assert (shapely.contains_xy(made, places)[far] == inside[far]).all()


@given(
    st.lists(
        st.tuples(st.floats(0, 2, width=32), st.floats(0, 2, width=32)), min_size=3, max_size=15
    )
)
def test_every_result_is_valid_on_the_grid_and_stays_so(points: list[tuple[float, float]]) -> None:
    outline = shapely.Polygon(points)
    made, repair = repaired(outline)
    assert made.is_valid and rounded(np.array([made]))[0].equals_exact(made, 0)
    again, repair_again = repaired(made)
    assert again.equals_exact(made, 0)
    assert repair_again is None or made.is_empty
    if outline.is_valid:
        assert abs(made.area - outline.area) <= 0.02 * outline.length + 1e-3
        assert repair is None or repair.faults == (Fault.ROUNDING,)


def test_an_outline_that_only_rounding_breaks_is_repaired_with_next_to_no_change() -> None:
    needle = shapely.Polygon([(0, 0), (50, 0.004), (100, 0), (100, 30), (50, 0.0041), (0, 30)])
    assert needle.is_valid and not rounded(np.array([needle]))[0].is_valid
    made, repair = repaired(needle)
    assert repair is not None and repair.faults == (Fault.ROUNDING,) and not repair.is_notable
    assert made.is_valid and made.area == pytest.approx(needle.area, abs=1)


def test_what_is_valid_is_only_rounded() -> None:
    outline = shapely.Polygon([(0.123456, 0), (10, 0.004), (10, 9.999), (0, 10)])
    made, repair = repaired(outline)
    assert repair is None
    assert made.exterior.coords[0] == (0.12, 0)  # type: ignore[attr-defined]
    assert shapely.get_num_coordinates(made) == 5


def test_vertices_that_are_no_numbers_go_and_the_rest_stays() -> None:
    with np.errstate(invalid="ignore"):
        outline = shapely.Polygon([(0, 0), (10, 0), (math.nan, 3), (10, 10), (1e300, 5), (0, 10)])
    made, repair = repaired(outline)
    assert made.area == 100
    assert repair is not None and repair.faults == (Fault.VERTICES,)
    assert math.isnan(repair.area_before_px2) and repair.is_notable


def test_a_hole_or_part_without_extent_goes() -> None:
    flat = [(5, 5), (6, 6), (5, 5), (5, 5)]
    made, repair = repaired(shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], [flat]))
    assert made.area == 100 and not made.interiors  # type: ignore[attr-defined]
    assert repair == Repair((Fault.NO_AREA,), 100.0, 100.0)
    made, repair = repaired(shapely.MultiLineString([[(0, 0), (5, 5)], [(1, 1), (1.001, 1)]]))
    assert made.geom_type == "LineString" and repair is not None
    assert repair.faults == (Fault.NO_AREA,)


@pytest.mark.parametrize(
    "nothing",
    [
        shapely.Polygon([(1, 1), (2, 2), (1, 1), (1, 1)]),
        shapely.Polygon([(1, 1), (1.001, 1), (1.001, 1.001)]),
        shapely.LineString([(1, 1), (1, 1)]),
        shapely.Point(math.nan, 1),
        shapely.Polygon(),
        shapely.GeometryCollection(),
    ],
)
def test_nothing_comes_of_what_has_no_extent(nothing: BaseGeometry) -> None:
    made, _ = repaired(nothing)
    assert made.is_empty


def test_of_a_mixture_the_areas_are_kept() -> None:
    mixture = shapely.GeometryCollection(
        [shapely.Point(1, 1), shapely.GeometryCollection([shapely.box(0, 0, 2, 2)]), BOW_TIE]
    )
    made, repair = repaired(mixture)
    assert (
        made.is_valid
        and made.area == shapely.union(shapely.box(0, 0, 2, 2), repaired(BOW_TIE)[0]).area
    )
    assert repair is not None and repair.faults[0] is Fault.MIXED


def test_many_are_repaired_each_by_itself() -> None:
    made, repairs = make_valid([shapely.box(0, 0, 1, 1), BOW_TIE, shapely.Point(3, 4)])
    assert list(repairs) == [1]
    assert [each.geom_type for each in made] == ["Polygon", "MultiPolygon", "Point"]


def wiggly(n: int) -> BaseGeometry:
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    radius = 4000 + 300 * np.sin(37 * angles) + np.random.default_rng(0).uniform(-2, 2, n)
    points = 5000 + np.column_stack([np.cos(angles), np.sin(angles)]) * radius[:, None]
    return repaired(shapely.Polygon(points))[0]


def with_holes(n: int) -> BaseGeometry:
    holes = [
        shapely.box(
            10.0 * (i % n) + 3.25, 10.0 * (i // n) + 3.5, 10.0 * (i % n) + 7, 10.0 * (i // n) + 8
        )
        for i in range(n * n)
    ]
    return shapely.Polygon(
        shapely.box(0, 0, 10 * n, 10 * n).exterior, [hole.exterior for hole in holes]
    )


@pytest.mark.parametrize("outline", [wiggly(5000), with_holes(30)], ids=["wiggly", "with holes"])
def test_pieces_are_small_valid_and_cover_the_outline_once(outline: BaseGeometry) -> None:
    pieces = split(outline, max_vertices=500)
    assert len(pieces) > 5
    assert max(shapely.get_num_coordinates(pieces)) <= 500
    assert all(piece.is_valid for piece in pieces)
    assert all(piece.equals_exact(rounded(np.array([piece]))[0], 0) for piece in pieces)
    assert sum(piece.area for piece in pieces) == pytest.approx(outline.area, rel=1e-7)
    tree = shapely.STRtree(pieces)
    assert not len(tree.query(pieces, predicate="overlaps")[0])
    missing = shapely.symmetric_difference(shapely.union_all(pieces), outline)
    assert shapely.buffer(missing, -0.01).is_empty


def test_pieces_are_the_same_wherever_the_ring_begins() -> None:
    outline = wiggly(3000)
    turned = shapely.Polygon(np.roll(shapely.get_coordinates(outline)[:-1], 1234, axis=0))
    one, other = (shapely.normalize(np.array(split(each, 400))) for each in (outline, turned))
    assert len(one) == len(other)
    assert all(a.equals_exact(b, 0.011) for a, b in zip(one, other, strict=True))


def test_what_is_small_or_no_area_is_not_split() -> None:
    line = shapely.LineString([(i, i % 2) for i in range(100)])
    assert split(line, max_vertices=10) == [line]
    assert split(BOW_TIE, max_vertices=10) == [BOW_TIE]


def test_results_survive_qupaths_float32() -> None:
    made, _ = repaired(shapely.Polygon([(90_000.1, 3), (90_010.33, 8), (90_004.77, 20)]))
    stored = on_qupath_grid(np.array([made]))[0]
    assert stored.is_valid and stored.area == pytest.approx(made.area, rel=1e-3)


def square(low: float, high: float) -> list[tuple[float, float]]:
    return [(low, low), (high, low), (high, high), (low, high)]


@pytest.mark.parametrize(
    ("hole", "left", "fault"),
    [
        (square(0, 100), 0, Fault.HOLE),
        (square(200, 300), 10_100, Fault.HOLE),
        (square(15, 30), 75, Fault.CROSSING),
    ],
)
def test_a_hole_that_is_not_inside_is_told_from_an_outline_that_crosses(
    hole: list[tuple[float, float]], left: float, fault: Fault
) -> None:
    made, repair = repaired(shapely.Polygon(square(10, 20), [hole]))
    assert repair is not None and repair.faults == (fault,)
    assert made.is_valid and made.area == left
