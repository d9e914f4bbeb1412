"""Outlines cut into the pieces that neighbours share, so that both stay the same when smoothed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpannot.vectorize.runs import Labels, ranges, row_blocks
from qpannot.vectorize.tracing import Corners, Rings

HORIZONTAL, VERTICAL = 0, 1


@dataclass(frozen=True)
class Arcs:
    """The borders of a mask between junctions, each of them once.

    Parameters
    ----------
    corners
        The corners of all arcs, one after the other, each from its first to its last; shape [n, 2].
    offsets
        Shape [arcs + 1]: where each arc begins in ``corners``.
    is_loop
        Shape [arcs]: whether it is a whole ring without a junction. The first corner of a loop is
        repeated as its last.
    used, is_backward
        Which arcs the rings are made of, ring by ring, and which are walked from their end.
    ring_offsets
        Shape [rings + 1]: where each ring begins in ``used``.
    """

    corners: Corners
    offsets: NDArray[np.int64]
    is_loop: NDArray[np.bool_]
    used: NDArray[np.int64]
    is_backward: NDArray[np.bool_]
    ring_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.is_loop)


def junctions(labels: Labels) -> Corners:
    """Return the corners (column, row) of pixels in which more than two borders meet, by rows."""
    found = []
    height, width = labels.shape
    for block in row_blocks((height + 1, width)):
        above = max(0, block.start - 1)
        padded = np.zeros((block.stop - block.start + 1, width + 2), labels.dtype)
        part = labels[above : block.stop]
        first = above - block.start + 1
        padded[first : first + len(part), 1:-1] = part
        across = padded[:, 1:] != padded[:, :-1]
        along = padded[1:] != padded[:-1]
        borders = across[1:].astype(np.uint8)
        for each in (across[:-1], along[:, 1:], along[:, :-1]):
            borders += each
        rows, columns = np.nonzero(borders > 2)
        found.append(np.stack([columns, rows + block.start], axis=1).astype(np.int32))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int32)


def cut(rings: Rings, at: Corners, shape: tuple[int, int]) -> Arcs:
    """Return the arcs of rings between junctions.

    Parameters
    ----------
    rings
        The outlines of all parts of a mask.
    at
        Its `junctions`.
    shape
        Its height and width.
    """
    corners, offsets = _with_junctions(rings, at, shape)
    stride = shape[1] + 1
    keys = corners[:, 1].astype(np.int64) * stride + corners[:, 0]
    is_junction = np.isin(keys, at[:, 1].astype(np.int64) * stride + at[:, 0])
    # Each ring begins at its first junction, or at its first corner by rows if it has none.
    rank = np.where(is_junction, keys - shape[0] * stride - stride, keys)
    lengths = np.diff(offsets)
    best = np.repeat(np.minimum.reduceat(rank, offsets[:-1]), lengths) if len(rank) else rank
    begins = np.flatnonzero(rank == best) - offsets[:-1]
    step = ranges(np.zeros_like(lengths), lengths + 1) + np.repeat(begins, lengths + 1)
    walk = np.repeat(offsets[:-1], lengths + 1) + step % np.repeat(lengths, lengths + 1)

    ring_starts = np.concatenate([[0], np.cumsum(lengths + 1)])
    is_cut = is_junction[walk]
    is_cut[ring_starts[:-1]] = is_cut[ring_starts[1:] - 1] = True
    cuts = np.flatnonzero(is_cut)
    is_arc = np.ones(len(cuts), bool)
    is_arc[np.searchsorted(cuts, ring_starts[1:] - 1)] = False
    starts = cuts[is_arc]
    stops = cuts[np.flatnonzero(is_arc) + 1]

    points = corners[walk]
    forward = _code(points[starts], points[starts + 1], stride)
    backward = _code(points[stops], points[stops - 1], stride)
    _, chosen, used = np.unique(
        np.minimum(forward, backward), return_index=True, return_inverse=True
    )
    counts = (stops - starts + 1)[chosen]
    return Arcs(
        corners=points[ranges(starts[chosen], counts)],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        is_loop=~is_junction[walk][starts[chosen]],
        used=used,
        is_backward=forward != forward[chosen][used],
        ring_offsets=np.searchsorted(starts, ring_starts),
    )


def _code(corner: Corners, towards: Corners, stride: int) -> NDArray[np.int64]:
    """Return a number for each step from a corner in a direction: no two arcs begin with one."""
    dx, dy = np.sign(towards - corner).astype(np.int64).T
    place = corner[:, 1].astype(np.int64) * stride + corner[:, 0]
    return np.asarray(place * 9 + 3 * (dy + 1) + dx + 1)


def _with_junctions(
    rings: Rings, at: Corners, shape: tuple[int, int]
) -> tuple[Corners, NDArray[np.int64]]:
    """Return the corners and offsets of rings with the junctions on straight edges put in."""
    corners = rings.corners.astype(np.int64)
    follower = np.arange(1, len(corners) + 1)
    follower[rings.offsets[1:] - 1] = rings.offsets[:-1]
    ends = corners[follower]
    counts = np.zeros(len(corners), np.int64)
    inserted: list[tuple[NDArray[np.int64], NDArray[np.int64], Corners]] = []
    for axis in (HORIZONTAL, VERTICAL):
        stride = max(shape) + 1
        keys = at[:, 1 - axis].astype(np.int64) * stride + at[:, axis]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        edges = np.arange(axis, len(corners), 2)
        line = corners[edges, 1 - axis] * stride
        here, there = corners[edges, axis], ends[edges, axis]
        low = np.searchsorted(keys, line + np.minimum(here, there), side="right")
        high = np.searchsorted(keys, line + np.maximum(here, there), side="left")
        n = high - low
        counts[edges] = n
        step = ranges(np.zeros_like(n), n)
        is_ascending = np.repeat(there > here, n)
        which = np.where(is_ascending, np.repeat(low, n) + step, np.repeat(high, n) - 1 - step)
        inserted.append((np.repeat(edges, n), step, at[order[which]]))
    if not counts.any():
        return rings.corners, rings.offsets
    place = np.concatenate([[0], np.cumsum(counts + 1)])
    joined = np.empty((place[-1], 2), np.int32)
    joined[place[:-1]] = rings.corners
    for edges, step, points in inserted:
        joined[place[edges] + 1 + step] = points
    return joined, place[rings.offsets]
