"""QuPath's ROI objects in Java <-> the regions of `roi.Shape`.

Vertices cross in arrays. Of a polygon they are those that were drawn: ``ROI.getGeometry`` goes
through ``java.awt.geom.Area``, which takes a ring that crosses itself apart.

Some of what is needed is not public in QuPath 0.4 to 0.7 and goes through Java's reflection:
the arrays of vertices (``ROI.getAllPoints`` has one object a vertex), the corners of a rectangle
(its bounds are rounded once more), and a GeometryROI of any geometry (``geometryToROI`` makes
simpler regions of simple ones).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from jpype import JArray, JByte, JClass, JDouble, JFloat
from numpy.typing import NDArray

from qpannot.qupath.annotation import DEFAULT_PLANE, Plane, RoiType
from qpannot.qupath.qpdata.roi import Corners, Shape, Vertices, Wkb

_ROIS: Final = "qupath.lib.roi."
_WITH_VERTICES: Final = (RoiType.POLYGON, RoiType.POLYLINE)
_WITH_CORNERS: Final = (RoiType.RECTANGLE, RoiType.ELLIPSE)


def read_region(roi: Any) -> tuple[Shape | None, Plane]:
    """Return the shape and the plane of a Java ROI; no shape for no ROI."""
    if roi is None:
        return None, DEFAULT_PLANE
    c, z, t = int(roi.getC()), int(roi.getZ()), int(roi.getT())
    plane = DEFAULT_PLANE if (c, z, t) == (-1, 0, 0) else Plane(c, z, t)
    return _shape_of(roi), plane


def _shape_of(roi: Any) -> Shape:
    name = str(roi.getRoiName())
    kind = RoiType(name) if name in tuple(RoiType) else RoiType.GEOMETRY
    if kind in _WITH_VERTICES:
        vertices = _method(f"{_ROIS}{name}ROI", "getVertices").invoke(roi, [])
        return Vertices(kind, *(_bytes(_vertices_getter(axis), vertices) for axis in "XY"))
    if kind is RoiType.POINTS:
        points = list(roi.getAllPoints())
        x = np.array([point.getX() for point in points], dtype=">f4").tobytes()
        y = np.array([point.getY() for point in points], dtype=">f4").tobytes()
        return Vertices(kind, x, y)
    if kind in _WITH_CORNERS:
        return Corners(kind, *(float(_corner(each).getDouble(roi)) for each in _CORNERS))
    if kind is RoiType.LINE:
        ends = (roi.getX1(), roi.getX2(), roi.getY1(), roi.getY2())
        return Corners(kind, *map(float, ends))
    return Wkb(bytes(JClass("org.locationtech.jts.io.WKBWriter")(2).write(roi.getGeometry())))


_CORNERS: Final = ("x", "x2", "y", "y2")


def make_region(shape: Shape, plane: Plane) -> Any:
    """Return a new Java ROI."""
    rois = JClass(_ROIS + "ROIs")
    where = JClass("qupath.lib.regions.ImagePlane").getPlaneWithChannel(plane.c, plane.z, plane.t)
    if isinstance(shape, Wkb):
        return _geometry_roi_maker().newInstance(read_wkb(shape.wkb), where)
    if isinstance(shape, Vertices):
        make = {
            RoiType.POLYGON: rois.createPolygonROI,
            RoiType.POLYLINE: rois.createPolylineROI,
            RoiType.POINTS: rois.createPointsROI,
        }[shape.roi]
        return make(_doubles(shape.x), _doubles(shape.y), where)
    roi, x, x2, y, y2 = shape
    if roi is RoiType.LINE:
        return rois.createLineROI(x, y, x2, y2, where)
    is_box = roi is RoiType.RECTANGLE
    make = rois.createRectangleROI if is_box else rois.createEllipseROI
    return make(x, y, x2 - x, y2 - y, where)


def read_wkb(wkb: bytes) -> Any:
    """Return a JTS geometry with QuPath's precision."""
    factory = JClass("qupath.lib.roi.GeometryTools").getDefaultFactory()
    return JClass("org.locationtech.jts.io.WKBReader")(factory).read(java_bytes(wkb))


def java_bytes(data: bytes) -> Any:
    """Return a ``byte[]``."""
    return JArray(JByte)(np.frombuffer(data, dtype=np.int8))


def _doubles(packed: bytes) -> Any:
    return JArray(JDouble)(np.frombuffer(packed, dtype=">f4").astype(np.float64))


def _bytes(getter: Any, vertices: Any) -> bytes:
    floats: NDArray[np.float32] = np.asarray(getter.invoke(vertices, [None]), dtype=np.float32)
    return floats.astype(">f4").tobytes()


@cache
def _vertices_getter(axis: str) -> Any:
    method = _class(_ROIS + "Vertices").getMethod(f"get{axis}", JArray(JFloat).class_)
    method.setAccessible(True)
    return method


@cache
def _method(class_name: str, name: str) -> Any:
    method = _class(class_name).getDeclaredMethod(name)
    method.setAccessible(True)
    return method


@cache
def _corner(name: str) -> Any:
    field = _class(_ROIS + "AbstractPathBoundedROI").getDeclaredField(name)
    field.setAccessible(True)
    return field


@cache
def _geometry_roi_maker() -> Any:
    geometry, plane = (
        _class(each)
        for each in ("org.locationtech.jts.geom.Geometry", "qupath.lib.regions.ImagePlane")
    )
    maker = _class(_ROIS + "GeometryROI").getDeclaredConstructor(geometry, plane)
    maker.setAccessible(True)
    return maker


def _class(name: str) -> Any:
    return JClass(name).class_
