"""How far two boundaries lie from each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.evaluation.overlap import polygons_of

Distances = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoundaryDistances:
    """Distances between two boundaries, in the unit of their coordinates.

    Parameters
    ----------
    mean
        Over the points of both boundaries (average symmetric surface distance).
    hd95
        95 % of the points of either boundary lie nearer to the other than this: the larger of the
        two directions' percentiles.
    max
        The Hausdorff distance, up to the spacing of the points.
    """

    mean: float
    hd95: float
    max: float


def boundary_distances(one: BaseGeometry, other: BaseGeometry, spacing: float) -> BoundaryDistances:
    """Measure how far the boundaries of two areas, holes included, lie from each other.

    Parameters
    ----------
    one, other
        Polygons, in the same coordinates.
    spacing
        From one point of a boundary where it is measured to the next, at most.

    Returns
    -------
    BoundaryDistances
        Zero where both areas are empty, NaN where one is.

    Raises
    ------
    ValueError
        The spacing is not positive.

    Notes
    -----
    Maier-Hein et al., "Metrics reloaded", 2024: average symmetric surface distance and the 95th
    percentile of the Hausdorff distance, here of continuous outlines.
    """
    there, back = directed_distances(one, other, spacing)
    if not len(there) and not len(back):
        empty = polygons_of(one).is_empty and polygons_of(other).is_empty
        return BoundaryDistances(*[0.0 if empty else float("nan")] * 3)
    both = np.concatenate([there, back])
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return BoundaryDistances(float(both.mean()), float(hd95), float(both.max()))


def directed_distances(
    one: BaseGeometry, other: BaseGeometry, spacing: float
) -> tuple[Distances, Distances]:
    """Return how far the boundary of each of two areas lies from the other's, point by point.

    Parameters
    ----------
    one, other
        Polygons, in the same coordinates.
    spacing
        From one point to the next, at most; they are evenly spread over each ring.

    Returns
    -------
    array, array
        Shape [points of ``one``] and [points of ``other``]; both empty where either area is.

    Raises
    ------
    ValueError
        The spacing is not positive.
    """
    if not spacing > 0:
        raise ValueError(f"points are a positive distance apart, not {spacing}")
    rings, other_rings = _rings(one), _rings(other)
    if not rings or not other_rings:
        return np.empty(0), np.empty(0)
    return (
        _nearest(_points(rings, spacing), other_rings),
        _nearest(_points(other_rings, spacing), rings),
    )


def _rings(geometry: BaseGeometry) -> list[Distances]:
    """Return the rings' vertices, shape [vertices, 2] each."""
    lines = shapely.get_rings(shapely.get_parts(polygons_of(geometry)))
    coordinates, of_line = shapely.get_coordinates(lines, return_index=True)
    return np.split(coordinates, np.flatnonzero(np.diff(of_line)) + 1) if len(lines) else []


def _points(rings: list[Distances], spacing: float) -> Distances:
    found = []
    for ring in rings:  # shapely's line_interpolate_point walks the line anew for each point
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
        count = max(1, int(np.ceil(along[-1] / spacing)))
        where = (np.arange(count) + 0.5) * along[-1] / count
        found.append(np.stack([np.interp(where, along, ring[:, k]) for k in (0, 1)], axis=1))
    return np.concatenate(found)


def _nearest(points: Distances, rings: list[Distances]) -> Distances:
    segments = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
    tree = shapely.STRtree(np.asarray(shapely.linestrings(segments)))
    (index, _), distances = tree.query_nearest(
        shapely.points(points), return_distance=True, all_matches=False
    )
    result = np.empty(len(points))
    result[index] = distances
    return result
