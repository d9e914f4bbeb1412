"""QuPath's ``data.qpdata``: the annotations of an image, read and edited in pure Python.

The layout is that of PathIO.writeImageDataSerialized (QuPath 0.4 to 0.7, data file version 3).
A file is kept as the whole tree of Java objects it consists of; edits change the tree, and all
that is not understood (workflow, stains, detections, properties) is written as it was. A file
nothing was changed in comes out byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from qpannot.errors import FormatError, QpannotError
from qpannot.qupath.annotation import Annotation, PathObject
from qpannot.qupath.qpdata.digests import digests_of, wanted_digests
from qpannot.qupath.qpdata.hierarchy import (
    assign_ids,
    assign_other_ids,
    read_tree,
    summary_of,
    without,
)
from qpannot.qupath.qpdata.javaclasses import HIERARCHY, IMAGE_TYPE, OBJECTS, ClassTable
from qpannot.qupath.qpdata.javaemit import emit
from qpannot.qupath.qpdata.javasame import is_same
from qpannot.qupath.qpdata.javastream import collector_paused, parse
from qpannot.qupath.qpdata.javatypes import (
    Content,
    JavaEnum,
    JavaObject,
    JavaString,
    UnexpectedError,
)
from qpannot.qupath.qpdata.newdata import IMAGE_TYPES, new_contents
from qpannot.qupath.qpdata.objectlayout import read
from qpannot.qupath.qpdata.pathobjects import KINDS, TreeObject
from qpannot.qupath.qpdata.pathreading import read_objects
from qpannot.qupath.qpdata.pathwriting import ObjectWriter, is_same_region, new_metadata
from qpannot.qupath.qpdata.roi import shapes_of
from qpannot.qupath.qpdata.storable import (
    ObjectT,
    all_as_stored,
    as_stored,
    check_storable,
    nucleus_shapes_of,
)

__all__ = ["IMAGE_TYPES", "QpData", "all_as_stored", "as_stored"]

_HINT: Final = (
    "Put a snapshot of it back: 'qpannot snapshots' lists them. Do not save the image in QuPath, "
    "which may show it as empty."
)
_AT_ONCE: Final = 1_000
_NUMEROUS: Final = tuple(OBJECTS + name for name in KINDS)


class QpData:
    """A ``data.qpdata`` file in memory.

    Made by `parse` or `new`. Edits either happen completely or, where they raise, not at all.
    """

    def __init__(self, contents: list[Content], table: ClassTable, source: Path | str) -> None:
        self.source = source
        self._contents = contents
        self._table = table
        with self._meaning():
            hierarchy = _hierarchy(contents)
            assert hierarchy is not None
            self._tree = read_tree(hierarchy.expect("rootObject", JavaObject))
        self._known: dict[int, TreeObject] | None = None
        self._without_id: list[TreeObject] = []
        self._writer: ObjectWriter | None = None
        self._annotations: tuple[Annotation, ...] | None = None

    @classmethod
    def parse(cls, data: bytes, *, source: Path | str) -> QpData:
        """Read the bytes of a file.

        Parameters
        ----------
        data
            The whole file.
        source
            Where it is from; named in errors.

        Raises
        ------
        FormatError
            If it is no QuPath data file, or broken, with the offset where that shows.
        """
        contents, classes = parse(data, source, numerous=_NUMEROUS)
        if _version_line(contents) is None:
            raise FormatError(source, "not a QuPath data file.", offset=4, hint=_HINT)
        last = contents[-1]
        if not isinstance(last, JavaString) or last.raw != b"EOF":
            raise FormatError(source, "the file ends early.", offset=len(data), hint=_HINT)
        if _hierarchy(contents) is None:
            raise FormatError(source, "it holds no objects' hierarchy.", offset=4, hint=_HINT)
        return cls(contents, ClassTable(classes), source)

    @classmethod
    def new(
        cls, *, qupath_version: str, server_json: str | None = None, image_type: str = "UNSET"
    ) -> QpData:
        """Return an empty file, as QuPath 0.4 to 0.7 writes it for an image without objects.

        Parameters
        ----------
        qupath_version
            The version that the file says it is from, as ``"0.6.0"``.
        server_json
            The JSON of the image's server builder. QuPath prefers that of the project.
        image_type
            One of `IMAGE_TYPES`.

        Raises
        ------
        QpannotError
            If the image type is none that QuPath knows, or ``server_json`` is no JSON.
        """
        table = ClassTable({})
        return cls(new_contents(table, qupath_version, server_json, image_type), table, "new data")

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return emit(self._contents)

    def is_same(self, other: QpData) -> bool:
        """Return whether another file holds the same: every object, known or not, and the rest."""
        return is_same(self._contents, other._contents)

    @property
    def qupath_version(self) -> str | None:
        """The version of QuPath that wrote the file, where it says."""
        header = self._contents[1] if len(self._contents) > 1 else None
        try:
            document = json.loads(header.value) if isinstance(header, JavaString) else None
        except (ValueError, RecursionError):
            return None
        version = document.get("qupathVersion") if isinstance(document, dict) else None
        return version if isinstance(version, str) else None

    @property
    def image_type(self) -> str:
        """QuPath's image type, one of `IMAGE_TYPES`."""
        for node in self._contents:
            if isinstance(node, JavaEnum) and node.desc.name == IMAGE_TYPE:
                return node.constant.value
        return "UNSET"

    def annotations(self) -> tuple[Annotation, ...]:
        """Return every annotation of the hierarchy, each before those within it.

        One without a region, or with one that QuPath has not had up to 0.7 or that has vertices
        which are no finite numbers, has an empty Polygon for geometry. Its bytes stay.

        Raises
        ------
        FormatError
            If one is not as QuPath 0.2 to 0.7 writes it.
        """
        if self._annotations is None:
            with self._meaning():
                objects = [each for each in self._by_id().values() if each.is_annotation]
                values = read_objects(objects)
                self._annotations = tuple(each for each in values if isinstance(each, Annotation))
        return self._annotations

    def objects(self) -> tuple[PathObject, ...]:
        """Return every object of the hierarchy, of whatever kind, each before those within it.

        Objects of kinds that QuPath has not had up to 0.7 are left out; they stay in the file.

        Raises
        ------
        FormatError
            If one is not as QuPath 0.2 to 0.7 writes it.
        """
        known = self._all_by_id()
        with self._meaning():
            return tuple(read_objects([each for each in known.values() if each.kind in KINDS]))

    def digests(self, *, only_annotations: bool) -> dict[int, int]:
        """Return a number per object, by `UUID.int`, for all it says of itself and its region.

        The number of another object is the same, in one process, where they differ in nothing but
        ID and place in the hierarchy. Objects of kinds that QuPath has not had up to 0.7 have none.

        Raises
        ------
        FormatError
            If one is not as QuPath 0.2 to 0.7 writes it.
        """
        known = self._by_id() if only_annotations else self._all_by_id()
        with self._meaning():
            objects = {
                key: each
                for key, each in known.items()
                if each.is_annotation or (not only_annotations and each.kind in KINDS)
            }
            return dict(zip(objects, digests_of(objects.values()), strict=True))

    def all_as_stored(self, values: Sequence[ObjectT]) -> list[ObjectT]:
        """Return what a read-back gives after ``values`` were written to this file.

        As `all_as_stored`, with the colours that their classes have in this file, if they are here
        already: ask after `add` and `replace`, and it is what `annotations` gives for them.
        """
        with self._meaning():
            return all_as_stored(values, self._object_writer().stored_class)

    def add(self, values: Iterable[PathObject]) -> dict[int, int]:
        """Append annotations, detections, cells and tiles to the hierarchy.

        Each goes under the object of its ``parent_id`` where that is in the file, or earlier
        among ``values``, and to the top otherwise.

        Returns
        -------
        dict
            The `digests` that the file must give for them, by ID: made of the values.

        Raises
        ------
        QpannotError
            If one cannot be stored, or its ID is taken.
        """
        new = list(values)
        with self._meaning():
            known = self._all_by_id() if new else {}
            writer = self._object_writer()
            check_storable(new)
            taken = set(known)
            for value in new:
                if value.id.int in taken:
                    raise QpannotError(
                        f"The {value.kind} ID {value.id} is taken.",
                        hint=f"Give the new {value.kind} an ID of its own, or replace the old one.",
                    )
                taken.add(value.id.int)
            nodes: list[JavaObject] = []
            digests: dict[int, int] = {}
            # some at a time, not to have the vertices of all in many forms at once
            for start in range(0, len(new), _AT_ONCE):
                some = new[start : start + _AT_ONCE]
                shapes, nuclei = shapes_of(some), nucleus_shapes_of(some)
                nodes += map(writer.new, some, shapes, nuclei)
                made = wanted_digests(some, shapes, nuclei, writer.stored_class)
                digests.update(zip((value.id.int for value in some), made, strict=True))
            if new:
                self._changing()
                self._append(new, nodes, known)
            return digests

    def _append(
        self,
        new: Sequence[PathObject],
        nodes: Sequence[JavaObject],
        known: Mapping[int, TreeObject],
    ) -> None:
        """Put new objects where their parents are."""
        made: dict[int, TreeObject] = {}
        places: dict[int, tuple[TreeObject, list[TreeObject]]] = {}
        for value, node in zip(new, nodes, strict=True):
            parent = self._tree
            if value.parent_id is not None:
                wanted = value.parent_id.int
                parent = made.get(wanted) or known.get(wanted) or self._tree
            each = TreeObject(node, parent)
            each.id = value.id.int
            made[each.id] = each
            places.setdefault(id(parent), (parent, []))[1].append(each)
        for parent, appended in places.values():
            parent.set_children([*parent.children, *appended])
        self._known = None

    def remove(self, ids: Iterable[UUID]) -> None:
        """Take annotations out; what lies in them moves up to where they were.

        Raises
        ------
        QpannotError
            If one is not in the file, or has a region that we cannot read.
        """
        known = self._by_id()
        ids = list(ids)
        wanted = set(ids)
        for annotation in self.annotations() if wanted else ():
            if annotation.geometry.is_empty and annotation.id in wanted:
                self._check_readable(known[annotation.id.int], annotation)
        removed = {id(each): each for each in (self._find(known, wanted) for wanted in ids)}
        if not removed:
            return
        parents = {id(each.parent): each.parent for each in removed.values() if each.parent}
        left = [
            (parent, without(parent, removed))
            for parent in parents.values()
            if id(parent) not in removed
        ]
        if any(each.id is None for _, children in left for each in children):
            self._all_by_id()
        self._changing()
        for parent, children in left:
            self._keep_ids(children)
            parent.set_children(children)
        self._known = None

    def replace(self, annotation: Annotation) -> int:
        """Change the annotation of this ID to these values, where it is in the hierarchy.

        Only what differs is written anew. Its place, and what lies in it, stay.

        Returns
        -------
        int
            What `digests` must give for it: made of the values.

        Raises
        ------
        QpannotError
            If it is not in the file, cannot be stored, or has a region that we cannot read and
            that would be lost.
        """
        check_storable([annotation])
        known = self._by_id()
        each = self._find(known, annotation.id)
        with self._meaning():
            writer = self._object_writer()
            (old,) = read_objects([each])
            kept, shape = read(each).shape, None
            if not is_same_region(each, old, annotation):
                self._check_readable(each, old)
                (shape,) = shapes_of([annotation])
            if writer.update(each, old, annotation, shape):
                self._changing()
            return wanted_digests([annotation], [shape or kept], [None], writer.stored_class)[0]

    def summary(self) -> dict[str, Any]:
        """Return the counts of objects that QuPath writes to ``summary.json`` ("hierarchy").

        As DefaultProject.HierarchySummary has them: root among the objects, detections with cells
        and tiles.
        """
        with self._meaning():
            return summary_of(self._tree)

    def _by_id(self) -> dict[int, TreeObject]:
        if self._known is None:
            with self._meaning():
                self._known, self._without_id = assign_ids(self._tree)
        return self._known

    def _all_by_id(self) -> dict[int, TreeObject]:
        """Return every object by ID, in depth-first order."""
        known = self._by_id()
        with self._meaning():
            return assign_other_ids(self._tree, known)

    def _find(self, known: dict[int, TreeObject], wanted: UUID) -> TreeObject:
        each = known.get(wanted.int)
        if each is None or not each.is_annotation:
            raise QpannotError(
                f"{self.source} has no annotation {wanted}.",
                hint="It may have been deleted in QuPath: read the annotations again.",
            )
        return each

    def _check_readable(self, each: TreeObject, value: PathObject) -> None:
        if value.geometry.is_empty and each.roi_node is not None:
            label = value.name or value.class_name or "unclassified"
            raise QpannotError(
                f"The region of the annotation {label} ({value.id}) in {self.source} cannot be "
                "read, and would be lost.",
                hint="Change or delete it in QuPath. Nothing was changed.",
            )

    def _object_writer(self) -> ObjectWriter:
        if self._writer is None:
            self._writer = ObjectWriter(self._table, self._tree)
        return self._writer

    def _changing(self) -> None:
        """Keep the IDs that were made: places change now, and an ID must not."""
        self._annotations = None
        self._object_writer()
        with self._meaning():
            self._keep_ids(self._without_id)
        self._without_id = []

    def _keep_ids(self, objects: Iterable[TreeObject]) -> None:
        """Keep the IDs that were made of objects whose places change."""
        with self._meaning():
            for each in objects:
                if each.kind in KINDS and each.id is not None and each.stored_id != each.id:
                    metadata = new_metadata(self._table, each.metadata, UUID(int=each.id))
                    each.set_metadata(metadata)

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        try:
            with collector_paused():
                yield
        except UnexpectedError as error:
            offset = error.offset if error.offset >= 0 else None
            raise FormatError(self.source, str(error), offset=offset, hint=_HINT) from error


def _version_line(contents: Sequence[Content]) -> str | None:
    block = contents[0] if contents else None
    line = block[2:] if isinstance(block, bytes) else b""
    return line.decode("latin-1") if line.startswith(b"Data file version") else None


def _hierarchy(contents: Sequence[Content]) -> JavaObject | None:
    # QuPath goes by the last one
    for node in reversed(contents):
        if isinstance(node, JavaObject) and node.desc.name == HIERARCHY:
            return node
    return None
