"""Where the pixels of a mask or heatmap lie on their slide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpannot.geometry import Mpp, Region


@dataclass(frozen=True, slots=True)
class Affine:
    """From the pixels of a mask or heatmap to full-resolution pixels of QuPath's frame.

    The upper left corner of the pixel in a column and row lies at ``x + column * dx`` and
    ``y + row * dy``, its middle half a pixel further.

    Parameters
    ----------
    dx, dy
        Width and height of a pixel in full-resolution pixels, not necessarily whole ones.
    x, y
        The upper left corner of the first pixel.
    """

    dx: float
    dy: float
    x: float = 0.0
    y: float = 0.0

    def __post_init__(self) -> None:
        values = (self.dx, self.dy, self.x, self.y)
        if not all(math.isfinite(v) for v in values) or self.dx <= 0 or self.dy <= 0:
            raise ValueError(f"an affine needs finite numbers and a positive pixel size: {values}")

    @classmethod
    def downsampled(cls, downsample: float) -> Affine:
        """Return the affine of square pixels from the slide's corner on."""
        return cls(downsample, downsample)

    def to_slide(self, corners: NDArray[np.integer | np.floating]) -> NDArray[np.float64]:
        """Return corners (column, row), shape [..., 2], in full-resolution pixels (x, y)."""
        return np.asarray(corners, np.float64) * (self.dx, self.dy) + (self.x, self.y)

    def from_slide(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return full-resolution points (x, y), shape [..., 2], in columns and rows."""
        return (np.asarray(points, np.float64) - (self.x, self.y)) / (self.dx, self.dy)

    def region(self, shape: tuple[int, int]) -> Region:
        """Return what pixels of a shape (height, width) cover."""
        return Region(self.x, self.y, shape[1] * self.dx, shape[0] * self.dy)

    def pixel_um(self, mpp: Mpp) -> tuple[float, float]:
        """Return width and height of a pixel in micrometres on a slide of a resolution."""
        return self.dx * mpp.x, self.dy * mpp.y
