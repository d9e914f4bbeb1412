"""Smooth random fields: the raw material of outlines, stain thickness and texture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.float32]


def value_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> FloatArray:
    """Return smooth noise of zero mean and unit deviation.

    Parameters
    ----------
    rng
        Source of randomness.
    shape
        Rows and columns.
    cell
        Size of a feature, in pixels of the result.

    Returns
    -------
    Array of ``shape``, float32.
    """
    rows, cols = (math.ceil(n / cell) + 4 for n in shape)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    left, top = 1 + rng.random(2)
    box = (left, top, left + shape[1] / cell, top + shape[0] / cell)
    enlarged = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC, box=box)
    field: FloatArray = np.asarray(enlarged, dtype=np.float32)
    field = field - field.mean()
    return field / np.float32(max(float(field.std()), 1e-6))


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cell: float,
    *,
    octaves: int,
    gain: float = 0.5,
) -> FloatArray:
    """Return noise of several scales, each half as large as the last and ``gain`` times as strong.

    Parameters
    ----------
    rng, shape, cell
        As for :func:`value_noise`; ``cell`` is the largest scale.
    octaves
        Number of scales.
    gain
        Strength of a scale relative to the one before.

    Returns
    -------
    Array of ``shape``, float32, unit deviation or nearly so.
    """
    total = value_noise(rng, shape, cell)
    weight, power = 1.0, 1.0
    for octave in range(1, octaves):
        weight *= gain
        power += weight**2
        total = total + np.float32(weight) * value_noise(rng, shape, max(cell / 2**octave, 1.5))
    return (total / math.sqrt(power)).astype(np.float32)


def smoothstep(field: NDArray[np.floating[Any]], low: float, high: float) -> FloatArray:
    """Return 0 below ``low``, 1 above ``high`` and a smooth ramp between, as float32."""
    ramp: FloatArray = np.asarray(field, dtype=np.float32) - np.float32(low)
    ramp *= np.float32(1 / (high - low))
    np.clip(ramp, 0, 1, out=ramp)
    return ramp * ramp * (3 - 2 * ramp)
