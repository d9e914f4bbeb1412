"""Objects as QuPath's GeoJSON can hold them: valid on its grid, of bounded size, and told so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID, uuid5

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.qupath.annotation import Annotation, Detection, PathObject, RoiType
from qpannot.qupath.geojson.validity import (
    GRID_DECIMALS,
    MAX_VERTICES,
    Fault,
    Repair,
    make_valid,
    rounded_one,
    split,
)
from qpannot.qupath.proposals import is_untouched, sealed
from qpannot.qupath.qpdata.roi import QUPATH_GRID_PX, Corners, geometries_of, on_qupath_grid

_SAME_PX: Final = 4 * QUPATH_GRID_PX  # outlines nowhere further apart are the same, rounded twice


@dataclass(frozen=True)
class RepairedObject:
    """An object whose geometry was repaired.

    Parameters
    ----------
    where
        Its place in a file (``features[3]``), or its ID.
    id
        Its QuPath ID.
    label
        What it is called: its name, else its class.
    repair
        What was done.
    """

    where: str
    id: UUID
    label: str
    repair: Repair


@dataclass(frozen=True)
class SplitObject:
    """An object that was too large for QuPath, and became several of the same values.

    Parameters
    ----------
    where, id, label
        As `RepairedObject`, of the object before.
    vertices
        How many it had.
    pieces
        The IDs of what it became; made of its own ID, the same each time.
    """

    where: str
    id: UUID
    label: str
    vertices: int
    pieces: tuple[UUID, ...]


@dataclass(frozen=True)
class Remark:
    """Something to know of one place in a file: why it is no object, or how it was read."""

    where: str
    text: str


@dataclass
class Fitted:
    """Objects that QuPath accepts, and what was done to get them.

    Parameters
    ----------
    objects
        Parents before children, their geometries valid and on QuPath's grid.
    repairs, splits, left_out
        What differs from what was given.
    """

    objects: list[PathObject] = field(default_factory=list)
    repairs: list[RepairedObject] = field(default_factory=list)
    splits: list[SplitObject] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)


def label_of(each: PathObject) -> str:
    """Return what a person knows an object by."""
    return each.name or each.class_name or f"unclassified {each.kind.value}"


def fit(
    objects: Sequence[PathObject],
    *,
    places: Sequence[str] | None = None,
    faults: Mapping[int, Sequence[Fault]] | None = None,
    max_vertices: int = MAX_VERTICES,
) -> Fitted:
    """Return objects with geometries that QuPath takes from GeoJSON as they are.

    Fitting what was fitted changes nothing. A proposal that nobody touched is none the less so for
    being repaired or split: its fingerprint becomes that of its new outline.

    Parameters
    ----------
    objects
        Of any kind, parents before children.
    places
        Where each is from, for the report; its ID by default.
    faults
        What was mended already, by index.
    max_vertices
        See `validity.split`.
    """
    result = Fitted()
    where = places if places is not None else [str(each.id) for each in objects]
    geometries, repairs = make_valid([_outline(each) for each in objects], faults)
    nuclei, nucleus_repairs = _fitted_nuclei(objects)
    moved_to: dict[UUID, UUID | None] = {}
    for i, each in enumerate(objects):
        geometry = geometries[i]
        parent = moved_to.get(each.parent_id, each.parent_id) if each.parent_id else None
        if geometry.is_empty:
            reason = _why_empty(each.geometry) if i in repairs else "has no geometry"
            result.left_out.append(Remark(where[i], f"{label_of(each)} {reason}"))
            moved_to[each.id] = parent
            continue
        for found in (repairs.get(i), nucleus_repairs.get(i)):
            if found is not None:
                result.repairs.append(RepairedObject(where[i], each.id, label_of(each), found))
        changes: dict[str, object] = {"parent_id": parent}
        if i in nuclei:
            changes["nucleus"] = nuclei[i]
        pieces = split(geometry, max_vertices)
        is_changed = i in repairs or len(pieces) > 1
        seals = is_changed and isinstance(each, Annotation) and is_untouched(each)
        if len(pieces) == 1:
            made = each.with_changes(geometry=geometry, roi=_roi_of(each, geometry), **changes)
            result.objects.append(_sealed(made) if seals else made)
            continue
        ids = tuple(uuid5(each.id, f"piece {k + 1} of {len(pieces)}") for k in range(len(pieces)))
        moved_to[each.id] = parent
        vertices = int(shapely.get_num_coordinates(geometry))
        result.splits.append(SplitObject(where[i], each.id, label_of(each), vertices, ids))
        parts = [
            each.with_changes(geometry=piece, roi=_roi_of(each, piece), id=piece_id, **changes)
            for piece, piece_id in zip(pieces, ids, strict=True)
        ]
        result.objects += map(_sealed, parts) if seals else parts
    return result


def _why_empty(given: BaseGeometry) -> str:
    parts = shapely.get_parts(given)
    shells = shapely.get_exterior_ring(parts[shapely.get_num_interior_rings(parts) > 0])
    if (shapely.area(shapely.polygons(shells)) > 0).any():
        return "has holes that leave nothing of it"
    return "has no extent"


def _sealed(each: PathObject) -> PathObject:
    return sealed(each) if isinstance(each, Annotation) else each


def _fitted_nuclei(
    objects: Sequence[PathObject],
) -> tuple[dict[int, BaseGeometry | None], dict[int, Repair]]:
    given = {
        i: each.nucleus
        for i, each in enumerate(objects)
        if isinstance(each, Detection) and each.nucleus is not None
    }
    made, repairs = make_valid(list(given.values()))
    nuclei = {
        i: None if nucleus.is_empty else nucleus for i, nucleus in zip(given, made, strict=True)
    }
    found = {
        i: replace(repairs[k], faults=(Fault.NUCLEUS, *repairs[k].faults))
        for k, i in enumerate(given)
        if k in repairs
    }
    return nuclei, found


def _outline(each: PathObject) -> BaseGeometry:
    if each.roi is not RoiType.ELLIPSE or each.geometry.is_empty:
        return each.geometry
    x, y, x2, y2 = (round(side, GRID_DECIMALS) for side in each.geometry.bounds)
    if not all(map(math.isfinite, (x, y, x2, y2))):
        return each.geometry
    outline = geometries_of([Corners(RoiType.ELLIPSE, x, x2, y, y2)])[0]
    # QuPath goes by the bounds, and those of the smallest ellipses are all there is on its grid
    return outline if rounded_one(outline).is_valid else shapely.box(x, y, x2, y2)


def is_ellipse(outline: BaseGeometry) -> bool:
    """Tell whether a fitted outline is the one QuPath has for the ellipse in its bounds."""
    if outline.geom_type != "Polygon" or shapely.get_num_coordinates(outline) != 101:
        return False
    x, y, x2, y2 = outline.bounds
    drawn = geometries_of([Corners(RoiType.ELLIPSE, x, x2, y, y2)])[0]
    return bool(shapely.hausdorff_distance(drawn, outline) < 2 * QUPATH_GRID_PX)


def _roi_of(each: PathObject, geometry: BaseGeometry) -> RoiType:
    """Return the type QuPath gives to what it reads (GeometryTools.geometryToROI)."""
    kind = geometry.geom_type
    if kind in ("Point", "MultiPoint"):
        return RoiType.POINTS
    if kind == "LineString":
        return RoiType.LINE if len(geometry.coords) == 2 else RoiType.POLYLINE
    if kind != "Polygon" or shapely.get_num_interior_rings(geometry):
        return RoiType.GEOMETRY
    if each.roi is RoiType.ELLIPSE:
        return RoiType.ELLIPSE
    n_vertices = int(shapely.get_num_coordinates(geometry))
    if n_vertices == 5 and geometry.equals_exact(geometry.envelope, 0, normalize=True):
        return RoiType.RECTANGLE
    return RoiType.POLYGON


def differences(one: PathObject, other: PathObject) -> tuple[str, ...]:
    """Return in what two fitted objects differ as far as a GeoJSON can tell.

    Where a ring begins, the order of keys and the colour of a class do not count: QuPath changes
    the first two when it exports, and keeps the last of its own. Numbers may differ by what
    float32 cannot hold.
    """
    different = [
        name
        for name in ("kind", "class_name", "name", "locked", "color", "plane", "metadata")
        if getattr(one, name) != getattr(other, name)
    ]
    if not _same_place(one.geometry, other.geometry):
        different.append("geometry")
    if not _same_place(getattr(one, "nucleus", None), getattr(other, "nucleus", None)):
        different.append("nucleus")
    if not _same_numbers(one.measurements, other.measurements):
        different.append("measurements")
    return tuple(different)


def _same_place(one: BaseGeometry | None, other: BaseGeometry | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.equals_exact(other, 0):
        return True
    if np.abs(shapely.bounds(one) - shapely.bounds(other)).max() > _SAME_PX:
        return False
    pair = np.empty(2, dtype=object)
    pair[:] = one, other
    stored = shapely.normalize(on_qupath_grid(pair))
    if shapely.equals_exact(stored[0], stored[1], QUPATH_GRID_PX / 2):
        return True
    if shapely.get_dimensions(one) < 2 or shapely.get_dimensions(other) < 2:
        return False
    # QuPath leaves out vertices on straight lines, and slivers
    between = shapely.symmetric_difference(one, other)
    return bool(shapely.buffer(between, -_SAME_PX / 2).is_empty)


def _same_numbers(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(value, other[key], rel_tol=1e-6)
        or (math.isnan(value) and math.isnan(other[key]))
        for key, value in one.items()
    )
