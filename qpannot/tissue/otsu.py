"""Tissue by its colour: Otsu's threshold on saturation (H2G-Net sec. 3.2, design I)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu


def saturation(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the saturation of the HSV model, from 0 to 255.

    Parameters
    ----------
    rgb
        Image, shape [height, width, 3].
    """
    highest = rgb.max(axis=-1).astype(np.float32)
    spread = highest - rgb.min(axis=-1)
    ratio = np.divide(spread, highest, out=np.zeros_like(spread), where=highest > 0)
    rounded: NDArray[np.uint8] = np.rint(ratio * 255).astype(np.uint8)
    return rounded


def tissue_threshold(image: NDArray[np.uint8]) -> int:
    """Return the grey level above which Otsu's method sees the foreground.

    An image of one grey level has no foreground.
    """
    return int(threshold_otsu(image))  # type: ignore[no-untyped-call]
