"""QuPath's objects in a data file as `PathObject` values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from shapely.geometry.base import BaseGeometry

from qpannot.qupath.annotation import (
    Annotation,
    Color,
    Detection,
    ObjectKind,
    PathClass,
    PathObject,
    TMACore,
)
from qpannot.qupath.qpdata.javaclasses import PATH_CLASS
from qpannot.qupath.qpdata.javatypes import JavaObject, JavaString, UnexpectedError
from qpannot.qupath.qpdata.objectlayout import read
from qpannot.qupath.qpdata.pathobjects import ID_KEY, KINDS, TreeObject, color_of
from qpannot.qupath.qpdata.roi import Shape, geometries_of
from qpannot.qupath.qpdata.storable import CLASS_SEPARATOR

_MAX_CLASS_DEPTH: Final = 100
_AT_ONCE: Final = 1_000
"""Objects read at once: as many as it takes to be fast, and no copies of all vertices of a file."""


def read_objects(objects: Sequence[TreeObject]) -> list[PathObject]:
    """Return objects of a hierarchy, which have IDs and are of known kinds, as values.

    Raises
    ------
    UnexpectedError
        If one is not as QuPath writes it.
    """
    values: list[PathObject] = []
    classes: dict[int, PathClass | None] = {}
    for start in range(0, len(objects), _AT_ONCE):
        values += _read_some(objects[start : start + _AT_ONCE], classes)
    return values


def _read_some(
    objects: Sequence[TreeObject], classes: dict[int, PathClass | None]
) -> list[PathObject]:
    records = [read(each) for each in objects]
    geometries = _geometries(objects, [record.shape for record in records])
    cells = [i for i, record in enumerate(records) if record.nucleus is not None]
    outlines = _geometries([objects[i] for i in cells], [records[i].nucleus for i in cells])
    nuclei = dict(zip(cells, outlines, strict=True))
    values: list[PathObject] = []
    for i, (each, record, geometry) in enumerate(zip(objects, records, geometries, strict=True)):
        node = record.class_node
        if id(node) not in classes:
            classes[id(node)] = path_class_of(node)
        record.metadata.pop(ID_KEY, None)
        assert each.id is not None and each.parent is not None
        around = each.parent.id
        fields = (
            geometry,
            classes[id(node)],
            record.name,
            record.locked,
            record.color,
            record.measurements,
            record.metadata,
            record.shape.roi if record.shape is not None else None,
            record.plane,
            UUID(int=each.id),
            None if around is None else UUID(int=around),
        )
        kind = KINDS[each.kind]
        if kind is ObjectKind.ANNOTATION:
            values.append(Annotation(*fields))
        elif kind is ObjectKind.TMA_CORE:
            values.append(TMACore(*fields, missing=each.missing))
        else:
            values.append(Detection(*fields, kind=kind, nucleus=nuclei.get(i)))
    return values


def _geometries(
    objects: Sequence[TreeObject], shapes: Sequence[Shape | None]
) -> list[BaseGeometry]:
    try:
        return geometries_of(shapes)
    except UnexpectedError:
        # one by one, to say which
        made: list[BaseGeometry] = []
        for each, shape in zip(objects, shapes, strict=True):
            try:
                made += geometries_of([shape])
            except UnexpectedError as error:
                raise UnexpectedError(str(error), each.node) from error
        return made


def class_name_of(node: JavaObject | None) -> str | None:
    """Return the full name of a PathClass object, ``None`` for no class.

    Raises
    ------
    UnexpectedError
        If it is no PathClass, or derived from itself.
    """
    parts: list[str] = []
    while node is not None:
        if node.desc.name != PATH_CLASS or len(parts) > _MAX_CLASS_DEPTH:
            raise UnexpectedError(f"a class that is a {node.desc.name}", node)
        name, parent = node.get("name"), node.get("parentClass")
        if isinstance(name, JavaString):
            parts.append(name.value)
        node = parent if isinstance(parent, JavaObject) else None
    return CLASS_SEPARATOR.join(reversed(parts)) or None


def path_class_of(node: JavaObject | None) -> PathClass | None:
    """Return a PathClass object as a value; QuPath's nameless class is no class."""
    name = class_name_of(node)
    if node is None or name is None or not name.strip():
        return None
    return PathClass(name, class_color(node))


def class_color(node: JavaObject) -> Color | None:
    """Return the colour of a PathClass object."""
    color = node.get("colorRGB")
    return color_of(color) if isinstance(color, JavaObject) else None
