"""The working image, with the pixels QuPath would give ImageJ.

QuPath does not average when it reads a slide at a low resolution: it takes the nearest finer
level and interpolates bilinearly between four of its pixels, tile by tile, in Java2D's fixed
point. On a slide of one level read at downsample 40 most pixels are never looked at. A threshold
on averaged pixels gives visibly other outlines there, so this module reads as QuPath does
(QuPath 0.6 ``AbstractTileableImageServer.readRegion``, OpenJDK ``TransformHelper.c``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpannot.geometry import Size, estimate_downsample
from qpannot.slide import Slide

Pixels = NDArray[np.uint8]

DEFAULT_TILE = Size(256, 256)
"""QuPath's tiles where the file does not say."""

LEVEL_TOLERANCE = 0.01
"""QuPath takes a level that is coarser than asked by this fraction at most."""

ONE = 1 << 32
HALF = ONE >> 1


def read_working_image(slide: Slide, downsample: float) -> Pixels:
    """Return the whole slide at a downsample as QuPath's ``readRegion`` gives it.

    Memory is that of the result and of one tile.

    Parameters
    ----------
    slide
        The slide.
    downsample
        Full-resolution pixels per pixel of the result.

    Returns
    -------
    ndarray of uint8, shape [round(height / downsample), round(width / downsample), 3]
    """
    if slide.quarter_turns:  # QuPath turns what it read
        upright = read_working_image(slide.rotated(-slide.quarter_turns), downsample)
        return np.ascontiguousarray(np.rot90(upright, -slide.quarter_turns))
    full = slide.size
    stored = slide.file_level_sizes
    downsamples = [estimate_downsample(stored[0], size) for size in stored]
    index = preferred_level(downsamples, downsample)
    level, level_downsample = slide.levels[index], downsamples[index]
    tile = slide.tile_size or DEFAULT_TILE
    size = Size(_output_length(full.width, downsample), _output_length(full.height, downsample))
    columns = _tiles(level.size.width, tile.width, level_downsample)
    rows = _tiles(level.size.height, tile.height, level_downsample)
    painted = size
    if downsample > 1 and len(downsamples) > 1:
        painted = Size(
            _painted_length(size.width, columns[-1].image_end, full.width, downsample),
            _painted_length(size.height, rows[-1].image_end, full.height, downsample),
        )

    def read(x: _Tile, y: _Tile) -> Pixels:
        tile_size = Size(x.end - x.start, y.end - y.start)
        return slide.read_tile(index, x.image_start, y.image_start, tile_size)

    out = np.zeros((painted.height, painted.width, 3), np.uint8)  # QuPath's canvas is black
    x_taps = [_taps(tile, downsample, painted.width) for tile in columns]
    for y_tile in rows:
        y = _taps(y_tile, downsample, painted.height)
        for x_tile, x in zip(columns, x_taps, strict=True):
            if x is not None and y is not None:
                out[y.outputs, x.outputs] = _mixed(read(x_tile, y_tile), x, y)
    return stretch(out, size)


def preferred_level(downsamples: Sequence[float], requested: float) -> int:
    """Return the coarsest level that is fine enough, as QuPath's ``ServerTools`` chooses it."""
    requested = max(requested, downsamples[0])
    best, best_excess = 0, math.inf
    for index, downsample in enumerate(downsamples):
        excess = requested - downsample
        is_close = abs(excess) <= LEVEL_TOLERANCE * max(requested, downsample)
        if (excess >= 0 or is_close) and excess < best_excess:
            best, best_excess = index, abs(excess)
    return best


@dataclass(frozen=True, slots=True)
class _Tile:
    """One axis of a tile: where it lies in its level and in the full-resolution image."""

    start: int
    end: int
    image_start: int
    image_end: int


def _round_half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _output_length(full_px: int, downsample: float) -> int:
    return max(1, _round_half_up(full_px / downsample))


def _painted_length(length: int, covered_px: int, full_px: int, downsample: float) -> int:
    """Return how much of the output QuPath paints, to have no black border (qupath#1527)."""
    if covered_px >= full_px:
        return length
    shorter = max(1, _round_half_up(covered_px / downsample - 1e-9))
    return shorter if length == shorter + 1 else length


def _tiles(level_px: int, tile_px: int, downsample: float) -> list[_Tile]:
    tiles = []
    for start in range(0, level_px, tile_px):
        end = min(start + tile_px, level_px)
        image = _round_half_up(start * downsample), _round_half_up(end * downsample)
        tiles.append(_Tile(start, end, *image))
    return tiles


@dataclass(frozen=True)
class _Taps:
    """Which pixels of a tile, mixed how, give which output pixels of one axis.

    Parameters
    ----------
    outputs
        The output pixels whose centres lie in the tile.
    first, second
        The two pixels that each mixes, counted from the tile's start.
    fraction
        The share of the second, in 256ths.
    """

    outputs: slice
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    fraction: NDArray[np.int64]


def _taps(tile: _Tile, downsample: float, count: int) -> _Taps | None:
    """Return how a tile is painted on an axis of ``count`` output pixels, if it is at all."""
    length = tile.end - tile.start
    if tile.image_end <= tile.image_start:
        return None
    # The order of operations is AffineTransform's, so that the last bits agree.
    shrink = 1.0 / downsample
    scale = shrink * ((tile.image_end - tile.image_start) / length)
    offset = shrink * tile.image_start
    low = max(0, math.floor(offset))
    high = min(count, math.ceil(offset + scale * length))
    if high <= low:
        return None
    base = int(((low + 0.5) * (1.0 / scale) - offset / scale) * ONE)
    step = int(1.0 / scale * ONE)
    position = base + np.arange(high - low, dtype=np.int64) * step
    inside = np.flatnonzero((position >= 0) & (position >> 32 < length))
    if not len(inside):
        return None
    outputs = slice(low + int(inside[0]), low + int(inside[-1]) + 1)
    position = position[inside]
    if downsample <= 1:
        nearest = position >> 32
        return _Taps(outputs, nearest, nearest, np.zeros_like(nearest))
    position = position - HALF
    first = np.maximum(position >> 32, 0)
    second = np.minimum((position >> 32) + 1, length - 1)
    return _Taps(outputs, first, second, (position >> 24) & 0xFF)


def _mixed(pixels: Pixels, x: _Taps, y: _Taps) -> Pixels:
    fx = x.fraction[None, :, None].astype(np.int32)
    fy = y.fraction[:, None, None].astype(np.int32)

    def along_x(rows: NDArray[np.int64]) -> NDArray[np.int32]:
        lines = pixels[rows].astype(np.int32)
        first = lines[:, x.first]
        mixed: NDArray[np.int32] = (first << 8) + (lines[:, x.second] - first) * fx
        return mixed

    upper = along_x(y.first)
    mixed = (upper << 8) + (along_x(y.second) - upper) * fy
    return ((mixed + (1 << 15)) >> 16).astype(np.uint8)


def stretch(image: Pixels, size: Size) -> Pixels:
    """Return an image enlarged by the pixel that QuPath could not paint, as ImageJ resizes.

    Source: ImageJ 1.54 ``FloatProcessor.resize``, bilinear.
    """
    height, width = image.shape[:2]
    if (width, height) == (size.width, size.height):
        return image
    values = image.astype(np.float64)
    for axis, target in ((0, size.height), (1, size.width)):
        length = values.shape[axis]
        scale = target / length
        centre = target / 2 + (scale / 4 if target != length else 0)
        position = (np.arange(target) - centre) / scale + length / 2
        position = np.where(position >= length - 1, length - 1.001, np.maximum(position, 0))
        low = np.maximum(position.astype(np.int64), 0)
        high = np.minimum(low + 1, length - 1)
        weight = (position - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        first = np.take(values, low, axis)
        values = first + (np.take(values, high, axis) - first) * weight
    return np.floor(values + 0.5).astype(np.uint8)
