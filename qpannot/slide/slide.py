"""Whole slides in QuPath's frame, and views of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from qpannot.errors import MissingMppError, SlideError
from qpannot.geometry import Mpp, Region, Size
from qpannot.slide.handles import Handles
from qpannot.slide.image import FileImage, FileLevel, Pixels
from qpannot.slide.resample import Axis, resample

COARSER_STILL_FINE = 1.01
"""A level this much coarser than asked is still used: 4.0001 for 4, not 1 for 4."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide.

    Parameters
    ----------
    size
        In pixels of the level, of QuPath's frame.
    downsample
        Full-resolution pixels per pixel of the level; the mean of both axes where they differ.
    """

    size: Size
    downsample: float


class Slide:
    """A whole slide image, or a turned or cropped view of one. Made by `qpannot.slide.open_slide`.

    All regions are in full-resolution pixels of the slide's own frame, as QuPath shows it. A slide
    can be pickled, forked and read from several threads at once: every thread and process opens
    the file for itself. Views share the files of the slide they are of.
    """

    def __init__(
        self,
        path: Path,
        image: FileImage,
        handles: Handles,
        *,
        mpp: Mpp | None,
        frame: Region,
        quarter_turns: int = 0,
    ) -> None:
        self._path = path
        self._image = image
        self._handles = handles
        self._file_mpp = mpp
        self._frame = frame
        self._quarter_turns = quarter_turns % 4

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def size(self) -> Size:
        """Full resolution."""
        return self._turned_size(Size(round(self._frame.width), round(self._frame.height)))

    @property
    def levels(self) -> tuple[Level, ...]:
        """The resolutions stored in the file, finest first."""
        full = (self._image.size.width, self._image.size.height)
        is_whole = (self._frame.width, self._frame.height) == full
        levels = []
        for level in self._image.levels:
            size, downsample = level.size, (level.scale_x + level.scale_y) / 2
            if not is_whole:
                # QuPath: ImageResolutionLevel.Builder.addLevelByDownsample
                width = int(self._frame.width / downsample)
                height = int(self._frame.height / downsample)
                size = Size(max(1, width), max(1, height))
            levels.append(Level(self._turned_size(size), downsample))
        return tuple(levels)

    @property
    def mpp_or_none(self) -> Mpp | None:
        """Micrometres per full-resolution pixel, or None where nothing says."""
        mpp = self._file_mpp
        return Mpp(mpp.y, mpp.x) if mpp is not None and self._is_sideways else mpp

    @property
    def mpp(self) -> Mpp:
        """Micrometres per full-resolution pixel.

        Raises
        ------
        MissingMppError
            Nothing says.
        """
        if self.mpp_or_none is None:
            raise MissingMppError(self._path)
        return self.mpp_or_none

    @property
    def objective_power(self) -> float | None:
        """The magnification the file names, or None; what QuPath takes into its metadata."""
        return self._image.objective_power

    @property
    def magnification(self) -> float | None:
        """The magnification the file names, else the one its pixel size is called by."""
        if self._image.objective_power is not None:
            return self._image.objective_power
        return None if self._file_mpp is None else self._file_mpp.magnification

    @property
    def format(self) -> str:
        """Which reader serves it: ``"openslide"``, ``"tiff"`` or ``"image"``."""
        return self._image.format

    @property
    def identity(self) -> str | None:
        """What the files of one slide share (DICOM's series); None where a slide is one file."""
        return self._image.identity

    @property
    def file_level_sizes(self) -> tuple[Size, ...]:
        """The levels as the file stores them, finest first: unturned, nothing cropped away."""
        return tuple(level.size for level in self._image.levels)

    @property
    def quarter_turns(self) -> int:
        """How often the file is turned clockwise by 90 degrees to be seen as it is, 0 to 3."""
        return self._quarter_turns

    @property
    def vendor(self) -> str:
        """OpenSlide's vendor, else the kind of file, as ``"ome-tiff"`` or ``"png"``."""
        return self._image.vendor

    @property
    def tile_size(self) -> Size | None:
        """The tiles of full resolution, or None where the file is not tiled."""
        tile = self._image.tile_size
        return None if tile is None else self._turned_size(tile)

    @property
    def n_channels(self) -> int:
        """Channels as stored: 3 for RGB, 1 for grey."""
        return self._image.n_channels

    @property
    def pixel_type(self) -> str:
        """QuPath's name of the sample type, as ``"UINT8"``."""
        return self._image.pixel_type

    @property
    def is_rgb(self) -> bool:
        """Whether the file stores 8-bit RGB. Grey is not, though it is served as RGB."""
        return self._image.is_rgb

    @property
    def bounds_origin(self) -> tuple[float, float]:
        """Where the upper left corner of what is seen lies in the file's level 0, unturned."""
        return self._frame.x, self._frame.y

    def read(self, region: Region, mpp: float) -> Pixels:
        """Return a region at a resolution, with square pixels whatever those of the slide are.

        The output is ``round(extent in micrometres / mpp)`` pixels wide and high, at least 1, and
        its pixels are exactly ``mpp`` micrometres apart from the region's upper left corner on.

        Parameters
        ----------
        region
            May reach beyond the slide and begin between pixels.
        mpp
            Micrometres per pixel of the output.

        Returns
        -------
        ndarray of uint8, shape [height, width, 3]

        Raises
        ------
        MissingMppError
            The slide has no known pixel size.
        SlideError
            The slide is no RGB image, or cannot be read.
        """
        return self.read_downsampled(region, (mpp / self.mpp.x, mpp / self.mpp.y))

    def read_downsampled(
        self, region: Region, downsample: float | tuple[float, float], size: Size | None = None
    ) -> Pixels:
        """Return a region at a downsample.

        Pixel (column i, row j) of the output is the mean of the slide over exactly the rectangle
        from ``(region.x + i * downsample, region.y + j * downsample)`` to the next pixel's, as the
        coarsest level that is fine enough shows it. Outside the slide counts as white. Asked for
        finer than full resolution, values are interpolated linearly between pixel centres.

        Parameters
        ----------
        region
            May reach beyond the slide and begin between pixels.
        downsample
            Full-resolution pixels per pixel of the output: of both axes, or (x, y).
        size
            How many pixels to return; by default the region's extent divided by the downsample,
            rounded to the nearest, at least 1. It settles the rounding, not the scale: it must be
            within a pixel of that.

        Returns
        -------
        ndarray of uint8, shape [height, width, 3]

        Raises
        ------
        SlideError
            The slide is no RGB image, or cannot be read.
        ValueError
            A downsample that is not positive, or a size that contradicts it.
        """
        if not self._image.is_readable:
            channels = f"{self._image.n_channels} channel(s) of {self._image.pixel_type.lower()}"
            raise SlideError(
                self._path,
                f"it is no RGB image but has {channels}; its pixels cannot be read.",
                hint="Use a brightfield (8-bit RGB) slide, or leave this image out.",
            )
        dx, dy = downsample if isinstance(downsample, tuple) else (downsample, downsample)
        if not (math.isfinite(dx) and math.isfinite(dy) and dx > 0 and dy > 0):
            raise ValueError(f"a downsample must be positive, not {dx} x {dy}")
        exact = region.width / dx, region.height / dy
        if size is None:
            size = Size(max(1, math.floor(exact[0] + 0.5)), max(1, math.floor(exact[1] + 0.5)))
        elif (
            min(size.width, size.height) < 1
            or abs(size.width - exact[0]) > 1
            or abs(size.height - exact[1]) > 1
        ):
            expected = f"{exact[0]:.2f} x {exact[1]:.2f}"
            raise ValueError(f"{size} contradict the region and downsample, which give {expected}")
        covered = Region(region.x, region.y, size.width * dx, size.height * dy)
        if self._is_sideways:
            dx, dy = dy, dx
        pixels = self._read_file(self._in_file(covered), dx, dy, self._turned_size(size))
        # QuPath's ROTATE_90 is clockwise; NumPy counts anticlockwise.
        # Copied, because the reader may keep what it hands out.
        return np.array(np.rot90(pixels, -self._quarter_turns), order="C")

    def read_tile(self, level: int, x: int, y: int, size: Size) -> Pixels:
        """Return stored pixels of a level from a full-resolution pixel on, as QuPath reads a tile.

        Where levels are not whole multiples apart, OpenSlide divides the corner by its own idea
        of the downsample and interpolates; the result then differs from `read_downsampled`'s.

        Parameters
        ----------
        level
            Which of `levels`.
        x, y
            Upper left corner at full resolution.
        size
            In pixels of the level; the tile lies within it.

        Raises
        ------
        SlideError
            The slide cannot be read.
        ValueError
            The slide is a turned view, which has no tiles of its own.
        """
        if self._quarter_turns:
            raise ValueError("turn the slide back (rotated(-quarter_turns)) to read its tiles")
        full, stored = self._image.size, self._image.levels[level].size
        # openslide.c: what OpenSlide takes for the downsample
        downsample = (full.width / stored.width + full.height / stored.height) / 2
        left, top = (x + self._frame.x) / downsample, (y + self._frame.y) / downsample
        return self._handles.read(level, left, top, size.width, size.height)

    def thumbnail(self, max_size: Size) -> Pixels:
        """Return the whole slide, as large as fits ``max_size`` but never enlarged.

        Returns
        -------
        ndarray of uint8, shape [height, width, 3]
        """
        full = self.size
        downsample = max(full.width / max_size.width, full.height / max_size.height, 1.0)
        size = Size(
            min(max_size.width, max(1, round(full.width / downsample))),
            min(max_size.height, max(1, round(full.height / downsample))),
        )
        pitch = (full.width / size.width, full.height / size.height)
        return self.read_downsampled(Region(0, 0, full.width, full.height), pitch, size)

    def rotated(self, quarter_turns: int) -> Slide:
        """Return the slide turned clockwise, as QuPath's RotatedImageServer (ROTATE_90 is 1)."""
        return self._view(self._frame, self._quarter_turns + quarter_turns)

    def cropped(self, region: Region) -> Slide:
        """Return a part of the slide as a slide, as QuPath's CroppedImageServer.

        Raises
        ------
        ValueError
            The region reaches beyond the slide.
        """
        full = self.size
        inside = region.right <= full.width and region.bottom <= full.height
        if region.x < 0 or region.y < 0 or not inside:
            raise ValueError(f"{region} reaches beyond the slide, which is {full}")
        return self._view(self._in_file(region), self._quarter_turns)

    def close(self) -> None:
        """Close the file, for all views of it. No thread may be reading."""
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Slide {self._path.name}: {self.size}, {len(self._image.levels)} level(s)>"

    @property
    def _is_sideways(self) -> bool:
        return self._quarter_turns % 2 == 1

    def _turned_size(self, size: Size) -> Size:
        return Size(size.height, size.width) if self._is_sideways else size

    def _view(self, frame: Region, quarter_turns: int) -> Slide:
        return Slide(
            self._path,
            self._image,
            self._handles,
            mpp=self._file_mpp,
            frame=frame,
            quarter_turns=quarter_turns,
        )

    def _in_file(self, region: Region) -> Region:
        """Return a region of this frame in the file's level 0."""
        width, height = self._frame.width, self._frame.height
        match self._quarter_turns:
            case 0:
                turned = region
            case 1:
                turned = Region(region.y, height - region.right, region.height, region.width)
            case 2:
                x, y = width - region.right, height - region.bottom
                turned = Region(x, y, region.width, region.height)
            case _:
                turned = Region(width - region.bottom, region.x, region.height, region.width)
        return turned.shifted(self._frame.x, self._frame.y)

    def _read_file(self, region: Region, dx: float, dy: float, size: Size) -> Pixels:
        """Return ``size`` pixels ``dx`` by ``dy`` large from the corner of a region of level 0."""
        index, level = _best_level(self._image.levels, dx, dy)
        sx, sy, frame = level.scale_x, level.scale_y, self._frame
        horizontal = Axis(
            region.x / sx,
            dx / sx,
            size.width,
            frame.x / sx,
            frame.right / sx,
            level.size.width,
        )
        vertical = Axis(
            region.y / sy,
            dy / sy,
            size.height,
            frame.y / sy,
            frame.bottom / sy,
            level.size.height,
        )

        def read(x: int, y: int, width: int, height: int) -> Pixels:
            return self._handles.read(index, x, y, width, height)

        return resample(read, horizontal, vertical)


def _best_level(levels: tuple[FileLevel, ...], dx: float, dy: float) -> tuple[int, FileLevel]:
    """Return the coarsest level that is as fine as asked on both axes, else the finest."""
    best = 0
    for index, level in enumerate(levels):
        fine_x = level.scale_x <= dx * COARSER_STILL_FINE
        if fine_x and level.scale_y <= dy * COARSER_STILL_FINE:
            best = index
    return best, levels[best]
