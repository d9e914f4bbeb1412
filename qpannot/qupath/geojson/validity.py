"""Outlines that QuPath accepts: repair of broken ones, splitting of giant ones.

QuPath 0.6 and newer round GeoJSON to 0.01 px and refuse the whole file where a result is invalid
("Reduction failed, possible invalid input"), as at a bow tie. So every geometry that goes out is
made valid *on that grid*, and what was changed is told, with its area before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.qupath.qpdata.roi import QUPATH_GRID_PX

GRID_DECIMALS: Final = 2
"""Decimals of QuPath's grid, and of the coordinates in its GeoJSON."""

NOTABLE_AREA_CHANGE: Final = 0.01
"""Relative change of area from which a repaired outline is worth a look."""

MAX_VERTICES: Final = 200_000
"""Vertices beyond which an outline is split; far more than a hand draws. To import and export a
polygon of a million vertices cost QuPath 0.6 43 s of processor time, its eight pieces 22 s."""

_FARTHEST_PX: Final = 2.0**31  # the sides of QuPath's images are Java ints
_LINEAL: Final = (1, 2, 5)  # shapely.get_type_id
_AREAL: Final = (3, 6)

Geometries: TypeAlias = NDArray[np.object_]


class Fault(StrEnum):
    """What was wrong with a geometry, and repaired."""

    OPEN = "a ring that was not closed"
    VERTICES = "vertices that are no numbers, or beyond any image"
    CROSSING = "an outline that crosses itself or another of its parts"
    NO_AREA = "a part without extent"
    HOLE = "a hole that is not inside the outline"
    MIXED = "a mixture of geometries, of which the areas (else the lines) were kept"
    ROUNDING = f"invalid when rounded to {QUPATH_GRID_PX} px"
    NUCLEUS = "in its nucleus"


@dataclass(frozen=True)
class Repair:
    """How a geometry was changed to be valid.

    Parameters
    ----------
    faults
        What was wrong.
    area_before_px2, area_after_px2
        In square pixels of full resolution. What crosses itself has the area that the shoelace
        formula gives it, in which loops cancel each other out; NaN where vertices are no numbers.
    """

    faults: tuple[Fault, ...]
    area_before_px2: float
    area_after_px2: float

    @property
    def is_notable(self) -> bool:
        """Whether the area changed by `NOTABLE_AREA_CHANGE` or more, or in a way nobody knows."""
        return not abs(self.area_after_px2 - self.area_before_px2) <= (
            NOTABLE_AREA_CHANGE * self.area_before_px2
        )


def rounded(geometries: Geometries) -> Geometries:
    """Return geometries with x and y at two decimals, as QuPath writes them, without z."""
    with np.errstate(all="ignore"):
        return shapely.transform(geometries, lambda each: np.round(each, GRID_DECIMALS))


def rounded_one(geometry: BaseGeometry) -> BaseGeometry:
    """Return one geometry as `rounded` does."""
    made: BaseGeometry = rounded(_array([geometry]))[0]
    return made


def make_valid(
    geometries: Sequence[BaseGeometry], faults: Mapping[int, Sequence[Fault]] | None = None
) -> tuple[Geometries, dict[int, Repair]]:
    """Return geometries that are valid on QuPath's grid, and what was repaired.

    What is valid when rounded is only rounded. An outline that crosses itself becomes what QuPath
    fills when it draws it: all that the line goes around (non-zero winding), so both halves of a
    bow tie, and loops without the holes that even-odd filling would leave.

    Parameters
    ----------
    geometries
        In full-resolution pixels, of any type.
    faults
        What was mended already, by index.

    Returns
    -------
    numpy.ndarray, dict
        Geometries, dtype object: Point, MultiPoint, LineString, MultiLineString, Polygon or
        MultiPolygon, empty where nothing was left. Repairs by index.
    """
    given = _array(geometries)
    made = rounded(given)
    with np.errstate(invalid="ignore"):
        good = shapely.is_valid(made) & shapely.is_valid(given) & (shapely.get_type_id(given) != 7)
    found = {i: list(known) for i, known in (faults or {}).items() if known}
    for i in np.flatnonzero(~good).tolist():
        made[i], wrong = _made_valid(given[i])
        found.setdefault(i, []).extend(wrong)
    with np.errstate(invalid="ignore"):
        repairs = {
            i: Repair(tuple(wrong), float(shapely.area(given[i])), float(shapely.area(made[i])))
            for i, wrong in found.items()
            if wrong
        }
    single = np.flatnonzero(
        (shapely.get_type_id(made) >= 4) & (shapely.get_num_geometries(made) == 1)
    )
    made[single] = shapely.get_geometry(made[single], 0)
    return made, repairs


def _made_valid(geometry: BaseGeometry) -> tuple[BaseGeometry, tuple[Fault, ...]]:
    faults: dict[Fault, None] = {}
    parts = _leaves(geometry)
    finite = [_with_possible_vertices(part) for part in parts]
    if any(one is not other for one, other in zip(parts, finite, strict=True)):
        faults[Fault.VERTICES] = None
    dimension = max((shapely.get_dimensions(part) for part in finite), default=-1)
    kept = [part for part in finite if shapely.get_dimensions(part) == dimension]
    if geometry.geom_type == "GeometryCollection":
        faults[Fault.MIXED] = None
    if dimension < 2:
        made = _united(kept)
        small = _united([each for each in rounded(_array(kept)) if each.is_valid])
        if len(_leaves(small)) < len(kept):
            faults[Fault.NO_AREA] = None
        return small, tuple(faults)
    outline = _united(kept)
    if not outline.is_valid:
        flat = sum(1 for ring in _rings(kept) if _is_flat(ring))
        made = _areas_of(shapely.make_valid(outline, method="structure", keep_collapsed=False))
        if flat:
            faults[Fault.NO_AREA] = None
        rest = _united([_without_flat_rings(part) for part in kept])
        if shapely.is_valid_reason(rest).startswith("Hole lies outside shell"):
            faults[Fault.HOLE] = None
        elif not rest.is_valid:
            faults[Fault.CROSSING] = None
        outline = made
    return _valid_on_grid(outline, faults), tuple(faults)


def _valid_on_grid(outline: BaseGeometry, faults: dict[Fault, None]) -> BaseGeometry:
    made = rounded_one(outline)
    if made.is_valid:
        return made
    faults[Fault.ROUNDING] = None
    snapped = _areas_of(shapely.set_precision(outline, QUPATH_GRID_PX))
    made = rounded_one(snapped)
    return made if made.is_valid else _areas_of(shapely.make_valid(made, method="structure"))


def _array(geometries: Sequence[BaseGeometry]) -> Geometries:
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    return array


def _leaves(geometry: BaseGeometry) -> list[BaseGeometry]:
    leaves: list[BaseGeometry] = []
    pending = [geometry]
    while pending:
        each = pending.pop()
        if shapely.get_type_id(each) < 4:
            if not each.is_empty:
                leaves.append(each)
        else:
            pending.extend(shapely.get_parts(each).tolist()[::-1])
    return leaves


def _united(parts: Sequence[BaseGeometry]) -> BaseGeometry:
    """Return parts of one dimension as one geometry, as they are."""
    if not parts:
        return shapely.Polygon()
    if len(parts) == 1:
        return parts[0]
    gather = (shapely.multipoints, shapely.multilinestrings, shapely.multipolygons)
    made: BaseGeometry = gather[shapely.get_dimensions(parts[0])](_array(parts))  # type: ignore[assignment]
    return made


def _areas_of(geometry: BaseGeometry) -> BaseGeometry:
    return _united([part for part in _leaves(geometry) if shapely.get_type_id(part) in _AREAL])


def _rings(polygons: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    found: list[BaseGeometry] = shapely.get_rings(_array(polygons)).tolist()
    return found


def _is_flat(ring: BaseGeometry) -> bool:
    return len(np.unique(shapely.get_coordinates(ring), axis=0)) < 3


def _without_flat_rings(polygon: BaseGeometry) -> BaseGeometry:
    shell, *holes = _rings([polygon])
    if _is_flat(shell):
        return shapely.Polygon()
    kept = [hole for hole in holes if not _is_flat(hole)]
    return shapely.Polygon(shell, kept)  # type: ignore[arg-type]


def _with_possible_vertices(part: BaseGeometry) -> BaseGeometry:
    """Return a part without the vertices that no image could have; itself if it has none."""

    def possible(line: BaseGeometry) -> NDArray[np.float64]:
        points: NDArray[np.float64] = shapely.get_coordinates(line)
        return points[(np.abs(points) < _FARTHEST_PX).all(axis=1)]

    if (np.abs(shapely.get_coordinates(part)) < _FARTHEST_PX).all():
        return part
    if shapely.get_type_id(part) in _LINEAL:
        points = possible(part)
        return shapely.LineString(points if len(points) > 1 else None)
    if shapely.get_type_id(part) not in _AREAL:
        return shapely.Point()
    rings = [possible(ring) for ring in _rings([part])]
    if len(rings[0]) < 3:
        return shapely.Polygon()
    return shapely.Polygon(rings[0], [ring for ring in rings[1:] if len(ring) > 2])


def split(outline: BaseGeometry, max_vertices: int = MAX_VERTICES) -> list[BaseGeometry]:
    """Return an outline as pieces of at most ``max_vertices`` vertices.

    It is cut along straight lines between whole pixels, again and again across the longer side.
    Where a cut meets the outline, both pieces get the same vertex on QuPath's grid, so that
    nothing lies between them and nothing in two of them; the outline moves by half a grid step
    there at most.

    Parameters
    ----------
    outline
        Valid on QuPath's grid, in full-resolution pixels. Only areas are split.

    Returns
    -------
    list
        Polygons and MultiPolygons, in the same order for the same outline; the outline itself
        when it is small enough.
    """
    if shapely.get_type_id(outline) not in _AREAL:
        return [outline]
    pieces: list[BaseGeometry] = []
    pending = [outline]
    while pending:
        each = pending.pop()
        if shapely.get_num_coordinates(each) <= max_vertices:
            pieces.append(each)
            continue
        x, y, x2, y2 = each.bounds
        along = 0 if x2 - x >= y2 - y else 1
        low, high = (x, x2) if along == 0 else (y, y2)
        cut = float(round(np.median(shapely.get_coordinates(each)[:, along])))
        if not low + 1 < cut < high - 1:
            cut = float(round((low + high) / 2))
        if not low < cut < high:
            pieces.append(each)  # no wider than a pixel
            continue
        pending.extend(_cut(each, along, cut))
    return pieces


def _cut(outline: BaseGeometry, along: int, cut: float) -> list[BaseGeometry]:
    """Return what lies above and what lies below a line across x (0) or y (1), in this order."""
    parts = shapely.get_parts(outline)
    bounds = shapely.bounds(parts)
    lows, highs = bounds[:, along], bounds[:, along + 2]
    halves: list[BaseGeometry] = []
    near, far = bounds[:, 1 - along].min() - 1, bounds[:, 3 - along].max() + 1
    for first, last, inside in (
        (cut, highs.max() + 1, lows >= cut),
        (lows.min() - 1, cut, highs <= cut),
    ):
        box = shapely.box(*((first, near, last, far) if along == 0 else (near, first, far, last)))
        cut_up = shapely.intersection(parts[(lows < cut) & (highs > cut)], box)
        pieces = [*parts[inside], *(leaf for each in cut_up for leaf in _leaves(each))]
        half = _valid_on_grid(_areas_of(shapely.geometrycollections(pieces)), {})
        if not half.is_empty:
            halves.append(half)
    return halves
