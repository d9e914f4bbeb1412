"""The outlines of the parts of a mask, along the edges of its pixels and without loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.vectorize.runs import Labels, Runs, components, ranges, runs_of

Corners = NDArray[np.int32]
"""Corners (column, row) of pixels, shape [n, 2]."""


@dataclass(frozen=True)
class Rings:
    """Closed outlines, ordered by component with the shell of each before its holes.

    Shells have their component at the right hand as they are walked (clockwise as seen on a
    screen), and holes do as well. No ring meets a corner twice.

    Parameters
    ----------
    corners
        The corners of all rings, one after the other; the first of a ring is not repeated. A ring
        begins with a horizontal edge, and the directions alternate.
    offsets
        Shape [rings + 1]: where each ring begins in ``corners``.
    components
        Shape [rings]: what each ring belongs to.
    """

    corners: Corners
    offsets: NDArray[np.int64]
    components: NDArray[np.int64]


def polygons_of(labels: Labels, affine: Affine) -> list[tuple[int, shapely.Polygon]]:
    """Return the parts of a mask as polygons that cover exactly its pixels.

    Parameters
    ----------
    labels
        Class of each pixel, shape [height, width], uint8 or bool; 0 is no class.
    affine
        Where the mask lies on the slide.

    Returns
    -------
    list of (class, polygon)
        One for each 4-connected part, in the order a scan of the rows meets them. What a part
        encloses is a hole of it, also where it touches what is outside at a corner. The polygons
        are valid and in full-resolution pixels.
    """
    runs = runs_of(labels)
    n, component = components(runs)
    rings = trace(runs, component)
    polygons = build_polygons(affine.to_slide(rings.corners), rings.offsets, rings.components, n)
    values = np.zeros(n, np.uint8)
    values[component] = runs.values
    return list(zip(values.tolist(), polygons.tolist(), strict=True))


def build_polygons(
    points: NDArray[np.float64],
    offsets: NDArray[np.int64],
    components: NDArray[np.int64],
    n: int,
) -> NDArray[np.object_]:
    """Return the polygon of each component from its rings, the shell being the first.

    Parameters
    ----------
    points
        Shape [n, 2].
    offsets, components, n
        As in `Rings`; and the number of components.
    """
    if n == 0:
        return np.empty(0, object)
    ring_of_point = np.repeat(np.arange(len(components)), np.diff(offsets))
    rings = shapely.linearrings(points, indices=ring_of_point)
    return np.asarray(shapely.polygons(np.asarray(rings), indices=components), object)


def trace(runs: Runs, component: NDArray[np.int32]) -> Rings:
    """Return the outlines of the 4-connected components of a mask, in linear time but for a sort.

    Each class is traced by itself, so that a border between two of them is walked twice.

    Parameters
    ----------
    runs
        Of the mask.
    component
        Shape [runs]: the component of each.
    """
    classes = [runs.values == value for value in np.unique(runs.values)]
    traced = [_trace_class(runs[chosen], component[chosen]) for chosen in classes]
    if not traced:
        nothing = np.zeros(0, np.int64)
        return Rings(np.zeros((0, 2), np.int32), np.zeros(1, np.int64), nothing)
    corners, lengths, owners = zip(*traced, strict=True)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return _by_component(np.concatenate(corners), offsets, np.concatenate(owners))


def _trace_class(
    runs: Runs, component: NDArray[np.int32]
) -> tuple[Corners, NDArray[np.int64], NDArray[np.int64]]:
    """Return the corners of all rings, the length of each, and the component of each.

    Where the ends of runs differ from those of the row above there are corners, each of them the
    end of one horizontal and one vertical edge. Ordered by rows they pair up into the horizontal
    edges, ordered by columns into the vertical ones, and an outline alternates between the two.
    """
    keys = np.empty(2 * len(runs), np.int64)
    keys[0::2], keys[1::2] = runs.begins, runs.ends
    # On the line above each row: the ends of its runs, then those of the runs of the row above.
    both = np.concatenate([keys, keys + runs.stride])
    order = np.argsort(both, kind="stable")
    both = both[order]
    is_below = order < len(keys)
    is_begin = order % 2 == 0
    owner = component[order % len(keys) // 2]
    is_shared = both[1:] == both[:-1]
    is_straight = is_shared & (is_begin[1:] == is_begin[:-1])
    # Where two pixels touch at a corner only, there are two: first that of the edge at the left.
    # It goes with the edge above or the one below, such that the pixels are kept apart if they are
    # of two components, and the background beside them if they are of one.
    left = np.flatnonzero(is_shared & ~is_straight)
    right = left + 1
    is_rising = is_begin[right]
    is_one_part = owner[left] == owner[right]
    goes_down = np.zeros(len(both), bool)
    goes_down[left] = is_rising ^ is_one_part
    goes_down[right] = ~goes_down[left]
    falling = left[~is_rising]
    owner[falling], owner[falling + 1] = owner[falling + 1], owner[falling]
    is_corner = np.ones(len(both), bool)
    is_corner[:-1] &= ~is_straight
    is_corner[1:] &= ~is_straight

    rows, columns = np.divmod(both[is_corner], runs.stride)
    corners = np.stack([columns, rows], axis=1).astype(np.int32)
    by_column = np.argsort(
        (columns * (runs.shape[0] + 1) + rows) * 2 + goes_down[is_corner], kind="stable"
    )
    vertical = np.empty(len(corners), np.int64)
    vertical[by_column[0::2]] = by_column[1::2]
    vertical[by_column[1::2]] = by_column[0::2]
    # Walked with the part at the right: the top edges of pixels to the right, others to the left.
    is_top = (is_below == is_begin)[is_corner][0::2]
    first = np.arange(0, len(corners), 2)
    start, stop = first + ~is_top, first + is_top
    edges, lengths = _follow((vertical[stop] // 2).tolist())
    walked = np.empty((2 * len(edges), 2), np.int32)
    walked[0::2], walked[1::2] = corners[start[edges]], corners[stop[edges]]
    edge_of_ring = edges[np.cumsum(lengths) - lengths]
    return walked, 2 * lengths, owner[is_corner][2 * edge_of_ring].astype(np.int64)


def _follow(successors: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cycles of a permutation, one after the other, and their lengths.

    A loop in Python takes a third of the time of scipy's graph traversal here.
    """
    visited: list[int] = []
    lengths: list[int] = []
    is_seen = bytearray(len(successors))
    for first in range(len(successors)):
        if is_seen[first]:
            continue
        before = len(visited)
        each = first
        while not is_seen[each]:
            is_seen[each] = 1
            visited.append(each)
            each = successors[each]
        lengths.append(len(visited) - before)
    return np.array(visited, np.int64), np.array(lengths, np.int64)


def _by_component(
    corners: Corners, offsets: NDArray[np.int64], component: NDArray[np.int64]
) -> Rings:
    x, y = corners.astype(np.int64).T
    below_edges = y[0::2] * (x[0::2] - x[1::2])
    areas = np.add.reduceat(below_edges, offsets[:-1] // 2)
    order = np.lexsort((areas < 0, component))
    lengths = np.diff(offsets)[order]
    index = ranges(offsets[:-1][order], lengths)
    return Rings(corners[index], np.concatenate([[0], np.cumsum(lengths)]), component[order])
