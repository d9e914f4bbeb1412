"""Polygons too large for a person's machine, cut into several."""

from __future__ import annotations

import numpy as np
import shapely

from qpannot.vectorize.clipping import parts_within
from qpannot.vectorize.settling import DECIMALS


def divided(polygon: shapely.Polygon, max_vertices: int) -> list[shapely.Polygon]:
    """Return a polygon in parts of no more than some vertices, cut along straight lines.

    The cuts run across its longer side, through the median of its vertices. Parts share the points
    in which a cut meets the outline, and nothing lies between them.

    Parameters
    ----------
    polygon
        Valid, on QuPath's grid.
    max_vertices
        Vertices of a part, at most, all its rings together.

    Returns
    -------
    list of Polygon
        Valid, on QuPath's grid.
    """
    points = shapely.get_coordinates(polygon)
    if len(points) - 1 - len(polygon.interiors) <= max_vertices:
        return [polygon]
    left, top, right, bottom = polygon.bounds
    axis = int(bottom - top > right - left)
    at = round(float(np.median(points[:, axis])), DECIMALS)
    low, high = (left, right) if axis == 0 else (top, bottom)
    if not low < at < high:
        at = round((low + high) / 2, DECIMALS)
    halves = (
        (shapely.box(left, top, at, bottom), shapely.box(at, top, right, bottom)),
        (shapely.box(left, top, right, at), shapely.box(left, at, right, bottom)),
    )
    parts = []
    for box in halves[axis]:
        for part in parts_within(polygon, box):
            parts += divided(part, max_vertices)
    return parts
