"""Where in a form of QuPath's objects their values are, so that they are read without opening them.

An `ObjectLayout` knows it for the objects that are many: of a shared class, without children, with
any name, metadata, measurements and region. All others are read by `pathobjects.TreeObject`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from qpannot.qupath.annotation import DEFAULT_PLANE, Color, Plane
from qpannot.qupath.qpdata.javaforms import Form, Value, form_and_values
from qpannot.qupath.qpdata.javatypes import (
    JavaArray,
    JavaObject,
    JavaString,
    UnexpectedError,
    decode_utf,
)
from qpannot.qupath.qpdata.measurements import NumbersLayout
from qpannot.qupath.qpdata.pathobjects import ID_KEY, Record, TreeObject
from qpannot.qupath.qpdata.roi import Shape
from qpannot.qupath.qpdata.roinodes import RegionLayout, is_known_region, read_shape

_CHILDLESS: Final = struct.pack(">i", 0)

Text: TypeAlias = str | int
"""A text that all objects of a form share, or the hole that it is in."""


class _UnusualError(Exception):
    """The objects of a form have to be opened to be read."""


@dataclass(frozen=True, slots=True)
class ObjectLayout:
    """Where the values are of objects of a form: themselves where shared, else holes.

    ``texts`` is where those of the metadata are, and last the name if there is one.
    """

    form: Form
    count: int
    name: Text | None
    color: Color | None
    metadata: tuple[tuple[Text, Text], ...]
    texts: tuple[Text, ...]
    numbers: NumbersLayout | None
    locked: bool
    class_node: JavaObject | None
    region: RegionLayout | None
    nucleus: RegionLayout | None

    def read(self, values: list[Value]) -> Record:
        """Return what an object says of itself, but for its ID."""
        shape, plane = self.region.read(values) if self.region else (None, DEFAULT_PLANE)
        return Record(
            None if self.name is None else _text(self.name, values),
            self.color,
            {
                _text(key, values): _text(value, values)
                for key, value in self.metadata
                if key != ID_KEY
            },
            self.numbers.read(values) if self.numbers else {},
            self.locked,
            self.class_node,
            shape,
            plane,
            self.nucleus.read(values)[0] if self.nucleus else None,
        )


def _text(text: Text, values: list[Value]) -> str:
    return text if isinstance(text, str) else decode_utf(bytes(values[text][2:]))


def is_childless(node: JavaObject) -> bool:
    """Return whether an object has no children, ``False`` if it has to be opened to tell."""
    packed = form_and_values(node)
    layout = lay_out(packed[0]) if packed is not None else None
    return packed is not None and layout is not None and packed[1][layout.count] == _CHILDLESS


def layout_of(each: TreeObject) -> ObjectLayout | None:
    """Return the layout of an object that is packed, ``None`` if it is to be opened."""
    packed = form_and_values(each.node)
    return lay_out(packed[0]) if packed is not None else None


@lru_cache(maxsize=256)
def lay_out(form: Form) -> ObjectLayout | None:
    """Return the layout of the objects of a form, ``None`` if they are unusual."""
    try:
        return _lay_out(form)
    except (_UnusualError, UnexpectedError):
        return None


def _lay_out(form: Form) -> ObjectLayout:
    each = TreeObject(form.root, None)
    contents = form.root.contents
    count = form.hole_of(contents, each.count_at)
    color, flag = contents[1], contents[each.class_at - 1]
    for node in (color, flag, each.class_node):
        if isinstance(node, JavaObject) and form.is_own(node):
            raise _UnusualError
    if contents[each.count_at] != _CHILDLESS or count is None:
        raise _UnusualError
    name = _place(contents[0], form) if isinstance(contents[0], JavaString) else None
    metadata = _metadata_places(each, form)
    return ObjectLayout(
        form=form,
        count=count,
        name=name,
        color=each.color,
        metadata=metadata,
        texts=(*(value for _, value in metadata), *(() if name is None else (name,))),
        numbers=_number_places(each, form),
        locked=each.locked,
        class_node=each.class_node,
        region=_region_places(each.roi_node, form),
        nucleus=_region_places(each.nucleus_node, form),
    )


def _place(string: JavaString, form: Form) -> Text:
    hole = form.hole_of(string)
    return string.value if hole is None else hole


def _metadata_places(each: TreeObject, form: Form) -> tuple[tuple[Text, Text], ...]:
    node = each.metadata_node
    if node is None:
        return ()
    keys, values = (array.values for array in node.contents if isinstance(array, JavaArray))
    pairs = zip(keys, values, strict=True)
    return tuple(
        (_place(key, form), _place(value, form))
        for key, value in pairs
        if isinstance(key, JavaString) and isinstance(value, JavaString)
    )


def _number_places(each: TreeObject, form: Form) -> NumbersLayout | None:
    node = each.measurements_node
    if node is None:
        return None
    layout = NumbersLayout.of(node, form)
    if layout is None:
        raise _UnusualError
    return layout


def _region_places(node: JavaObject | None, form: Form) -> RegionLayout | None:
    if node is None:
        return None
    layout = RegionLayout.of(node, form)
    if layout is None:
        raise _UnusualError
    return layout


def class_node_of(each: TreeObject) -> JavaObject | None:
    """Return the PathClass of an object."""
    layout = layout_of(each)
    return each.class_node if layout is None else layout.class_node


def read(each: TreeObject) -> Record:
    """Return what an object says of itself.

    Raises
    ------
    UnexpectedError
        If it is not as QuPath writes it.
    """
    packed = form_and_values(each.node)
    layout = lay_out(packed[0]) if packed is not None else None
    if packed is not None and layout is not None:
        return layout.read(packed[1])
    shape, plane = _read_region(each.roi_node)
    return Record(
        each.name,
        each.color,
        each.metadata,
        each.measurements,
        each.locked,
        each.class_node,
        shape,
        plane,
        _read_region(each.nucleus_node)[0],
    )


def _read_region(node: JavaObject | None) -> tuple[Shape | None, Plane]:
    if node is None or not is_known_region(node):
        return None, DEFAULT_PLANE
    return read_shape(node)
