"""What was painted, apart from what it was painted upon: so that it can be kept and done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qpannot.qupath import Annotation, PathClass
from qpannot.review.canvas import Canvas, Labels, draw
from qpannot.review.merging import merged

UNPAINTED = 255
"""Stands for a pixel that was not painted: a mask has room for 254 classes."""


@dataclass(frozen=True)
class Painted:
    """The painted pixels of a canvas.

    Parameters
    ----------
    canvas
        What they were painted on.
    top, left
        Where the values begin, in pixels of the canvas.
    values
        The new value of each pixel, `UNPAINTED` for those between that were not painted.
    """

    canvas: Canvas
    top: int
    left: int
    values: Labels

    @classmethod
    def between(cls, before: Labels, after: Labels, canvas: Canvas) -> Painted | None:
        """Return what was painted between two states of a canvas, ``None`` if nothing was."""
        is_painted = before != after
        rows = np.flatnonzero(is_painted.any(axis=1))
        if not len(rows):
            return None
        columns = np.flatnonzero(is_painted[rows[0] : rows[-1] + 1].any(axis=0))
        place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        values = np.where(is_painted[place], after[place], np.uint8(UNPAINTED))
        return cls(canvas, int(rows[0]), int(columns[0]), values)

    def put_on(self, labels: Labels) -> None:
        """Paint the same on a mask of the canvas."""
        height, width = self.values.shape
        part = labels[self.top : self.top + height, self.left : self.left + width]
        is_painted = self.values != UNPAINTED
        part[is_painted] = self.values[is_painted]


def painted_again(
    annotations: Sequence[Annotation],
    layers: Sequence[Painted],
    classes: Sequence[PathClass],
    *,
    metadata: Mapping[str, str] | None = None,
) -> tuple[Annotation, ...]:
    """Return annotations after all that was painted is done upon them, in its order.

    Parameters
    ----------
    annotations
        These may be others than those that were painted upon.
    classes, metadata
        As for `merged`.
    """
    drawn = tuple(annotations)
    for layer in layers:
        before = draw(drawn, classes, layer.canvas)
        after = before.copy()
        layer.put_on(after)
        edits = merged(drawn, before, after, layer.canvas, classes, metadata=metadata)
        drawn = edits.applied_to(drawn)
    return drawn
