"""Exact area filtering, one axis at a time.

An output pixel covers an interval of source pixels on each axis; its value is the mean of the
source over the rectangle of both intervals, each source pixel weighted by the part of it that is
covered. What is covered outside the image counts as white. Pillow's ``BOX`` is something else: it
takes or leaves whole source pixels by their centres.

Interval ends are rounded to a fixed fraction of a source pixel, and a pixel's weights depend on
nothing but where it lies. A region read in tiles therefore equals the region read whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from qpannot.slide.image import Pixels

UPSAMPLING = 1 / 1.01
"""Below this pitch, in source pixels, values are interpolated rather than averaged."""

BLOCK_PX = 2048
"""Source pixels read at once on each axis: some 100 MB with everything derived from them."""

UNIT = 4096
"""Parts of a source pixel to which interval ends are rounded, so that float noise has no say."""

ROUND_UP = np.float32(0.5 + 1e-3)
"""Added before cutting off decimals: values at a half go up, whatever float32 made of them."""

WHITE = 255


class Axis:
    """How the output pixels of one axis draw on its source pixels.

    Parameters
    ----------
    start
        Where the first output pixel begins, in source pixels; may be negative.
    pitch
        Source pixels per output pixel. Below 1 the axis interpolates linearly between the centres
        of source pixels, and an output pixel is white when its centre is outside the image.
    count
        Number of output pixels.
    low, high
        Where the image begins and ends, in source pixels.
    n_source
        Number of source pixels. The last one stands for whatever ``high`` says is beyond it.
    """

    def __init__(
        self, start: float, pitch: float, count: int, low: float, high: float, n_source: int
    ) -> None:
        self.count = count
        self._step = min(BLOCK_PX, max(1, int((BLOCK_PX - 2) / pitch)))
        lowest, highest = round(low * UNIT), round(high * UNIT)
        edges = start + np.arange(count + 1) * pitch
        if pitch < UPSAMPLING:
            centres = (edges[:-1] + edges[1:]) / 2
            is_inside = (centres >= low) & (centres < high)
            begin = np.rint((centres - 0.5) * UNIT).astype(np.int64)
            end = np.where(is_inside, begin + UNIT, begin)
            self.covered = np.full(count, UNIT, np.int64)
            self.inside = end - begin
            self.is_copy = False
            self._first_valid = math.floor(low)
            self._last_valid = max(self._first_valid, math.ceil(high) - 1)
        else:
            ends = np.rint(edges * UNIT).astype(np.int64)
            begin, end = np.clip(ends[:-1], lowest, highest), np.clip(ends[1:], lowest, highest)
            self.covered = np.diff(ends)
            self.inside = end - begin
            self.is_copy = bool(
                np.all(self.covered == UNIT)
                and np.all(begin % UNIT == 0)
                and np.all(self.inside % UNIT == 0)
            )
            self._first_valid, self._last_valid = 0, n_source - 1
        self._last_valid = min(self._last_valid, n_source - 1)
        self._begin, self._end = begin, end

    def blocks(self) -> Iterator[slice]:
        """Yield runs of output pixels whose source fits a block, or single ones."""
        for first in range(0, self.count, self._step):
            yield slice(first, min(first + self._step, self.count))

    def source(self, block: slice) -> range:
        """Return the source pixels that a run of output pixels draws on; may be empty."""
        used = self.inside[block] > 0
        if not used.any():
            return range(0)
        first = int(self._begin[block][used].min()) // UNIT
        last = -(-int(self._end[block][used].max()) // UNIT) - 1
        return range(self._clamp(first), self._clamp(last) + 1)

    def _clamp(self, index: int) -> int:
        return min(max(index, self._first_valid), self._last_valid)

    def weights(self, block: slice, source: range) -> scipy.sparse.csr_array:
        """Return the weights, shape [output, source], of source pixels for output pixels.

        An output pixel's weights sum to the part of it that is inside the image.
        """
        begin, end, covered = self._begin[block], self._end[block], self.covered[block]
        first = begin // UNIT
        n_taps = np.where(end > begin, -(-end // UNIT) - first, 0)
        rows = np.repeat(np.arange(len(begin)), n_taps)
        taps = np.arange(len(rows)) - np.repeat(np.cumsum(n_taps) - n_taps, n_taps) + first[rows]
        overlap = np.minimum(end[rows], (taps + 1) * UNIT) - np.maximum(begin[rows], taps * UNIT)
        values = (overlap / covered[rows]).astype(np.float32)
        taps = np.clip(taps, self._first_valid, self._last_valid) - source.start
        here = (taps >= 0) & (taps < len(source))
        pointers = np.concatenate([[0], np.cumsum(np.bincount(rows[here], minlength=len(begin)))])
        shape = (len(begin), len(source))
        return scipy.sparse.csr_array((values[here], taps[here], pointers), shape=shape)

    def share_inside(self, block: slice) -> NDArray[np.float32]:
        """Return the part of each output pixel that is inside the image, shape [output]."""
        return (self.inside[block] / self.covered[block]).astype(np.float32)


def resample(
    read: Callable[[int, int, int, int], Pixels], horizontal: Axis, vertical: Axis
) -> Pixels:
    """Return the pixels that two axes describe.

    Memory is that of the output and of a few source blocks, however large the source is.

    Parameters
    ----------
    read
        Returns RGB pixels of the source for (x, y, width, height). Where they need no averaging
        they are handed on as they are, without a copy.
    """
    out = np.full((vertical.count, horizontal.count, 3), WHITE, np.uint8)
    is_copy = horizontal.is_copy and vertical.is_copy
    for rows in vertical.blocks():
        ys = vertical.source(rows)
        for columns in horizontal.blocks():
            xs = horizontal.source(columns)
            if not ys or not xs:
                continue
            if is_copy:
                top = int(np.argmax(vertical.inside[rows] > 0)) + rows.start
                left = int(np.argmax(horizontal.inside[columns] > 0)) + columns.start
                pixels = read(xs.start, ys.start, len(xs), len(ys))
                if pixels.shape == out.shape:
                    return pixels
                out[top : top + len(ys), left : left + len(xs)] = pixels
            else:
                out[rows, columns] = _averaged(read, horizontal, vertical, columns, rows, xs, ys)
    return out


def _averaged(
    read: Callable[[int, int, int, int], Pixels],
    horizontal: Axis,
    vertical: Axis,
    columns: slice,
    rows: slice,
    xs: range,
    ys: range,
) -> Pixels:
    height, width = rows.stop - rows.start, columns.stop - columns.start
    total = np.zeros((width, 3 * height), np.float32)
    for y in range(ys.start, ys.stop, BLOCK_PX):
        y_part = range(y, min(y + BLOCK_PX, ys.stop))
        y_weights = vertical.weights(rows, y_part)
        for x in range(xs.start, xs.stop, BLOCK_PX):
            x_part = range(x, min(x + BLOCK_PX, xs.stop))
            pixels = read(x_part.start, y_part.start, len(x_part), len(y_part))
            lines = y_weights @ pixels.reshape(len(y_part), -1).astype(np.float32)
            # From [row, column x channel] to [column, channel x row]: the other axis first.
            turned = np.ascontiguousarray(lines.T).reshape(len(x_part), 3 * height)
            total += horizontal.weights(columns, x_part) @ turned
    inside = np.outer(horizontal.share_inside(columns), np.tile(vertical.share_inside(rows), 3))
    if inside.min() < 1:
        total += WHITE * (1 - inside)
    total += ROUND_UP
    levels = total.astype(np.uint8).reshape(width * 3, height)
    return np.ascontiguousarray(levels.T).reshape(height, width, 3)
