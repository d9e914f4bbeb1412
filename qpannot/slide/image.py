"""What a reader knows of an image file, before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from qpannot.geometry import Mpp, Size

Pixels = NDArray[np.uint8]
"""RGB pixels, shape [height, width, 3]."""

PLAUSIBLE_MPP = (0.01, 40.0)
"""Pixel widths that a resolution tag of a TIFF may stand for, in micrometres.

The default print resolutions (72, 96, 300, 600 dpi) mean 353 to 42 micrometres and say nothing of
the microscope; an oil-immersion pixel is some 0.05.
"""


@dataclass(frozen=True, slots=True)
class FileLevel:
    """One level of the file's pyramid.

    Parameters
    ----------
    size
        In pixels of the level.
    scale_x, scale_y
        Full-resolution pixels per pixel of the level.
    """

    size: Size
    scale_x: float
    scale_y: float


@dataclass(frozen=True, slots=True)
class FileImage:
    """One image of a file, in the file's own frame (no bounds cropped away).

    Parameters
    ----------
    format
        Which reader: ``"openslide"``, ``"tiff"`` or ``"image"``.
    vendor
        OpenSlide's vendor, or the kind of file (``"ome-tiff"``, ``"png"``).
    levels
        Finest first.
    bounds
        Left, top, width and height of the non-empty part at full resolution, where the file says.
    pixel_type
        QuPath's name of the sample type, as ``"UINT8"``.
    is_rgb
        Whether QuPath would call the image RGB.
    is_readable
        Whether pixels can be served: 8-bit RGB, or 8-bit grey (repeated into RGB).
    identity
        What the files of one slide share, where a slide is several (DICOM's series).
    """

    format: str
    vendor: str
    levels: tuple[FileLevel, ...]
    mpp: Mpp | None
    objective_power: float | None
    tile_size: Size | None
    bounds: tuple[int, int, int, int] | None
    n_channels: int
    pixel_type: str
    is_rgb: bool
    is_readable: bool
    identity: str | None = None

    @property
    def size(self) -> Size:
        """Full resolution."""
        return self.levels[0].size


class Reader(Protocol):
    """An open file, used by one thread at a time unless its class says it is shareable."""

    is_shareable: ClassVar[bool]
    image: FileImage

    @classmethod
    def open(cls, path: Path, series: int) -> Self:
        """Open the file, or raise the library's exception."""
        ...

    def read(self, level: int, x: float, y: float, width: int, height: int) -> Pixels:
        """Return pixels of a level; the rectangle, in pixels of that level, lies within it.

        A corner between pixels is what OpenSlide makes of it; other readers take the nearest.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def levels_from_sizes(sizes: list[Size]) -> tuple[FileLevel, ...]:
    """Return the levels of a pyramid from the sizes of its levels, finest first.

    A level's scale is its size's ratio to full resolution, per axis, unless one whole number
    explains both axes up to the pixel that dividing loses: then the true scale is that number
    (a 46,000 x 32,914 slide and its 2,875 x 2,057 level are 16 apart, not 16.0005). Taking the
    ratio there would stretch the level by up to a pixel; taking whole numbers elsewhere (57.375)
    would shift it by many. Levels that do not get coarser are left out, as QuPath does.

    Raises
    ------
    ValueError
        The image is empty.
    """
    full = sizes[0]
    if full.width < 1 or full.height < 1:
        raise ValueError("the image has no pixels")
    levels = [FileLevel(full, 1.0, 1.0)]
    for size in sizes[1:]:
        if size.width < 1 or size.height < 1:
            continue
        scale_x, scale_y = full.width / size.width, full.height / size.height
        whole = round((scale_x + scale_y) / 2)
        is_power_of_two = whole & (whole - 1) == 0
        # On a level smaller than its own scale nearly any whole number would fit.
        if (
            (is_power_of_two or min(size.width, size.height) >= 2 * whole)
            and abs(full.width / whole - size.width) < 1
            and abs(full.height / whole - size.height) < 1
        ):
            scale_x = scale_y = float(whole)
        if scale_x > levels[-1].scale_x and scale_y > levels[-1].scale_y:
            levels.append(FileLevel(size, scale_x, scale_y))
    return tuple(levels)


def plausible_mpp(x: float, y: float) -> Mpp | None:
    """Return a resolution tag's pixel size in micrometres, or None if no microscope made it."""
    low, high = PLAUSIBLE_MPP
    return Mpp(x, y) if low <= x <= high and low <= y <= high else None


def over_background(
    rgba: NDArray[Any], background: tuple[int, int, int] = (255, 255, 255)
) -> Pixels:
    """Return RGB pixels of non-premultiplied RGBA ones, shape [height, width, 4], composited."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgb)
    a = alpha.astype(np.uint16)
    mixed = rgb * a + np.asarray(background, np.uint16) * (255 - a)
    return ((mixed + 127) // 255).astype(np.uint8)
