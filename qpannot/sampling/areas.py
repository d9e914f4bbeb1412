"""What annotations say of a slide: which area is which class, and what is left out.

The rules, in this order:

- A derived class counts as the longest part of its name that the recipe knows:
  ``Tumor: Invasive`` as ``Tumor``, unless it is listed itself.
- Where annotations of different classes overlap, the one nested more deeply wins (nested: lying
  within a larger annotation, as QuPath's *Resolve hierarchy* would put it), and of two nested
  equally deeply the later one, which is drawn on top.
- A proposal that no person reviewed is no truth, nor is what it covers the rest: patches there are
  left out, as in ``Ignore*``, except where a person's own annotation says more.
- Lines, points and unclassified annotations say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.qupath import Annotation
from qpannot.recipe.settings import LabelSettings

IGNORE, REGION = "Ignore*", "Region*"
"""QuPath's classes for what is to be left out, and for what was looked through completely."""

PROPOSAL_KEY = "qpannot.fingerprint"
"""Metadata that every proposal carries, corrected or not."""

_OTHER = -1
"""Role of an area whose class the recipe does not know; 0 is the rest, 1 the first class."""

Geometries = NDArray[np.object_]


def is_drawn(annotation: Annotation) -> bool:
    """Tell whether an annotation is surely a person's: no proposal, corrected or not."""
    return PROPOSAL_KEY not in annotation.metadata


@dataclass(frozen=True)
class Areas:
    """What annotations say of a slide, in full-resolution pixels of QuPath's frame.

    Parameters
    ----------
    classes
        One area for each of ``LabelSettings.classes``; they do not overlap.
    rest
        Annotated as the rest.
    other
        Annotated as a class that the recipe does not know.
    region
        Looked through completely (``Region*``).
    ignored
        Patches that touch this are left out.
    """

    classes: tuple[BaseGeometry, ...]
    rest: BaseGeometry
    other: BaseGeometry
    region: BaseGeometry
    ignored: BaseGeometry


def resolve_areas(
    annotations: Sequence[Annotation],
    settings: LabelSettings,
    *,
    is_truth: Callable[[Annotation], bool] = is_drawn,
) -> Areas:
    """Return which area is which class; see the module for the rules.

    Parameters
    ----------
    annotations
        In QuPath's order, later ones on top.
    is_truth
        Whether an annotation may be learned from.
    """
    geometries: list[BaseGeometry] = []
    roles: list[int] = []
    ignored, region, unreviewed = [], [], []
    for annotation in annotations:
        parts = annotation.path_class.parts if annotation.path_class else ()
        if not parts or not (geometry := polygonal(annotation.geometry)):
            continue
        if not is_truth(annotation):
            unreviewed.append(geometry)
        elif parts[0] == IGNORE:
            ignored.append(geometry)
        elif parts[0] == REGION:
            region.append(geometry)
        elif not parts[0].endswith("*"):
            geometries.append(geometry)
            roles.append(_role(parts, settings))
    topmost = _without_what_lies_on_top(np.array(geometries, object), np.array(roles, int))
    by_role = {
        role: _union(topmost[index] for index, own in enumerate(roles) if own == role)
        for role in (_OTHER, *range(len(settings.classes) + 1))
    }
    known = _union([by_role[role] for role in by_role])
    return Areas(
        classes=tuple(by_role[role] for role in range(1, len(settings.classes) + 1)),
        rest=by_role[0],
        other=by_role[_OTHER],
        region=_union(region),
        ignored=_union([*ignored, polygonal(_union(unreviewed).difference(known))]),
    )


def looked_through(areas: Areas) -> BaseGeometry:
    """Return where annotations tell the truth if coverage is partial.

    The classes, the rest by its name, and ``Region*`` but for classes that the recipe does not
    know; what is ignored is not cut out.
    """
    region = polygonal(areas.region.difference(areas.other))
    return _union([*areas.classes, areas.rest, region])


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """Return the valid area of a geometry, without its lines and points; it may be empty."""
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return _union(parts[shapely.get_dimensions(parts) == 2])


def _role(parts: tuple[str, ...], settings: LabelSettings) -> int:
    names = (settings.rest, *settings.classes)
    for length in range(len(parts), 0, -1):
        name = ": ".join(parts[:length])
        if name in names:
            return names.index(name)
    return _OTHER


def _without_what_lies_on_top(geometries: Geometries, roles: NDArray[np.int64]) -> Geometries:
    """Return each geometry without those of other roles that win over it."""
    if len(np.unique(roles)) < 2:
        return geometries
    shapely.prepare(geometries)
    tree = shapely.STRtree(geometries)
    areas = shapely.area(geometries)
    outer, inner = tree.query(geometries, predicate="covers")
    is_larger = areas[outer] > areas[inner]
    depth = np.bincount(inner[is_larger], minlength=len(geometries))
    rank = np.empty(len(geometries), int)
    rank[np.lexsort((np.arange(len(geometries)), depth))] = np.arange(len(geometries))
    below, above = tree.query(geometries, predicate="intersects")
    wins = (rank[above] > rank[below]) & (roles[above] != roles[below])
    below, above = below[wins], above[wins]
    result = geometries.copy()
    for loser in np.unique(below):
        winners = _union(geometries[above[below == loser]])
        result[loser] = polygonal(geometries[loser].difference(winners))
    return result


def _union(geometries: Iterable[BaseGeometry]) -> BaseGeometry:
    united: BaseGeometry = shapely.union_all(list(geometries))
    return united
