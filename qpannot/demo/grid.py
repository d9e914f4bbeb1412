"""The two scales of a demo slide: its pixels, and the coarse grid it is planned on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from qpannot.demo.noise import FloatArray

MPP = 0.5
"""Micrometres per pixel at full resolution."""

GRID_PX = 8
GRID_UM = GRID_PX * MPP


def enlarge(
    field: FloatArray,
    x: int,
    y: int,
    width: int,
    height: int,
    factor: int,
    *,
    smooth: bool = False,
) -> FloatArray:
    """Return a window of a coarse field at full resolution.

    Parameters
    ----------
    field
        Coarse field; sample (0, 0) covers ``factor`` x ``factor`` full-resolution pixels.
    x, y, width, height
        The window, in full-resolution pixels; multiples of ``factor``, inside the field.
    factor
        Full-resolution pixels along one side of a coarse sample.
    smooth
        Bicubic instead of bilinear: rounder outlines.

    Returns
    -------
    Array ``(height, width)``, float32. Windows side by side meet without a seam.
    """
    rows = np.arange(y // factor - 2, (y + height) // factor + 2).clip(0, field.shape[0] - 1)
    cols = np.arange(x // factor - 2, (x + width) // factor + 2).clip(0, field.shape[1] - 1)
    part = field[rows[:, None], cols]
    if part.min() == part.max():
        return np.full((height, width), part[0, 0], dtype=np.float32)
    wide = _enlarge_rows(np.ascontiguousarray(part.T), factor, smooth)
    return _enlarge_rows(np.ascontiguousarray(wide.T), factor, smooth)


def _enlarge_rows(part: FloatArray, factor: int, smooth: bool) -> FloatArray:
    """Return ``factor`` rows for each row of ``part`` but the outer two on each side."""
    count = part.shape[0] - 4
    result = np.empty((count, factor, part.shape[1]), np.float32)
    for phase, taps in enumerate(_taps(factor, smooth)):
        (offset, weight), *others = taps
        row = part[offset : offset + count] * weight
        for offset, weight in others:
            row += part[offset : offset + count] * weight
        result[:, phase] = row
    return result.reshape(count * factor, -1)


@lru_cache(maxsize=4)
def _taps(factor: int, smooth: bool) -> tuple[tuple[tuple[int, np.float32], ...], ...]:
    """Return, for each place inside a coarse sample, the neighbours that count and their weights.

    Resampling a whole slide field by field is most of the work; written out like this it takes a
    third of the time of Pillow's or SciPy's general functions.
    """
    result = []
    for phase in range(factor):
        away = np.abs(np.arange(-2, 3) - ((phase + 0.5) / factor - 0.5))
        if smooth:  # Keys 1981, a = -0.5
            near = (1.5 * away - 2.5) * away**2 + 1
            far = ((-0.5 * away + 2.5) * away - 4) * away + 2
            weights = np.where(away < 1, near, np.where(away < 2, far, 0))
        else:
            weights = np.clip(1 - away, 0, None)
        result.append(tuple((k, np.float32(w)) for k, w in enumerate(weights) if w != 0))
    return tuple(result)
