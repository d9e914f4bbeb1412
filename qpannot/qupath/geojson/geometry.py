"""The geometries of GeoJSON, read in bulk, whatever the state they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.qupath.annotation import DEFAULT_PLANE, Plane
from qpannot.qupath.geojson.validity import Fault

Points: TypeAlias = NDArray[np.float64]

GEOMETRIES: Final = frozenset(
    "Point MultiPoint LineString MultiLineString Polygon MultiPolygon GeometryCollection".split()
)
"""GeoJSON's types of geometry."""


class WrongError(ValueError):
    """Why a feature cannot be understood."""


@dataclass
class Outline:
    """A geometry of a file, before shapely sees it.

    Parameters
    ----------
    polygons
        The rings of each polygon, the outer one first; each ring is closed and has four points at
        least, of shape (n, 2).
    lines, points
        Of shape (n, 2), with two points at least; of shape (n, 2).
    is_collection
        Whether it was a GeometryCollection.
    is_ellipse
        Whether QuPath would make an ellipse of its bounds.
    plane
        Where in a stack it lies.
    faults
        What was mended on the way here.
    """

    polygons: list[list[Points]] = field(default_factory=list)
    lines: list[Points] = field(default_factory=list)
    points: list[Points] = field(default_factory=list)
    is_collection: bool = False
    is_ellipse: bool = False
    plane: Plane = DEFAULT_PLANE
    faults: dict[Fault, None] = field(default_factory=dict)


def parse_geometry(content: Any) -> Outline:
    """Return the outline of a GeoJSON geometry.

    Raises
    ------
    WrongError
        If it is none.
    """
    if not isinstance(content, dict) or not content.get("type"):
        raise WrongError("has no geometry")
    outline = Outline()
    pending = [content]
    while pending:
        each = pending.pop()
        kind = str(each.get("type")) if isinstance(each, dict) else "nothing"
        if kind not in GEOMETRIES:
            raise WrongError(f"its geometry is of the unknown type {kind[:40]!r}")
        if kind == "GeometryCollection":
            outline.is_collection = True
            pending += list(_items(each.get("geometries"), "geometries"))[::-1]
            continue
        try:
            _add(outline, kind, each.get("coordinates"))
        except (TypeError, ValueError, OverflowError) as error:
            reason = str(error) if isinstance(error, WrongError) else "are no pairs of numbers"
            raise WrongError(f"the coordinates of its {kind} {reason}") from error
    outline.is_ellipse = content.get("isEllipse") is True
    outline.plane = _plane(content.get("plane"))
    return outline


def _items(content: Any, what: str) -> Iterator[Any]:
    if not isinstance(content, list):
        raise WrongError(f"have no list of {what}")
    yield from content


def _add(outline: Outline, kind: str, coordinates: Any) -> None:
    if kind == "Polygon":
        _add_polygon(outline, coordinates)
    elif kind == "MultiPolygon":
        for rings in _items(coordinates, "polygons"):
            _add_polygon(outline, rings)
    elif kind == "Point":
        if _items(coordinates, "numbers") and coordinates:
            outline.points.append(_points([coordinates]))
    elif kind == "MultiPoint":
        outline.points.append(_points(coordinates))
    else:
        lines = [coordinates] if kind == "LineString" else _items(coordinates, "lines")
        for each in lines:
            line = _points(each)
            if len(line):
                outline.lines.append(line if len(line) > 1 else line[[0, 0]])


def _add_polygon(outline: Outline, rings: Any) -> None:
    made: list[Points] = []
    for coordinates in _items(rings, "rings"):
        ring = _points(coordinates)
        if not len(ring):
            continue
        if len(ring) == 1 or (ring[0] != ring[-1]).any():
            outline.faults[Fault.OPEN] = None
            ring = np.concatenate([ring, ring[:1]])
        if len(ring) < 4:  # JTS and GEOS want four; this one has no area, and will be dropped
            ring = ring[[0, *range(len(ring)), *[-1] * (3 - len(ring))]]
        made.append(ring)
    if made:
        outline.polygons.append(made)


def _points(coordinates: Any) -> Points:
    if not isinstance(coordinates, list):
        raise WrongError("are no list")
    try:
        points: Points = np.asarray(coordinates, dtype=np.float64)
    except ValueError:  # points of two numbers beside points of three
        points = np.asarray([each[:2] for each in coordinates], dtype=np.float64)
    if not len(coordinates):
        return points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] < 2:
        raise WrongError("are no pairs of numbers")
    return points[:, :2]


def _plane(content: Any) -> Plane:
    if content is None:
        return DEFAULT_PLANE
    values = (
        [content.get(axis, default) for axis, default in (("c", -1), ("z", 0), ("t", 0))]
        if (isinstance(content, dict))
        else []
    )
    whole = [int(value) for value in values if isinstance(value, (int, float)) and value % 1 == 0]
    if len(whole) != 3 or whole[0] < -1 or min(whole[1:]) < 0 or max(whole) >= 2**31:
        raise WrongError("its plane is none")
    plane = Plane(*whole)
    return DEFAULT_PLANE if plane == DEFAULT_PLANE else plane


def build(outlines: Sequence[Outline]) -> list[BaseGeometry]:
    """Return the outlines as shapely geometries, valid or not."""
    # vertices may be anything yet: shapely warns of what is not finite
    with np.errstate(invalid="ignore"):
        polygons = iter(_polygons([rings for each in outlines for rings in each.polygons]))
        return [_geometry(each, [next(polygons) for _ in each.polygons]) for each in outlines]


def _polygons(all_rings: Sequence[Sequence[Points]]) -> list[BaseGeometry]:
    flat = [ring for rings in all_rings for ring in rings]
    if not flat:
        return []
    owners = np.repeat(np.arange(len(flat)), [len(ring) for ring in flat])
    linear = np.asarray(shapely.linearrings(np.concatenate(flat), indices=owners))
    counts = np.array([len(rings) for rings in all_rings])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    made = np.asarray(shapely.polygons(linear[starts]))
    for i in np.flatnonzero(counts > 1).tolist():
        first = int(starts[i])
        made[i] = shapely.polygons(linear[first], holes=linear[first + 1 : first + int(counts[i])])
    polygons: list[BaseGeometry] = made.tolist()
    return polygons


def _geometry(outline: Outline, polygons: list[BaseGeometry]) -> BaseGeometry:
    lines = [shapely.LineString(line) for line in outline.lines]
    points = [shapely.Point(*each) for some in outline.points for each in some.tolist()]
    if outline.is_collection:
        return shapely.GeometryCollection([*polygons, *lines, *points])
    if polygons:
        return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)  # type: ignore[arg-type]
    if lines:
        return lines[0] if len(lines) == 1 else shapely.MultiLineString(lines)
    if points:
        return points[0] if len(points) == 1 else shapely.MultiPoint(points)
    return shapely.Polygon()
