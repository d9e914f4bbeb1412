"""Patches of a slide, read in blocks: what overlaps or lies in one tile is decoded once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qpannot.inference.grid import Cells, HeatmapGrid
from qpannot.slide import Slide

Patches = NDArray[np.uint8]
"""RGB, shape [n, size, size, 3]."""

BLOCK_PX = 1024
"""Cells whose patches are read at once lie in a square of this width, in pixels of the patches."""

WORTH_READING = 0.5
"""A block is read whole if its patches have more pixels together than this part of it; else they
are read one by one."""


def in_portions(cells: Cells, grid: HeatmapGrid, batch_size: int) -> list[Cells]:
    """Return cells in portions for one thread each: whole blocks, together a batch at least.

    Only the last portion may be smaller than a batch. Within a portion, block comes after block.
    """
    blocks = _blocks(cells, grid)
    order = np.lexsort((cells[:, 1], cells[:, 0], blocks[:, 1], blocks[:, 0]))
    portions: list[Cells] = []
    start = 0
    for end in (*_borders(blocks[order]), len(cells)):
        if end - start >= batch_size or start < end == len(cells):
            portions.append(cells[order[start:end]])
            start = end
    return portions


def read_patches(slide: Slide, grid: HeatmapGrid, cells: Cells) -> Iterator[NDArray[np.uint8]]:
    """Yield the patches of cells, in their order, white outside of the slide.

    They are the pixels that `Slide.read` gives for each patch alone. Cells of one block that follow
    each other are read at once, and no more than one block is kept.

    Yields
    ------
    ndarray of uint8, shape [size, size, 3]
        Mostly a view of its block.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    for block in np.split(cells, _borders(_blocks(cells, grid))):
        first, last = block.min(axis=0), block.max(axis=0)
        _, extent = grid.region(first.tolist(), last.tolist())
        worth = WORTH_READING * extent.width * extent.height
        parts = [block] if len(block) * grid.size_px**2 >= worth else np.split(block, len(block))
        for part in parts:
            yield from _read_together(slide, grid, part)


def _read_together(slide: Slide, grid: HeatmapGrid, cells: Cells) -> Iterator[NDArray[np.uint8]]:
    size = grid.size_px
    first, last = cells.min(axis=0), cells.max(axis=0)
    region, extent = grid.region(first.tolist(), last.tolist())
    pixels = slide.read_downsampled(region, (grid.pitch_x, grid.pitch_y), extent)
    for top, left in ((cells - first) * grid.stride_px).tolist():
        yield pixels[top : top + size, left : left + size]


def _blocks(cells: Cells, grid: HeatmapGrid) -> Cells:
    """Return in which block each cell lies, as row and column of blocks, shape [n, 2]."""
    return cells // max(1, BLOCK_PX // grid.stride_px)


def _borders(blocks: Cells) -> NDArray[np.intp]:
    """Return where another block begins."""
    return np.flatnonzero(np.any(np.diff(blocks, axis=0), axis=1)) + 1
