"""The area that annotations of a class cover."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.states import counts_as_area
from qpannot.evaluation.overlap import polygons_of


def areas_by_class(areas: Iterable[tuple[str | None, BaseGeometry]]) -> dict[str, BaseGeometry]:
    """Return the area of each class; what has none, or one such as ``Ignore*``, is left out.

    Parameters
    ----------
    areas
        Class names and outlines of annotations, in full-resolution pixels.
    """
    parts: dict[str, list[BaseGeometry]] = defaultdict(list)
    for name, geometry in areas:
        if name is not None and counts_as_area(name):
            parts[name].append(polygons_of(geometry))
    return {name: shapely.union_all(some) for name, some in parts.items()}
