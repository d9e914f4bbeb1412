"""A heatmap against what a person drew, on one slide: overlap, boundary distance, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.evaluation.boundary import boundary_distances
from qpannot.evaluation.metrics import PixelGrid, Reliability, pixel_overlap, reliability
from qpannot.geometry import Mpp, Size
from qpannot.heatmap import Heatmap
from qpannot.recipe.comparing import EvaluationSettings
from qpannot.vectorize import polygons_of

METRICS = ("recall", "precision", "dice", "iou", "hd95_um", "distance_um", "ece")
"""What is measured of a class on a slide, by name; lengths in micrometres."""


@dataclass(frozen=True, eq=False)
class ClassMeasures:
    """What was measured of one class on one slide.

    Parameters
    ----------
    metrics
        `METRICS`; NaN where there is nothing to measure: recall without truth, precision without
        prediction, distances where either is empty, calibration of what gives no probabilities.
        Where both are empty, overlaps are 1 and distances 0.
    true_mm2, predicted_mm2
        The areas that were compared.
    reliability
        ``None`` of what gives no probabilities.
    """

    metrics: Mapping[str, float]
    true_mm2: float
    predicted_mm2: float
    reliability: Reliability | None = None


def measure(
    heatmap: Heatmap,
    size: Size,
    truth: Mapping[str, BaseGeometry],
    settings: EvaluationSettings,
    *,
    within: BaseGeometry | None = None,
    tissue: Sequence[BaseGeometry] | None = None,
    is_probability: bool = True,
) -> dict[str, ClassMeasures]:
    """Compare a heatmap with a person's areas.

    Parameters
    ----------
    heatmap
        A pixel is of a class where that reaches the threshold; where nothing was predicted, of
        none.
    size
        Of the slide, in full-resolution pixels.
    truth
        The area of each class, in full-resolution pixels; they are rasterised exactly, a pixel
        counting by the part of it that is covered.
    settings
        The pixel size at which is compared, the threshold, the bins.
    within
        What lies outside counts for nothing. ``None``: everything counts.
    tissue
        Where calibration is measured, in full-resolution pixels; where nothing was predicted counts
        as 0 there, as it does for overlaps. The same pixels must count for all that are compared:
        a refined heatmap answers on glass too, where it is easily right. ``None``: wherever
        something was predicted.
    is_probability
        Whether there is a calibration to speak of; a tissue threshold only says yes.

    Returns
    -------
    dict
        By class, in the order of ``truth``.

    Raises
    ------
    KeyError
        The heatmap lacks a class.

    Notes
    -----
    H2G-Net sec. 3.3. Distances are between the outlines themselves and those of the predicted
    pixels, at points no further apart than a pixel.
    """
    grid = PixelGrid.of(size, heatmap.mpp, settings.mpp)
    counted = None if within is None else grid.mask([within])
    calibrated = counted
    if tissue is not None and is_probability:
        inside = grid.mask(tissue)
        calibrated = inside if counted is None else inside & counted
    found = {}
    for name, area in truth.items():
        probability = grid.sampled(heatmap.channel(name), heatmap.affine)
        parts = grid.covered([area])
        overlap = pixel_overlap(probability, parts, threshold=settings.threshold, within=counted)
        predicted = _area_of(probability >= settings.threshold, grid)
        distances = boundary_distances(
            _in_um(_clipped(predicted, within), heatmap.mpp),
            _in_um(_clipped(area, within), heatmap.mpp),
            settings.mpp,
        )
        calibration = None
        if is_probability:
            bins = settings.calibration_bins
            answers = probability if tissue is None else np.nan_to_num(probability, nan=0.0)
            calibration = reliability(answers, parts, bins=bins, within=calibrated)
        pixel_mm2 = settings.mpp**2 / 1e6
        found[name] = ClassMeasures(
            {
                "recall": overlap.recall,
                "precision": overlap.precision,
                "dice": overlap.dice,
                "iou": overlap.iou,
                "hd95_um": distances.hd95,
                "distance_um": distances.mean,
                "ece": calibration.error if calibration else math.nan,
            },
            overlap.true_area * pixel_mm2,
            overlap.predicted_area * pixel_mm2,
            calibration,
        )
    return found


def mean_of_classes(measures: Mapping[str, ClassMeasures]) -> dict[str, float]:
    """Return the means over the classes that are on the slide or were predicted there.

    A class that is not there and was not predicted would flatter the mean; where that is so of all
    of them, it is what there is. What could not be measured of a class (NaN) is left out.
    """
    present = [each for each in measures.values() if each.true_mm2 or each.predicted_mm2]
    found = {}
    for metric in METRICS:
        values = [each.metrics[metric] for each in present or measures.values()]
        known = [value for value in values if not math.isnan(value)]
        found[metric] = math.fsum(known) / len(known) if known else math.nan
    return found


def predicted_area(
    heatmap: Heatmap, size: Size, class_name: str, settings: EvaluationSettings
) -> BaseGeometry:
    """Return what `measure` takes for predicted, in full-resolution pixels."""
    grid = PixelGrid.of(size, heatmap.mpp, settings.mpp)
    probability = grid.sampled(heatmap.channel(class_name), heatmap.affine)
    return _area_of(probability >= settings.threshold, grid)


def _area_of(mask: NDArray[np.bool_], grid: PixelGrid) -> BaseGeometry:
    # parts that touch at a corner make an invalid multipolygon, were they not united
    united: BaseGeometry = shapely.union_all([part for _, part in polygons_of(mask, grid.affine)])
    return united


def _clipped(area: BaseGeometry, within: BaseGeometry | None) -> BaseGeometry:
    return area if within is None else area.intersection(within)


def _in_um(area: BaseGeometry, mpp: Mpp) -> BaseGeometry:
    scaled: BaseGeometry = shapely.transform(area, lambda xy: xy * (mpp.x, mpp.y))
    return scaled
