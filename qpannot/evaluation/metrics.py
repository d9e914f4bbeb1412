"""How far a probability map is the truth, pixel by pixel: overlap and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.evaluation.overlap import Overlap
from qpannot.geometry import Mpp, Size
from qpannot.vectorize import class_mask, coverage

Probabilities = NDArray[np.float32] | NDArray[np.float64]
Truth = NDArray[np.bool_] | NDArray[np.integer] | NDArray[np.floating]

BLOCK_PX = 1 << 22
"""Pixels worked on at a time: a few 8-byte arrays of as many."""

_DECIMALS = 6
"""Of a slide's length in pixels: what is finer is float noise, and makes no further pixel."""


@dataclass(frozen=True)
class PixelGrid:
    """Pixels of a stated size over a whole slide, from its corner on.

    Parameters
    ----------
    affine
        Where the pixels lie on the slide.
    shape
        Height and width in pixels; the last ones may reach over the slide's edge.
    """

    affine: Affine
    shape: tuple[int, int]

    @classmethod
    def of(cls, size: Size, mpp: Mpp, at_mpp: float) -> PixelGrid:
        """Return the grid of a slide.

        Parameters
        ----------
        size, mpp
            The slide's, at full resolution.
        at_mpp
            Micrometres a pixel of the grid is wide and high.

        Raises
        ------
        ValueError
            The pixels have no size.
        """
        affine = Affine(at_mpp / mpp.x, at_mpp / mpp.y)
        height, width = size.height / affine.dy, size.width / affine.dx
        shape = math.ceil(round(height, _DECIMALS)), math.ceil(round(width, _DECIMALS))
        return cls(affine, (max(1, shape[0]), max(1, shape[1])))

    def covered(self, areas: Sequence[BaseGeometry]) -> NDArray[np.float32]:
        """Return which part of each pixel areas cover, exactly; see `qpannot.vectorize.coverage`.

        Parameters
        ----------
        areas
            In full-resolution pixels.

        Returns
        -------
        float32 array, shape [height, width]
            0 to 1.
        """
        return coverage(areas, self.affine, self.shape)

    def mask(self, areas: Sequence[BaseGeometry]) -> NDArray[np.bool_]:
        """Return which pixels have their middles in areas; see `qpannot.vectorize.class_mask`.

        Parameters
        ----------
        areas
            In full-resolution pixels.

        Returns
        -------
        bool array, shape [height, width]
        """
        return class_mask([areas], self.affine, self.shape).astype(bool)

    def sampled(self, probability: Probabilities, affine: Affine) -> NDArray[np.float32]:
        """Return a heatmap's probabilities in the pixels of this grid, none of them invented.

        A pixel has the value of the heatmap's pixel its middle lies in. A heatmap of finer pixels
        is thinned out, not averaged: evaluate at its resolution or a finer one.

        Parameters
        ----------
        probability
            Shape [height, width] of the heatmap.
        affine
            Where the heatmap's pixels lie.

        Returns
        -------
        float32 array, shape [height, width] of the grid
            NaN where the heatmap does not reach.
        """
        own, (height, width) = self.affine, self.shape
        x = own.x + (np.arange(width) + 0.5) * own.dx
        y = own.y + (np.arange(height) + 0.5) * own.dy
        column = np.floor((x - affine.x) / affine.dx).astype(np.int64)
        row = np.floor((y - affine.y) / affine.dy).astype(np.int64)
        columns = (column >= 0) & (column < probability.shape[1])
        rows = (row >= 0) & (row < probability.shape[0])
        found = np.full(self.shape, np.nan, np.float32)
        found[np.ix_(rows, columns)] = probability[np.ix_(row[rows], column[columns])]
        return found


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often a class is there where a network says how probable it is.

    Those of several slides add up to that of all their pixels.

    Parameters
    ----------
    counts
        Pixels in each bin of probability, int64, shape [bins]. The bins are equally wide; each has
        its upper edge, the first one 0 as well.
    probability_sums
        Of the pixels in each bin, float64, shape [bins].
    truth_sums
        How many of them are of the class, parts of pixels as such, float64, shape [bins].
    """

    counts: NDArray[np.int64]
    probability_sums: NDArray[np.float64]
    truth_sums: NDArray[np.float64]

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the bins begin and end, shape [bins + 1]."""
        return np.linspace(0.0, 1.0, len(self.counts) + 1)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The mean probability in each bin, shape [bins]; NaN of no pixel."""
        return self._means(self.probability_sums)

    @property
    def frequency(self) -> NDArray[np.float64]:
        """How much of each bin is of the class, shape [bins]; NaN of no pixel."""
        return self._means(self.truth_sums)

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1; NaN of no pixel.

        How far probability and frequency lie apart, the mean over the bins by their pixels
        (Naeini et al., AAAI 2015; Guo et al., ICML 2017), here of one class against all else.
        """
        total = int(self.counts.sum())
        if not total:
            return math.nan
        return float(np.abs(self.probability_sums - self.truth_sums).sum() / total)

    def __add__(self, other: Reliability) -> Reliability:
        if len(self.counts) != len(other.counts):
            raise ValueError(f"{len(self.counts)} bins and {len(other.counts)} do not add up")
        return Reliability(
            self.counts + other.counts,
            self.probability_sums + other.probability_sums,
            self.truth_sums + other.truth_sums,
        )

    def _means(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        means = np.full(len(sums), np.nan)
        np.divide(sums, self.counts, out=means, where=self.counts > 0)
        return means


def pixel_overlap(
    probability: Probabilities,
    truth: Truth,
    *,
    threshold: float = 0.5,
    within: NDArray[np.bool_] | None = None,
) -> Overlap:
    """Compare a thresholded probability map with the truth.

    Parameters
    ----------
    probability
        Of the class, 0 to 1, shape [height, width]. NaN, where nothing was predicted, is none.
    truth
        Which part of each pixel is of the class, 0 to 1, same shape. Of whole pixels (a mask) the
        result is the field's pixel metric; of parts (`PixelGrid.covered`) it is exactly that of the
        areas, the prediction being the squares of its pixels.
    threshold
        Pixels that reach it are predicted, as outlines are drawn.
    within
        Pixels that count, same shape. ``None``: all.

    Returns
    -------
    Overlap
        In pixels. What of empty truth and empty prediction is said there: nothing to find and
        nothing found is full agreement, one of both empty none; precision without a prediction,
        and recall without truth, is NaN.

    Raises
    ------
    ValueError
        The arrays do not fit each other, or hold what is no probability or part.

    Notes
    -----
    H2G-Net sec. 3.3: pixel-wise recall, precision and Dice per slide at 0.5. The authors' public
    metrics file has precision and recall swapped; these are the definitions.
    """
    _check(probability, truth, within)
    # as outlines_of compares, so that both take the same pixels
    predicted = probability >= probability.dtype.type(threshold)
    if within is not None:
        predicted &= within
    common = float(truth.sum(where=predicted, dtype=np.float64))
    true = float(truth.sum(where=True if within is None else within, dtype=np.float64))
    # sums in different orders must not make a part larger than the whole
    return Overlap(true, float(np.count_nonzero(predicted)), min(common, true))


def reliability(
    probability: Probabilities,
    truth: Truth,
    *,
    bins: int = 15,
    within: NDArray[np.bool_] | None = None,
) -> Reliability:
    """Compare predicted probabilities with how often the class is there.

    Parameters
    ----------
    probability, truth, within
        See `pixel_overlap`. Pixels where nothing was predicted are left out: as zeros, the glass
        around the tissue would make any network look calibrated.
    bins
        Of equal width. 15 are Guo et al.'s.

    Raises
    ------
    ValueError
        See `pixel_overlap`; or there is no bin.
    """
    _check(probability, truth, within)
    if bins < 1:
        raise ValueError(f"calibration needs a bin or more, not {bins}")
    inner = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    counts = np.zeros(bins, np.int64)
    sums, true_sums = np.zeros(bins), np.zeros(bins)
    rows = max(1, BLOCK_PX // max(1, probability.shape[1]))
    for start in range(0, probability.shape[0], rows):
        block = slice(start, start + rows)
        seen = ~np.isnan(probability[block])
        if within is not None:
            seen &= within[block]
        values, parts = probability[block][seen].astype(np.float64), truth[block][seen]
        index = np.searchsorted(inner, values, side="left")
        counts += np.bincount(index, minlength=bins)
        sums += np.bincount(index, values, minlength=bins)
        true_sums += np.bincount(index, parts, minlength=bins)
    return Reliability(counts, sums, true_sums)


def pixel_metrics(
    probability: Probabilities,
    truth: Truth,
    *,
    threshold: float = 0.5,
    bins: int = 15,
    within: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Return what is reported of a slide: ``recall``, ``precision``, ``dice``, ``iou``, ``ece``.

    Parameters
    ----------
    probability, truth, threshold, within
        See `pixel_overlap`.
    bins
        See `reliability`.

    Returns
    -------
    dict
        NaN where there is nothing to measure.
    """
    found = pixel_overlap(probability, truth, threshold=threshold, within=within)
    calibration = reliability(probability, truth, bins=bins, within=within)
    return {
        "recall": found.recall,
        "precision": found.precision,
        "dice": found.dice,
        "iou": found.iou,
        "ece": calibration.error,
    }


def _check(probability: Probabilities, truth: Truth, within: NDArray[np.bool_] | None) -> None:
    shapes = {array.shape for array in (probability, truth, within) if array is not None}
    if len(shapes) > 1 or probability.ndim != 2:
        raise ValueError(f"maps of one slide have one shape [height, width], not {shapes}")
    if not probability.size:
        return
    if probability.dtype.kind != "f":  # a mask of 0 and 255 would pass for probable throughout
        raise ValueError(f"probabilities are floating-point numbers, not {probability.dtype}")
    if not 0 <= float(truth.min()) <= float(truth.max()) <= 1:
        raise ValueError(f"truth is a part of a pixel, not {truth.min()} to {truth.max()}")
    low, high = np.fmin.reduce(probability, axis=None), np.fmax.reduce(probability, axis=None)
    if low < 0 or high > 1:
        raise ValueError(f"probabilities lie from 0 to 1, not {low} to {high}")
