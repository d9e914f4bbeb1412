"""What a patch is called (H2G-Net sec. 2.2)."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from qpannot.recipe.settings import LabelSettings
from qpannot.sampling.coverage import Fractions


class LeftOut(IntEnum):
    """Why a patch has no label."""

    GLASS = -1
    """Too little tissue, or too little that is annotated where coverage is partial."""

    IGNORED = -2
    """In ``Ignore*``, or in a proposal nobody reviewed."""

    MIXED = -3
    """Some of a class, but not enough to be called by it."""


def class_names(settings: LabelSettings) -> tuple[str, ...]:
    """Return the names that labels stand for: the rest is 0, the first class is 1."""
    return (settings.rest, *settings.classes)


def label_patches(
    tissue: Fractions, classes: Fractions, ignored: Fractions, settings: LabelSettings
) -> NDArray[np.int16]:
    """Return the label of each patch, or why it has none.

    Parameters
    ----------
    tissue, ignored
        Part of each patch that is tissue, and that is to be ignored, shape [n].
    classes
        Part of each patch that is of each class, shape [n, classes].

    Returns
    -------
    ndarray of int16, shape [n]
        An index of `class_names`, or a value of `LeftOut`.
    """
    largest = classes.max(axis=1)
    labels = np.where(largest <= settings.max_class_in_rest, 0, LeftOut.MIXED)
    labels = np.where(largest > settings.min_class, classes.argmax(axis=1) + 1, labels)
    labels = np.where(ignored > settings.max_ignored, LeftOut.IGNORED, labels)
    return np.where(tissue > settings.min_tissue, labels, LeftOut.GLASS).astype(np.int16)
