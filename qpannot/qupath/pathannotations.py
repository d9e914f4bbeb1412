"""QuPath's annotation objects in a data file <-> `Annotation` values.

`as_stored` is the contract between both directions: what an annotation is after it was written
and read back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from shapely.geometry.base import BaseGeometry

from qpannot.errors import QpannotError
from qpannot.qupath.annotation import (
    DEFAULT_PLANE,
    Annotation,
    Color,
    PathClass,
    Plane,
    argb_from_color,
)
from qpannot.qupath.javaclasses import (
    BOOLEAN,
    MEASUREMENT,
    MEASUREMENT_LIST,
    METADATA_MAP,
    OBJECT_ARRAY,
    PATH_CLASS,
    ClassTable,
)
from qpannot.qupath.javatypes import Content, JavaArray, JavaObject, JavaString, UnexpectedError
from qpannot.qupath.pathobjects import (
    ANNOTATION,
    ID_KEY,
    TreeObject,
    color_of,
    depth_first,
    is_object,
)
from qpannot.qupath.roi import Shape, geometries_of, read_shape, roi_object, shapes_of

DEFAULT_CLASS_COLOR: Final[Color] = (64, 64, 64)
"""What a class without a colour gets (QuPath's PathClass.DEFAULT_COLOR)."""

_CLASS_SEPARATOR: Final = ": "
_NO_PROBABILITY: Final = struct.pack(">d", float("nan"))
_MAX_CLASS_DEPTH: Final = 100


def as_stored(annotation: Annotation) -> Annotation:
    """Return what a read-back gives after ``annotation`` was written to a file.

    Its geometry is the one QuPath's region can hold (see `roi.shapes_of`) and its `RoiType` is
    set; the parts of its class name are stripped as QuPath does, and a class without a colour
    gets QuPath's default; numbers are floats; metadata has no ID. Whatever `QpData.annotations`
    returns is stored as it is. A file that has the class already keeps the class' colour there;
    `QpData.all_as_stored` knows it. ``parent_id`` is as given.

    Raises
    ------
    QpannotError
        If it cannot be stored.
    """
    return all_as_stored([annotation])[0]


def all_as_stored(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Return what `as_stored` does for each of many annotations, faster."""
    check_storable(annotations)
    shapes = shapes_of(annotations)
    stored = []
    for each, shape, geometry in zip(annotations, shapes, geometries_of(shapes), strict=True):
        path_class = None
        if each.path_class is not None:
            path_class = PathClass(
                _CLASS_SEPARATOR.join(class_parts(each.path_class)),
                each.path_class.color or DEFAULT_CLASS_COLOR,
            )
        stored.append(
            Annotation(
                geometry=geometry,
                path_class=path_class,
                name=each.name,
                locked=each.locked,
                color=each.color,
                measurements={key: float(value) for key, value in each.measurements.items()},
                metadata=_without_id(each.metadata),
                roi=shape.roi,
                plane=each.plane,
                id=each.id,
                parent_id=each.parent_id,
            )
        )
    return stored


def check_storable(annotations: Sequence[Annotation]) -> None:
    """Refuse annotations with values, other than geometry, that QuPath could not read.

    Raises
    ------
    QpannotError
        Naming the first such annotation.
    """
    for each in annotations:
        plane = each.plane
        if plane is not DEFAULT_PLANE and not _is_plane(plane):
            _refuse(each, f"its plane is {plane}", "Planes count from 0; channel -1 means all.")
        if each.color is not None and not _is_color(each.color):
            _refuse(each, f"its colour is {each.color}", "A colour is three whole numbers 0-255.")
        if each.path_class is not None:
            color = each.path_class.color
            if color is not None and not _is_color(color):
                _refuse(each, f"its class has the colour {color}", "Use three numbers 0-255.")
            if not class_parts(each.path_class):
                _refuse(each, f"its class is named {each.path_class.name!r}", "Rename the class.")
        for key, value in each.metadata.items():
            if not (type(key) is type(value) is str):
                _refuse(each, f"its metadata {key!r} is no text", "Metadata are texts by name.")


def _is_plane(plane: Plane) -> bool:
    return (
        plane.c >= -1 and plane.z >= 0 and plane.t >= 0 and max(plane.c, plane.z, plane.t) < 2**31
    )


def _is_color(color: Color) -> bool:
    return len(color) == 3 and all(0 <= value <= 255 for value in color)


def _refuse(annotation: Annotation, why: str, hint: str) -> None:
    label = annotation.name or annotation.class_name or "unclassified"
    raise QpannotError(
        f"The annotation {label} ({annotation.id}) cannot be stored: {why}.",
        hint=f"{hint} Nothing was changed.",
    )


def _without_id(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key != ID_KEY}


def class_parts(path_class: PathClass) -> list[str]:
    """Return the names a class is derived by, as QuPath's ``PathClass.fromString`` has them.

    No part may hold a colon: QuPath could not read the file.
    """
    parts = [part.strip() for part in path_class.name.split(":")]
    return [part for part in parts if part]


def read_annotations(objects: Sequence[TreeObject]) -> list[Annotation]:
    """Return objects of a hierarchy, which have IDs, as annotations.

    Raises
    ------
    UnexpectedError
        If one is not as QuPath writes it.
    """
    shapes: list[Shape | None] = []
    planes: list[Plane] = []
    for each in objects:
        shape, plane = _read_shape(each)
        shapes.append(shape)
        planes.append(plane)
    geometries = _geometries(objects, shapes)
    classes: dict[int, PathClass | None] = {}
    annotations: list[Annotation] = []
    for each, shape, plane, geometry in zip(objects, shapes, planes, geometries, strict=True):
        class_node = each.class_node
        if id(class_node) not in classes:
            classes[id(class_node)] = path_class_of(class_node)
        metadata = each.metadata
        metadata.pop(ID_KEY, None)
        assert each.id is not None and each.parent is not None
        annotations.append(
            Annotation(
                geometry=geometry,
                path_class=classes[id(class_node)],
                name=each.name,
                locked=each.locked,
                color=each.color,
                measurements=each.measurements,
                metadata=metadata,
                roi=shape.roi if shape is not None else None,
                plane=plane,
                id=each.id,
                parent_id=each.parent.id,
            )
        )
    return annotations


def _read_shape(each: TreeObject) -> tuple[Shape | None, Plane]:
    node = each.roi_node
    return read_shape(node) if node is not None else (None, DEFAULT_PLANE)


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
    return _CLASS_SEPARATOR.join(reversed(parts)) or None


def path_class_of(node: JavaObject | None) -> PathClass | None:
    """Return a PathClass object as a value; QuPath's nameless class is no class."""
    name = class_name_of(node)
    if node is None or name is None or not name.strip():
        return None
    return PathClass(name, _class_color(node))


def _class_color(node: JavaObject) -> Color | None:
    color = node.get("colorRGB")
    return color_of(color) if isinstance(color, JavaObject) else None


def new_metadata(table: ClassTable, metadata: Mapping[str, str], object_id: UUID) -> JavaObject:
    """Return a new MetadataMap with an ID in it, last as QuPath has it."""
    items = {**_without_id(metadata), ID_KEY: str(object_id)}
    keys: list[Content] = [table.shared_string(key) for key in items]
    values: list[Content] = [JavaString.of(value) for value in items.values()]
    arrays = (table.array(OBJECT_ARRAY, each) for each in (keys, values))
    return table.external(METADATA_MAP, [table.integer(1), *arrays])


class AnnotationWriter:
    """Makes and changes annotation objects of one file, sharing what QuPath shares in it.

    Parameters
    ----------
    table
        The classes of the file.
    tree
        The hierarchy of the file, for the classes and flags its objects share.
    """

    def __init__(self, table: ClassTable, tree: TreeObject) -> None:
        self.table = table
        self._classes: dict[str, JavaObject] = {}
        self._flags: dict[bool, JavaObject] = {}
        for each in depth_first(tree):
            self._adopt(each)
        first = next((each for each in (tree, *tree.children) if each.metadata_node), None)
        if first is not None and first.metadata_node is not None:
            for node in first.metadata_node.contents:
                if isinstance(node, JavaArray) and not isinstance(node.values, bytes):
                    table.adopt(node.values)
                else:
                    table.adopt([node])

    def _adopt(self, each: TreeObject) -> None:
        at = each.class_at
        flag, node = each.node.contents[at - 1], each.class_node
        if isinstance(flag, JavaObject) and is_object(flag, BOOLEAN):
            self._flags.setdefault(flag.expect("value", bool), flag)
        while node is not None:
            name = class_name_of(node)
            if name is None or name in self._classes:
                break
            self._classes[name] = node
            parent = node.get("parentClass")
            node = parent if isinstance(parent, JavaObject) else None

    def stored_class(self, path_class: PathClass) -> PathClass | None:
        """Return a class in the colour the file has it in, ``None`` where it has not the class."""
        name = _CLASS_SEPARATOR.join(class_parts(path_class))
        node = self._classes.get(name)
        return PathClass(name, _class_color(node)) if node is not None else None

    def new(self, annotation: Annotation, shape: Shape) -> JavaObject:
        """Return a new annotation object without children."""
        contents: list[Content] = [
            self._text(annotation.name),
            self._color(annotation.color),
            new_metadata(self.table, annotation.metadata, annotation.id),
            self._measurements(annotation.measurements),
            struct.pack(">i", 0),
            self._flag(annotation.locked),
            self._path_class(annotation.path_class),
            roi_object(shape, annotation.plane, self.table),
            _NO_PROBABILITY,
        ]
        return self.table.external(ANNOTATION, contents)

    def update(self, each: TreeObject, old: Annotation, new: Annotation) -> bool:
        """Change in an annotation object what differs between ``old``, which it is, and ``new``.

        Returns whether anything did.
        """
        changes: list[Callable[[], None]] = []
        if not _same_region(each, old, new):
            roi = roi_object(shapes_of([new])[0], new.plane, self.table)
            changes.append(lambda: each.set_roi(roi))
        if old.path_class != new.path_class:
            path_class = self._path_class(new.path_class)
            changes.append(lambda: each.set_class(path_class))
        if old.name != new.name:
            changes.append(lambda: each.set_name(self._text(new.name)))
        if old.locked != new.locked:
            flag = self._flag(new.locked)
            changes.append(lambda: each.set_locked(flag))
        if old.color != new.color:
            color = self._color(new.color)
            changes.append(lambda: each.set_color(color))
        if not _same_numbers(old.measurements, new.measurements):
            measurements = self._measurements(new.measurements)
            changes.append(lambda: each.set_measurements(measurements))
        if list(old.metadata.items()) != list(_without_id(new.metadata).items()):
            metadata = new_metadata(self.table, new.metadata, new.id)
            changes.append(lambda: each.set_metadata(metadata))
        # all that can fail is done
        for change in changes:
            change()
        return bool(changes)

    def _text(self, text: str | None) -> JavaString | None:
        return None if text is None else JavaString.of(text)

    def _color(self, color: Color | None) -> JavaObject | None:
        return None if color is None else self.table.integer(argb_from_color(color))

    def _flag(self, value: bool) -> JavaObject:
        if value not in self._flags:
            self._flags[value] = self.table.new(BOOLEAN, value=value)
        return self._flags[value]

    def _measurements(self, measurements: Mapping[str, float]) -> JavaObject | None:
        if not measurements:
            return None
        items: list[Content] = [
            self.table.new(MEASUREMENT, value=float(value), name=self.table.shared_string(name))
            for name, value in measurements.items()
        ]
        return self.table.new(MEASUREMENT_LIST, list=self.table.array_list(items))

    def _path_class(self, path_class: PathClass | None) -> JavaObject | None:
        if path_class is None:
            return None
        known = self._classes.get(path_class.name)
        if known is not None:
            return known
        parts = class_parts(path_class)
        for depth in range(1, len(parts) + 1):
            name = _CLASS_SEPARATOR.join(parts[:depth])
            if name not in self._classes:
                own = path_class.color if depth == len(parts) else None
                self._classes[name] = self.table.new(
                    PATH_CLASS,
                    colorRGB=self.table.integer(argb_from_color(own or DEFAULT_CLASS_COLOR)),
                    name=JavaString.of(parts[depth - 1]),
                    parentClass=known,
                )
            known = self._classes[name]
        return known


def _same_region(each: TreeObject, old: Annotation, new: Annotation) -> bool:
    if old.plane != new.plane:
        return False
    if old.roi == new.roi and old.geometry.equals_exact(new.geometry, 0, normalize=False):
        return True
    return _read_shape(each)[0] == shapes_of([new])[0]


def _same_numbers(old: Mapping[str, float], new: Mapping[str, float]) -> bool:
    # NaN is equal to NaN here, and -0.0 is not 0.0
    one, other = (
        [(key, struct.pack(">d", value)) for key, value in each.items()] for each in (old, new)
    )
    return one == other
