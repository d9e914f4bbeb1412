"""Patches of a slide, read in blocks: what overlaps or lies in one tile is decoded once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpannot.inference.grid import Cells, HeatmapGrid
from qpannot.slide import Slide

Patches = NDArray[np.uint8]
"""RGB, shape [n, size, size, 3]."""

BLOCK_PX = 1024
"""Cells whose patches are read at once lie in a square of this width, in pixels of the patches."""

WORTH_READING = 0.5
"""Part of a block that its patches cover; if it is less, they are read one by one."""


def in_batches(cells: Cells, grid: HeatmapGrid, batch_size: int) -> list[Cells]:
    """Return cells in batches, block by block."""
    blocks = _blocks(cells, grid)
    order = np.lexsort((cells[:, 1], cells[:, 0], blocks[:, 1], blocks[:, 0]))
    return [cells[order[start : start + batch_size]] for start in range(0, len(cells), batch_size)]


def read_patches(slide: Slide, grid: HeatmapGrid, cells: Cells) -> Patches:
    """Return the patches of cells, in their order, white outside of the slide.

    They are the pixels that `Slide.read` gives for each patch alone.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    size, stride = grid.size_px, grid.stride_px
    pixels = np.empty((len(cells), size, size, 3), np.uint8)
    _, block = np.unique(_blocks(cells, grid), axis=0, return_inverse=True)
    groups = [np.flatnonzero(block == index) for index in range(block.max(initial=-1) + 1)]
    while groups:
        group = groups.pop()
        first, last = cells[group].min(axis=0), cells[group].max(axis=0)
        region, extent = grid.region(first.tolist(), last.tolist())
        if len(group) > 1 and (
            len(group) * size * size < WORTH_READING * extent.width * extent.height
        ):
            groups += [group[[index]] for index in range(len(group))]
            continue
        read = slide.read_downsampled(region, (grid.pitch_x, grid.pitch_y), extent)
        for index in group.tolist():
            top, left = ((cells[index] - first) * stride).tolist()
            pixels[index] = read[top : top + size, left : left + size]
    return pixels


def _blocks(cells: Cells, grid: HeatmapGrid) -> Cells:
    return cells // max(1, BLOCK_PX // grid.stride_px)
