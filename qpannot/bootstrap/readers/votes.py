"""What several readers say of each place of a slide: their areas laid over one another.

Places are found by overlaying the outlines themselves, no pixels: where all agree, an outline stays
as it was drawn, vertex by vertex.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.readers.apart import Readers
from qpannot.recipe.settings import LabelSettings
from qpannot.sampling.areas import Areas, looked_through, polygonal, resolve_areas

NOTHING = 0
"""No class: the rest of the tissue, or, where coverage is partial, nothing at all. Classes follow,
from 1 on, in the recipe's order."""

_DUST_PX2 = 1e-4
"""A square of QuPath's precision grid: what is smaller comes of rounding."""

Votes = dict[tuple[int, ...], BaseGeometry]
"""By what the readers say, each in turn: where they do, in full-resolution pixels. Where none says
anything but `NOTHING` is left out."""


def ignored(labels: LabelSettings) -> int:
    """Return the label of what is to be left out (``Ignore*``)."""
    return len(labels.classes) + 1


def rest(labels: LabelSettings) -> int:
    """Return the label of the rest where coverage is partial, and it has to be said."""
    return len(labels.classes) + 2


def votes_of(readers: Readers, names: Sequence[str], labels: LabelSettings) -> Votes:
    """Lay the annotations of readers over one another.

    Overlaps among a reader's own are resolved as ever (`qpannot.sampling.areas`), and a proposal
    that whoever corrected others did not touch is to be ignored, by that reader's word.

    Parameters
    ----------
    names
        Whose, in the order of the result.
    """
    cells: Votes = {}
    known: BaseGeometry = shapely.MultiPolygon()
    for place, name in enumerate(names):
        areas = resolve_areas(readers.of(name), labels, is_truth=readers.is_truth)
        said = {label: area for label, area in _said(areas, labels).items() if not area.is_empty}
        everything = shapely.union_all(list(said.values()))
        found: Votes = {}
        for signature, cell in cells.items():
            _add(found, (*signature, NOTHING), cell.difference(everything))
            for label, area in said.items():
                _add(found, (*signature, label), cell.intersection(area))
        for label, area in said.items():
            _add(found, (*(NOTHING,) * place, label), area.difference(known))
        cells, known = found, shapely.union(known, everything)
    return cells


def tabulated(votes: Votes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what is said of each place, shape [places, readers], and the places' areas."""
    area = np.array([cell.area for cell in votes.values()], np.float64)
    return np.array(list(votes), np.int64).reshape(len(votes), -1), area


def _said(areas: Areas, labels: LabelSettings) -> dict[int, BaseGeometry]:
    """Return which area has which label in what one reader says; they do not overlap."""
    said = {
        index: polygonal(area.difference(areas.ignored))
        for index, area in enumerate(areas.classes, 1)
    }
    if labels.coverage == "partial":
        classes = shapely.union_all([*areas.classes, areas.ignored])
        said[rest(labels)] = polygonal(looked_through(areas).difference(classes))
    return {**said, ignored(labels): areas.ignored}


def _add(votes: Votes, signature: tuple[int, ...], cell: BaseGeometry) -> None:
    area = polygonal(cell)
    if area.area > _DUST_PX2:
        votes[signature] = area
