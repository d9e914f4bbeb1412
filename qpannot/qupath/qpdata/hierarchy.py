"""The hierarchy of QuPath's objects in a data file, and what they are known by."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, Self, TypeVar
from uuid import UUID, uuid5

from qpannot.qupath.qpdata.javaclasses import OBJECTS
from qpannot.qupath.qpdata.javatypes import Content, JavaObject, UnexpectedError
from qpannot.qupath.qpdata.objectlayout import class_node_of, is_childless
from qpannot.qupath.qpdata.pathobjects import ANNOTATION, TreeObject
from qpannot.qupath.qpdata.pathreading import class_name_of

ID_NAMESPACE: Final = UUID("6f8d5bb2-6ad4-5a4c-9e9c-7b6bb0f9a6a1")
"""What the IDs made for objects at the top are made from."""

_KIND_NAMES: Final = {
    "PathRootObject": "Root objects",
    "PathAnnotationObject": "Annotations",
    "TMACoreObject": "TMA cores",
    "PathDetectionObject": "Detections",
    "PathCellObject": "Cells",
    "PathTileObject": "Tiles",
}
_CLASSIFIED: Final = {
    OBJECTS + name
    for name in ("PathAnnotationObject", "PathDetectionObject", "PathCellObject", "PathTileObject")
}


class InHierarchy(Protocol):
    """An object of the hierarchy, of whichever backend; see `TreeObject`."""

    id: int | None

    @property
    def parent(self) -> Self | None:
        """The object it lies in."""

    @property
    def children(self) -> Sequence[Self]:
        """What lies in it, in order."""

    @property
    def is_annotation(self) -> bool:
        """Whether QuPath counts it among the annotations."""

    @property
    def stored_id(self) -> int | None:
        """The ID that the file has for it."""


InHierarchyT = TypeVar("InHierarchyT", bound=InHierarchy)


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
            if not is_childless(child.node):
                pending.append(child)
    return tree


def depth_first(tree: InHierarchyT) -> Iterator[InHierarchyT]:
    """Yield all objects below ``tree``, each before its children."""
    for _, each in _placed(tree):
        yield each


def _placed(tree: InHierarchyT) -> Iterator[tuple[int, InHierarchyT]]:
    """Yield all objects in that order, and the place of each among its parent's children."""
    pending = [*enumerate(tree.children)][::-1]
    while pending:
        place, each = pending.pop()
        yield place, each
        if each.children:
            pending += [*enumerate(each.children)][::-1]


def _path_object(node: Content, owner: JavaObject) -> JavaObject:
    if not isinstance(node, JavaObject):
        raise UnexpectedError("something else among an object's children", owner)
    return node


def summary_of(tree: TreeObject) -> dict[str, Any]:
    """Return the counts of objects that QuPath writes to ``summary.json`` ("hierarchy").

    As DefaultProject.HierarchySummary has them: root among the objects, detections with cells and
    tiles.
    """
    kinds = Counter([tree.kind])
    annotations: Counter[str] = Counter()
    detections: Counter[str] = Counter()
    nodes: dict[int, JavaObject | None] = {}
    counts: Counter[tuple[str, int]] = Counter()
    for each in depth_first(tree):
        node = class_node_of(each) if each.node.desc.name in _CLASSIFIED else None
        nodes[id(node)] = node
        counts[each.node.desc.name, id(node)] += 1
    for (name, node_id), count in counts.items():
        kind = name.removeprefix(OBJECTS)
        kinds[kind] += count
        if name in _CLASSIFIED:
            label = class_name_of(nodes[node_id]) or "Unclassified"
            (annotations if name == ANNOTATION else detections)[label] += count
    return {
        "nObjects": kinds.total(),
        "objectTypeCounts": {
            _KIND_NAMES.get(kind, f"{kind} objects"): count for kind, count in kinds.items()
        },
        "annotationClassificationCounts": dict(annotations),
        "detectionClassificationCounts": dict(detections),
    }


def without(parent: InHierarchyT, removed: Container[int]) -> list[InHierarchyT]:
    """Return the children of an object, with what lies in it in place of each removed one.

    ``removed`` are the Python identities of objects.
    """
    kept: list[InHierarchyT] = []
    pending = [*parent.children][::-1]
    while pending:
        each = pending.pop()
        if id(each) in removed:
            pending.extend(each.children[::-1])
        else:
            kept.append(each)
    return kept


def assign_ids(tree: InHierarchyT) -> tuple[dict[int, InHierarchyT], list[InHierarchyT]]:
    """Give every annotation, and every object around one, the ID in its metadata, or make one.

    Files of QuPath before 0.4 have no IDs, and copies of an object may share one. An ID made here
    follows from the object's place in the file, so that the same bytes give the same ID.

    Returns
    -------
    tuple
        The objects by ID, an ``int``, in depth-first order, and those whose ID was made.
    """
    known: dict[int, InHierarchyT] = {}
    made: list[InHierarchyT] = []
    for place, each in _placed(tree):
        if not each.is_annotation and not each.children:
            continue
        own = each.stored_id
        if own is None or own in known:
            made.append(each)
            own = _id_by_place(each, place)
        while own in known:
            own = uuid5(UUID(int=own), "again").int
        each.id = own
        known[own] = each
    return known, made


def assign_other_ids(
    tree: InHierarchyT, known: Mapping[int, InHierarchyT]
) -> dict[int, InHierarchyT]:
    """Give all those objects an ID that `assign_ids`, which returned ``known``, gave none.

    Their made IDs are kept in the file where the places of objects change; see `QpData.remove`.

    Returns
    -------
    dict
        All objects by ID in depth-first order.
    """
    everything: dict[int, InHierarchyT] = {}
    for place, each in _placed(tree):
        own = each.id
        if own is None or known.get(own) is not each:
            own = each.stored_id
            if own is None:
                own = _id_by_place(each, place)
            while own in known or own in everything:
                own = uuid5(UUID(int=own), "again").int
            each.id = own
        everything[own] = each
    return everything


def _id_by_place(each: InHierarchyT, place: int) -> int:
    around = each.parent.id if each.parent is not None else None
    return uuid5(ID_NAMESPACE if around is None else UUID(int=around), str(place)).int
