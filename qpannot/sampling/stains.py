"""The two stains of a slide, and how much there is of each (Macenko et al., ISBI 2009).

What stains absorb adds up as optical density, -ln of the part of the light that gets through. All
densities of a slide lie near a plane, which the two stains span; the directions in it beyond which
only one hundredth of the tissue lies, on either side, are taken for the stains.

H2G-Net says no more than "Macenko stain augmentation" and a sigma of 0.1. We read it as the public
tools do: how much there is of a stain is multiplied by a number from 1 - sigma to 1 + sigma, and
one from -sigma to sigma is added, for each stain its own. Theirs are natural logarithms, as here;
Macenko's own are decimal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GLASS = 0.15
"""Optical density, the mean of the colours, below which a pixel tells nothing of stains; Macenko's
beta. Asked of each colour, it would leave no pixel of eosin alone, which absorbs hardly any red."""

EXTREME = 1.0
"""Per cent of the tissue beyond a stain, on its side; Macenko's alpha."""

FEWEST = 100
"""Pixels of tissue from which stains can be told."""

SMALLEST_ANGLE = np.radians(2.0)
"""Between two stains; less is one stain and noise."""

Pixels = NDArray[np.uint8]
"""RGB, shape [height, width, 3]."""

Stains = NDArray[np.float32]
"""Optical densities of red, green and blue, unit vectors, shape [2, 3]; first the one that absorbs
more red, which is haematoxylin of H&E."""


def optical_density(pixels: Pixels) -> NDArray[np.float32]:
    """Return -ln of the part of the light that gets through; black counts as 1/255."""
    table = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
    density: NDArray[np.float32] = table[pixels]
    return density


def find_stains(pixels: Pixels) -> Stains | None:
    """Return the stains of a slide; None where they cannot be told, as on glass or of one dye.

    Parameters
    ----------
    pixels
        Of the slide at any resolution.
    """
    density = optical_density(pixels).reshape(-1, 3)
    density = density[density.mean(axis=1) > GLASS].astype(np.float64)
    if len(density) < FEWEST:
        return None
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]]
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    first, second = (density @ plane).T
    angles = np.arctan2(second, first)
    low, high = np.percentile(angles, [EXTREME, 100 - EXTREME])
    if high - low < SMALLEST_ANGLE:
        return None
    found = np.array([plane @ (np.cos(angle), np.sin(angle)) for angle in (low, high)])
    if (found < 0).all(axis=1).any():
        return None  # no dye gives light
    order = np.argsort(-found[:, 0])
    stains: Stains = found[order].astype(np.float32)
    return stains


def restained(
    pixels: Pixels,
    stains: Stains,
    factors: NDArray[np.floating],
    added: NDArray[np.floating],
) -> Pixels:
    """Return pixels with another amount of each stain.

    What of a density the stains do not explain stays as it is, so that nothing changes where the
    factors are 1 and nothing is added; glass remains glass, for what is added fades out below
    `GLASS`.

    Parameters
    ----------
    factors, added
        Of each stain, shape [2]; the latter in optical density.
    """
    density = optical_density(pixels).reshape(-1, 3)
    amounts = density @ np.linalg.pinv(stains).astype(np.float32)
    change = amounts * (np.asarray(factors, np.float32) - 1) + np.asarray(added, np.float32)
    change *= np.minimum(density.mean(axis=1, keepdims=True) / GLASS, 1)
    light = 255 * np.exp(-(density + change @ stains))
    changed: Pixels = np.rint(light.clip(0, 255)).astype(np.uint8).reshape(pixels.shape)
    return changed
