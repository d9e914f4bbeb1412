"""Coordinate types, so that pixels and micrometres cannot be mixed unseen.

All annotation geometry is in *full-resolution pixels of QuPath's frame*: level 0 of the slide,
with its origin where QuPath puts it (OpenSlide's bounds cropped away unless told not to).
Pixels of another level are always named so (``width_px`` of a ``Level``), lengths in micrometres
carry ``_um`` in their names, and areas ``_um2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MPP_AT_1X = 10.0
"""Micrometres per pixel at magnification 1: the field's convention that 40x is 0.25 mpp."""


@dataclass(frozen=True, slots=True)
class Size:
    """A width and a height in pixels.

    The level they belong to is said by the name that holds them.
    """

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width:,} x {self.height:,} px"


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometres per pixel, of full resolution unless a name says otherwise."""

    x: float
    y: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y) and self.x > 0 and self.y > 0):
            raise ValueError(f"micrometres per pixel must be positive, not {self.x} x {self.y}")

    @classmethod
    def square(cls, value: float) -> Mpp:
        """Return the resolution of square pixels ``value`` micrometres wide."""
        return cls(value, value)

    @property
    def mean(self) -> float:
        """The average of both axes, as QuPath's ``getAveragedPixelSizeMicrons``."""
        return (self.x + self.y) / 2

    @property
    def magnification(self) -> float:
        """The objective power this resolution is called by (0.25 mpp is 40x)."""
        return magnification_from_mpp(self.mean)


def magnification_from_mpp(mpp: float) -> float:
    """Return the objective power that ``mpp`` micrometres per pixel is called by."""
    return MPP_AT_1X / mpp


def estimate_downsample(full: Size, level: Size) -> float:
    """Return the downsample QuPath gives a level of a pyramid: what is nearly whole becomes whole.

    Parameters
    ----------
    full, level
        Level 0 and the level, as the file stores them.

    Notes
    -----
    QuPath 0.6 ``ImageServerMetadata.ImageResolutionLevel.Builder.estimateDownsample``.
    """
    x, y = full.width / level.width, full.height / level.height
    power_of_2 = 2.0 ** math.floor(math.log2((x + y) / 2) + 0.5)
    if (
        abs(full.height / power_of_2 - level.height) < 2
        and abs(full.width / power_of_2 - level.width) < 2
    ):
        return power_of_2
    whole_x, whole_y = math.floor(x + 0.5), math.floor(y + 0.5)
    if abs(full.width / whole_x - level.width) <= 1:
        x = float(whole_x)
    if abs(full.height / whole_y - level.height) <= 1:
        y = float(whole_y)
    return power_of_2 if x != y and power_of_2 in (x, y) else (x + y) / 2


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in full-resolution pixels of QuPath's frame.

    Parameters
    ----------
    x, y
        The upper left corner; may lie outside the slide, and between pixels.
    width, height
        Positive extent.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        values = (self.x, self.y, self.width, self.height)
        if not all(math.isfinite(v) for v in values) or self.width <= 0 or self.height <= 0:
            raise ValueError(f"a region needs finite numbers and a positive extent: {values}")

    @property
    def right(self) -> float:
        """The x just right of the region."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y just below the region."""
        return self.y + self.height

    def shifted(self, dx: float, dy: float) -> Region:
        """Return the region moved by ``dx``, ``dy`` pixels."""
        return Region(self.x + dx, self.y + dy, self.width, self.height)
