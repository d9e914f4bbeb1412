"""From pixels to a binary image, with ImageJ's arithmetic to the last grey level.

Source: ImageJ 1.54 ``TypeConverter``, ``ByteProcessor.filter``, ``RankFilters``, as QuPath 0.6
``SimpleTissueDetection2`` calls them. Outside the image its nearest pixel counts, everywhere.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the unweighted mean of red, green and blue, rounded to the nearest."""
    total: NDArray[np.uint16] = rgb.sum(axis=-1, dtype=np.uint16)
    return ((total + 1) // 3).astype(np.uint8)


def smooth(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean of 3 x 3 pixels, rounded to the nearest."""
    return ((_sum_3x3(image) + 4) // 9).astype(np.uint8)


def median(mask: Mask) -> Mask:
    """Return the median of 3 x 3 pixels, which is ImageJ's median filter of radius 1."""
    return _sum_3x3(mask) >= 5


def dilate(mask: Mask) -> Mask:
    """Return the maximum of 3 x 3 pixels."""
    dilated: Mask = ndi.binary_dilation(mask, np.ones((3, 3), bool))
    return dilated


def without_boundary(mask: Mask) -> Mask:
    """Return the mask without its 4-connected parts that touch the border of the image."""
    labels, n = ndi.label(mask)
    keep = np.ones(n + 1, bool)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        keep[border] = False
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


def _sum_3x3(image: NDArray[np.uint8] | Mask) -> NDArray[np.uint16]:
    padded = np.pad(image, 1, mode="edge").astype(np.uint16)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    total: NDArray[np.uint16] = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return total
