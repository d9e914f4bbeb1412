"""The raster that is painted on, and the annotations drawn on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.geometry import Region, Size
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.annotation import DEFAULT_PLANE
from qpannot.vectorize import class_mask

LONGEST_PX = 4096
"""Longer side of a canvas: napari paints quickly on as much, and its outlines are fine enough."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where the pixels that are painted lie on their slide.

    Parameters
    ----------
    region
        What they cover, in full-resolution pixels of QuPath's frame.
    downsample
        Width and height of a pixel in full-resolution pixels.
    shape
        Height and width in pixels.
    """

    region: Region
    downsample: float
    shape: tuple[int, int]

    @classmethod
    def of(cls, region: Region, *, longest_px: int = LONGEST_PX) -> Canvas:
        """Return a canvas over a region, its pixels as fine as fit but no finer than the slide's.

        Parameters
        ----------
        longest_px
            Of the longer side, at most.
        """
        downsample = max(1.0, max(region.width, region.height) / longest_px)
        height, width = (
            max(1, math.ceil(length / downsample - 1e-6))
            for length in (region.height, region.width)
        )
        covered = Region(region.x, region.y, width * downsample, height * downsample)
        return cls(covered, downsample, (height, width))

    @classmethod
    def of_slide(cls, size: Size, *, longest_px: int = LONGEST_PX) -> Canvas:
        """Return a canvas over a whole slide."""
        return cls.of(Region(0, 0, size.width, size.height), longest_px=longest_px)

    @property
    def affine(self) -> Affine:
        """From its pixels to full-resolution pixels."""
        return Affine(self.downsample, self.downsample, self.region.x, self.region.y)

    def part(self, rows: slice, columns: slice, *, finer: int = 1) -> Canvas:
        """Return the canvas of some of its pixels.

        Parameters
        ----------
        rows, columns
            From a start to a stop within the canvas.
        finer
            Each pixel is divided into so many in both directions.
        """
        height, width = rows.stop - rows.start, columns.stop - columns.start
        region = Region(
            self.region.x + columns.start * self.downsample,
            self.region.y + rows.start * self.downsample,
            width * self.downsample,
            height * self.downsample,
        )
        return Canvas(region, self.downsample / finer, (height * finer, width * finer))
