"""Changes of training patches (H2G-Net sec. 3.2: "online data augmentation scheme").

Each of these is made with ``settings.probability``, independently of the others:

- a flip left to right, and a flip upside down;
- a turn by 90, 180 or 270 degrees, equally probable;
- a shift of hue and saturation in HSV, drawn for each of the two from
  ``[-hsv_shift, hsv_shift]`` in 255ths. The paper says "HSV colour augmentation with a random shift
  of range [-20, 20]" and no more; we read it as imgaug's ``AddToHueAndSaturation`` does: 255 is
  the whole circle of hues (20 is 28 degrees; OpenCV, which has 180 hues, would shift by 14) and
  the whole range of saturations. Hue goes round, saturation is cut to its range, value remains.
  As with every such shift, grey, which has no hue, turns reddish where saturation grows.
- a factor on red, green and blue, drawn from ``brightness``, and cut at white. It is the same as a
  factor on V of HSV, where nothing is cut.

One more is not the paper's, and off unless the recipe asks for it: the amounts of haematoxylin,
eosin and the rest (Ruifrok and Johnston's stains, as scikit-image has them) are each multiplied by
a factor from ``[1 - stain_sigma, 1 + stain_sigma]`` and moved by a tenth of ``[-stain_sigma,
stain_sigma]`` (Tellez et al. 2018, HED colour augmentation). It varies without end, so it is made
to every patch, whatever ``probability`` is.

On one core this is faster than the same in torch by batches, whose intermediate results leave the
cache (``benchmarks/patches.py`` compares them).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb_from_hed

from qpannot.recipe.settings import AugmentationSettings

Patch = NDArray[np.uint8]
"""RGB pixels, shape [size, size, 3]."""

_TO_STAINS = rgb_from_hed / np.linalg.norm(rgb_from_hed, axis=1, keepdims=True)
_FROM_STAINS = np.linalg.inv(_TO_STAINS)
_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
"""Of each value of red, green or blue."""


def augmented(patch: Patch, settings: AugmentationSettings, rng: np.random.Generator) -> Patch:
    """Return a patch changed at random.

    The numbers drawn do not depend on the patch, nor on which changes are made.

    Parameters
    ----------
    patch
        Is not changed.
    rng
        What the changes are drawn from.

    Returns
    -------
    ndarray of uint8, shape [size, size, 3]
    """
    left_right, upside_down, turn, shift, factor = rng.random(5) < settings.probability
    turns = int(rng.integers(1, 4))
    hue, saturation = rng.uniform(-settings.hsv_shift, settings.hsv_shift, 2)
    brightness = rng.uniform(*settings.brightness)
    if settings.stain_sigma:
        factors, offsets = rng.uniform(-settings.stain_sigma, settings.stain_sigma, (2, 3))
        patch = restained(patch, 1 + factors, offsets / 10)
    if shift and settings.hsv_shift:
        patch = shifted_in_hsv(patch, hue, saturation)
    if factor:
        patch = brightened(patch, brightness)
    if settings.flip and left_right:
        patch = patch[:, ::-1]
    if settings.flip and upside_down:
        patch = patch[::-1]
    if settings.rotate and turn:
        patch = np.rot90(patch, turns)
    return patch


def restained(patch: Patch, factors: NDArray[np.float64], offsets: NDArray[np.float64]) -> Patch:
    """Return a patch with other amounts of stain.

    Parameters
    ----------
    patch
        RGB pixels, shape [height, width, 3].
    factors, offsets
        Of haematoxylin, eosin and the rest, shape [3]; offsets in optical density (natural
        logarithm).
    """
    change = (_FROM_STAINS * factors) @ _TO_STAINS
    moved = offsets @ _TO_STAINS
    density = _DENSITY[patch] @ change.astype(np.float32) + moved.astype(np.float32)
    restained: Patch = np.clip(np.exp(-density) * 256 - 0.5, 0, 255).astype(np.uint8)
    return restained


def brightened(patch: Patch, factor: float) -> Patch:
    """Return a patch with its values multiplied by a factor, cut at 255."""
    table = np.minimum(np.arange(256) * factor + 0.5, 255).astype(np.uint8)
    changed: Patch = table.take(patch)
    return changed


def shifted_in_hsv(patch: Patch, hue: float, saturation: float) -> Patch:
    """Return a patch with hue and saturation shifted.

    Parameters
    ----------
    patch
        RGB pixels, shape [height, width, 3].
    hue, saturation
        In 255ths of the circle of hues and of the range of saturations.
    """
    red, green, blue = (patch[..., channel].astype(np.float32) for channel in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    per_chroma = 1 / np.maximum(chroma, np.float32(1))
    sixths = np.where(
        value == red,
        (green - blue) * per_chroma,
        np.where(
            value == green,
            (blue - red) * per_chroma + np.float32(2),
            (red - green) * per_chroma + np.float32(4),
        ),
    )
    sixths += np.float32(hue * 6 / 255)
    chroma += value * np.float32(saturation / 255)
    np.clip(chroma, 0, value, out=chroma)
    result = np.empty_like(patch)
    # f(n) = V - C max(0, min(k, 4 - k, 1)), k = (n + H) mod 6, for red, green and blue
    for channel, offset in enumerate((5, 3, 1)):
        k = sixths + np.float32(offset)
        k -= np.floor(k * np.float32(1 / 6)) * np.float32(6)
        np.minimum(k, np.float32(4) - k, out=k)
        np.clip(k, 0, 1, out=k)
        k *= chroma
        np.subtract(value, k, out=k)
        k += np.float32(0.5)
        result[..., channel] = k
    return result
