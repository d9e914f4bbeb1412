"""Whole-slide formats through OpenSlide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import openslide

from qpannot.geometry import Mpp, Size
from qpannot.slide.image import FileImage, Pixels, levels_from_sizes, plausible_mpp

WHITE = (255, 255, 255)


def _number(properties: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(properties[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _mpp(properties: Mapping[str, str], vendor: str) -> Mpp | None:
    x = _number(properties, openslide.PROPERTY_NAME_MPP_X)
    y = _number(properties, openslide.PROPERTY_NAME_MPP_Y)
    if x is None or y is None:
        return None
    # For a generic TIFF OpenSlide hands on the resolution tags, whoever wrote them.
    return plausible_mpp(x, y) if vendor == "generic-tiff" else Mpp(x, y)


def _bounds(properties: Mapping[str, str], size: Size) -> tuple[int, int, int, int] | None:
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    try:
        x, y, width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    inside = 0 <= x and 0 <= y and x + width <= size.width and y + height <= size.height
    return (x, y, width, height) if inside and width > 0 and height > 0 else None


def _background(properties: Mapping[str, str]) -> tuple[int, int, int]:
    packed = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "").lstrip("#")
    try:
        value = int(packed, 16)
    except ValueError:
        return WHITE
    return value >> 16 & 0xFF, value >> 8 & 0xFF, value & 0xFF


def image_from_properties(
    properties: Mapping[str, str], sizes: list[Size], vendor: str
) -> FileImage:
    """Return what OpenSlide's properties say of a slide, read as QuPath's OpenslideImageServer.

    The pixel size is ``openslide.mpp-x`` and ``-y`` alone; the bounds count only when all four
    are there and lie within the slide.
    """
    tile_width = _number(properties, "openslide.level[0].tile-width")
    tile_height = _number(properties, "openslide.level[0].tile-height")
    tiled = tile_width is not None and tile_height is not None
    return FileImage(
        format="openslide",
        vendor=vendor,
        levels=levels_from_sizes(sizes),
        mpp=_mpp(properties, vendor),
        objective_power=_number(properties, openslide.PROPERTY_NAME_OBJECTIVE_POWER),
        tile_size=Size(int(tile_width or 0), int(tile_height or 0)) if tiled else None,
        bounds=_bounds(properties, sizes[0]),
        n_channels=3,
        pixel_type="UINT8",
        is_rgb=True,
        is_readable=True,
        identity=properties.get("dicom.SeriesInstanceUID"),
    )


class OpenSlideReader:
    """A slide opened with OpenSlide.

    OpenSlide addresses a level by whole level-0 pixels divided by its own idea of the downsample
    (16.0005 for 16), and interpolates in between. Pixels of a coarse level may therefore come
    shifted by up to half a *full-resolution* pixel; the error does not grow across the slide.
    """

    is_shareable: ClassVar[bool] = False

    def __init__(self, slide: openslide.OpenSlide, vendor: str) -> None:
        self._slide = slide
        self._downsamples = slide.level_downsamples
        sizes = [Size(*dimensions) for dimensions in slide.level_dimensions]
        self.image = image_from_properties(slide.properties, sizes, vendor)
        self._level_indices = [sizes.index(level.size) for level in self.image.levels]
        self._background = np.array(_background(slide.properties), np.uint8)

    @classmethod
    def open(cls, path: Path, series: int) -> Self:
        """Open a slide; ``series`` must be 0.

        Raises
        ------
        openslide.OpenSlideError
            OpenSlide does not read the file.
        """
        # QuPath resolves links too: DICOM and MIRAX look for their other files beside the real one.
        real = path.resolve()
        slide = openslide.OpenSlide(real)
        try:
            return cls(slide, slide.properties.get(openslide.PROPERTY_NAME_VENDOR, "openslide"))
        except BaseException:
            slide.close()
            raise

    def read(self, level: int, x: float, y: float, width: int, height: int) -> Pixels:
        """Return pixels of a level.

        OpenSlide's alpha is coverage by tiles, never translucency, so a pixel at least half
        covered keeps its colour and any other is background: no pale seams between the tiles of
        a MIRAX slide. The background is ``openslide.background-color``, or white.
        """
        index = self._level_indices[level]
        scale = self._downsamples[index]
        corner = (round(x * scale), round(y * scale))
        rgba = np.asarray(self._slide.read_region(corner, index, (width, height)))
        rgb, alpha = rgba[..., :3], rgba[..., 3]
        if alpha.min() < 128:
            rgb = np.where(alpha[..., None] < 128, self._background, rgb)
        return rgb

    def close(self) -> None:
        """Release the file."""
        self._slide.close()
