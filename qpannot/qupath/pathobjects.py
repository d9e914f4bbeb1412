"""QuPath's objects in a data file: the hierarchy, and what each object says of itself.

The order of what a ``PathObject`` writes is that of ``writeExternal`` in QuPath's PathObject,
PathROIObject, PathCellObject and TMACoreObject::

    name, color, [MetadataMap], measurements, int n, n children,          PathObject
    [Boolean locked], PathClass, ROI, double probability                  PathROIObject
    (nucleus ROI | boolean missing)                                       cell | TMA core

What is in brackets may be missing in old files. Measurements are null, or missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID, uuid5

from qpannot.qupath.annotation import Color, color_from_argb
from qpannot.qupath.javaclasses import BOOLEAN, INTEGER, METADATA_MAP, OBJECTS
from qpannot.qupath.javatypes import (
    ClassData,
    Content,
    JavaArray,
    JavaObject,
    JavaString,
    UnexpectedError,
)

ID_KEY: Final = "Object ID"
"""The metadata key under which QuPath stores an object's ID."""

_ID_NAMESPACE: Final = UUID("6f8d5bb2-6ad4-5a4c-9e9c-7b6bb0f9a6a1")
ANNOTATION: Final = OBJECTS + "PathAnnotationObject"
_NAME, _COLOR, _METADATA = 0, 1, 2
_MAX_WRAPPERS: Final = 8


class TreeObject:
    """An object of the hierarchy, over its node in the stream.

    Parameters
    ----------
    node
        The object as it is in the stream; its contents are what edits change.
    parent
        The object it lies in, ``None`` for the root.
    """

    __slots__ = ("children", "count_at", "id", "node", "parent")

    def __init__(self, node: JavaObject, parent: TreeObject | None) -> None:
        self.node = node
        self.parent = parent
        self.children: list[TreeObject] = []
        self.id: UUID | None = None
        contents = node.contents
        for at in range(_METADATA, min(len(contents), _METADATA + 3)):
            if isinstance(contents[at], bytes):
                self.count_at = at
                break
        else:
            raise UnexpectedError(f"a {node.desc.name} that does not count its children", node)
        if self.count_at - _METADATA == 2 and self.metadata_node is None:
            raise UnexpectedError(f"a {node.desc.name} with something unknown for metadata", node)

    @property
    def kind(self) -> str:
        """Its class without the package, as ``PathAnnotationObject``."""
        return self.node.desc.name.removeprefix(OBJECTS)

    @property
    def is_annotation(self) -> bool:
        """Whether QuPath counts it among the annotations."""
        return self.node.desc.name == ANNOTATION

    def set_children(self, children: Sequence[TreeObject]) -> None:
        """Give the object these children, in this order."""
        after = self.count_at + 1 + len(self.children)
        self.node.contents[self.count_at : after] = [
            struct.pack(">i", len(children)),
            *(child.node for child in children),
        ]
        self.children = list(children)
        for child in children:
            child.parent = self

    @property
    def class_at(self) -> int:
        """Where in the contents its class is; the ROI follows, the locked flag is before it."""
        at = self.count_at + 1 + len(self.children)
        contents = self.node.contents
        if len(contents) <= at + 2:
            raise UnexpectedError(f"a {self.node.desc.name} that ends early", self.node)
        return at + is_object(contents[at], BOOLEAN)

    @property
    def class_node(self) -> JavaObject | None:
        """Its PathClass."""
        return _object_or_null(self.node.contents[self.class_at], self.node)

    @property
    def roi_node(self) -> JavaObject | None:
        """Its ROI."""
        return _object_or_null(self.node.contents[self.class_at + 1], self.node)

    @property
    def metadata_node(self) -> JavaObject | None:
        """Its MetadataMap."""
        node = self.node.contents[_METADATA]
        return node if isinstance(node, JavaObject) and is_object(node, METADATA_MAP) else None

    @property
    def name(self) -> str | None:
        """Its name."""
        return _text(self.node.contents[_NAME], self.node)

    @property
    def color(self) -> Color | None:
        """Its own colour."""
        node = self.node.contents[_COLOR]
        # before the first release this was a java.awt.Color, which QuPath ignores too
        return color_of(node) if is_object(node, INTEGER) else None

    @property
    def locked(self) -> bool:
        """Whether it is locked."""
        flag = self.node.contents[self.class_at - 1]
        if isinstance(flag, JavaObject) and is_object(flag, BOOLEAN):
            return flag.expect("value", bool)
        return False

    @property
    def metadata(self) -> dict[str, str]:
        """Its metadata, the ID among it."""
        node = self.metadata_node
        if node is None:
            return {}
        arrays = [each for each in node.contents if isinstance(each, JavaArray)]
        if len(arrays) != 2 or len(arrays[0].values) != len(arrays[1].values):
            raise UnexpectedError("metadata whose keys and values do not match", node)
        return {
            key.value: value.value
            for key, value in zip(arrays[0].values, arrays[1].values, strict=True)
            if isinstance(key, JavaString) and isinstance(value, JavaString)
        }

    @property
    def measurements(self) -> dict[str, float]:
        """Its measurements in the file's order."""
        node = self.node.contents[self.count_at - 1]
        if self.count_at == _METADATA or node is None or is_object(node, METADATA_MAP):
            return {}
        if not isinstance(node, JavaObject):
            raise UnexpectedError("measurements that are not a list", self.node)
        return _measurements(node)

    def set_name(self, name: JavaString | None) -> None:
        """Replace its name."""
        self.node.contents[_NAME] = name

    def set_color(self, color: JavaObject | None) -> None:
        """Replace its colour, an ``Integer``."""
        self.node.contents[_COLOR] = color

    def set_metadata(self, metadata: JavaObject) -> None:
        """Replace its MetadataMap; one from before 0.2 may have none yet."""
        known = self.metadata_node is not None
        self.node.contents[_METADATA : _METADATA + known] = [metadata]
        self.count_at += not known

    def set_measurements(self, measurements: JavaObject | None) -> None:
        """Replace its measurements."""
        place = self.count_at - 1
        known = place >= _METADATA and not is_object(self.node.contents[place], METADATA_MAP)
        self.node.contents[self.count_at - known : self.count_at] = [measurements]
        self.count_at += not known

    def set_locked(self, flag: JavaObject) -> None:
        """Replace whether it is locked, a ``Boolean``."""
        at = self.class_at
        known = is_object(self.node.contents[at - 1], BOOLEAN)
        self.node.contents[at - known : at] = [flag]

    def set_class(self, path_class: JavaObject | None) -> None:
        """Replace its PathClass."""
        self.node.contents[self.class_at] = path_class

    def set_roi(self, roi: JavaObject) -> None:
        """Replace its ROI."""
        self.node.contents[self.class_at + 1] = roi


def is_object(node: Content, class_name: str) -> bool:
    """Return whether ``node`` is an object of exactly this class."""
    return isinstance(node, JavaObject) and node.desc.name == class_name


def _object_or_null(node: Content, owner: JavaObject) -> JavaObject | None:
    if node is not None and not isinstance(node, JavaObject):
        raise UnexpectedError(f"a {owner.desc.name} that is not laid out as QuPath's", owner)
    return node


def _text(node: Content, owner: JavaObject) -> str | None:
    if node is None:
        return None
    if not isinstance(node, JavaString):
        raise UnexpectedError(f"a {owner.desc.name} whose name is no text", owner)
    return node.value


def color_of(node: Content) -> Color | None:
    """Return the colour that an ``Integer`` object holds."""
    return color_from_argb(node.expect("value", int)) if isinstance(node, JavaObject) else None


def _measurements(node: JavaObject) -> dict[str, float]:
    kind = node.desc.name.rpartition(".")[2]
    if kind == "DefaultMeasurementList":
        each = [item for item in _list(node.get("list")) if isinstance(item, JavaObject)]
        return {item.expect("name", JavaString).value: item.expect("value", float) for item in each}
    forms = {"NumericMeasurementList$FloatList": "f", "NumericMeasurementList$DoubleList": "d"}
    if kind not in forms:
        raise UnexpectedError(f"measurements of the unknown kind {node.desc.name}", node)
    form = forms[kind]
    raw = node.primitives("values", "[" + form.upper())
    numbers = struct.unpack(f">{len(raw) // struct.calcsize(form)}{form}", raw)
    names = [name for name in _list(node.get("names")) if isinstance(name, JavaString)]
    # the array of values may have room to spare
    return {name.value: number for name, number in zip(names, numbers, strict=False)}


def _list(node: object) -> list[Content]:
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


def read_tree(root: JavaObject) -> TreeObject:
    """Return the hierarchy under the root object.

    Raises
    ------
    UnexpectedError
        If an object is not laid out as QuPath writes it, or occurs twice.
    """
    tree = TreeObject(_path_object(root, root), None)
    seen = {id(root)}
    pending = [tree]
    while pending:
        parent = pending.pop()
        contents = parent.node.contents
        count_block = contents[parent.count_at]
        if not isinstance(count_block, bytes) or len(count_block) != 4:
            raise UnexpectedError("an object of a newer layout than QuPath 0.7's", parent.node)
        n_children = struct.unpack(">i", count_block)[0]
        first = parent.count_at + 1
        if not 0 <= n_children <= len(contents) - first:
            raise UnexpectedError(f"an object with {n_children} children", parent.node)
        for node in contents[first : first + n_children]:
            child = TreeObject(_path_object(node, parent.node), parent)
            if id(node) in seen:
                raise UnexpectedError("an object that occurs twice", parent.node)
            seen.add(id(node))
            parent.children.append(child)
        pending.extend(parent.children)
    return tree


def depth_first(tree: TreeObject) -> Iterator[TreeObject]:
    """Yield all objects below ``tree``, each before its children."""
    pending = tree.children[::-1]
    while pending:
        each = pending.pop()
        yield each
        pending.extend(each.children[::-1])


def _path_object(node: Content, owner: JavaObject) -> JavaObject:
    if not isinstance(node, JavaObject):
        raise UnexpectedError("something else among an object's children", owner)
    return node


def assign_ids(tree: TreeObject) -> tuple[dict[UUID, TreeObject], list[TreeObject]]:
    """Give every annotation, and every object around one, the ID in its metadata, or make one.

    Files of QuPath before 0.4 have no IDs, and copies of an object may share one. An ID made here
    follows from the object's place in the file, so that the same bytes give the same ID.

    Returns
    -------
    tuple
        The objects by ID in depth-first order, and those whose ID was made.
    """
    known: dict[UUID, TreeObject] = {}
    made: list[TreeObject] = []
    place: dict[int, int] = {}
    for each in depth_first(tree):
        assert each.parent is not None
        index = place[id(each.parent)] = place.get(id(each.parent), -1) + 1
        if not each.is_annotation and not each.children:
            continue
        own = _stored_id(each)
        if own is None or own in known:
            made.append(each)
            own = uuid5(each.parent.id or _ID_NAMESPACE, str(index))
        while own in known:
            own = uuid5(own, "again")
        each.id = own
        known[own] = each
    return known, made


def _stored_id(each: TreeObject) -> UUID | None:
    """Return the ID in the object's metadata."""
    try:
        return UUID(each.metadata.get(ID_KEY, ""))
    except ValueError:
        return None
