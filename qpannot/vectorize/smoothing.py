"""Staircases made smooth: how far each corner of an outline moves, within a bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.vectorize.arcs import Arcs
from qpannot.vectorize.runs import ranges

SAMPLES_PER_BOUND = 3
"""Points taken from an outline on the length of the bound, at least."""

SIGMA_SAMPLES = 6
"""Standard deviation of the Gaussian in samples: twice the bound."""

REACH = 32
"""Half the width of the kernel in samples."""

BATCH_CORNERS = 1 << 19
"""Arcs are smoothed by so many corners at a time, so that memory stays small."""

MIN_SAMPLES = 2 * REACH
"""A small outline is sampled more finely and so smoothed less: over a tenth of its length."""


@dataclass(frozen=True)
class MovedLines:
    """The vertices of arcs, and where smoothing would move them.

    Parameters
    ----------
    points
        Where they lie on the arcs, shape [n, 2], in full-resolution pixels.
    moves
        How far they would move, of the same shape; nothing at the ends of arcs that are no loops.
    offsets
        Shape [arcs + 1]: where each arc begins in both.
    """

    points: NDArray[np.float64]
    moves: NDArray[np.float64]
    offsets: NDArray[np.int64]


def smooth(arcs: Arcs, points: NDArray[np.float64], bound: float) -> MovedLines:
    """Return arcs with the moves that make them smooth.

    An arc is averaged along its length by a Gaussian whose shrinkage is taken back to the second
    order (``2 G - G * G``). As its vertices are all its corners and samples between them, and none
    moves farther than the bound, the straight pieces between the moved ones lie within the bound of
    the straight pieces between the old ones, and the other way round: so do the whole outlines
    (Fréchet distance, hence Hausdorff distance).

    Parameters
    ----------
    arcs
        Borders between junctions.
    points
        Their corners in full-resolution pixels, shape [corners, 2].
    bound
        How far anything may move, in full-resolution pixels.
    """
    if bound <= 0 or len(arcs) == 0:
        return MovedLines(points, np.zeros_like(points), arcs.offsets)
    batch = arcs.offsets[:-1] // BATCH_CORNERS
    firsts = np.flatnonzero(np.diff(batch, prepend=-1))
    parts = []
    for first, last in zip(firsts, [*firsts[1:], len(arcs)], strict=True):
        offsets = arcs.offsets[first : last + 1]
        part = points[offsets[0] : offsets[-1]]
        parts.append(_smooth(part, offsets - offsets[0], arcs.is_loop[first:last], bound))
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return MovedLines(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.moves for part in parts]),
        np.concatenate([[0], np.cumsum(counts)]),
    )


def _smooth(
    points: NDArray[np.float64],
    starts: NDArray[np.int64],
    is_loop: NDArray[np.bool_],
    bound: float,
) -> MovedLines:
    along, lengths, origins = _lengths(points, starts)
    counts = np.maximum(np.ceil(lengths / bound * SAMPLES_PER_BOUND), MIN_SAMPLES).astype(np.int64)
    step = ranges(np.zeros_like(counts), counts + 1)
    sampled = np.repeat(origins, counts + 1) + step * np.repeat(lengths / counts, counts + 1)
    offsets = np.concatenate([[0], np.cumsum(counts + 1)])
    sampled[offsets[1:] - 1] = along[starts[1:] - 1]
    samples = _between(sampled, along, points)
    averaged = _averaged(samples, offsets, is_loop)

    is_inner = (step > 0) & (step < np.repeat(counts, counts + 1))
    where = np.concatenate([along, sampled[is_inner]])
    order = np.argsort(where, kind="stable")
    where = where[order]
    old = np.concatenate([points, samples[is_inner]])[order]
    moves = _between(where, sampled, averaged) - old
    far = np.hypot(*moves.T)
    moves *= np.minimum(1, bound / np.maximum(far, bound))[:, None]
    joined = np.concatenate([[0], np.cumsum(np.diff(starts) + counts - 1)])
    moves[joined[:-1][~is_loop]] = moves[joined[1:][~is_loop] - 1] = 0
    moves[joined[1:][is_loop] - 1] = moves[joined[:-1][is_loop]]
    return MovedLines(old, moves, joined)


def _lengths(
    points: NDArray[np.float64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where each corner lies on all arcs laid end to end, and their lengths and beginnings.

    Between two arcs is a gap, so that no two corners lie in one place.
    """
    steps = np.zeros(len(points))
    steps[1:] = np.hypot(*np.diff(points, axis=0).T)
    gap = 1.0
    steps[starts[1:-1]] = gap
    along = np.cumsum(steps)
    origins = along[starts[:-1]]
    return along, along[starts[1:] - 1] - origins, origins


def _between(
    where: NDArray[np.float64], along: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.stack([np.interp(where, along, axis) for axis in points.T], axis=1)


def _averaged(
    samples: NDArray[np.float64], offsets: NDArray[np.int64], is_loop: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return samples of arcs averaged along them.

    A loop goes on where it ends; other arcs are turned about their ends, which so stay in place.
    """
    counts = np.diff(offsets)  # a loop's last sample is its first
    first = np.repeat(offsets[:-1], counts + 2 * REACH)
    last = np.repeat(offsets[1:] - 1, counts + 2 * REACH)
    step = ranges(np.full_like(counts, -REACH), counts + 2 * REACH)
    n = last - first
    turned = first + np.where(step < 0, -step, np.where(step > n, 2 * n - step, step))
    index = np.where(np.repeat(is_loop, counts + 2 * REACH), first + step % n, turned)
    padded = samples[index]
    for is_outside, pivot in ((step < 0, first), (step > n, last)):
        chosen = is_outside & ~np.repeat(is_loop, counts + 2 * REACH)
        padded[chosen] = 2 * samples[pivot[chosen]] - padded[chosen]
    smoothed = ndimage.correlate1d(padded, _kernel(), axis=0)
    return smoothed[(step >= 0) & (step <= n)]


def _kernel() -> NDArray[np.float64]:
    half = REACH // 2
    gauss = np.exp(-0.5 * (np.arange(-half, half + 1) / SIGMA_SAMPLES) ** 2)
    gauss /= gauss.sum()
    kernel = -np.convolve(gauss, gauss)
    kernel[half : half + len(gauss)] += 2 * gauss
    return kernel
