"""TIFF and OME-TIFF through tifffile: what OpenSlide does not read, or not with all its levels."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar, Self
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from qpannot.geometry import Mpp, Size
from qpannot.slide.image import (
    FileImage,
    Pixels,
    levels_from_sizes,
    over_background,
    plausible_mpp,
)

CACHE_BYTES = 64 << 20
"""Decoded tiles or strips kept per open file: a row of strips is read by several blocks."""

UM_PER_UNIT = {
    "m": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "\\u00B5m": 1.0,  # how ImageJ escapes it
    "nm": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
    "in": 25_400.0,
    "inch": 25_400.0,
}
UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 1e4}

Page = Any
"""A `tifffile.TiffPage`, whose attributes depend on its tags."""


class TiffReader:
    """One series of a TIFF, with its pyramid in SubIFDs or in the pages that follow.

    Of a stack the first plane is served.
    """

    is_shareable: ClassVar[bool] = False

    def __init__(self, tiff: tifffile.TiffFile, series: int) -> None:
        self._tiff = tiff
        if not 0 <= series < len(tiff.series):
            raise ValueError(f"there is no series {series}; the file has {len(tiff.series)}")
        chosen = tiff.series[series]
        pages = [_first_page(level) for level in chosen.levels]
        sizes = [Size(page.imagewidth, page.imagelength) for page in pages]
        first = pages[0]
        for page in pages:
            if page.compression not in tifffile.TIFF.DECOMPRESSORS:
                raise ValueError(f"unknown TIFF compression {int(page.compression)}")
        n_channels = _n_channels(chosen)
        is_uint8 = first.dtype == np.uint8
        photometric = int(first.photometric)
        is_rgb = is_uint8 and n_channels in (3, 4) and "S" in chosen.axes and photometric in (2, 6)
        is_rgb = is_rgb or (is_uint8 and photometric == 3 and n_channels == 1)
        self.image = FileImage(
            format="tiff",
            vendor="ome-tiff" if tiff.is_ome else "tiff",
            levels=levels_from_sizes(sizes),
            mpp=_mpp(tiff, first, series),
            objective_power=_objective_power(tiff, series),
            tile_size=Size(first.tilewidth, first.tilelength) if first.is_tiled else None,
            bounds=None,
            n_channels=3 if is_rgb else n_channels,
            pixel_type=np.dtype(first.dtype).name.upper() if first.dtype else "UNKNOWN",
            is_rgb=is_rgb,
            is_readable=is_rgb or (is_uint8 and n_channels == 1 and photometric in (0, 1)),
        )
        self._pages = [pages[sizes.index(level.size)] for level in self.image.levels]
        self._segments: OrderedDict[tuple[int, int], NDArray[Any] | None] = OrderedDict()
        self._cached_bytes = 0

    @classmethod
    def open(cls, path: Path, series: int) -> Self:
        """Open a TIFF and read its directories.

        Raises
        ------
        tifffile.TiffFileError, ValueError
            It is no TIFF, or one that cannot be decoded.
        """
        tiff = tifffile.TiffFile(path)
        try:
            return cls(tiff, series)
        except BaseException:
            tiff.close()
            raise

    def read(self, level: int, x: float, y: float, width: int, height: int) -> Pixels:
        """Return pixels of a level; tiles the file leaves out are white."""
        page = self._pages[level]
        samples = self._samples(level, round(x), round(y), width, height)
        return _rgb(samples, page)

    def _samples(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        page = self._pages[level]
        if page.is_memmappable and page.planarconfig == 1:
            # One uncompressed strip can be the whole image: let the system page in what is needed.
            stored = np.memmap(
                page.parent.filehandle.path,
                dtype=page.dtype,
                mode="r",
                offset=page.dataoffsets[0],
                shape=(page.imagelength, page.imagewidth, page.samplesperpixel),
            )
            return np.array(stored[y : y + height, x : x + width])
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        columns, tile_width, tile_height = 1, page.imagewidth, 0
        if page.is_tiled:
            tile_width, tile_height = page.tilewidth, page.tilelength
            columns = math.ceil(page.imagewidth / tile_width)
        else:
            tile_height = min(page.rowsperstrip, page.imagelength)
        rows = math.ceil(page.imagelength / tile_height)
        blank = 0 if int(page.photometric) == 0 else 255
        out = np.full((height, width, page.samplesperpixel), blank, np.uint8)
        for plane in range(planes):
            channels = slice(plane, plane + 1) if planes > 1 else slice(None)
            for row in range(y // tile_height, (y + height - 1) // tile_height + 1):
                for column in range(x // tile_width, (x + width - 1) // tile_width + 1):
                    index = (plane * rows + row) * columns + column
                    segment = self._segment(level, index)
                    if segment is None:
                        continue
                    left, top = column * tile_width, row * tile_height
                    x0, x1 = max(x, left), min(x + width, left + segment.shape[1])
                    y0, y1 = max(y, top), min(y + height, top + segment.shape[0])
                    part = segment[y0 - top : y1 - top, x0 - left : x1 - left]
                    out[y0 - y : y1 - y, x0 - x : x1 - x, channels] = part
        return out

    def _segment(self, level: int, index: int) -> NDArray[Any] | None:
        key = (level, index)
        if key in self._segments:
            self._segments.move_to_end(key)
            return self._segments[key]
        page = self._pages[level]
        segment: NDArray[Any] | None = None
        if page.databytecounts[index]:
            handle = page.parent.filehandle
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
            extra = {}
            if page.jpegtables is not None or page.jpegheader is not None:
                extra = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
            decoded, _, _ = page.decode(data, index, **extra)
            segment = None if decoded is None else decoded[0]
        self._segments[key] = segment
        self._cached_bytes += 0 if segment is None else segment.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._segments) > 1:
            _, oldest = self._segments.popitem(last=False)
            self._cached_bytes -= 0 if oldest is None else oldest.nbytes
        return segment

    def close(self) -> None:
        """Release the file."""
        self._segments.clear()
        self._tiff.close()


def is_rgb_pyramid_for_openslide(path: Path) -> bool:
    """Whether OpenSlide serves all of a generic TIFF: 8-bit RGB, and no OME-TIFF.

    OpenSlide reduces grey and 16-bit TIFFs to RGB silently, and sees neither the SubIFDs nor the
    metadata of an OME-TIFF; QuPath leaves those to Bio-Formats for the same reasons.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Page = tiff.pages[0]
            eight_bit_rgb = page.dtype == np.uint8 and page.samplesperpixel in (3, 4)
            return bool(eight_bit_rgb and not tiff.is_ome)
    except tifffile.TiffFileError:
        return True


def _first_page(level: tifffile.TiffPageSeries) -> Page:
    page = level.pages[0]
    if page is None:
        raise ValueError("the pixels of this series are in another file, which is not there")
    return page.aspage()


def _n_channels(series: tifffile.TiffPageSeries) -> int:
    count = 1
    for axis, length in zip(series.axes, series.shape, strict=True):
        if axis in "SC":
            count *= length
    return int(count)


def _rgb(samples: NDArray[np.uint8], page: Page) -> Pixels:
    photometric = int(page.photometric)
    if photometric == 3:
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)
        return np.ascontiguousarray(colours.T[samples[..., 0]])
    if samples.shape[2] == 1:
        grey = 255 - samples if photometric == 0 else samples
        return np.repeat(grey, 3, axis=2)
    if samples.shape[2] == 4 and page.extrasamples and int(page.extrasamples[0]) == 2:
        return over_background(samples)
    return np.ascontiguousarray(samples[..., :3])


def _mpp(tiff: tifffile.TiffFile, page: Page, series: int) -> Mpp | None:
    if tiff.is_ome:
        return _ome_mpp(_ome_pixels(tiff, series))
    width_um = None
    if tiff.is_imagej:
        width_um = UM_PER_UNIT.get(str((tiff.imagej_metadata or {}).get("unit", "")))
    if width_um is None:
        unit = page.tags.get("ResolutionUnit")
        width_um = UM_PER_RESOLUTION_UNIT.get(int(unit.value)) if unit is not None else None
    per_unit = [_rational(page, name) for name in ("XResolution", "YResolution")]
    if width_um is None or not all(per_unit):
        return None
    return plausible_mpp(width_um / per_unit[0], width_um / per_unit[1])


def _rational(page: Page, name: str) -> float:
    try:
        numerator, denominator = page.tags[name].value
        return float(numerator / denominator)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0.0


def _ome_root(tiff: tifffile.TiffFile) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tiff.ome_metadata or "")
    except ElementTree.ParseError:
        return None


def _ome_image(root: ElementTree.Element, series: int) -> ElementTree.Element | None:
    images = root.findall("{*}Image")
    return images[series] if series < len(images) else None


def _ome_pixels(tiff: tifffile.TiffFile, series: int) -> ElementTree.Element | None:
    root = _ome_root(tiff)
    image = None if root is None else _ome_image(root, series)
    return None if image is None else image.find("{*}Pixels")


def _ome_mpp(pixels: ElementTree.Element | None) -> Mpp | None:
    if pixels is None:
        return None
    lengths = []
    for axis in "XY":
        unit = UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            lengths.append(float(pixels.get(f"PhysicalSize{axis}", "")) * (unit or math.nan))
        except ValueError:
            return None
    try:
        return Mpp(*lengths)
    except ValueError:
        return None


def _objective_power(tiff: tifffile.TiffFile, series: int) -> float | None:
    root = _ome_root(tiff) if tiff.is_ome else None
    image = None if root is None else _ome_image(root, series)
    settings = None if image is None else image.find("{*}ObjectiveSettings")
    if root is None or settings is None:
        return None
    for objective in root.iterfind("{*}Instrument/{*}Objective"):
        if objective.get("ID") == settings.get("ID"):
            try:
                power = float(objective.get("NominalMagnification", ""))
            except ValueError:
                return None
            return power if math.isfinite(power) and power > 0 else None
    return None
