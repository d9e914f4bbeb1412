"""Annotations of which nothing is left: found without tracing any outline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.review.canvas import Canvas, Labels
from qpannot.review.sharing import Mask
from qpannot.review.windows import WINDOW_PX, grown, place_around
from qpannot.vectorize import Spans, spans_of

SAMPLES_PX = 0.25
"""An outline is looked at in points no farther apart, in pixels of the canvas."""


def wholly_erased(
    areas: Sequence[BaseGeometry],
    values: Sequence[int],
    changed: Mask,
    after: Labels,
    canvas: Canvas,
) -> NDArray[np.int64]:
    """Return which areas lost all that they had, so that tracing would leave nothing of them.

    All their pixels were painted with something else, and their outlines lie so deep within the
    window around those that its border is nowhere near, however smooth it is drawn. Of areas
    without a pixel nothing was lost.

    Parameters
    ----------
    areas
        Valid.
    values
        Of their classes.
    changed, after
        The painted pixels of the canvas, and the class of each.

    Returns
    -------
    int64 array, shape [n]
        Their places in ``areas``, ascending.
    """
    place = place_around(changed, WINDOW_PX)
    if place is None or not areas:
        return np.zeros(0, np.int64)
    part = canvas.part(*place)
    geometries, value_of = np.array(areas, object), np.array(values)
    left, top, right, bottom = shapely.bounds(geometries).T
    region = part.region
    is_within = (left >= region.x) & (top >= region.y)
    is_within &= (right <= region.right) & (bottom <= region.bottom)
    found = np.flatnonzero(is_within)
    spans = spans_of(geometries[found].tolist(), part.affine, part.shape)
    is_lost = _lost_all(spans, value_of[found], changed[place], after[place])
    found = found[is_lost]

    deep = grown(changed[place], WINDOW_PX - 1)
    deep[[0, -1]] = False  # there a window may end with the canvas
    deep[:, [0, -1]] = False
    dense = shapely.segmentize(geometries[found], SAMPLES_PX * canvas.downsample)
    points, own = shapely.get_coordinates(dense, return_index=True)
    last = np.array(deep.shape[::-1]) - 1
    columns, rows = np.clip(np.floor(part.affine.from_slide(points)), 0, last).astype(np.int64).T
    return np.delete(found, np.unique(own[~deep[rows, columns]]))


def _lost_all(
    spans: Spans, values: NDArray[np.int64], changed: Mask, after: Labels
) -> NDArray[np.bool_]:
    """Return which areas have pixels, all of them painted with another class."""
    width, n = changed.shape[1], len(values)
    pixels = np.bincount(spans.areas, spans.stops - spans.starts, minlength=n)
    kept = np.zeros(n)
    for value in np.unique(values):
        is_kept = ~changed | (after == value)
        before = np.concatenate([[0], np.cumsum(is_kept, dtype=np.int32)])
        own = values[spans.areas] == value
        row = spans.rows[own] * width
        n_kept = before[row + spans.stops[own]] - before[row + spans.starts[own]]
        kept += np.bincount(spans.areas[own], n_kept, minlength=n)
    is_lost: NDArray[np.bool_] = (pixels > 0) & (kept == 0)
    return is_lost
