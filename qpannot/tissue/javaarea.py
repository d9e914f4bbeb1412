"""What becomes of a polygon on QuPath's way from ``java.awt.geom.Area`` to a geometry.

QuPath turns every polygon into an ``Area`` and the outline of that into a geometry. Two things
happen there that show in the result.

An ``Area`` fills what the outline winds around, in either direction; a self-intersecting outline
gives what its non-zero winding numbers cover.

And on some Javas parts get lost. From 25.0.3 on (25.0.2 and 17.0.15 do not), ``AreaOp`` flushes its
work whenever it has linked 1,024 edges, which leaves the area cut in two along a horizontal line.
QuPath 0.6 and 0.7 build their geometry with a ``Polygonizer`` that expects no two faces to share an
edge, and so leave out every other piece: large, jagged outlines come out with wide horizontal bands
missing (mended later, qupath#2145). No one wants that in a proposal, but whoever compares with such
a QuPath needs to see the same (``TissueSettings.java_cuts``).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse
import shapely
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from shapely.geometry import LinearRing, LineString, MultiPolygon, Polygon

from qpannot.tissue.simplify import Points

MAX_LINK_COUNT = 1024
"""OpenJDK ``sun.awt.geom.AreaOp.MAX_LINK_COUNT``."""

GRID_PX = 0.01
"""The grid that QuPath's coordinates lie on."""

Area = Polygon | MultiPolygon
Edge = tuple[tuple[float, ...], tuple[float, ...]]


def filled(points: Points) -> Area:
    """Return what a ring winds around, in either direction."""
    if len(points) < 3:
        return Polygon()
    polygon = Polygon(points)
    if polygon.is_valid:
        return polygon
    closed = np.vstack([points, points[:1]])
    faces = _faces([LineString(closed)])
    if not faces:
        return Polygon()
    inside = _winding_numbers(closed, shapely.point_on_surface(faces)) != 0
    return polygonal(shapely.union_all(np.asarray(faces)[inside]))


def cuts(area: Area, other_rows: Sequence[float] | None = None) -> list[float]:
    """Return the heights at which ``AreaOp`` cuts an area.

    It sweeps from top to bottom, from one vertex to the next, and in every such row links all the
    edges it meets. Before the row that follows its 1,024th link it flushes.

    Parameters
    ----------
    area
        The result of the operation.
    other_rows
        If the operands were areas, and not an outline: the heights at which they had been cut.
    """
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(shapely.get_parts(area))]
    if not rings:
        return []
    if other_rows is not None:
        rings = [_as_from_area(ring) for ring in rings]
    start_y = np.concatenate([ring[:-1, 1] for ring in rings])
    end_y = np.concatenate([ring[1:, 1] for ring in rings])
    top, bottom = np.minimum(start_y, end_y), np.maximum(start_y, end_y)
    slivers = np.concatenate([_slivers(ring) for ring in rings])
    other = np.array(other_rows or [], float)
    ys = np.unique(np.concatenate([top, bottom, slivers.ravel(), other]))
    ys = ys[(ys >= top.min()) & (ys <= bottom.max())]
    change = np.bincount(np.searchsorted(ys, top), minlength=len(ys)).astype(np.int64)
    change -= np.bincount(np.searchsorted(ys, bottom), minlength=len(ys))
    change -= 2 * np.bincount(np.searchsorted(ys, slivers[:, 0]), minlength=len(ys))
    change += 2 * np.bincount(np.searchsorted(ys, slivers[:, 1]), minlength=len(ys))
    links = np.cumsum(change)
    before = np.cumsum(links) - links
    found = []
    row = 0
    while (row := int(np.searchsorted(before, before[row] + MAX_LINK_COUNT))) < len(ys):
        if links[row - 1] > 0:
            found.append(float(ys[row]))
    return found


def remaining(area: Area, heights: Sequence[float]) -> Area:
    """Return what QuPath keeps of an area that is cut at some heights.

    Source: JTS 1.20 ``Polygonizer(extractOnlyPolygonal=true)``.
    """
    if area.is_empty or not heights:
        return on_grid(area)
    left, _, right, _ = area.bounds
    chords = [LineString([(left - 1, y), (right + 1, y)]) for y in heights]
    lines = [area.boundary, *shapely.intersection(area, chords)]
    faces = _faces(lines, grid=GRID_PX)
    return on_grid(polygonal(shapely.union_all([faces[i] for i in _kept_faces(faces)])))


def on_grid(area: Area) -> Area:
    """Return an area with its vertices on QuPath's grid, valid and without empty parts."""
    rounded = shapely.transform(area, lambda xy: np.floor(xy / GRID_PX + 0.5) / (1 / GRID_PX))
    if rounded.is_valid:
        return polygonal(rounded)
    return polygonal(shapely.set_precision(area, GRID_PX))


def union(areas: Sequence[Area]) -> Area:
    """Return the union of areas, of which few meet: only those are computed with."""
    one, other = shapely.STRtree(areas).query(areas, predicate="intersects")
    group = np.array(_groups(len(areas), zip(one.tolist(), other.tolist(), strict=True)))
    order = np.argsort(group, kind="stable")
    groups = np.split(np.asarray(areas)[order], np.flatnonzero(np.diff(group[order])) + 1)
    return polygonal(
        shapely.geometrycollections(
            [g[0] if len(g) == 1 else shapely.union_all(g, grid_size=GRID_PX) for g in groups]
        )
    )


def polygonal(geometry: shapely.Geometry) -> Area:
    """Return the polygons of a geometry: one, several, or an empty one."""
    parts = [
        part
        for part in shapely.get_parts(shapely.get_parts(geometry))
        if isinstance(part, Polygon) and part.area > 0
    ]
    if len(parts) == 1:
        return parts[0]
    return MultiPolygon(parts) if parts else Polygon()


def _faces(lines: Sequence[shapely.Geometry], grid: float | None = None) -> list[Polygon]:
    noded = shapely.union_all(list(lines), grid_size=grid)
    return list(shapely.get_parts(shapely.polygonize(shapely.get_parts(noded).tolist())))


def _winding_numbers(closed: Points, points: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return how often a closed ring winds around points that are not on it."""
    edges = [LineString(pair) for pair in itertools.pairwise(closed)]
    xy = shapely.get_coordinates(points)
    left = np.full(len(xy), closed[:, 0].min() - 1)
    rays = shapely.linestrings(np.stack([np.stack([left, xy[:, 1]], axis=1), xy], axis=1))
    ray, edge = shapely.STRtree(edges).query(rays, predicate="intersects")
    y0, y1, y = closed[edge, 1], closed[edge + 1, 1], xy[ray, 1]
    turns = ((y0 <= y) & (y1 > y)).astype(np.int64) - ((y1 <= y) & (y0 > y))
    return np.bincount(ray, turns, minlength=len(xy)).astype(np.int64)


def _as_from_area(ring: Points) -> Points:
    """Return a closed ring as an ``Area`` hands it out: from its top, down the left side first."""
    vertex = ring[:-1]
    x, y = vertex.T
    if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) > 0:
        vertex = vertex[::-1]
    vertex = np.roll(vertex, -int(np.argmin(vertex[:, 1])), axis=0)
    return np.vstack([vertex, vertex[:1]])


def _slivers(ring: Points) -> NDArray[np.float64]:
    """Return the rows that ``AreaOp`` makes of rounding errors, as (top, bottom), shape [n, 2].

    Where two edges end in one vertex, both above it or both below, their intersection is computed
    and may come out a last bit inside both. From there to the vertex is a row of its own, in which
    the two count as equal and are not linked.
    """
    vertex = ring[:-1]
    back, ahead = np.roll(vertex, 1, axis=0), ring[1:]
    is_top = (back[:, 1] > vertex[:, 1]) & (ahead[:, 1] > vertex[:, 1])
    is_bottom = (back[:, 1] < vertex[:, 1]) & (ahead[:, 1] < vertex[:, 1])
    # The edge compared comes later on the path at a top, and lies to the right at a bottom.
    is_back = np.zeros(len(vertex), bool)
    is_back[:1] = True
    slope_back = (back - vertex)[:, 0] * (ahead - vertex)[:, 1]
    slope_ahead = (ahead - vertex)[:, 0] * (back - vertex)[:, 1]
    is_back = np.where(is_bottom, slope_back < slope_ahead, is_back)
    this = np.where(is_back[:, None], back, ahead)
    other = np.where(is_back[:, None], ahead, back)
    rows = []
    for chosen, is_upper in ((is_top, True), (is_bottom, False)):
        v, a, b = vertex[chosen], this[chosen], other[chosen]
        (xa, ya), (xb, yb) = (v.T, v.T) if is_upper else (a.T, b.T)
        end_a, end_b = (a, b) if is_upper else (v, v)
        dxa, dya = end_a[:, 0] - xa, end_a[:, 1] - ya
        dxb, dyb = end_b[:, 0] - xb, end_b[:, 1] - yb
        same_side = (a[:, 0] - v[:, 0]) * (b[:, 0] - v[:, 0]) > 0
        denominator = dxb * dya - dxa * dyb
        crossing = same_side & (denominator != 0)
        numerator = (xa - xb) * dya * dyb - ya * dxa * dyb + yb * dxb * dya
        y = numerator[crossing] / denominator[crossing]
        low = np.maximum(ya, yb)[crossing]
        high = np.minimum(end_a[:, 1], end_b[:, 1])[crossing]
        is_inside = (y > low) & (y < high)
        at_vertex = v[crossing][is_inside, 1]
        ends = (at_vertex, y[is_inside]) if is_upper else (y[is_inside], at_vertex)
        rows.append(np.stack(ends, axis=1))
    return np.concatenate(rows)


def _kept_faces(faces: Sequence[Polygon]) -> list[int]:
    """Return the faces that JTS' polygonizer keeps, so that none shares an edge with another.

    It starts with the leftmost face of each group that borders on the outside and alternates from
    there. Which neighbour decides about a hole that a cut runs through depends on hash order, and
    may differ from run to run in QuPath; such a hole is left out here.
    """
    owners: dict[Edge, list[int]] = defaultdict(list)
    for index, face in enumerate(faces):
        for ring in (face.exterior, *face.interiors):
            for edge in _ring_edges(ring):
                owners[edge].append(index)
    is_outer = [
        any(len(owners[edge]) == 1 for edge in _ring_edges(face.exterior)) for face in faces
    ]
    pairs = {(both[0], both[1]) for both in owners.values() if len(both) == 2}
    neighbours: list[list[int]] = [[] for _ in faces]
    for one, other in sorted(pairs):
        neighbours[one].append(other)
        neighbours[other].append(one)
    kept: dict[int, bool] = {}
    undecided = sorted(range(len(faces)), key=lambda index: faces[index].bounds)
    group = _groups(len(faces), pairs)
    started = set()
    for index in undecided:
        if is_outer[index] and group[index] not in started:
            started.add(group[index])
            kept[index] = True
    while undecided := [index for index in undecided if index not in kept]:
        n_before = len(kept)
        for index in undecided:
            decided = [kept[other] for other in neighbours[index] if other in kept]
            if decided:
                kept[index] = not any(decided)
        if len(kept) == n_before:
            break
    return [index for index in range(len(faces)) if kept.get(index, False)]


def _ring_edges(ring: LinearRing) -> list[Edge]:
    """Return the edges of a ring, each from its smaller to its larger end."""
    pairs = itertools.pairwise(ring.coords)
    return [(start, end) if start < end else (end, start) for start, end in pairs]


def _groups(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return which group of connected faces each face belongs to."""
    ends = np.array(list(pairs), np.int64).reshape(-1, 2).T
    matrix = scipy.sparse.coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(n, n))
    labels: NDArray[np.int32] = connected_components(matrix, directed=False)[1]
    return [int(label) for label in labels]
