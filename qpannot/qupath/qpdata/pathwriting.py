"""`PathObject` values as QuPath's objects in a data file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from qpannot.qupath.annotation import (
    Color,
    ObjectKind,
    PathClass,
    PathObject,
    argb_from_color,
)
from qpannot.qupath.qpdata.hierarchy import depth_first
from qpannot.qupath.qpdata.javaclasses import (
    BOOLEAN,
    DOUBLE_LIST,
    MEASUREMENT,
    MEASUREMENT_LIST,
    METADATA_MAP,
    OBJECT_ARRAY,
    OBJECTS,
    PATH_CLASS,
    ClassTable,
)
from qpannot.qupath.qpdata.javaforms import Form, PackedObject, form_and_values
from qpannot.qupath.qpdata.javatypes import Content, JavaArray, JavaObject, JavaString, encode_utf
from qpannot.qupath.qpdata.objectlayout import ObjectLayout, lay_out, read
from qpannot.qupath.qpdata.pathobjects import ID_KEY, KINDS, TreeObject, is_object
from qpannot.qupath.qpdata.pathreading import class_color, class_name_of
from qpannot.qupath.qpdata.roi import Shape, shapes_of
from qpannot.qupath.qpdata.roinodes import roi_object
from qpannot.qupath.qpdata.storable import (
    CLASS_SEPARATOR,
    DEFAULT_CLASS_COLOR,
    class_parts,
    stored_class,
    without_id,
)

_NO_PROBABILITY: Final = struct.pack(">d", float("nan"))
_JAVA_NAMES: Final = {kind: OBJECTS + name for name, kind in KINDS.items()}


def new_metadata(table: ClassTable, metadata: Mapping[str, str], object_id: UUID) -> JavaObject:
    """Return a new MetadataMap with an ID in it, last as QuPath has it."""
    items = {**without_id(metadata), ID_KEY: str(object_id)}
    keys: list[Content] = [table.shared_string(key) for key in items]
    values: list[Content] = [JavaString.of(value) for value in items.values()]
    arrays = (table.array(OBJECT_ARRAY, each) for each in (keys, values))
    return table.external(METADATA_MAP, [table.integer(1), *arrays])


class ObjectWriter:
    """Makes and changes objects of one file, sharing what QuPath shares in it.

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
        self._names: dict[tuple[str, ...], tuple[JavaObject, JavaObject]] = {}
        self._forms: dict[tuple[object, ...], ObjectLayout | None] = {}
        adopted: set[Form] = set()
        for each in depth_first(tree):
            packed = form_and_values(each.node)
            if packed is None:
                self._adopt(each)
            elif packed[0] not in adopted:
                adopted.add(packed[0])
                self._adopt(TreeObject(packed[0].root, None))
        first = next((each for each in (tree, *tree.children) if each.metadata_node), None)
        if first is not None and first.metadata_node is not None:
            for node in first.metadata_node.contents:
                if isinstance(node, JavaArray) and not isinstance(node.values, bytes):
                    table.adopt(node.values)
                else:
                    table.adopt([node])

    def _adopt(self, each: TreeObject) -> None:
        if each.kind not in KINDS:
            return
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

    def stored_class(self, path_class: PathClass) -> PathClass:
        """Return a class as the file has it, or would have it: in its colour there."""
        stored = stored_class(path_class)
        node = self._classes.get(stored.name)
        return stored if node is None else PathClass(stored.name, class_color(node))

    def new(self, value: PathObject, shape: Shape, nucleus: Shape | None = None) -> JavaObject:
        """Return a new object for an annotation, detection, cell or tile, without children."""
        path_class = self._path_class(value.path_class)
        plane = value.plane
        # fmt: off
        key = (
            value.kind, value.name is None, value.locked, value.color, plane.c, plane.z, plane.t,
            id(path_class), tuple(value.metadata), tuple(value.measurements),
            type(shape), shape.roi, type(nucleus), nucleus and nucleus.roi,
        )
        # fmt: on
        layout = self._forms.get(key)
        packed = self._packed(layout, value, shape, nucleus) if layout is not None else None
        if packed is not None:
            return packed
        made = self._opened(value, path_class, shape, nucleus)
        if key not in self._forms:
            self._forms[key] = self._learn(made) if ID_KEY not in value.metadata else None
        return made

    def _learn(self, made: JavaObject) -> ObjectLayout | None:
        """Return the layout of all those that will be like an object."""
        shared = {id(node) for node in self.table.shared()}
        for nodes in (self._classes, self._flags):
            shared.update(map(id, nodes.values()))
        shared.update(id(node) for pair in self._names.values() for node in pair)
        form = Form.learn(made, lambda node: id(node) in shared)
        return lay_out(form) if form is not None else None

    def _packed(
        self, layout: ObjectLayout, value: PathObject, shape: Shape, nucleus: Shape | None
    ) -> JavaObject | None:
        """Return a new object of a known layout, ``None`` if a text is too long for it."""
        values = layout.form.values.copy()
        texts = [*value.metadata.values(), str(value.id)]
        if value.name is not None:
            texts.append(value.name)
        for place, text in zip(layout.texts, texts, strict=True):
            raw = encode_utf(text)
            if len(raw) > 0xFFFF or not isinstance(place, int):
                return None
            values[place] = len(raw).to_bytes(2) + raw
        if layout.numbers is not None:
            layout.numbers.write(value.measurements.values(), values)
        if layout.region is not None:
            layout.region.write(shape, values)
        if layout.nucleus is not None and nucleus is not None:
            layout.nucleus.write(nucleus, values)
        return PackedObject(layout.form, values)

    def _opened(
        self,
        value: PathObject,
        path_class: JavaObject | None,
        shape: Shape,
        nucleus: Shape | None,
    ) -> JavaObject:
        is_annotation = value.kind is ObjectKind.ANNOTATION
        numbers = self._measurements if is_annotation else self._compact_measurements
        contents: list[Content] = [
            self._text(value.name),
            self._color(value.color),
            new_metadata(self.table, value.metadata, value.id),
            numbers(value.measurements),
            struct.pack(">i", 0),
            self._flag(value.locked),
            path_class,
            roi_object(shape, value.plane, self.table),
            _NO_PROBABILITY,
        ]
        if value.kind is ObjectKind.CELL:
            contents.append(nucleus and roi_object(nucleus, value.plane, self.table))
        return self.table.external(_JAVA_NAMES[value.kind], contents)

    def update(
        self, each: TreeObject, old: PathObject, new: PathObject, shape: Shape | None
    ) -> bool:
        """Change in an object what differs between ``old``, which it is, and ``new``.

        ``shape`` is the new region, ``None`` to leave it. Returns whether anything did change.
        """
        changes: list[Callable[[], None]] = []
        if shape is not None:
            roi = roi_object(shape, new.plane, self.table)
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
        if list(old.metadata.items()) != list(without_id(new.metadata).items()):
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

    def _compact_measurements(self, measurements: Mapping[str, float]) -> JavaObject | None:
        """Return numbers as QuPath keeps those of detections, the names shared by all alike."""
        if not measurements:
            return None
        names = tuple(measurements)
        if names not in self._names:
            self._names[names] = self.table.shared_names(names)
        indices, listed = self._names[names]
        values = struct.pack(f">{len(names)}d", *measurements.values())
        return self.table.new(
            DOUBLE_LIST,
            isClosed=True,
            map=indices,
            names=listed,
            values=self.table.array("[D", values),
        )

    def _path_class(self, path_class: PathClass | None) -> JavaObject | None:
        if path_class is None:
            return None
        known = self._classes.get(path_class.name)
        if known is not None:
            return known
        parts = class_parts(path_class)
        for depth in range(1, len(parts) + 1):
            name = CLASS_SEPARATOR.join(parts[:depth])
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


def is_same_region(each: TreeObject, old: PathObject, new: PathObject) -> bool:
    """Return whether the region of an object, which is ``old``, can stay for it to be ``new``."""
    if old.plane != new.plane:
        return False
    if old.roi == new.roi and old.geometry.equals_exact(new.geometry, 0, normalize=False):
        return True
    return bool(read(each).shape == shapes_of([new])[0])


def _same_numbers(old: Mapping[str, float], new: Mapping[str, float]) -> bool:
    # NaN is equal to NaN here, and -0.0 is not 0.0
    one, other = (
        [(key, struct.pack(">d", value)) for key, value in each.items()] for each in (old, new)
    )
    return one == other
