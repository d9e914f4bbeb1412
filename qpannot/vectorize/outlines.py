"""AN2: from a heatmap or mask to outlines that a person can correct in QuPath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.geometry import Mpp
from qpannot.recipe.settings import OutlineSettings
from qpannot.vectorize.arcs import cut, junctions
from qpannot.vectorize.cleaning import cleaned
from qpannot.vectorize.clipping import clipped
from qpannot.vectorize.dividing import divided
from qpannot.vectorize.runs import Runs, components, row_blocks, runs_of
from qpannot.vectorize.settling import settled_polygons
from qpannot.vectorize.smoothing import smooth
from qpannot.vectorize.tracing import trace

HALF_A_GRID_STEP = 0.0071
"""How far rounding to QuPath's grid moves a point, at most, in full-resolution pixels."""

PIXELS_SMOOTHED = 0.4
"""How far outlines are smoothed where no distance is given, in pixels of the heatmap: Dice against
the unsmoothed mask stays above 0.95 on tumour masks, and its steps are gone."""


@dataclass(frozen=True)
class Outline:
    """One area of a class.

    Parameters
    ----------
    class_name
        Its class.
    polygon
        Valid, on QuPath's grid of 0.01 full-resolution pixels.
    score
        Mean probability of the class in the area, 0 to 1; NaN where there are no probabilities.
    """

    class_name: str
    polygon: shapely.Polygon
    score: float


def outlines_of(
    probabilities: NDArray[np.float32],
    affine: Affine,
    mpp: Mpp,
    classes: Sequence[str | None],
    settings: OutlineSettings,
    *,
    within: Sequence[BaseGeometry] | None = None,
) -> list[Outline]:
    """Return the areas in which a class is probable (AN2, H2G-Net sec. 2.1).

    Each connected area is an outline of its own: in QuPath a person then accepts, deletes or
    reclassifies one with a click, and the brush changes only the one it is put down in.

    Parameters
    ----------
    probabilities
        Shape [height, width, classes], or [height, width] of one class; NaN where nothing was
        predicted.
    affine
        Where its pixels lie on the slide.
    mpp
        Micrometres per full-resolution pixel.
    classes
        Their names; None for a channel that is not to be outlined, as the rest of the tissue. A
        pixel is of the most probable of the named classes that reach the threshold, so that the
        rest does not hide a class if the threshold is below one half.
    settings
        The numbers of the method.
    within
        Areas in full-resolution pixels at which outlines end: the tissue, whose border is known
        far more finely than a heatmap shows it. None: they end where the heatmap says.

    Returns
    -------
    list of Outline
        By class, and within it the largest first. Outlines do not overlap, and neighbours have
        their common border vertex by vertex. One of more than ``max_vertices`` is divided, and its
        parts have the score of the whole.

    Raises
    ------
    ValueError
        The names are not as many as the channels.
    """
    if probabilities.ndim == 2:
        probabilities = probabilities[..., None]
    if len(classes) != probabilities.shape[2]:
        raise ValueError(f"{probabilities.shape[2]} channels, but {len(classes)} classes")
    labels = label(probabilities, classes, settings.threshold)
    return _outlines(labels, probabilities, affine, mpp, classes, settings, within)


def outlines_of_labels(
    labels: NDArray[np.uint8] | NDArray[np.bool_],
    affine: Affine,
    mpp: Mpp,
    classes: Sequence[str | None],
    settings: OutlineSettings,
) -> list[Outline]:
    """Return the areas of the classes of a mask; otherwise as `outlines_of`.

    Parameters
    ----------
    labels
        Class of each pixel, shape [height, width]: 1 is the first of ``classes``, 0 none.
    """
    return _outlines(labels.astype(np.uint8, copy=False), None, affine, mpp, classes, settings)


def label(
    probabilities: NDArray[np.float32], classes: Sequence[str | None], threshold: float
) -> NDArray[np.uint8]:
    """Return the class of each pixel: 1 for the first of ``classes``, 0 for none.

    Parameters
    ----------
    probabilities, classes
        As in `outlines_of`.
    threshold
        A pixel needs this much.
    """
    labels = np.zeros(probabilities.shape[:2], np.uint8)
    for block in row_blocks(labels.shape):
        best = np.full(labels[block].shape, -np.inf, np.float32)
        for channel, name in enumerate(classes):
            values = probabilities[block, :, channel]
            if name is not None:
                is_best = (values >= np.float32(threshold)) & (values > best)
                best[is_best] = values[is_best]
                labels[block][is_best] = channel + 1
    return labels


def _outlines(
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float32] | None,
    affine: Affine,
    mpp: Mpp,
    classes: Sequence[str | None],
    settings: OutlineSettings,
    within: Sequence[BaseGeometry] | None = None,
) -> list[Outline]:
    labels = cleaned(labels, affine.pixel_um(mpp), settings)
    runs = runs_of(labels)
    n, component = components(runs)
    rings = trace(runs, component)
    arcs = cut(rings, junctions(labels), runs.shape)
    coarsest = max(mpp.x, mpp.y)
    smoothing_um = settings.smoothing_um
    if smoothing_um is None:
        smoothing_um = PIXELS_SMOOTHED * min(affine.pixel_um(mpp))
    bound = max(0.0, smoothing_um / coarsest - HALF_A_GRID_STEP)
    simplify = settings.simplify_um / coarsest
    lines = smooth(arcs, affine.to_slide(arcs.corners), bound)
    polygons = settled_polygons(rings, arcs, lines, n, simplify=simplify, reach=bound + simplify)
    values = np.zeros(n, np.uint8)
    values[component] = runs.values
    scores = (
        np.full(n, np.nan)
        if probabilities is None
        else _mean_probabilities(probabilities, runs, component, n)
    )
    if within is not None:
        area = shapely.union_all(within)
        polygons, own = clipped(polygons, area, settings.min_area_um2 / (mpp.x * mpp.y))
        values, scores = values[own], scores[own]
    order = np.lexsort((-shapely.area(polygons), values))
    outlines = []
    for index in order.tolist():
        name = classes[values[index] - 1]
        if name is not None:
            for part in divided(polygons[index], settings.max_vertices):
                outlines.append(Outline(name, part, float(scores[index])))
    return outlines


def _mean_probabilities(
    probabilities: NDArray[np.float32], runs: Runs, component: NDArray[np.int32], n: int
) -> NDArray[np.float64]:
    """Return the mean probability of its class in each component, of the pixels that have one."""
    totals, known = np.zeros(n), np.zeros(n)
    for block in row_blocks(runs.shape):
        low, high = np.searchsorted(runs.rows, (block.start, block.stop))
        for value in np.unique(runs.values[low:high]):
            chosen = low + np.flatnonzero(runs.values[low:high] == value)
            channel = probabilities[block, :, value - 1].astype(np.float64)
            is_known = np.isfinite(channel)
            begins = (runs.rows[chosen] - block.start) * runs.shape[1] + runs.starts[chosen]
            for total, pixels in ((totals, np.where(is_known, channel, 0)), (known, is_known)):
                filled = np.concatenate([[0], np.cumsum(pixels, dtype=np.float64)])
                sums = filled[begins + runs.lengths[chosen]] - filled[begins]
                total += np.bincount(component[chosen], weights=sums, minlength=n)
    with np.errstate(invalid="ignore"):
        return totals / known
