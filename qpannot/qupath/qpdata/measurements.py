"""QuPath's lists of measurements in a data file."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from qpannot.qupath.qpdata.javaforms import Form, Value
from qpannot.qupath.qpdata.javatypes import (
    ClassData,
    Content,
    JavaArray,
    JavaObject,
    JavaString,
    UnexpectedError,
)

_MAX_WRAPPERS: Final = 8
_ARRAYS: Final = {
    "qupath.lib.measurements.NumericMeasurementList$FloatList": "f",
    "qupath.lib.measurements.NumericMeasurementList$DoubleList": "d",
}


def measurements_of(node: JavaObject) -> dict[str, float]:
    """Return the measurements of a list by name, in its order.

    Raises
    ------
    UnexpectedError
        If it is no list of measurements that QuPath 0.2 to 0.7 writes.
    """
    items = _items(node)
    if items is not None:
        return {
            item.expect("name", JavaString).value: item.expect("value", float) for item in items
        }
    code = _ARRAYS[node.desc.name]
    raw = node.primitives("values", "[" + code.upper())
    # the array of values may have room to spare
    return {
        name.value: number for name, number in zip(_names(node), _unpack(code, raw), strict=False)
    }


def _items(node: JavaObject) -> list[JavaObject] | None:
    """Return a list's measurements where each is an object, ``None`` where they are an array."""
    if node.desc.name in _ARRAYS:
        return None
    if node.desc.name != "qupath.lib.measurements.DefaultMeasurementList":
        raise UnexpectedError(f"measurements of the unknown kind {node.desc.name}", node)
    return [item for item in _elements(node.get("list")) if isinstance(item, JavaObject)]


def _names(node: JavaObject) -> list[JavaString]:
    return [name for name in _elements(node.get("names")) if isinstance(name, JavaString)]


def _unpack(code: str, raw: bytes) -> tuple[float, ...]:
    return struct.unpack(f">{len(raw) // struct.calcsize(code)}{code}", raw)


def _elements(node: object) -> list[Content]:
    """Return the elements of a java.util.List: ArrayList, List.of, and what wraps one."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(node, JavaObject):
            break
        wrapped = [
            data.references[0]
            for data in node.data
            if data.references and isinstance(data.references[0], (JavaObject, JavaArray))
        ]
        if not wrapped:
            return _written(node.data[-1]) if node.data else []
        node = wrapped[0]
    if isinstance(node, JavaArray) and not isinstance(node.values, bytes):
        return node.values
    raise UnexpectedError("a list of an unknown kind")


def _written(data: ClassData) -> list[Content]:
    return [each for each in data.contents or () if not isinstance(each, bytes)]


class NumbersLayout(NamedTuple):
    """Where the measurements are of objects of one form: holes of one number each, or an array."""

    names: tuple[str, ...]
    code: str | None
    holes: tuple[int, ...]

    @classmethod
    def of(cls, node: JavaObject, form: Form) -> NumbersLayout | None:
        """Return the layout of a list in the root of a form, ``None`` if it is an unusual one."""
        items = _items(node)
        if items is None:
            code = _ARRAYS[node.desc.name]
            node.primitives("values", "[" + code.upper())
            names = _names(node)
            holes = [form.hole_of(node.get("values"))]
        else:
            code = None
            names = [item.expect("name", JavaString) for item in items]
            holes = [form.hole_of(item.data[-1]) for item in items]
        known = tuple(hole for hole in holes if hole is not None)
        if len(known) < len(holes) or any(form.hole_of(name) is not None for name in names):
            return None
        return cls(tuple(name.value for name in names), code, known)

    def read(self, values: list[Value]) -> dict[str, float]:
        """Return an object's measurements by name."""
        if self.code is not None:
            numbers = _unpack(self.code, bytes(values[self.holes[0]][4:]))
        else:
            numbers = struct.unpack(f">{len(self.holes)}d", b"".join(values[i] for i in self.holes))
        return dict(zip(self.names, numbers, strict=False))

    def write(self, numbers: Iterable[float], values: list[Value]) -> None:
        """Put measurements, in the order of `names`, into an object's holes."""
        packed = struct.pack(f">{len(self.names)}{self.code or 'd'}", *numbers)
        if self.code is not None:
            values[self.holes[0]] = struct.pack(">i", len(self.names)) + packed
        else:
            for i, hole in enumerate(self.holes):
                values[hole] = packed[8 * i : 8 * i + 8]
