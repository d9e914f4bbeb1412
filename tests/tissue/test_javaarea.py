from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import MultiPolygon, Polygon, box

from qpannot.tissue import javaarea


def test_what_is_wound_around_twice_or_backwards_is_filled() -> None:
    twice = np.array([(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (9, 0), (9, 9), (0, 9)], float)
    assert javaarea.filled(twice).area == 81
    bow_tie = np.array([(0, 0), (4, 4), (4, 0), (0, 4)], float)
    assert javaarea.filled(bow_tie).area == 8


def test_too_few_points_enclose_nothing() -> None:
    assert javaarea.filled(np.zeros((2, 2))).is_empty


def test_short_outlines_are_not_cut() -> None:
    assert javaarea.cuts(box(0, 0, 10, 10)) == []
    assert javaarea.cuts(Polygon()) == []


def test_an_outline_is_cut_at_the_row_after_1024_links() -> None:
    # Vertical edges on a common grid of 1: every row links two edges.
    steps = [(float(i % 2 + 5), float(i + up)) for i in range(700) for up in (0, 1)]
    stairs = Polygon([(0, 0), *steps, (0, 700)])
    assert javaarea.cuts(stairs) == [512]
    beside = MultiPolygon([stairs, shapely.affinity.translate(stairs, 100)])
    assert javaarea.cuts(beside) == [256, 512]


def test_every_other_band_of_a_cut_outline_is_lost() -> None:
    kept = javaarea.remaining(box(0, 0, 10, 30), [10, 20])
    assert kept.equals(box(0, 0, 10, 10) | box(0, 20, 10, 30))


def test_a_hole_in_a_lost_band_comes_out_filled_and_one_in_a_kept_band_stays() -> None:
    area = box(0, 0, 10, 20) - box(4, 4, 6, 6) - box(4, 14, 6, 16)
    kept = javaarea.remaining(javaarea.polygonal(area), [10])
    assert kept.equals((box(0, 0, 10, 10) - box(4, 4, 6, 6)) | box(4, 14, 6, 16))


def test_separate_pieces_start_over() -> None:
    both = MultiPolygon([box(0, 0, 10, 20), box(20, 0, 30, 20)])
    kept = javaarea.remaining(both, [10])
    assert kept.area == 200
    assert kept.is_valid


def test_vertices_come_to_lie_on_the_grid() -> None:
    on_grid = javaarea.on_grid(Polygon([(0.004, 0.006), (10.123456, 0), (5, 7.777)]))
    assert shapely.get_coordinates(on_grid)[:3].tolist() == [[0, 0.01], [10.12, 0], [5, 7.78]]


@pytest.mark.parametrize("gap", [-1, 0, 1])
def test_the_union_of_areas_covers_them_all(gap: int) -> None:
    areas = [box(i * (10 + gap), 0, i * (10 + gap) + 10, 10) for i in range(5)]
    together = javaarea.union(areas)
    assert together.is_valid
    assert together.equals(shapely.union_all(areas))
    assert together.geom_type == ("MultiPolygon" if gap > 0 else "Polygon")
