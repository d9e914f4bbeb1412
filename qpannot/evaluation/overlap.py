"""Dice, IoU, precision and recall of areas: a pixel metric at infinitely fine pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import shapely
from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far a predicted area is the true one.

    Parameters
    ----------
    true_area, predicted_area, common_area
        In the square of the geometries' unit.
    """

    true_area: float
    predicted_area: float
    common_area: float

    @property
    def dice(self) -> float:
        """Twice what is common over the sum of both; 1 where both are empty, 0 where one is."""
        total = self.true_area + self.predicted_area
        return 2 * self.common_area / total if total else 1.0

    @property
    def iou(self) -> float:
        """What is common over what either has; 1 where both are empty, 0 where one is."""
        union = self.true_area + self.predicted_area - self.common_area
        return self.common_area / union if union else 1.0

    @property
    def precision(self) -> float:
        """How much of the prediction is true; 1 where both are empty, NaN of no prediction."""
        return self._part_of(self.predicted_area)

    @property
    def recall(self) -> float:
        """How much of the truth was predicted; 1 where both are empty, NaN of no truth."""
        return self._part_of(self.true_area)

    def _part_of(self, area: float) -> float:
        if area:
            return self.common_area / area
        return math.nan if self.true_area or self.predicted_area else 1.0


def overlap(
    prediction: BaseGeometry, truth: BaseGeometry, *, within: BaseGeometry | None = None
) -> Overlap:
    """Compare two areas.

    Outlines that cross themselves count as what they surround, overlapping parts once; lines and
    points have no area.

    Parameters
    ----------
    prediction, truth
        Polygons, in the same coordinates.
    within
        What lies outside of it counts for neither. ``None``: everything counts.

    Notes
    -----
    Both empty is full agreement (Dice, IoU, precision and recall 1), as in "nothing to find,
    nothing found"; one empty is none (Dice and IoU 0).
    """
    predicted, true = polygons_of(prediction), polygons_of(truth)
    if within is not None:
        window = polygons_of(within)
        predicted, true = predicted.intersection(window), true.intersection(window)
    common = predicted.intersection(true).area
    # rounding must not make a part larger than the whole
    return Overlap(true.area, predicted.area, min(common, true.area, predicted.area))


def polygons_of(geometry: BaseGeometry) -> BaseGeometry:
    """Return the area of a geometry as a valid polygon or multipolygon, maybe an empty one."""
    valid = geometry
    if not geometry.is_valid:  # much quicker to find out than to mend
        valid = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    if valid.geom_type in ("Polygon", "MultiPolygon"):
        return valid
    parts = shapely.get_parts(valid)
    while any(part.geom_type == "GeometryCollection" for part in parts):
        parts = shapely.get_parts(parts)
    areas: BaseGeometry = shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
    return areas if not areas.is_empty else shapely.MultiPolygon()
