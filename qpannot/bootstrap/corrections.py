"""What a person changed of a proposal: how much, and how far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from shapely.geometry.base import BaseGeometry

from qpannot.evaluation import Overlap, directed_distances, overlap
from qpannot.geometry import Mpp

SPACING_UM = 10.0
"""From one point of an outline where its move is measured to the next."""

_UM2_PER_MM2 = 1e6

_Distances = NDArray[np.float64]


class Change(BaseModel):
    """How far a corrected area is the proposed one.

    ``dice`` and ``iou`` are 1 where nothing was changed, 0 where nothing was kept.
    """

    model_config = ConfigDict(frozen=True)

    dice: float
    iou: float
    area_added_px2: float
    """In square full-resolution pixels, which are known of every slide."""
    area_removed_px2: float
    area_added_mm2: float | None
    """``None`` where the slide's pixel size is unknown."""
    area_removed_mm2: float | None
    boundary_moved_mean_um: float | None
    """From one outline to the nearest point of the other, averaged along both.

    ``None`` where the slide's pixel size is unknown, or where one of the two has no outline.
    """
    boundary_moved_p95_um: float | None
    """95 % of both outlines moved less."""


class Correction(BaseModel):
    """What a person changed of the proposals of one slide, by class and over all of them.

    What was given another class is removed from one and added to the other. For the ledger:
    ``model_dump`` and ``model_validate``.
    """

    model_config = ConfigDict(frozen=True)

    overall: Change
    by_class: dict[str, Change]


def measure_correction(
    proposal: Mapping[str, BaseGeometry], corrected: Mapping[str, BaseGeometry], mpp: Mpp | None
) -> Correction:
    """Measure what a person changed of the proposals of a slide.

    Parameters
    ----------
    proposal
        The area of each class as it was proposed, in full-resolution pixels.
    corrected
        The same after a person's correction. A class that either lacks is empty there.
    mpp
        Micrometres per full-resolution pixel; ``None`` where that is unknown.
    """
    nothing = shapely.MultiPolygon()
    overlaps: dict[str, Overlap] = {}
    distances: dict[str, _Distances] = {}
    for name in sorted({*proposal, *corrected}):
        before, after = proposal.get(name, nothing), corrected.get(name, nothing)
        overlaps[name] = overlap(before, after)
        distances[name] = _moves(before, after, mpp)
    return Correction(
        overall=_change(
            _added_up(list(overlaps.values())), np.concatenate([[], *distances.values()]), mpp
        ),
        by_class={name: _change(overlaps[name], distances[name], mpp) for name in overlaps},
    )


def _moves(before: BaseGeometry, after: BaseGeometry, mpp: Mpp | None) -> _Distances:
    if mpp is None:
        return np.empty(0)
    um = np.array([mpp.x, mpp.y])
    there, back = directed_distances(
        shapely.transform(before, lambda xy: xy * um),
        shapely.transform(after, lambda xy: xy * um),
        SPACING_UM,
    )
    return np.concatenate([there, back])


def _added_up(overlaps: Sequence[Overlap]) -> Overlap:
    return Overlap(
        sum(each.true_area for each in overlaps),
        sum(each.predicted_area for each in overlaps),
        sum(each.common_area for each in overlaps),
    )


def _change(overlap: Overlap, distances: _Distances, mpp: Mpp | None) -> Change:
    added = overlap.true_area - overlap.common_area
    removed = overlap.predicted_area - overlap.common_area
    mm2 = mpp.x * mpp.y / _UM2_PER_MM2 if mpp else None
    return Change(
        dice=overlap.dice,
        iou=overlap.iou,
        area_added_px2=added,
        area_removed_px2=removed,
        area_added_mm2=added * mm2 if mm2 else None,
        area_removed_mm2=removed * mm2 if mm2 else None,
        boundary_moved_mean_um=float(distances.mean()) if len(distances) else None,
        boundary_moved_p95_um=float(np.percentile(distances, 95)) if len(distances) else None,
    )
