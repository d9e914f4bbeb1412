"""The part of a slide that is worth a picture: its tissue, and what is outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry.base import BaseGeometry

from qpannot.geometry import Size

GLASS = 225
"""8-bit; what is brighter in every channel is glass."""

SPECK = 0.005
"""Rows and columns with less than this part of tissue are dust."""

MARGIN = 0.03
"""Of the longer side, left around it."""


@dataclass(frozen=True)
class Cropped:
    """A part of a slide.

    Parameters
    ----------
    overview
        RGB, shape (height, width, 3).
    full_size
        Of the part, in full-resolution pixels.
    x, y
        Its corner, in full-resolution pixels of the slide.
    """

    overview: NDArray[np.uint8]
    full_size: Size
    x: int
    y: int

    def moved(self, geometry: BaseGeometry) -> BaseGeometry:
        """Return a geometry of the slide in coordinates of the part."""
        moved: BaseGeometry = shapely.transform(geometry, lambda xy: xy - (self.x, self.y))
        return moved


def crop_to_tissue(
    overview: NDArray[np.uint8],
    full_size: Size,
    areas: Sequence[BaseGeometry],
    *,
    longest_px: int,
) -> Cropped:
    """Return the part of a slide that holds what is not glass, and all areas.

    Parameters
    ----------
    overview
        RGB, shape (height, width, 3): the whole slide, in QuPath's frame.
    full_size
        The slide at full resolution, which the areas are in.
    areas
        In full-resolution pixels.
    longest_px
        The longer side of the result's overview, at most.
    """
    height, width = overview.shape[:2]
    scale = np.array([full_size.width / width, full_size.height / height])
    is_tissue = overview.min(axis=2) < GLASS
    boxes = [np.array(area.bounds) / np.tile(scale, 2) for area in areas if not area.is_empty]
    columns, rows = (np.flatnonzero(is_tissue.mean(axis=axis) > SPECK) for axis in (0, 1))
    if columns.size and rows.size:
        boxes.append(np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]))
    if not boxes:
        boxes.append(np.array([0, 0, width, height]))
    found = np.array(boxes)
    low, high = found[:, :2].min(axis=0), found[:, 2:].max(axis=0)
    margin = MARGIN * max(high - low)
    left, top = np.floor(low - margin).clip(0, (width - 1, height - 1)).astype(int)
    right, bottom = np.ceil(high + margin).clip((left + 1, top + 1), (width, height)).astype(int)
    part = Image.fromarray(overview[top:bottom, left:right])
    part.thumbnail((longest_px, longest_px), Image.Resampling.BOX)
    x, y = (np.array([left, top]) * scale).round().astype(int).tolist()
    size = (np.array([right - left, bottom - top]) * scale).round().astype(int).tolist()
    return Cropped(np.asarray(part), Size(*size), x, y)
