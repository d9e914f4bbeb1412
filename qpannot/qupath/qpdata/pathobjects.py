"""QuPath's objects in a data file: what each says of itself.

The order of what a ``PathObject`` writes is that of ``writeExternal`` in QuPath's PathObject,
PathROIObject, PathCellObject and TMACoreObject::

    name, color, [MetadataMap], measurements, int n, n children,          PathObject
    [Boolean locked], PathClass, ROI, double probability                  PathROIObject
    (nucleus ROI | boolean missing)                                       cell | TMA core

What is in brackets may be missing in old files. Measurements are null, or missing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from qpannot.qupath.annotation import Color, ObjectKind, Plane, color_from_argb
from qpannot.qupath.qpdata.javaclasses import BOOLEAN, INTEGER, METADATA_MAP, OBJECTS
from qpannot.qupath.qpdata.javaforms import Form, form_and_values
from qpannot.qupath.qpdata.javatypes import (
    Content,
    JavaArray,
    JavaObject,
    JavaString,
    UnexpectedError,
    decode_utf,
)
from qpannot.qupath.qpdata.measurements import measurements_of
from qpannot.qupath.qpdata.roi import Shape

ID_KEY: Final = "Object ID"
"""The metadata key under which QuPath stores an object's ID."""

ANNOTATION: Final = OBJECTS + "PathAnnotationObject"
CELL: Final = OBJECTS + "PathCellObject"
TMA_CORE: Final = OBJECTS + "TMACoreObject"
KINDS: Final = {
    "PathAnnotationObject": ObjectKind.ANNOTATION,
    "PathDetectionObject": ObjectKind.DETECTION,
    "PathCellObject": ObjectKind.CELL,
    "PathTileObject": ObjectKind.TILE,
    "TMACoreObject": ObjectKind.TMA_CORE,
}
"""The kinds of objects by the names of QuPath's classes."""

_NAME, _COLOR, _METADATA = 0, 1, 2

_is_usual_id: Final = re.compile(
    b"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
).fullmatch


class TreeObject:
    """An object of the hierarchy, over its node in the stream.

    Parameters
    ----------
    node
        The object as it is in the stream; its contents are what edits change.
    parent
        The object it lies in, ``None`` for the root.

    Its ``id`` is the number of its UUID, `UUID.int`: Python is slow at comparing UUIDs, and a file
    may have a million.
    """

    __slots__ = ("_count_at", "children", "id", "node", "parent")

    def __init__(self, node: JavaObject, parent: TreeObject | None) -> None:
        self.node = node
        self.parent = parent
        self.children: list[TreeObject] = []
        self.id: int | None = None
        self._count_at: int | None = None

    @property
    def count_at(self) -> int:
        """Where in the contents the number of its children is, which follow."""
        if self._count_at is None:
            self._count_at = self._find_count()
        return self._count_at

    def _find_count(self) -> int:
        node = self.node
        contents = node.contents
        for at in range(_METADATA, min(len(contents), _METADATA + 3)):
            if isinstance(contents[at], bytes):
                break
        else:
            raise UnexpectedError(f"a {node.desc.name} that does not count its children", node)
        if at - _METADATA == 2 and self.metadata_node is None:
            raise UnexpectedError(f"a {node.desc.name} with something unknown for metadata", node)
        return at

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
    def nucleus_node(self) -> JavaObject | None:
        """The ROI of its nucleus, if it is a cell that has one."""
        if self.node.desc.name != CELL:
            return None
        return _object_or_null(self.node.contents[-1], self.node)

    @property
    def missing(self) -> bool:
        """Whether it is a core of a tissue microarray whose tissue is missing."""
        block = self.node.contents[-1]
        if self.node.desc.name != TMA_CORE or not isinstance(block, bytes) or len(block) < 9:
            raise UnexpectedError(f"a {self.node.desc.name} that ends early", self.node)
        return block[8] != 0

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
    def measurements_node(self) -> JavaObject | None:
        """Its list of measurements."""
        node = self.node.contents[self.count_at - 1]
        if self.count_at == _METADATA or node is None or is_object(node, METADATA_MAP):
            return None
        if not isinstance(node, JavaObject):
            raise UnexpectedError("measurements that are not a list", self.node)
        return node

    @property
    def measurements(self) -> dict[str, float]:
        """Its measurements in the file's order."""
        node = self.measurements_node
        return measurements_of(node) if node is not None else {}

    @property
    def stored_id(self) -> int | None:
        """The ID in its metadata, if there is one."""
        packed = form_and_values(self.node)
        hole = _id_hole(packed[0]) if packed is not None else None
        if packed is None or hole is None:
            text = self.metadata.get(ID_KEY, "")
        else:
            raw = packed[1][hole]
            # most are written as they should be: no need for all that UUID() looks for
            if _is_usual_id(raw, 2):
                return int(bytes(raw[2:]).replace(b"-", b""), 16)
            text = decode_utf(bytes(raw[2:]))
        try:
            return UUID(text).int
        except ValueError:
            return None

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
        self._count_at = None

    def set_measurements(self, measurements: JavaObject | None) -> None:
        """Replace its measurements."""
        place = self.count_at - 1
        known = place >= _METADATA and not is_object(self.node.contents[place], METADATA_MAP)
        self.node.contents[self.count_at - known : self.count_at] = [measurements]
        self._count_at = None

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


@lru_cache(maxsize=256)
def _id_hole(form: Form) -> int | None:
    """Return where the objects of a form have their ID, if each has one of its own."""
    node = TreeObject(form.root, None).metadata_node
    hole = None
    if node is not None:
        keys, values = (each.values for each in node.contents if isinstance(each, JavaArray))
        for key, value in zip(keys, values, strict=True):
            if isinstance(key, JavaString) and not form.is_own(key) and key.value == ID_KEY:
                hole = form.hole_of(value)
    return hole


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


class Record(NamedTuple):
    """What an object says of itself, as it is in the file; the ID may be among its metadata."""

    name: str | None
    color: Color | None
    metadata: dict[str, str]
    measurements: dict[str, float]
    locked: bool
    class_node: JavaObject | None
    shape: Shape | None
    plane: Plane
    nucleus: Shape | None
