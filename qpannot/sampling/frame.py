"""How a whole slide of any shape becomes a square image, and back (H2G-Net sec. 2.6).

What fills the square is resampled by area where it gets coarser, and interpolated linearly between
the middles of pixels where it gets finer, as a heatmap of wide cells does. The paper interpolates
in both cases, which passes over most of a slide's pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.geometry import Mpp, Size
from qpannot.slide.resample import Axis

Fit = Literal["pad", "stretch"]

FLOAT_NOISE = 1e-6
"""Part of a pixel that does not make another one at the slide's far border."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The square image of a slide.

    Parameters
    ----------
    size_px
        Its width and height.
    affine
        Where its pixels lie on the slide, those of the padding beside it.
    left, top
        The column and row where the slide begins: whole pixels, so that without the padding the
        image begins at the slide's corner.
    columns, rows
        How many the slide takes; the last ones may reach beyond it.
    """

    size_px: int
    affine: Affine
    left: int
    top: int
    columns: int
    rows: int

    @classmethod
    def of(cls, size: Size, mpp: Mpp, size_px: int, fit: Fit) -> Frame:
        """Return the frame of a slide.

        Parameters
        ----------
        size, mpp
            The slide's, at full resolution.
        fit
            ``pad``: pixels are square in micrometres, and the slide lies in the middle.
            ``stretch``: it fills the square.
        """
        if fit == "stretch":
            affine = Affine(size.width / size_px, size.height / size_px)
            return cls(size_px, affine, 0, 0, size_px, size_px)
        pixel_um = max(size.width * mpp.x, size.height * mpp.y) / size_px
        dx, dy = pixel_um / mpp.x, pixel_um / mpp.y
        columns, rows = (
            min(size_px, max(1, math.ceil(length / pitch - FLOAT_NOISE)))
            for length, pitch in ((size.width, dx), (size.height, dy))
        )
        left, top = (size_px - columns) // 2, (size_px - rows) // 2
        return cls(size_px, Affine(dx, dy, -left * dx, -top * dy), left, top, columns, rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.size_px, self.size_px

    @property
    def inner(self) -> tuple[slice, slice]:
        """The rows and columns of the slide, without the padding."""
        return (
            slice(self.top, self.top + self.rows),
            slice(self.left, self.left + self.columns),
        )

    @property
    def inner_affine(self) -> Affine:
        """Where the pixels of `inner` lie on the slide: from its corner on."""
        return Affine(self.affine.dx, self.affine.dy)


def into_frame(
    values: NDArray[np.float32], affine: Affine, frame: Frame, outside: float = 0.0
) -> NDArray[np.float32]:
    """Return values of a slide in the pixels of its frame.

    Parameters
    ----------
    values
        Without NaN, shape [height, width, channels].
    affine
        Where their pixels lie on the slide.
    outside
        What counts where there are none.

    Returns
    -------
    ndarray of float32, shape [size_px, size_px, channels]
    """
    vertical, horizontal = (
        Axis((start - own_start) / own_pitch, pitch / own_pitch, frame.size_px, 0, count, count)
        for start, pitch, own_start, own_pitch, count in (
            (frame.affine.y, frame.affine.dy, affine.y, affine.dy, values.shape[0]),
            (frame.affine.x, frame.affine.dx, affine.x, affine.dx, values.shape[1]),
        )
    )
    return resampled(values, vertical, horizontal, outside)


def resampled(
    values: NDArray[np.float32], vertical: Axis, horizontal: Axis, outside: float
) -> NDArray[np.float32]:
    """Return what two axes make of values, shape [height, width, channels].

    Parameters
    ----------
    outside
        What counts where they reach beyond the values.
    """
    height, width, channels = values.shape
    rows = vertical.weights(slice(None), range(height))
    columns = horizontal.weights(slice(None), range(width))
    lines = rows @ (values - np.float32(outside)).reshape(height, width * channels)
    turned = lines.reshape(-1, width, channels).transpose(1, 0, 2).reshape(width, -1)
    found = (columns @ turned).reshape(horizontal.count, vertical.count, channels)
    result: NDArray[np.float32] = found.transpose(1, 0, 2) + np.float32(outside)
    return result
