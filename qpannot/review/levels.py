"""A level of a picture that is made where one looks, as far as a viewer needs an array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""First and one beyond the last, of rows or columns."""


@dataclass(frozen=True)
class Level:
    """One level of a pyramid.

    Parameters
    ----------
    make
        Returns the pixels of some rows and columns of the level of an index.
    index
        Its downsample is ``2 ** index``.
    shape
        Height, width and channels.
    chunks
        What is made at once, where that matters.
    """

    make: Callable[[int, Span, Span], NDArray[np.uint8]]
    index: int
    shape: tuple[int, int, int]
    chunks: tuple[int, int, int] | None = None

    ndim = 3
    dtype = np.dtype(np.uint8)

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: slice | tuple[slice, ...]) -> NDArray[np.uint8]:
        """Return a rectangle of pixels (no steps)."""
        keys = key if isinstance(key, tuple) else (key,)
        rows, columns, channels = (*keys, *[slice(None)] * (3 - len(keys)))
        top, bottom, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        spans = (top, max(top, bottom)), (left, max(left, right))
        return self.make(self.index, *spans)[..., channels]

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return self[:]
