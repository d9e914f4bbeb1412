"""Filled outlines of the parts of a binary image, along the edges of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

from qpannot.tissue.masks import Mask

EIGHT_CONNECTED = np.ones((3, 3), bool)

Ring = NDArray[np.int32]
"""Corners (x, y) of an outline in working pixels, shape [n, 2], not closed."""


@dataclass(frozen=True)
class Parts:
    """The parts of a mask, in the order a scan of its rows meets them.

    Parameters
    ----------
    filled
        The parts with all they enclose.
    rings
        Their outlines.
    """

    filled: Mask
    rings: list[Ring]


def filled_parts(mask: Mask, min_area: float, *, exclude_on_boundary: bool = False) -> Parts:
    """Return the outermost 4-connected parts of a mask, their holes filled.

    What lies inside a hole of another part is swallowed by it, as it is by ImageJ's wand.

    Parameters
    ----------
    mask
        Binary image, shape [height, width].
    min_area
        Parts that cover fewer pixels, holes included, are left out.
    exclude_on_boundary
        Leave out the parts whose outline touches the border. QuPath's test is one pixel stricter
        at the right and at the bottom, and so is this one.

    Source: QuPath 0.6 ``RoiLabeling.getFilledPolygonROIs`` and ``SimpleTissueDetection2``.
    """
    filled = _fill(mask)
    labels, n = ndi.label(filled)
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= min_area
    keep[0] = False
    if exclude_on_boundary:
        for border in (labels[0], labels[-2:], labels[:, 0], labels[:, -2:]):
            keep[border] = False
    kept: Mask = keep[labels]
    return Parts(kept, trace(kept))


def _fill(mask: Mask) -> Mask:
    """Return the mask with the background that is not 8-connected to the outside filled."""
    background, _ = ndi.label(np.pad(~mask, 1, constant_values=True), EIGHT_CONNECTED)
    filled: Mask = background[1:-1, 1:-1] != background[0, 0]
    return filled


def trace(mask: Mask) -> list[Ring]:
    """Return the outlines of a mask in time linear in their length.

    Pixels that touch at a corner only are kept apart, as 4-connected parts are. Every corner of an
    outline ends one horizontal and one vertical edge; sorted by rows, the corners of a row pair up
    into its horizontal edges, and sorted by columns into the vertical ones. An outline alternates
    between the two pairings.

    Parameters
    ----------
    mask
        Binary image, shape [height, width], without holes: each part gives one outline.

    Returns
    -------
    list of int32 arrays, shape [n, 2]
        Corners (x, y) in the order of the parts' first pixels by rows.
    """
    padded = np.pad(mask, 1)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    is_falling = (upper_left & lower_right) & ~(upper_right | lower_left)
    is_rising = (upper_right & lower_left) & ~(upper_left | lower_right)
    is_corner = upper_left ^ upper_right ^ lower_left ^ lower_right
    ys, xs = np.nonzero(is_corner | is_falling | is_rising)
    rising = is_rising[ys, xs]
    copies = np.where(is_corner[ys, xs], 1, 2)
    # A touching pair of pixels has two corners in one place: first that of the left pixel.
    is_second = np.zeros(copies.sum(), bool)
    is_second[np.cumsum(copies)[copies == 2] - 1] = True
    corners = np.repeat(np.stack([xs, ys], axis=1).astype(np.int32), copies, axis=0)
    # Of two pixels that rise to the right, the left one is the lower one.
    is_lower = is_second ^ np.repeat(rising, copies)
    by_column = np.lexsort((is_lower, corners[:, 1], corners[:, 0]))
    vertical = np.empty(len(corners), np.int64)
    vertical[by_column[0::2]] = by_column[1::2]
    vertical[by_column[1::2]] = by_column[0::2]
    return _follow(corners, vertical.tolist())


def _follow(corners: Ring, vertical: list[int]) -> list[Ring]:
    rings = []
    is_seen = bytearray(len(corners))
    for start in range(len(corners)):
        if is_seen[start]:
            continue
        ring = []
        corner = start
        while not is_seen[corner]:
            partner = corner ^ 1  # sorted by rows, edges are pairs of neighbours
            is_seen[corner] = is_seen[partner] = True
            ring += [corner, partner]
            corner = vertical[partner]
        # ImageJ's wand begins below the right end of the first row.
        rings.append(corners[ring[2:] + ring[:2]])
    return rings
