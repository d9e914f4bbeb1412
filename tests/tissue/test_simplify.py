from __future__ import annotations

import numpy as np

from qpannot.tissue.simplify import simplify_points, smooth_points

SQUARE = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], float)


def test_smoothing_takes_the_mean_with_both_neighbours() -> None:
    assert smooth_points(SQUARE).tolist() == [[3, 3], [6, 3], [6, 6], [3, 6]]


def test_low_vertices_go_and_high_ones_stay() -> None:
    ring = np.array([[0, 0], [5, 0.4], [10, 0], [10, 10], [5, 12], [0, 10]], float)
    assert simplify_points(ring, 0.5).tolist() == np.delete(ring, 1, axis=0).tolist()


def test_a_narrow_spike_of_small_area_ends_the_simplification_everywhere() -> None:
    # The spike's triangle is the smallest, yet too high to go: the flat vertex stays as well.
    spike = [[50, 0], [50.1, -3], [50.2, 0]]
    ring = np.array([[0, 0], *spike, [100, 0], [100, 100], [50, 100.4], [0, 100]], float)
    kept = simplify_points(ring, 0.5).tolist()
    assert [50, 100.4] in kept
    assert [50.1, -3] in kept


def test_a_triangle_is_never_simplified_further() -> None:
    ring = np.array([[0, 0], [0.1, 0], [0, 0.1]], float)
    assert len(simplify_points(ring, 100)) == 3
    assert len(simplify_points(SQUARE, 100)) == 3


def test_repeated_vertices_count_once() -> None:
    assert len(simplify_points(np.repeat(SQUARE, 3, axis=0), 0.1)) == 4
    assert len(simplify_points(np.zeros((5, 2)), 0.1)) == 0
