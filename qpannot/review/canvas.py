"""The raster that is painted on, and the annotations drawn on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.geometry import Region, Size
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.annotation import DEFAULT_PLANE
from qpannot.vectorize import class_mask, spans_of
from qpannot.vectorize.runs import ranges

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


@dataclass(frozen=True, slots=True)
class Footprint:
    """The pixels that an area covers, and where they lie on their canvas.

    Parameters
    ----------
    rows, columns
        From a start to a stop within the canvas; empty where the area lies beyond it.
    inside
        Shape [rows, columns]: whether the middle of a pixel is covered.
    """

    rows: slice
    columns: slice
    inside: NDArray[np.bool_]

    @property
    def place(self) -> tuple[slice, slice]:
        """Where the pixels are in an array of the canvas."""
        return self.rows, self.columns


def footprints(areas: Sequence[BaseGeometry], canvas: Canvas) -> Iterator[Footprint]:
    """Yield the pixels of a canvas that each area covers, by the even-odd rule if it is invalid.

    Many at once take a small part of the time of as many one by one.
    """
    if not areas:
        return
    spans = spans_of(areas, canvas.affine, canvas.shape)
    ends = np.searchsorted(spans.areas, np.arange(len(areas) + 1))
    low, high = np.hsplit(shapely.bounds(np.array(areas, object)), 2)
    size = np.array(canvas.shape[::-1])
    first = np.clip(np.floor(canvas.affine.from_slide(low)), 0, size).astype(int)
    last = np.clip(np.ceil(canvas.affine.from_slide(high)), first, size).astype(int)
    for index, ((left, top), (right, bottom)) in enumerate(
        zip(first.tolist(), last.tolist(), strict=True)
    ):
        own = slice(ends[index], ends[index + 1])
        inside = np.zeros((bottom - top, right - left), bool)
        lengths = spans.stops[own] - spans.starts[own]
        begins = (spans.rows[own] - top) * (right - left) + spans.starts[own] - left
        inside.reshape(-1)[ranges(begins, lengths)] = True
        yield Footprint(slice(top, bottom), slice(left, right), inside)


def is_editable(annotation: Annotation, classes: Sequence[PathClass]) -> bool:
    """Tell whether an annotation is painted on: an area of one of the classes, and not locked.

    What QuPath calls ``Region*`` is none of them, and what lies on another plane of a stack.
    """
    return (
        not annotation.locked
        and annotation.path_class in classes
        and annotation.geometry.geom_type in ("Polygon", "MultiPolygon")
        and not annotation.geometry.is_empty
        and (annotation.plane.z, annotation.plane.t) == (DEFAULT_PLANE.z, DEFAULT_PLANE.t)
    )


def draw(annotations: Sequence[Annotation], classes: Sequence[PathClass], canvas: Canvas) -> Labels:
    """Return the class of each pixel's middle; where annotations overlap, of the smallest.

    Parameters
    ----------
    annotations
        Those that are not editable (`is_editable`) are left out.
    classes
        No more than 254, which a mask has room for.

    Returns
    -------
    uint8 array, shape [height, width]
        1 for the first of ``classes``, 0 for none.
    """
    shown = [each for each in annotations if is_editable(each, classes)]
    areas = np.array([each.geometry for each in shown], object)
    values = np.array([classes.index(each.path_class) + 1 for each in shown if each.path_class])
    layers = [areas[values == value].tolist() for value in range(1, len(classes) + 1)]
    labels = class_mask(layers if shown else [], canvas.affine, canvas.shape)
    hidden = _hidden(areas, values)
    for index, found in zip(hidden, footprints(areas[hidden].tolist(), canvas), strict=True):
        labels[found.place][found.inside] = values[index]
    return labels


def _hidden(areas: NDArray[np.object_], values: NDArray[np.int64]) -> list[int]:
    """Return what to draw once more, largest first, so that smaller areas lie upon larger ones.

    At first classes lie upon each other in their order.
    """
    if len(np.unique(values)) < 2:
        return []
    order = np.argsort(-shapely.area(areas), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    small, large = shapely.STRtree(areas).query(areas, predicate="intersects")
    is_pair = (rank[small] > rank[large]) & (values[small] != values[large])
    small, large = small[is_pair], large[is_pair]
    by_size = np.argsort(rank[small], kind="stable")
    again: dict[int, None] = {}
    for index, below in zip(small[by_size].tolist(), large[by_size].tolist(), strict=True):
        if values[below] > values[index] or below in again:
            again[index] = None
    return list(again)
