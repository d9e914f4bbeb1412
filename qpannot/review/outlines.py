"""Annotations that are looked at and not edited: outlines, drawn as they come into view.

Thousands of outlines as shapes of napari take it seconds to show and slow it down for good. As an
image that is drawn where a viewer looks, they cost what is seen of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely.geometry.base import BaseGeometry

from qpannot.qupath import Annotation
from qpannot.qupath.annotation import Color
from qpannot.review.levels import Level, Span

LINE_PX, DOT_PX = 3, 4
"""Width of a line and radius of a point, in pixels of the level that is looked at."""

UNCLASSIFIED: Color = (255, 255, 0)


class Outlines:
    """The outlines of annotations, in the colours QuPath gives them.

    Parameters
    ----------
    annotations
        Of one slide; of areas also the holes, lines and points too.
    shapes
        Height and width of the levels, each half the one before.
    """

    def __init__(
        self, annotations: Sequence[Annotation], shapes: Sequence[tuple[int, int]]
    ) -> None:
        parts = [
            (part, _color(annotation))
            for annotation in annotations
            for part in _parts(annotation.geometry)
        ]
        self._parts = np.array([part for part, _ in parts], object)
        self._colors = [color for _, color in parts]
        self._tree = shapely.STRtree(self._parts)
        self._simple: dict[int, NDArray[Any]] = {}
        self.levels = tuple(
            Level(self.draw, index, (*shape, 4)) for index, shape in enumerate(shapes)
        )

    def __len__(self) -> int:
        return len(self._parts)

    def draw(self, level: int, rows: Span, columns: Span) -> NDArray[np.uint8]:
        """Return a part of a level.

        Parameters
        ----------
        rows, columns
            Within the level.

        Returns
        -------
        ndarray of uint8, shape [height, width, 4]
            RGBA.
        """
        (top, bottom), (left, right) = rows, columns
        image = Image.new("RGBA", (right - left, bottom - top))
        step = float(1 << level)
        margin = DOT_PX + LINE_PX
        box = shapely.box(
            (left - margin) * step,
            (top - margin) * step,
            (right + margin) * step,
            (bottom + margin) * step,
        )
        brush = ImageDraw.Draw(image)
        for index in self._tree.query(box):
            points = shapely.get_coordinates(self._at(level)[index]) / step - (left, top)
            if len(points) == 1:
                brush.circle(tuple(points[0]), DOT_PX, fill=self._colors[index])
            else:
                brush.line(points.ravel().tolist(), fill=self._colors[index], width=LINE_PX)
        return np.asarray(image)

    def _at(self, level: int) -> NDArray[Any]:
        """Return the parts as exact as a level shows them."""
        if level not in self._simple:
            rough = shapely.simplify(self._parts, 0.5 * (1 << level), preserve_topology=False)
            vanished = shapely.get_num_coordinates(rough) == 0
            rough[vanished] = shapely.envelope(self._parts[vanished])
            self._simple[level] = rough
        return self._simple[level]


def _color(annotation: Annotation) -> Color:
    by_class = annotation.path_class.color if annotation.path_class else None
    return annotation.color or by_class or UNCLASSIFIED


def _parts(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    """Yield the rings, lines and points that a geometry is made of."""
    if geometry.is_empty:
        return
    if isinstance(geometry, shapely.Polygon):
        yield geometry.exterior
        yield from geometry.interiors
    elif hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from _parts(part)
    else:
        yield geometry
