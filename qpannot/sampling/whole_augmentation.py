"""Changes of whole slides that are learned from (H2G-Net sec. 3.2).

Each of these is made with ``settings.probability``, independently of the others, to image and truth
alike:

- a flip left to right, and a flip upside down;
- a turn by 90, 180 or 270 degrees, equally probable;
- a zoom about the middle by a factor drawn from ``zoom``. What comes into view around the slide is
  glass of which nothing is known;
- the stains: see `qpannot.sampling.stains`. A slide whose stains cannot be told stays as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpannot.recipe.refining import RefinementAugmentationSettings
from qpannot.sampling.frame import resampled
from qpannot.sampling.stains import Stains, restained
from qpannot.sampling.whole import UNKNOWN, WHITE, Image, Labels, WholeSlide
from qpannot.slide.resample import Axis


def augmented_whole(
    whole: WholeSlide,
    stains: Stains | None,
    settings: RefinementAugmentationSettings,
    rng: np.random.Generator,
) -> WholeSlide:
    """Return a slide changed at random.

    The numbers drawn do not depend on the slide, nor on which changes are made.

    Parameters
    ----------
    whole
        Is not changed.
    stains
        The slide's, from `find_stains`.
    rng
        What the changes are drawn from.
    """
    left_right, upside_down, turn, zoom, stain = rng.random(5) < settings.probability
    turns = int(rng.integers(1, 4))
    factor = rng.uniform(*settings.zoom)
    factors = rng.uniform(1 - settings.stain_sigma, 1 + settings.stain_sigma, 2)
    added = rng.uniform(-settings.stain_sigma, settings.stain_sigma, 2)
    image, labels = whole.image, whole.labels
    if stain and settings.stain_sigma and stains is not None:
        image = image.copy()
        image[..., :3] = restained(image[..., :3], stains, factors, added)
    if zoom:
        image, labels = zoomed(image, factor), _zoomed_labels(labels, factor)
    if settings.flip and left_right:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if settings.flip and upside_down:
        image, labels = image[::-1], labels[::-1]
    if settings.rotate and turn:
        image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    return WholeSlide(image, labels)


def zoomed(image: Image, factor: float) -> Image:
    """Return an image enlarged about its middle; made smaller, it lies on glass.

    Parameters
    ----------
    image
        Square; colours first, then heatmaps.
    """
    start, pitch, side = _zoom(len(image), factor)
    axis = Axis(start, pitch, side, 0, side, side)
    parts = [
        resampled(part.astype(np.float32), axis, axis, outside)
        for part, outside in ((image[..., :3], WHITE), (image[..., 3:], 0))
        if part.shape[2]
    ]
    found: Image = np.rint(np.concatenate(parts, axis=2).clip(0, 255)).astype(np.uint8)
    return found


def _zoomed_labels(labels: Labels, factor: float) -> Labels:
    start, pitch, side = _zoom(len(labels), factor)
    source: NDArray[np.int64] = np.floor(start + (np.arange(side) + 0.5) * pitch).astype(np.int64)
    padded = np.pad(labels, 1, constant_values=UNKNOWN)
    index = (source + 1).clip(0, side + 1)
    found: Labels = padded[np.ix_(index, index)]
    return found


def _zoom(side: int, factor: float) -> tuple[float, float, int]:
    pitch = 1 / factor
    return side / 2 * (1 - pitch), pitch, side
