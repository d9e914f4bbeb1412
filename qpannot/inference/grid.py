"""Which patches a network sees of a slide, and what their answers make of it. Pure.

The pixels of a heatmap, its *cells*, are one stride wide and lie in rows and columns from the
slide's corner on, over all of it. Each cell has a patch, whose middle is the cell's.

- A cell is predicted if there is any tissue in it, so that nothing is eaten away at the tissue's
  edge.
- The network sees the patches of such cells that it could have been trained on: those with more
  than ``min_tissue``. It sees the others only where no such patch is near, as in a thin strip.
- Where patches overlap, a cell is the mean of all that reach into it, each weighted by how much of
  the cell it covers.
- A cell at the tissue's edge that none covers is the mean of the predicted ones around it: what is
  in it is the rim of the tissue beside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
import shapely
import shapely.affinity
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.errors import UsageError
from qpannot.geometry import Mpp, Region, Size
from qpannot.sampling.areas import polygonal
from qpannot.sampling.coverage import PatchGrid, covered

Cells = NDArray[np.int64]
"""Rows and columns, shape [n, 2]."""

Mask = NDArray[np.bool_]

FLOAT_NOISE = 1e-6
"""Part of a cell that does not make another one at the slide's far border."""


@dataclass(frozen=True)
class HeatmapGrid:
    """The cells of a slide and their patches.

    Parameters
    ----------
    rows, columns
        Of cells. The last ones may reach beyond the slide.
    size_px, stride_px
        Width of a patch and of a cell, in pixels of the patches.
    pitch_x, pitch_y
        Full-resolution pixels per pixel of the patches, seldom whole.
    """

    rows: int
    columns: int
    size_px: int
    stride_px: int
    pitch_x: float
    pitch_y: float

    @classmethod
    def of(
        cls, size: Size, mpp: Mpp, *, patch_mpp: float, size_px: int, stride_px: int | None
    ) -> HeatmapGrid:
        """Return the grid of a slide.

        Parameters
        ----------
        size, mpp
            The slide's, at full resolution.
        patch_mpp
            Micrometres per pixel of the patches.
        stride_px
            None: patches do not overlap.

        Raises
        ------
        UsageError
            The patches would leave gaps.
        """
        stride_px = stride_px or size_px
        if stride_px > size_px:
            raise UsageError(
                f"heatmap.stride_px is {stride_px}, but the model's patches are only {size_px} px "
                "wide: there would be gaps between them.",
                hint=f"Set heatmap.stride_px to {size_px} or less.",
            )
        pitch_x, pitch_y = patch_mpp / mpp.x, patch_mpp / mpp.y
        rows, columns = (
            max(1, math.ceil(length / (stride_px * pitch) - FLOAT_NOISE))
            for length, pitch in ((size.height, pitch_y), (size.width, pitch_x))
        )
        return cls(rows, columns, size_px, stride_px, pitch_x, pitch_y)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def affine(self) -> Affine:
        """Where the cells lie."""
        return Affine(self.stride_px * self.pitch_x, self.stride_px * self.pitch_y)

    @property
    def overhang_px(self) -> float:
        """How far a patch reaches beyond its cell, in pixels of the patches."""
        return (self.size_px - self.stride_px) / 2

    def region(self, first: Sequence[int], last: Sequence[int]) -> tuple[Region, Size]:
        """Return what the patches from one cell (row, column) to another cover.

        Returns
        -------
        Region
            In full-resolution pixels of QuPath's frame; reaches beyond the slide at its borders.
        Size
            In pixels of the patches.
        """
        height, width = (
            (end - begin) * self.stride_px + self.size_px
            for begin, end in zip(first, last, strict=True)
        )
        top, left = (index * self.stride_px - self.overhang_px for index in first)
        region = Region(
            left * self.pitch_x, top * self.pitch_y, width * self.pitch_x, height * self.pitch_y
        )
        return region, Size(width, height)


@dataclass(frozen=True, eq=False)
class Choice:
    """What of a slide is predicted.

    Parameters
    ----------
    tissue
        Cells that get a probability, shape [rows, columns].
    seen
        Those of them whose patch the network sees, shape [rows, columns].
    """

    tissue: Mask
    seen: Mask

    @property
    def cells(self) -> Cells:
        """The cells whose patches the network sees, row by row."""
        return np.argwhere(self.seen)


def choose(grid: HeatmapGrid, tissue: Sequence[BaseGeometry], min_tissue: float) -> Choice:
    """Return which cells are predicted, and which patches that takes; see the module for the rules.

    Parameters
    ----------
    tissue
        Areas in full-resolution pixels.
    min_tissue
        Part of a patch that has to be exceeded.
    """
    area = shapely.union_all([polygonal(part) for part in tissue])
    cells = _parts(grid, area, grid.stride_px)
    patches = _parts(grid, area, grid.size_px)
    has_tissue = cells > 0
    has_enough = has_tissue & (patches > min_tissue)
    is_lonely = has_tissue & ~ndi.binary_dilation(has_enough, np.ones((3, 3), bool))
    return Choice(has_tissue, has_enough | is_lonely)


def _parts(grid: HeatmapGrid, area: BaseGeometry, size_px: int) -> NDArray[np.float64]:
    """Return how much of a square around the middle of each cell an area covers."""
    squares = PatchGrid(
        columns=grid.columns,
        rows=grid.rows,
        width=size_px * grid.pitch_x,
        height=size_px * grid.pitch_y,
        step_x=grid.stride_px * grid.pitch_x,
        step_y=grid.stride_px * grid.pitch_y,
    )
    overhang = (size_px - grid.stride_px) / 2
    moved = shapely.affinity.translate(area, overhang * grid.pitch_x, overhang * grid.pitch_y)
    return covered(moved, squares)


def probabilities_of(
    answers: NDArray[np.float32], choice: Choice, grid: HeatmapGrid
) -> NDArray[np.float32]:
    """Return the probabilities of all cells from the answers for the patches that were seen.

    Parameters
    ----------
    answers
        Of ``choice.cells``, in their order, shape [n, classes].

    Returns
    -------
    ndarray of float32, shape [rows, columns, classes]
        NaN where there is no tissue.
    """
    # The last channel counts, so that sums become means.
    sums = np.zeros((*grid.shape, answers.shape[1] + 1))
    sums[choice.seen, :-1] = answers
    sums[choice.seen, -1] = 1
    sums = _gathered(sums, weights_of(grid))
    means, is_known = _means(sums), sums[..., -1] > 0
    is_left = choice.tissue & ~is_known
    if is_left.any():
        known = np.dstack([np.where(is_known[..., None], means, 0), is_known])
        means[is_left] = _means(_gathered(known, np.ones(3)))[is_left]
    means[~choice.tissue] = np.nan
    clipped: NDArray[np.float32] = np.clip(means, 0, 1).astype(np.float32)
    return clipped


def weights_of(grid: HeatmapGrid) -> NDArray[np.float64]:
    """Return how much of the cells around its own a patch covers, along one axis.

    Returns
    -------
    ndarray of float64, of odd length
        Its own cell is in the middle.
    """
    stride, overhang = grid.stride_px, grid.overhang_px
    reach = math.ceil(overhang / stride)
    begin = np.arange(-reach, reach + 1) * stride
    overlap = np.minimum(begin + stride, stride + overhang) - np.maximum(begin, -overhang)
    weights: NDArray[np.float64] = overlap / stride
    return weights


def _gathered(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums over the cells around each, weighted along both axes."""
    for axis in (0, 1):
        values = np.asarray(ndi.correlate1d(values, weights, axis=axis, mode="constant"))
    return values


def _means(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = sums[..., -1:]
    means: NDArray[np.float64] = np.where(
        counts > 0, sums[..., :-1] / np.where(counts > 0, counts, 1), np.nan
    )
    return means
