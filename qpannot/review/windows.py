"""The parts of a canvas around what was painted, in which outlines are traced anew."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qpannot.review.sharing import AROUND, Mask, Place

WINDOW_PX = 2
"""Outlines are traced anew this far around what was painted, in pixels of the canvas: in the first
from its pixels, so that no fringe is left between them and what is painted, then from finer ones.
"""

MANY_WINDOWS = 64
"""So many windows are traced one by one, more of them by neighbourhoods: quicker, and less fine."""

NEIGHBOURHOOD_PX = 512
"""Side of a neighbourhood: it holds few annotations, and its pixels are few beside a canvas's."""


@dataclass(frozen=True)
class Window:
    """A part of a canvas in which outlines are traced anew.

    Parameters
    ----------
    rows, columns
        From a start to a stop within the canvas.
    mask
        Shape [rows, columns]: which of the pixels belong to it.
    """

    rows: slice
    columns: slice
    mask: Mask

    @property
    def place(self) -> Place:
        """Where it is in an array of the canvas."""
        return self.rows, self.columns


def windows_of(changed: Mask, traced: Mask) -> list[Window]:
    """Return what lies around painted pixels.

    Parameters
    ----------
    changed
        Which pixels were painted, shape [height, width].
    traced
        Of the same shape: connected parts of a window without any of these pixels are left out.
    """
    place = place_around(changed, WINDOW_PX)
    if place is None:
        return []
    top, left = place[0].start, place[1].start
    parts, n = ndimage.label(grown(changed[place], WINDOW_PX), AROUND)
    kept = np.setdiff1d(parts[traced[place]], 0)
    found = ndimage.find_objects(parts)
    boxes = [found[number - 1] for number in kept.tolist()]
    groups = np.zeros(n + 1, int)
    groups[kept] = (
        np.arange(1, len(kept) + 1) if len(kept) <= MANY_WINDOWS else _neighbourhoods(boxes)
    )
    members = defaultdict(list)
    for group, box in zip(groups[kept].tolist(), boxes, strict=True):
        members[group].append(box)
    windows = []
    for group, own in members.items():
        rows, columns = (
            slice(min(box[axis].start for box in own), max(box[axis].stop for box in own))
            for axis in (0, 1)
        )
        windows.append(
            Window(
                slice(top + rows.start, top + rows.stop),
                slice(left + columns.start, left + columns.stop),
                groups[parts[rows, columns]] == group,
            )
        )
    return windows


def _neighbourhoods(boxes: list[Place]) -> list[int]:
    """Return for each part a number, the same for small parts that lie near each other."""
    numbers: dict[tuple[int, ...], int] = {}
    found = []
    for index, box in enumerate(boxes):
        is_large = any(side.stop - side.start > NEIGHBOURHOOD_PX for side in box)
        near = tuple(side.start // NEIGHBOURHOOD_PX for side in box)
        found.append(numbers.setdefault((index, *near) if is_large else near, len(numbers) + 1))
    return found


def place_around(mask: Mask, by: int) -> Place | None:
    """Return the place of a mask's pixels and so many around them; ``None`` if it has none."""
    sides = []
    for axis in (1, 0):
        at = np.flatnonzero(mask.any(axis=axis))
        if not len(at):
            return None
        sides.append(
            slice(max(0, int(at[0]) - by), min(mask.shape[1 - axis], int(at[-1]) + 1 + by))
        )
    return sides[0], sides[1]


def grown(mask: Mask, by: int) -> Mask:
    """Return a mask with all pixels that are so near to its own, also obliquely."""
    found = mask.copy()
    for axis in (0, 1):
        source, target = np.moveaxis(found.copy(), axis, 0), np.moveaxis(found, axis, 0)
        for step in range(1, by + 1):
            target[step:] |= source[:-step]
            target[:-step] |= source[step:]
    return found
