"""Flat images (PNG, JPEG, BMP, GIF) through Pillow."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from PIL import Image

from qpannot.geometry import Size
from qpannot.slide.image import FileImage, FileLevel, Pixels, over_background

GREY_MODES = {"1", "L", "LA"}
RGB_MODES = {"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"}


class FlatReader:
    """An image that can only be decoded whole; kept decoded once it was read.

    Pixel sizes of such files (PNG ``pHYs``, JPEG density) are print resolutions and are ignored,
    as is the EXIF orientation: QuPath shows the pixels as stored.
    """

    is_shareable: ClassVar[bool] = True

    def __init__(self, path: Path, vendor: str, size: Size, mode: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        readable = mode in GREY_MODES | RGB_MODES
        self.image = FileImage(
            format="image",
            vendor=vendor,
            levels=(FileLevel(size, 1.0, 1.0),),
            mpp=None,
            objective_power=None,
            tile_size=None,
            bounds=None,
            n_channels=3 if mode in RGB_MODES else 1,
            pixel_type="UINT8" if readable else _pixel_type(mode),
            is_rgb=mode in RGB_MODES,
            is_readable=readable,
        )

    @classmethod
    def open(cls, path: Path, series: int) -> Self:
        """Read the header.

        Raises
        ------
        OSError
            Pillow does not know the format.
        """
        with Image.open(path) as image:
            return cls(path, (image.format or "image").lower(), Size(*image.size), image.mode)

    def read(self, level: int, x: float, y: float, width: int, height: int) -> Pixels:
        """Return pixels of the image; transparent ones are laid over white."""
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
            pixels = self._pixels
        left, top = round(x), round(y)
        return pixels[top : top + height, left : left + width]

    def _decode(self) -> Pixels:
        with Image.open(self._path) as image:
            if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
                return over_background(np.asarray(image.convert("RGBA")))
            return np.asarray(image.convert("RGB"))

    def close(self) -> None:
        """Forget the decoded pixels."""
        self._pixels = None


def _pixel_type(mode: str) -> str:
    if mode.startswith("I;16"):
        return "UINT16"
    return "FLOAT32" if mode == "F" else "INT32"
