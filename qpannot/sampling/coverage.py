"""How much of each patch an area covers, exactly.

Not by intersecting polygons: where two vertices are a rounding error apart, as unions leave them,
GEOS 3.14 was seen to get a whole patch wrong without a word. Every edge is cut at the borders of
the patches instead, and the pieces add up what lies to their right, as font rasterisers do it:
exact, blind to topology, and linear in the length of the outlines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.geometry import Mpp, Size
from qpannot.recipe.settings import PatchSettings

Fractions = NDArray[np.float64]

_DECIMALS = 9
"""What is finer is float noise, and must not make 25 % more than 25 %."""


@dataclass(frozen=True)
class PatchGrid:
    """Patches in rows and columns from the slide's corner on, all of them within the slide.

    Parameters
    ----------
    columns, rows
        How many there are.
    width, height
        Of a patch, in full-resolution pixels; seldom whole.
    step_x, step_y
        From one patch to the next, in full-resolution pixels.
    """

    columns: int
    rows: int
    width: float
    height: float
    step_x: float
    step_y: float

    @classmethod
    def of(cls, size: Size, mpp: Mpp, patches: PatchSettings) -> PatchGrid:
        """Return the grid of a slide.

        Parameters
        ----------
        size, mpp
            The slide's, at full resolution.
        """
        stride_px = patches.stride_px or patches.size_px
        width, height = patches.size_px * patches.mpp / mpp.x, patches.size_px * patches.mpp / mpp.y
        step_x, step_y = stride_px * patches.mpp / mpp.x, stride_px * patches.mpp / mpp.y
        columns = _how_many(size.width, width, step_x)
        rows = _how_many(size.height, height, step_y)
        return cls(columns, rows, width, height, step_x, step_y)

    @property
    def x(self) -> NDArray[np.float64]:
        """Left edges of the columns, in full-resolution pixels, shape [columns]."""
        return self.step_x * np.arange(self.columns, dtype=np.float64)

    @property
    def y(self) -> NDArray[np.float64]:
        """Upper edges of the rows, in full-resolution pixels, shape [rows]."""
        return self.step_y * np.arange(self.rows, dtype=np.float64)


def _how_many(length: int, extent: float, step: float) -> int:
    count = max(0, int((length - extent) // step) + 1) if length >= extent else 0
    while count and (count - 1) * step + extent > length:
        count -= 1  # the division rounded up
    return count


def covered(area: BaseGeometry, grid: PatchGrid) -> Fractions:
    """Return the fraction of each patch that an area covers.

    Parameters
    ----------
    area
        Valid polygons in full-resolution pixels.

    Returns
    -------
    ndarray of float64, shape [rows, columns]
        0 to 1, exact to 9 decimals.
    """
    if not (grid.rows and grid.columns) or area.is_empty:
        return np.zeros((grid.rows, grid.columns))
    x, left, right = _lines(grid.x, grid.width)
    y, top, bottom = _lines(grid.y, grid.height)
    cells = _areas_of_cells(_edges(area), x, y)
    # Of the cells to those of the patches, which may overlap: differences of running sums.
    running = np.pad(cells.cumsum(axis=1), ((0, 0), (1, 0)))
    running = np.pad((running[:, right] - running[:, left]).cumsum(axis=0), ((1, 0), (0, 0)))
    fractions = (running[bottom] - running[top]) / (grid.width * grid.height)
    rounded: Fractions = fractions.round(_DECIMALS)
    return np.clip(rounded, 0.0, 1.0)


def _lines(
    starts: NDArray[np.float64], extent: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return where intervals begin or end, and for each the index of its beginning and its end."""
    # Where one begins as the other ends, float noise must not make two lines of it.
    ends = np.concatenate([starts, starts + extent]).round(_DECIMALS)
    lines, index = np.unique(ends, return_inverse=True)
    return lines, index[: len(starts)], index[len(starts) :]


def _edges(area: BaseGeometry) -> NDArray[np.float64]:
    """Return the edges (x0, y0, x1, y1), shape [n, 4], with the inside at the same hand."""
    polygons = shapely.get_parts(area)
    oriented = shapely.orient_polygons(polygons[shapely.get_dimensions(polygons) == 2])
    rings = shapely.get_rings(oriented)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    is_edge = ring[:-1] == ring[1:]
    return np.hstack([points[:-1][is_edge], points[1:][is_edge]])


def _areas_of_cells(
    edges: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area in each cell between the lines, shape [len(y) - 1, len(x) - 1]."""
    x0, y0, x1, y1 = _cut(_cut(edges, y, axis=1), x, axis=0).T
    column = np.searchsorted(x, (x0 + x1) / 2, side="right") - 1
    row = np.searchsorted(y, (y0 + y1) / 2, side="right") - 1
    seen = (row >= 0) & (row < len(y) - 1) & (column < len(x) - 1)
    column, row, height = np.maximum(column[seen], 0), row[seen], (y1 - y0)[seen]
    # What lies left of all cells counts as if it lay on their border.
    middle = np.maximum((x0 + x1)[seen] / 2, x[0])
    shape = (len(y) - 1, len(x) - 1)
    size = shape[0] * shape[1]
    cell = row * shape[1] + column
    own = np.bincount(cell, height * (x[column + 1] - middle), minlength=size).reshape(shape)
    heights = np.bincount(cell, height, minlength=size).reshape(shape)
    to_the_left = heights.cumsum(axis=1) - heights
    # Shells run anticlockwise, y upwards: a rising edge has the inside on its left, hence the sign.
    areas: NDArray[np.float64] = -(own + to_the_left * np.diff(x))
    return areas


def _cut(
    edges: NDArray[np.float64], lines: NDArray[np.float64], *, axis: int
) -> NDArray[np.float64]:
    """Return edges cut where they cross lines of constant x (axis 0) or y (axis 1)."""
    begin, end = edges[:, axis], edges[:, axis + 2]
    low, high = np.minimum(begin, end), np.maximum(begin, end)
    first = np.searchsorted(lines, low, side="right")
    n_cuts = np.maximum(np.searchsorted(lines, high, side="left") - first, 0)
    edge = np.repeat(np.arange(len(edges)), n_cuts + 1)
    # The pieces of an edge, numbered from its lower end on.
    piece = np.arange(len(edge)) - np.repeat(np.cumsum(n_cuts + 1) - n_cuts - 1, n_cuts + 1)
    whole = np.where((begin <= end)[:, None], edges, edges[:, [2, 3, 0, 1]])[edge]
    next_line = first[edge] + piece
    is_first, is_last = piece == 0, piece == n_cuts[edge]
    length = (high - low)[edge]
    slope = (whole[:, 3 - axis] - whole[:, 1 - axis]) / np.where(length == 0, 1, length)
    pieces = whole.copy()
    for column, is_end, line in ((0, is_first, next_line - 1), (2, is_last, next_line)):
        at = lines[np.clip(line, 0, len(lines) - 1)]
        pieces[:, column + axis] = np.where(is_end, whole[:, column + axis], at)
        across = whole[:, 1 - axis] + (at - whole[:, axis]) * slope
        pieces[:, column + 1 - axis] = np.where(is_end, whole[:, column + 1 - axis], across)
    falling = (begin > end)[edge]
    pieces[falling] = pieces[falling][:, [2, 3, 0, 1]]
    return pieces
