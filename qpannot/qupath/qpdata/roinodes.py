"""QuPath's ROI objects in a data file <-> the regions of `roi.Shape`."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.qupath.annotation import DEFAULT_PLANE, Plane, RoiType
from qpannot.qupath.qpdata.javaclasses import ROIS, ClassTable
from qpannot.qupath.qpdata.javaforms import Form, Value
from qpannot.qupath.qpdata.javatypes import ClassDesc, JavaArray, JavaObject, UnexpectedError
from qpannot.qupath.qpdata.roi import Corners, Shape, Vertices, Wkb, points_of

_PROXY = re.compile(re.escape(ROIS) + r"(\w+?)(?:ROI)?\$(WKB)?SerializationProxy")
_KINDS: Final = frozenset(RoiType)
_I32 = struct.Struct(">i")
_F64 = struct.Struct(">d")
_DEFAULT_NUMBERS = struct.pack(">iii", -1, 0, 0)  # c, t, z


def is_known_region(node: JavaObject) -> bool:
    """Return whether a ROI object is of a kind that QuPath has had up to 0.7."""
    kind = _PROXY.fullmatch(node.desc.name)
    return kind is not None and (kind[1] in _KINDS or kind[1] == "Area")


def read_shape(node: JavaObject) -> tuple[Shape, Plane]:
    """Return the shape and the plane of a ROI object.

    Raises
    ------
    UnexpectedError
        If it is no ROI that QuPath 0.2 to 0.7 writes.
    """
    name = _PROXY.fullmatch(node.desc.name)
    kind = name[1] if name else None
    c, z, t = node.expect("c", int), node.expect("z", int), node.expect("t", int)
    plane = DEFAULT_PLANE if (c, z, t) == (-1, 0, 0) else Plane(c, z, t)
    if kind in ("Polygon", "Polyline", "Points"):
        x, y = node.primitives("x", "[F"), node.primitives("y", "[F")
        _check_as_many(x, y, node.desc)
        return Vertices(RoiType(kind), x, y), plane
    if kind in ("Rectangle", "Ellipse", "Line"):
        x1, x2, y1, y2 = (node.expect(field, float) for field in ("x", "x2", "y", "y2"))
        return Corners(RoiType(kind), x1, x2, y1, y2), plane
    if kind == "Geometry" and name and name[2]:
        return Wkb(node.primitives("wkb", "[B")), plane
    if kind == "Area":
        return _read_area(node), plane
    raise UnexpectedError(f"a region of the unknown kind {node.desc.name}", node)


def _check_as_many(x: bytes, y: bytes, desc: ClassDesc) -> None:
    if len(x) != len(y):
        raise UnexpectedError(f"a {desc.name} with more x than y, or fewer")


def _read_area(node: JavaObject) -> Wkb:
    """Return QuPath 0.1's AreaROI: rings, of which those inside another are holes."""
    xs, ys = (node.expect(field, JavaArray).values for field in ("x", "y"))
    geometry: BaseGeometry = shapely.Polygon()
    for x, y in zip(xs, ys, strict=False):
        if not (isinstance(x, JavaArray) and isinstance(y, JavaArray)):
            raise UnexpectedError("an area without its vertices", node)
        if not (isinstance(x.values, bytes) and isinstance(y.values, bytes)):
            raise UnexpectedError("an area without its vertices", node)
        if len(x.values) != len(y.values) or len(x.values) % 4 or len(x.values) < 12:
            continue
        points = points_of(x.values, y.values)
        if not np.isfinite(points).all():
            raise UnexpectedError("an area with vertices that are not finite", node)
        ring = shapely.make_valid(shapely.Polygon(points), method="structure")
        geometry = shapely.symmetric_difference(geometry, ring)
    return Wkb(shapely.to_wkb(geometry, byte_order=0))


@dataclass(frozen=True, slots=True)
class RegionLayout:
    """Where the regions are of objects of one form: the holes of their numbers and arrays."""

    roi: RoiType
    desc: ClassDesc
    numbers: int
    arrays: tuple[int, ...]

    @classmethod
    def of(cls, node: JavaObject, form: Form) -> RegionLayout | None:
        """Return the layout of a ROI object in the root of a form, ``None`` for unusual ones."""
        shape, _ = read_shape(node)
        fields = {"Vertices": ("x", "y"), "Wkb": ("wkb",)}.get(type(shape).__name__, ())
        if len(node.data) != 1 or _PROXY.fullmatch(node.desc.name) is None:
            return None
        holes = [form.hole_of(node.data[0]), *(form.hole_of(node.get(field)) for field in fields)]
        known = tuple(hole for hole in holes if hole is not None)
        if len(known) < len(holes):
            return None
        return cls(shape.roi, node.desc, known[0], known[1:])

    def read(self, values: Sequence[Value]) -> tuple[Shape, Plane]:
        """Return the region of an object and its plane."""
        numbers = values[self.numbers]
        plane = DEFAULT_PLANE if numbers == _DEFAULT_NUMBERS else self._plane(numbers)
        arrays = [bytes(values[hole][4:]) for hole in self.arrays]
        if len(arrays) == 2:
            x, y = arrays
            _check_as_many(x, y, self.desc)
            return Vertices(self.roi, x, y), plane
        if arrays:
            return Wkb(arrays[0]), plane
        places = self.desc.places
        corners = (_F64.unpack_from(numbers, places[field][1])[0] for field in Corners._fields[1:])
        return Corners(self.roi, *corners), plane

    def _plane(self, numbers: Value) -> Plane:
        places = self.desc.places
        c, z, t = (_I32.unpack_from(numbers, places[field][1])[0] for field in "czt")
        return DEFAULT_PLANE if (c, z, t) == (-1, 0, 0) else Plane(c, z, t)

    def write(self, shape: Shape, values: list[Value]) -> None:
        """Put a region of the same kind, on the same plane, into an object's holes."""
        if isinstance(shape, Corners):
            numbers = bytearray(values[self.numbers])
            for field in Corners._fields[1:]:
                _F64.pack_into(numbers, self.desc.places[field][1], getattr(shape, field))
            values[self.numbers] = bytes(numbers)
        elif isinstance(shape, Wkb):
            values[self.arrays[0]] = _I32.pack(len(shape.wkb)) + shape.wkb
        else:
            count = _I32.pack(len(shape.x) // 4)
            values[self.arrays[0]], values[self.arrays[1]] = count + shape.x, count + shape.y


def roi_object(shape: Shape, plane: Plane, table: ClassTable) -> JavaObject:
    """Return a new ROI object for a file."""
    where: dict[str, int] = {"c": plane.c, "z": plane.z, "t": plane.t}
    if isinstance(shape, Wkb):
        name = ROIS + "GeometryROI$WKBSerializationProxy"
        return table.new(name, **where, wkb=table.array("[B", shape.wkb))
    name = f"{ROIS}{shape.roi}ROI$SerializationProxy"
    if isinstance(shape, Corners):
        return table.new(name, **where, x=shape.x, x2=shape.x2, y=shape.y, y2=shape.y2)
    x, y = table.array("[F", shape.x), table.array("[F", shape.y)
    return table.new(name, **where, x=x, y=y)
