"""QuPath's regions of interest in a data file, and the shapely geometries they stand for.

A `Shape` is what QuPath keeps of a region: float32 vertices (Polygon, Polyline, Points), double
corners (Rectangle, Ellipse, Line) or WKB (Geometry). Geometry goes into shapes (`shapes_of`) and
comes out of them (`geometries_of`), in memory as in a file; what a read-back gives is therefore
``geometries_of(shapes_of(...))``, bit for bit.

float32 steps are 0.0078 px at 100,000 px. WKB lies on QuPath's grid of 0.01 px, in float32: QuPath
rounds to both whenever it reads a file, so we do so when we read and when we write. What we store
is then what QuPath stores after opening and saving it, vertex by vertex, and a changed geometry is
one that somebody changed. Where rounding would make a valid geometry invalid, it is
stored made valid on that grid.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.errors import QpannotError
from qpannot.qupath.annotation import PathObject, RoiType
from qpannot.qupath.qpdata.javatypes import UnexpectedError

QUPATH_GRID_PX: Final = 0.01
"""Spacing of the grid that QuPath's geometries lie on (GeometryTools.DEFAULT_FACTORY, which also
keeps coordinates in float32)."""

_ELLIPSE_POINTS: Final = 100  # JTS GeometricShapeFactory's default, which QuPath uses
_ELLIPSE_SLACK: Final = 0.02  # relative; a polygon further from an ellipse than this is none
_MAX_COLLECTIONS: Final = 1000

_POINT, _LINE, _RING, _POLYGON, _MULTIPOINT = 0, 1, 2, 3, 4  # shapely.get_type_id

_NOTHING: Final = shapely.Polygon()

Floats: TypeAlias = NDArray[np.float64]


class Vertices(NamedTuple):
    """A Polygon, Polyline or Points region: big-endian float32 x and y, rings left open."""

    roi: RoiType
    x: bytes
    y: bytes


class Corners(NamedTuple):
    """A Rectangle or Ellipse by opposite corners of its bounds, or a Line by its ends, in px."""

    roi: RoiType
    x: float
    x2: float
    y: float
    y2: float


class Wkb(NamedTuple):
    """A Geometry region: big-endian, two-dimensional WKB."""

    wkb: bytes

    @property
    def roi(self) -> RoiType:
        """The kind of region."""
        return RoiType.GEOMETRY


Shape: TypeAlias = Vertices | Corners | Wkb


def shapes_of(objects: Sequence[PathObject]) -> list[Shape]:
    """Return what QuPath keeps of the objects' geometries.

    The wanted `RoiType` is kept where the geometry can be one: a RECTANGLE must be its own
    bounding box, an ELLIPSE a polygon along the ellipse in its bounds (or those bounds), a LINE
    must have two points. Otherwise, and where none is wanted, the geometry decides: Polygon
    without holes, Polyline, Points, and Geometry for everything else.

    Raises
    ------
    QpannotError
        If a geometry is empty, has an empty part, or coordinates that are not finite or beyond
        float32; the error names the object.
    """
    geometries = np.array([each.geometry for each in objects], dtype=object)
    if not len(geometries):
        return []
    coordinates, index = shapely.get_coordinates(geometries, return_index=True)
    ends = np.cumsum(np.bincount(index, minlength=len(geometries)))
    _check_storable(objects, geometries, coordinates, index)
    kinds = shapely.get_type_id(geometries).tolist()
    holes = shapely.get_num_interior_rings(geometries).tolist()
    with np.errstate(over="ignore"):
        x = coordinates[:, 0].astype(">f4").tobytes()
        y = coordinates[:, 1].astype(">f4").tobytes()
    shapes: list[Shape | None] = []
    start = 0
    for each, kind, n_holes, end in zip(objects, kinds, holes, ends.tolist(), strict=True):
        corners = (
            _wanted_corners(each.roi, kind, n_holes, coordinates[start:end]) if each.roi else None
        )
        if each.roi is RoiType.GEOMETRY or kind > _MULTIPOINT or n_holes:
            shapes.append(None)
        elif corners is not None:
            shapes.append(corners)
        elif kind == _POLYGON:
            inside = slice(4 * start, 4 * (end - 1))
            shapes.append(Vertices(RoiType.POLYGON, x[inside], y[inside]))
        else:
            roi = RoiType.POLYLINE if kind in (_LINE, _RING) else RoiType.POINTS
            inside = slice(4 * start, 4 * end)
            shapes.append(Vertices(roi, x[inside], y[inside]))
        start = end
    as_wkb = [i for i, shape in enumerate(shapes) if shape is None]
    encoded = iter(_wkb_of(geometries[as_wkb]))
    return [next(encoded) if shape is None else shape for shape in shapes]


def _check_storable(
    objects: Sequence[PathObject],
    geometries: NDArray[np.object_],
    coordinates: Floats,
    index: NDArray[np.int64],
) -> None:
    limit = np.finfo(np.float32).max
    beyond = ~(np.abs(coordinates) <= limit).all(axis=1)
    several = np.flatnonzero(shapely.get_type_id(geometries) >= _MULTIPOINT)
    parts, owners = shapely.get_parts(geometries[several], return_index=True)
    for wrong, why in (
        (np.flatnonzero(shapely.is_empty(geometries)), "is empty"),
        (several[owners[shapely.is_empty(parts)]], "has an empty part"),
        (index[beyond], "has coordinates that are not finite numbers a file can hold"),
    ):
        if len(wrong):
            each = objects[int(wrong[0])]
            label = each.name or each.class_name or "unclassified"
            raise QpannotError(
                f"The {each.kind} {label} ({each.id}) cannot be stored: its geometry {why}.",
                hint="Leave it out, or repair its geometry (shapely.make_valid); "
                "nothing was changed.",
            )


def _wanted_corners(roi: RoiType | None, kind: int, n_holes: int, points: Floats) -> Corners | None:
    if roi is RoiType.LINE and kind == _LINE and len(points) == 2:
        (x, y), (x2, y2) = points.tolist()
        return Corners(roi, x, x2, y, y2)
    if roi not in (RoiType.RECTANGLE, RoiType.ELLIPSE) or kind != _POLYGON or n_holes:
        return None
    (x, y), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    at_corner = np.isin(points[:, 0], (x, x2)) & np.isin(points[:, 1], (y, y2))
    is_box = bool(at_corner.all()) and len(np.unique(points, axis=0)) == 4
    if is_box or (roi is RoiType.ELLIPSE and _is_along_ellipse(points, x, x2, y, y2)):
        return Corners(roi, x, x2, y, y2)
    return None


def _is_along_ellipse(points: Floats, x: float, x2: float, y: float, y2: float) -> bool:
    if x == x2 or y == y2:
        return True
    center, radius = np.array([x + x2, y + y2]) / 2, np.array([x2 - x, y2 - y]) / 2
    distance = np.hypot(*((points - center) / radius).T)
    slack = max(_ELLIPSE_SLACK, 2 * QUPATH_GRID_PX / float(radius.min()))
    return bool((np.abs(distance - 1) <= slack).all())


def _wkb_of(geometries: NDArray[np.object_]) -> list[Wkb]:
    if not len(geometries):
        return []
    rounded = on_qupath_grid(geometries)
    for i in np.flatnonzero(~shapely.is_valid(rounded) & shapely.is_valid(geometries)):
        valid = shapely.set_precision(geometries[i], QUPATH_GRID_PX)
        if not valid.is_empty:
            rounded[i] = on_qupath_grid(valid)
    return [Wkb(wkb) for wkb in shapely.to_wkb(rounded, byte_order=0, output_dimension=2)]


def on_qupath_grid(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return geometries with their vertices rounded as QuPath does, bit for bit, without z."""
    with np.errstate(all="ignore"):
        return shapely.transform(geometries, _make_precise)


def _make_precise(coordinates: Floats) -> Floats:
    # JTS PrecisionModel.makePrecise for a grid, then what QuPath keeps coordinates in
    precise = np.floor(coordinates / QUPATH_GRID_PX + 0.5) * QUPATH_GRID_PX
    return precise.astype(np.float32).astype(np.float64)


@np.errstate(all="ignore")  # a file may hold any bytes for numbers
def geometries_of(shapes: Sequence[Shape | None]) -> list[BaseGeometry]:
    """Return the geometries of regions, in full-resolution pixels.

    Vertices come in the file's order. An ellipse is a polygon of 100 points, as QuPath makes it,
    that reaches its bounds exactly. A Polygon is the ring as it was drawn, even where it crosses
    itself. No region at all, or one with a vertex that is no finite number, is an empty Polygon.

    Raises
    ------
    UnexpectedError
        If the WKB of one is broken.
    """
    made: list[BaseGeometry] = [_NOTHING] * len(shapes)
    rings: list[int] = []
    for i, shape in enumerate(shapes):
        if isinstance(shape, Vertices) and shape.roi is RoiType.POLYGON and len(shape.x) >= 16:
            rings.append(i)
        elif shape is not None:
            made[i] = _geometry_of(shape)
    if rings:
        for i, ring in zip(rings, _rings_of([shapes[i] for i in rings]), strict=True):
            made[i] = ring
    return made


def _rings_of(shapes: Sequence[Shape | None]) -> list[BaseGeometry]:
    """Return the polygons of many rings at once."""
    vertices = [shape for shape in shapes if isinstance(shape, Vertices)]
    points = points_of(b"".join(each.x for each in vertices), b"".join(each.y for each in vertices))
    owners = np.repeat(range(len(vertices)), [len(each.x) // 4 for each in vertices])
    broken = np.unique(owners[~np.isfinite(points).all(axis=1)])
    if len(broken):
        points[np.isin(owners, broken)] = 0
    polygons = np.asarray(shapely.polygons(shapely.linearrings(points, indices=owners)))
    polygons[broken] = _NOTHING
    made: list[BaseGeometry] = polygons.tolist()
    return made


def _geometry_of(shape: Shape) -> BaseGeometry:
    if isinstance(shape, Wkb):
        return _geometry_of_wkb(shape.wkb)
    if isinstance(shape, Vertices):
        points = points_of(shape.x, shape.y)
        if not np.isfinite(points).all():
            return _NOTHING
        if shape.roi is RoiType.POINTS:
            return shapely.Point(points[0]) if len(points) == 1 else shapely.MultiPoint(points)
        if not len(points):
            return shapely.Polygon() if shape.roi is RoiType.POLYGON else shapely.LineString()
        if shape.roi is RoiType.POLYGON:
            # GEOS wants four points, and QuPath draws rings of fewer
            return shapely.Polygon(points[[*range(len(points)), *[-1] * (3 - len(points)), 0]])
        return shapely.LineString(points[[0, 0]] if len(points) == 1 else points)
    _, x, x2, y, y2 = shape
    if not all(map(math.isfinite, (x, x2, y, y2))):
        return _NOTHING
    if shape.roi is RoiType.LINE:
        return shapely.LineString([(x, y), (x2, y2)])
    x, x2, y, y2 = min(x, x2), max(x, x2), min(y, y2), max(y, y2)
    x2, y2 = x + (x2 - x), y + (y2 - y)  # QuPath reads them as widths: mind the last bit
    if shape.roi is RoiType.RECTANGLE:
        return shapely.Polygon([(x, y), (x2, y), (x2, y2), (x, y2)])
    angles = np.arange(_ELLIPSE_POINTS) * (2 * np.pi / _ELLIPSE_POINTS)
    # rounded so that the four extreme points lie on the bounds, not an ulp off them
    cosines, sines = np.cos(angles).round(15), np.sin(angles).round(15)
    outline = np.column_stack(
        [(x + x2) / 2 + (x2 - x) / 2 * cosines, (y + y2) / 2 + (y2 - y) / 2 * sines]
    )
    quarter = _ELLIPSE_POINTS // 4
    outline[[0, 2 * quarter], 0] = x2, x
    outline[[quarter, 3 * quarter], 1] = y2, y
    return shapely.Polygon(outline)


def points_of(x: bytes, y: bytes) -> Floats:
    """Return vertices, (n, 2), of big-endian float32 x and y."""
    columns = [np.frombuffer(each, dtype=">f4").astype(np.float64) for each in (x, y)]
    return np.column_stack(columns)


def _geometry_of_wkb(wkb: bytes) -> BaseGeometry:
    try:
        _check_wkb(wkb)
        geometry: BaseGeometry = on_qupath_grid(np.array([shapely.from_wkb(wkb)]))[0]
    except (IndexError, struct.error, shapely.errors.ShapelyError) as error:
        raise UnexpectedError(f"a geometry whose WKB is broken ({error})") from error
    return geometry if np.isfinite(shapely.get_coordinates(geometry)).all() else _NOTHING


def _check_wkb(wkb: bytes) -> None:
    """Refuse lengths beyond the bytes, and nesting too deep for GEOS' recursive reader."""
    offset, pending, collections = 0, 1, 0
    while pending:
        read = struct.Struct("<I" if wkb[offset] else ">I").unpack_from
        kind = read(wkb, offset + 1)[0]
        offset += 5
        pending -= 1
        if kind == 1:
            offset += 16
        elif kind in (2, 3):
            count = read(wkb, offset)[0]
            offset += 4
            if kind == 2:
                offset += 16 * count
            else:
                for _ in range(count):
                    offset += 4 + 16 * read(wkb, offset)[0]
        elif kind in (4, 5, 6, 7):
            pending += read(wkb, offset)[0]
            offset += 4
            collections += 1
        else:
            raise UnexpectedError(f"a geometry of the unknown kind {kind}")
        if offset > len(wkb) or collections > _MAX_COLLECTIONS:
            raise IndexError("it claims more than it holds")
