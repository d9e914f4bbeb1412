"""Smoothing and simplifying of outlines, vertex for vertex as QuPath does it.

Source: QuPath 0.6 ``ShapeSimplifier``. QuPath stores polygons in float32, so everything is rounded
to it between the steps.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Vertices (x, y) of a closed ring that does not repeat its first one, shape [n, 2]."""


def smooth_points(points: Points) -> Points:
    """Return the mean of every vertex and its two neighbours."""
    total = np.roll(points, 1, axis=0) + points + np.roll(points, -1, axis=0)
    return _float32(total / 3)


def simplify_points(points: Points, altitude: float) -> Points:
    """Return a ring without its least significant vertices (after Visvalingam).

    The vertex that spans the smallest triangle with its neighbours goes first, until the smallest
    triangle is higher than ``altitude``: the stop is global, and vertices that lie lower elsewhere
    remain.

    Parameters
    ----------
    points
        The ring.
    altitude
        In the unit of the coordinates.
    """
    points = _without_repeats(points)
    n = len(points)
    n_least = max(n // 100, 3)
    if n <= n_least:
        return points
    xs, ys = points[:, 0].tolist(), points[:, 1].tolist()
    areas = _areas(points).tolist()
    before = [n - 1, *range(n - 1)]
    after = [*range(1, n), 0]
    heap = list(zip(areas, xs, ys, range(n), strict=True))
    heapq.heapify(heap)
    removed = set()
    is_removed = bytearray(n)
    left = n
    while left > n_least:
        area, x, y, vertex = heapq.heappop(heap)
        if is_removed[vertex] or area != areas[vertex]:
            continue  # an entry that a later one replaced
        p, q = before[vertex], after[vertex]
        px, py, qx, qy = xs[p], ys[p], xs[q], ys[q]
        dx, dy = qx - px, qy - py
        base = math.sqrt(dx * dx + dy * dy)
        if base > 0 and area * 2 / base > altitude:
            break
        removed.add((x, y))
        is_removed[vertex] = True
        left -= 1
        after[p], before[q] = q, p
        o, r = before[p], after[q]
        ox, oy, rx, ry = xs[o], ys[o], xs[r], ys[r]
        areas[p] = abs(0.5 * (ox * (py - qy) + px * (qy - oy) + qx * (oy - py)))
        areas[q] = abs(0.5 * (px * (qy - ry) + qx * (ry - py) + rx * (py - qy)))
        heapq.heappush(heap, (areas[p], px, py, p))
        heapq.heappush(heap, (areas[q], qx, qy, q))
    # QuPath removes by coordinates, and so every vertex in the place of a removed one.
    keep = [i for i in range(n) if (xs[i], ys[i]) not in removed]
    return points[keep]


def _areas(points: Points) -> NDArray[np.float64]:
    """Return the area of the triangle of every vertex with its neighbours."""
    x2, y2 = points.T
    x1, y1 = np.roll(points, 1, axis=0).T
    x3, y3 = np.roll(points, -1, axis=0).T
    area: NDArray[np.float64] = np.abs(0.5 * (x1 * (y2 - y3) + x2 * (y3 - y1) + x3 * (y1 - y2)))
    return area


def _without_repeats(points: Points) -> Points:
    return points[np.any(points != np.roll(points, 1, axis=0), axis=1)]


def _float32(points: Points) -> Points:
    return points.astype(np.float32).astype(np.float64)
