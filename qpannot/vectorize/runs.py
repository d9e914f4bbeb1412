"""Masks as runs of equal pixels in their rows: a small part of the memory, in linear time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Labels = NDArray[np.uint8] | NDArray[np.bool_]
"""A class of each pixel, shape [height, width]; 0 and False are no class."""

BLOCK_PX = 1 << 24
"""Pixels worked on at a time, so that temporary arrays stay small beside a large mask."""


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of an image in blocks of about `BLOCK_PX` pixels."""
    step = max(1, BLOCK_PX // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``arange(start, start + count)`` of each pair, one after the other."""
    before = np.cumsum(counts) - counts
    offsets: NDArray[np.int64] = np.repeat(starts - before, counts)
    return offsets + np.arange(len(offsets))


@dataclass(frozen=True)
class Runs:
    """Longest runs of equal pixels, ordered by rows and columns; pixels of no class have none.

    Parameters
    ----------
    rows, starts, stops
        Shape [n], int64: the row, the first column and the one after the last.
    values
        Shape [n], uint8: the class.
    shape
        Height and width of the mask.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    values: NDArray[np.uint8]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Runs:
        return Runs(
            self.rows[chosen],
            self.starts[chosen],
            self.stops[chosen],
            self.values[chosen],
            self.shape,
        )

    @property
    def stride(self) -> int:
        """What tells the rows apart in `begins` and `ends`: one more than the width."""
        return self.shape[1] + 1

    @property
    def begins(self) -> NDArray[np.int64]:
        """Ascending keys of the left ends."""
        return self.rows * self.stride + self.starts

    @property
    def ends(self) -> NDArray[np.int64]:
        """Ascending keys of the right ends."""
        return self.rows * self.stride + self.stops

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Pixels of each run."""
        return self.stops - self.starts


def runs_of(labels: Labels) -> Runs:
    """Return the runs of a mask."""
    height, width = labels.shape
    rows, starts, stops, values = [], [], [], []
    for block in row_blocks(labels.shape):
        part = labels[block].view(np.uint8) if labels.dtype == bool else labels[block]
        padded = np.zeros((len(part), width + 2), np.uint8)
        padded[:, 1:-1] = part
        changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])
        row, column = np.divmod(changes, width + 1)
        value = padded[row, column + 1]  # of what begins there; nothing does at the right border
        is_run = value > 0
        rows.append(row[is_run] + block.start)
        starts.append(column[is_run])
        stops.append(column[np.flatnonzero(is_run) + 1])
        values.append(value[is_run])
    if not rows:
        empty = np.zeros(0, np.int64)
        return Runs(empty, empty, empty, empty.astype(np.uint8), (height, width))
    return Runs(
        np.concatenate(rows),
        np.concatenate(starts),
        np.concatenate(stops),
        np.concatenate(values),
        (height, width),
    )


def gaps(runs: Runs) -> Runs:
    """Return the runs of the pixels that are in none, with the value 1."""
    height, width = runs.shape
    rows = np.arange(height) * runs.stride
    begins = np.sort(np.concatenate([rows, runs.ends]), kind="stable")
    ends = np.sort(np.concatenate([runs.begins, rows + width]), kind="stable")
    is_gap = begins < ends
    row, starts = np.divmod(begins[is_gap], runs.stride)
    stops = ends[is_gap] - row * runs.stride
    return Runs(row, starts, stops, np.ones(len(row), np.uint8), runs.shape)


def components(runs: Runs) -> tuple[int, NDArray[np.int32]]:
    """Return the number of 4-connected components of equal class, and that of each run."""
    above, below = _overlaps(runs, touching=False)
    is_same = runs.values[above] == runs.values[below]
    return _connected(len(runs), above[is_same], below[is_same])


def surroundings(runs: Runs) -> tuple[Runs, int, NDArray[np.int32]]:
    """Return the runs of what surrounds the parts of a class, its components and that of each run.

    It is 8-connected, but not through a corner between two pixels of one part: what lies on either
    side is divided by that part.

    Parameters
    ----------
    runs
        Of one class.
    """
    around = gaps(runs)
    _, part = components(runs)
    if len(runs) == 0:
        return around, *_connected(len(around), *_overlaps(around, touching=True))
    before = part[np.searchsorted(runs.ends, around.begins).clip(max=len(runs) - 1)]
    after = part[np.searchsorted(runs.begins, around.ends).clip(max=len(runs) - 1)]
    above, below = _overlaps(around, touching=True)
    falls = (around.stops[above] == around.starts[below]) & (after[above] == before[below])
    rises = (around.starts[above] == around.stops[below]) & (before[above] == after[below])
    is_open = ~(falls | rises)
    return around, *_connected(len(around), above[is_open], below[is_open])


def _overlaps(runs: Runs, *, touching: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of runs of a row and the next that share columns, or touch at a corner."""
    begins, ends = runs.begins, runs.ends
    low = np.searchsorted(ends, begins + runs.stride, side="left" if touching else "right")
    high = np.searchsorted(begins, ends + runs.stride, side="right" if touching else "left")
    counts = np.maximum(high - low, 0)
    return np.repeat(np.arange(len(runs)), counts), ranges(low, counts)


def _connected(
    n: int, these: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[int, NDArray[np.int32]]:
    links = np.ones(len(these), np.uint8)
    graph = sparse.coo_array((links, (these, others)), shape=(n, n))
    found, component = sparse.csgraph.connected_components(graph, directed=False)
    return int(found), component


def areas(runs: Runs, component: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    """Return the pixels of each component."""
    return np.bincount(component, weights=runs.lengths, minlength=n).astype(np.int64)


def pixels(runs: Runs) -> Iterator[NDArray[np.int64]]:
    """Yield the pixels of runs as indices into the flat mask, some millions at a time."""
    filled = np.cumsum(runs.lengths)
    first = 0
    while first < len(runs):
        done = filled[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(filled, done + BLOCK_PX)))
        part = slice(first, last)
        starts = runs.rows[part] * runs.shape[1] + runs.starts[part]
        yield ranges(starts, runs.lengths[part])
        first = last
