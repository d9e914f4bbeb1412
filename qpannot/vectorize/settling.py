"""Smooth, simple outlines that still neither cross nor swallow each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from qpannot.vectorize.arcs import Arcs
from qpannot.vectorize.runs import ranges
from qpannot.vectorize.smoothing import MovedLines
from qpannot.vectorize.tracing import Rings, build_polygons

DECIMALS = 2
"""QuPath reads coordinates on a grid of 0.01 pixels and checks polygons after that."""

PIECE_VERTICES = 64
"""A piece of an arc that settles by itself has about as many vertices before it is simplified."""

BATCH_PIECES = 1 << 14
"""Pieces are drawn by so many at a time, so that memory stays small."""

MIN_PIECES_OF_A_RING = 4
"""A ring in one arc has as many: their ends stay, so that it cannot be simplified to nothing."""

STRENGTHS = np.array([1, 0.5, 0.25, 0])
"""The part of smoothing and simplification a piece gets, one less each time it is in the way. At
the last the outline is the mask's own, and those do not cross."""

BARE = len(STRENGTHS) - 1


@dataclass(frozen=True)
class _Pieces:
    """Parts of arcs: shape [pieces] each, the vertices from ``first`` to ``last`` inclusive."""

    arc: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]


def settled_polygons(
    rings: Rings, arcs: Arcs, lines: MovedLines, n: int, *, simplify: float, reach: float
) -> NDArray[np.object_]:
    """Return the polygon of each component, as smooth and simple as its neighbours allow.

    Pieces of outlines that cross others, or make one outline slip over another, are smoothed and
    simplified less and less until they do not. So the polygons are valid, the inner parts of two
    never overlap, and borders that two of them share have the same vertices in both.

    Parameters
    ----------
    rings, arcs
        The outlines of the components, and what they are made of.
    lines
        The vertices of the arcs with the moves that make them smooth.
    n
        The number of components.
    simplify
        How far the simplified outline may lie from the smoothed one, in full-resolution pixels.
    reach
        How far it may lie from the mask's.

    Returns
    -------
    array of Polygon, shape [n]
        Full-resolution pixels on QuPath's grid.
    """
    if n == 0:
        return np.empty(0, object)
    pieces = _cut_up(arcs, lines)
    levels = np.zeros(len(pieces.arc), np.int64)
    drawn: NDArray[np.object_] = np.empty(len(levels), object)
    changed = np.arange(len(levels))
    while True:
        for first in range(0, len(changed), BATCH_PIECES):
            batch = changed[first : first + BATCH_PIECES]
            drawn[batch] = _drawn(pieces, lines, levels, batch, simplify)
        in_the_way = _crossing(drawn, changed)
        is_raised = np.zeros(len(levels), np.int64)
        is_raised[in_the_way] = 1
        if not np.any(is_raised[levels < BARE]):
            points, offsets, polygons, flipped = _assembled(rings, arcs, pieces, drawn, n)
            where = _slipped(polygons, points, offsets, flipped, reach)
            if len(where):
                tree = shapely.STRtree(drawn)
                is_raised[tree.query(where, predicate="intersects")[1]] = BARE
        raised = np.minimum(levels + is_raised, BARE)
        risen = np.flatnonzero(raised > levels)
        if not len(risen):
            return polygons
        levels = raised
        changed = np.unique(np.concatenate([risen, pieces.before[risen], pieces.after[risen]]))


def _cut_up(arcs: Arcs, lines: MovedLines) -> _Pieces:
    edges = np.diff(lines.offsets) - 1
    ends = arcs.corners[arcs.offsets[1:] - 1]
    is_ring = (arcs.corners[arcs.offsets[:-1]] == ends).all(axis=1)
    counts = np.maximum(-(-edges // PIECE_VERTICES), np.where(is_ring, MIN_PIECES_OF_A_RING, 1))
    arc = np.repeat(np.arange(len(arcs)), counts)
    step = ranges(np.zeros_like(counts), counts)
    first = lines.offsets[arc] + edges[arc] * step // counts[arc]
    last = lines.offsets[arc] + edges[arc] * (step + 1) // counts[arc]
    index = np.arange(len(arc))
    is_first, is_last = step == 0, step == counts[arc] - 1
    around = counts[arc] - 1
    is_loop = arcs.is_loop[arc]
    before = np.where(is_first, np.where(is_loop, index + around, index), index - 1)
    after = np.where(is_last, np.where(is_loop, index - around, index), index + 1)
    return _Pieces(arc, first, last, before, after)


def _drawn(
    pieces: _Pieces,
    lines: MovedLines,
    levels: NDArray[np.int64],
    chosen: NDArray[np.int64],
    simplify: float,
) -> NDArray[np.object_]:
    """Return chosen pieces as lines. The strength goes over from that of one piece to the next."""
    strength = STRENGTHS[levels]
    at_first = np.minimum(strength[chosen], strength[pieces.before[chosen]])
    at_last = np.minimum(strength[chosen], strength[pieces.after[chosen]])
    counts = pieces.last[chosen] - pieces.first[chosen] + 1
    step = ranges(np.zeros_like(counts), counts)
    part = step / np.repeat(counts - 1, counts)
    factor = np.repeat(at_first, counts) * (1 - part) + np.repeat(at_last, counts) * part
    vertices = np.repeat(pieces.first[chosen], counts) + step
    points = np.round(lines.points[vertices] + factor[:, None] * lines.moves[vertices], DECIMALS)
    drawn = shapely.linestrings(points, indices=np.repeat(np.arange(len(chosen)), counts))
    simplified: NDArray[np.object_] = shapely.simplify(
        drawn, simplify * strength[chosen], preserve_topology=False
    )
    return simplified


def _crossing(drawn: NDArray[np.object_], changed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pieces that meet themselves or others anywhere but end to end."""
    tree = shapely.STRtree(drawn)
    which, others = tree.query(drawn[changed], predicate="intersects")
    these = changed[which]
    is_changed = np.zeros(len(drawn), bool)
    is_changed[changed] = True
    once = (these < others) | (~is_changed[others])
    these, others = these[once], others[once]
    is_fine = shapely.relate_pattern(drawn[these], drawn[others], "FF*F*****")
    tangled = changed[~shapely.is_simple(drawn[changed])]
    return np.concatenate([these[~is_fine], others[~is_fine], tangled])


def _assembled(
    rings: Rings, arcs: Arcs, pieces: _Pieces, drawn: NDArray[np.object_], n: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.object_], NDArray[np.object_]]:
    """Return the points and offsets of the settled arcs, the polygons, and the turned rings."""
    vertices, piece = shapely.get_coordinates(drawn, return_index=True)
    is_repeated = np.zeros(len(vertices), bool)
    is_repeated[1:] = (piece[1:] != piece[:-1]) & (pieces.arc[piece[1:]] == pieces.arc[piece[:-1]])
    vertices, arc = vertices[~is_repeated], pieces.arc[piece[~is_repeated]]
    offsets = np.searchsorted(arc, np.arange(len(arcs) + 1))
    counts = np.diff(offsets)[arcs.used] - 1
    step = ranges(np.zeros_like(counts), counts)
    begin = np.where(arcs.is_backward, offsets[1:][arcs.used] - 1, offsets[:-1][arcs.used])
    way = np.where(arcs.is_backward, -1, 1)
    points = vertices[np.repeat(begin, counts) + step * np.repeat(way, counts)]
    ring_offsets = np.concatenate([[0], np.cumsum(counts)])[arcs.ring_offsets]
    polygons = build_polygons(points, ring_offsets, rings.components, n)
    owner = np.repeat(np.arange(len(rings.components)), np.diff(ring_offsets))
    outlines = shapely.linearrings(points, indices=owner)
    is_hole = np.concatenate([[False], rings.components[1:] == rings.components[:-1]])
    # Walked with the part at the right as seen on a screen, a shell is "counter-clockwise" in
    # coordinates whose y points up.
    is_turned = shapely.is_ccw(outlines) == is_hole
    return vertices, offsets, polygons, outlines[is_turned]


def _slipped(
    polygons: NDArray[np.object_],
    vertices: NDArray[np.float64],
    offsets: NDArray[np.int64],
    flipped: NDArray[np.object_],
    reach: float,
) -> NDArray[np.object_]:
    """Return boxes in which an outline, without crossing any, came to lie beyond another one."""
    is_valid = shapely.is_valid(polygons)
    middles = shapely.points(vertices[(offsets[:-1] + offsets[1:]) // 2])
    inside = shapely.STRtree(middles).query(polygons[is_valid], predicate="contains_properly")[1]
    stray = [
        *(shapely.linestrings(vertices[offsets[arc] : offsets[arc + 1]]) for arc in set(inside)),
        *(hole for polygon in polygons[~is_valid] for hole in _lost_holes(polygon)),
        *flipped,
    ]
    if not stray:
        return np.empty(0, object)
    left, top, right, bottom = shapely.bounds(stray).T
    boxes: NDArray[np.object_] = shapely.box(
        left - reach, top - reach, right + reach, bottom + reach
    )
    return boxes


def _lost_holes(polygon: shapely.Polygon) -> list[shapely.LinearRing]:
    """Return the holes of an invalid polygon that are not where holes belong."""
    shell = shapely.Polygon(polygon.exterior)
    outside = [hole for hole in polygon.interiors if not shell.contains(hole)]
    return outside or list(polygon.interiors) or [polygon.exterior]
