"""A simulated pathologist: corrects proposals by the known tumours, imperfectly on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.qupath import Annotation, PathClass

STEP_UM = 25.0
"""From one point of a drawn line to the next."""

WOBBLE_UM = 5.0
"""Standard deviation of how far a drawn line lies off."""

OVERLOOKED_MM2 = 0.005
"""Tumours smaller than this are overlooked every third time."""

GOOD_ENOUGH = 0.95
"""Dice of a proposal that is left as it is."""


@dataclass(frozen=True)
class Correction:
    """What a person changes on one image.

    Parameters
    ----------
    replace
        Proposals, and what becomes of them.
    remove
        Proposals without tumour.
    add
        Tumours that nobody proposed.
    """

    replace: tuple[tuple[Annotation, Annotation], ...]
    remove: tuple[Annotation, ...]
    add: tuple[Annotation, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether all proposals are right."""
        return not (self.replace or self.remove or self.add)


def correct(
    proposals: Sequence[Annotation],
    tumour: BaseGeometry,
    path_class: PathClass,
    *,
    mpp: float,
    rng: np.random.Generator,
) -> Correction:
    """Return how a hasty but able pathologist corrects the proposals of a slide.

    Every tumour is drawn with an unsteady hand, and some of the smallest are overlooked. A
    proposal becomes the tumours it covers more of than any other does; one that covers hardly any
    is deleted; one that is nearly right is left alone.

    Parameters
    ----------
    proposals, tumour
        In full-resolution pixels.
    mpp
        Micrometres per pixel.
    """
    islands = [part for part in shapely.get_parts(tumour) if part.area > 0]
    drawn = [
        _by_hand(island, mpp, rng)
        for island in islands
        if island.area * mpp * mpp / 1e6 > OVERLOOKED_MM2 or rng.random() > 1 / 3
    ]
    owned: list[list[BaseGeometry]] = [[] for _ in proposals]
    add: list[Annotation] = []
    for island in drawn:
        shared = [island.intersection(proposal.geometry).area for proposal in proposals]
        if shared and max(shared) > 0.1 * island.area:
            owned[int(np.argmax(shared))].append(island)
        else:
            add.append(Annotation(island, path_class=path_class))
    replace: list[tuple[Annotation, Annotation]] = []
    remove: list[Annotation] = []
    for proposal, its in zip(proposals, owned, strict=True):
        right = shapely.union_all(its)
        if not its:
            remove.append(proposal)
        elif _dice(proposal.geometry, right) < GOOD_ENOUGH:
            replace.append((proposal, proposal.with_changes(geometry=right)))
    return Correction(tuple(replace), tuple(remove), tuple(add))


def _dice(one: BaseGeometry, other: BaseGeometry) -> float:
    return float(2 * one.intersection(other).area / (one.area + other.area))


def _by_hand(island: shapely.Polygon, mpp: float, rng: np.random.Generator) -> BaseGeometry:
    rings = [_wobbled(ring.coords, mpp, rng) for ring in (island.exterior, *island.interiors)]
    shell, *holes = [shapely.make_valid(shapely.Polygon(ring)) for ring in rings if len(ring) > 3]
    found: BaseGeometry = shapely.difference(shell, shapely.union_all(holes))
    parts = [part for part in shapely.get_parts(found) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area, default=island)


def _wobbled(
    ring: Sequence[tuple[float, ...]], mpp: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    line = shapely.LineString(ring)
    steps = max(8, round(line.length * mpp / STEP_UM))
    points = shapely.line_interpolate_point(line, np.linspace(0, 1, steps, False), normalized=True)
    moved = shapely.get_coordinates(points) + rng.normal(0, WOBBLE_UM / mpp, (steps, 2))
    return np.vstack([moved, moved[:1]])
