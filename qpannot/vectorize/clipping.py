"""Outlines cut off where something else ends, as the tissue does."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.vectorize.settling import DECIMALS


def parts_within(polygon: shapely.Polygon, area: BaseGeometry) -> list[shapely.Polygon]:
    """Return what of a polygon lies within an area: valid parts, on QuPath's grid."""
    inside = shapely.intersection(polygon, area)
    inside = shapely.transform(inside, lambda xy: np.round(xy, DECIMALS))
    if not inside.is_valid:
        inside = shapely.make_valid(inside, method="structure")
    parts = shapely.get_parts(shapely.get_parts(inside))  # those of a collection may have parts
    return [part for part in parts if part.geom_type == "Polygon" and part.area > 0]


def clipped(
    polygons: NDArray[np.object_], area: BaseGeometry, min_area_px2: float
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Return what of polygons lies within an area.

    Polygons that lie within it altogether are left as they are.

    Parameters
    ----------
    polygons
        Valid, on QuPath's grid, shape [n].
    area
        Valid.
    min_area_px2
        Parts that are smaller are left out, in full-resolution pixels.

    Returns
    -------
    polygons
        Valid, on QuPath's grid, shape [m].
    own
        Of which of the given ones each is a part, shape [m].
    """
    shapely.prepare(area)
    is_whole = shapely.covers(area, polygons)
    kept, own = [], []
    for index, polygon in enumerate(polygons.tolist()):
        parts = [polygon] if is_whole[index] else parts_within(polygon, area)
        large = [part for part in parts if is_whole[index] or part.area >= min_area_px2]
        kept += large
        own += [index] * len(large)
    return np.array(kept, dtype=object), np.array(own, np.int64)
