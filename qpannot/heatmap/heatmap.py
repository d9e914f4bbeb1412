"""A heatmap as a value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.geometry import Mpp


@dataclass(frozen=True, eq=False)
class Heatmap:
    """How probable each class is in each place of a slide.

    Parameters
    ----------
    probabilities
        Shape [height, width, classes], float32, 0 to 1; NaN where nothing was predicted, as outside
        of the tissue. A memory-mapped array does as well.
    classes
        The name of each channel.
    affine
        Where the pixels lie on the slide, in full-resolution pixels of QuPath's frame.
    mpp
        Micrometres per full-resolution pixel of the slide.
    slide
        Which slide, as the project knows it.
    model
        What predicted it.

    Raises
    ------
    ValueError
        The parts do not fit each other.
    """

    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    affine: Affine
    mpp: Mpp
    slide: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        shape, dtype = self.probabilities.shape, self.probabilities.dtype
        if len(shape) != 3 or dtype != np.float32 or 0 in shape:
            raise ValueError(f"probabilities are [height, width, classes] float32: {shape} {dtype}")
        if len(set(self.classes)) != shape[2] or len(self.classes) != shape[2]:
            raise ValueError(f"{shape[2]} channels need as many names: {self.classes}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in heatmap pixels."""
        return self.probabilities.shape[0], self.probabilities.shape[1]

    @property
    def pixel_um(self) -> tuple[float, float]:
        """Width and height of a heatmap pixel in micrometres."""
        return self.affine.pixel_um(self.mpp)

    def channel(self, class_name: str) -> NDArray[np.float32]:
        """Return the probabilities of a class, shape [height, width].

        Raises
        ------
        KeyError
            There is no such class.
        """
        if class_name not in self.classes:
            raise KeyError(f"{class_name!r} is none of {', '.join(self.classes)}")
        return self.probabilities[..., self.classes.index(class_name)]
