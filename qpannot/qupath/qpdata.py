"""QuPath's ``data.qpdata``: the annotations of an image, read and edited in pure Python.

The layout is that of PathIO.writeImageDataSerialized (QuPath 0.4 to 0.7, data file version 3).
A file is kept as the whole tree of Java objects it consists of; edits change the tree, and all
that is not understood (workflow, stains, detections, properties) is written as it was. A file
nothing was changed in comes out byte for byte.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from qpannot.errors import FormatError, QpannotError
from qpannot.qupath.annotation import Annotation
from qpannot.qupath.javaclasses import HIERARCHY, IMAGE_TYPE, OBJECTS, WORKFLOW, ClassTable
from qpannot.qupath.javaemit import emit
from qpannot.qupath.javastream import parse
from qpannot.qupath.javatypes import (
    Content,
    JavaEnum,
    JavaObject,
    JavaString,
    UnexpectedError,
    encode_utf,
)
from qpannot.qupath.pathannotations import (
    AnnotationWriter,
    all_as_stored,
    as_stored,
    check_storable,
    class_name_of,
    new_metadata,
    read_annotations,
)
from qpannot.qupath.pathobjects import (
    TreeObject,
    assign_ids,
    depth_first,
    read_tree,
)
from qpannot.qupath.roi import shapes_of

__all__ = ["IMAGE_TYPES", "QpData", "all_as_stored", "as_stored"]

IMAGE_TYPES: Final = (
    "BRIGHTFIELD_H_DAB",
    "BRIGHTFIELD_H_E",
    "BRIGHTFIELD_OTHER",
    "FLUORESCENCE",
    "OTHER",
    "UNSET",
)
"""QuPath's image types (ImageData.ImageType)."""

_DATA_FILE_VERSION: Final = 3
_HINT: Final = "Restore it from a snapshot, or open and save the image in QuPath."
_KIND_NAMES: Final = {
    "PathRootObject": "Root objects",
    "PathAnnotationObject": "Annotations",
    "TMACoreObject": "TMA cores",
    "PathDetectionObject": "Detections",
    "PathCellObject": "Cells",
    "PathTileObject": "Tiles",
}
_DETECTIONS: Final = {"PathDetectionObject", "PathCellObject", "PathTileObject"}


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
        self._known: dict[UUID, TreeObject] | None = None
        self._without_id: list[TreeObject] = []
        self._writer: AnnotationWriter | None = None
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
        contents, classes = parse(data, source)
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
        if image_type not in IMAGE_TYPES:
            raise QpannotError(
                f"{image_type!r} is no image type of QuPath.", hint=f"Use {', '.join(IMAGE_TYPES)}."
            )
        table = ClassTable({})
        return cls(_new_contents(table, qupath_version, server_json, image_type), table, "new data")

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return emit(self._contents)

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

        Raises
        ------
        FormatError
            If one is not as QuPath 0.2 to 0.7 writes it.
        """
        if self._annotations is None:
            with self._meaning():
                objects = [each for each in self._by_id().values() if each.is_annotation]
                self._annotations = tuple(read_annotations(objects))
        return self._annotations

    def all_as_stored(self, annotations: Sequence[Annotation]) -> list[Annotation]:
        """Return what a read-back gives after ``annotations`` were written to this file.

        As `all_as_stored`, with the colours that their classes have in this file, if they are here
        already: ask after `add` and `replace`, and it is what `annotations` gives for them.
        """
        stored = all_as_stored(annotations)
        with self._meaning():
            writer = self._annotation_writer()
            for i, each in enumerate(stored):
                known = writer.stored_class(each.path_class) if each.path_class else None
                if known is not None:
                    stored[i] = each.with_changes(path_class=known)
        return stored

    def add(self, annotations: Iterable[Annotation]) -> None:
        """Append annotations to the hierarchy.

        Each goes under the object of its ``parent_id`` where that is in the file, or earlier
        among ``annotations``, and to the top otherwise.

        Raises
        ------
        QpannotError
            If one cannot be stored, or its ID is taken.
        """
        new = list(annotations)
        with self._meaning():
            known = self._by_id()
            writer = self._annotation_writer()
            check_storable(new)
            twice = Counter(annotation.id for annotation in new)
            for annotation in new:
                if annotation.id in known or twice[annotation.id] > 1:
                    raise QpannotError(
                        f"The annotation ID {annotation.id} is taken.",
                        hint="Give the new annotation an ID of its own, or replace the old one.",
                    )
            nodes = [
                writer.new(annotation, shape)
                for annotation, shape in zip(new, shapes_of(new), strict=True)
            ]
        if not new:
            return
        self._changing()
        made: dict[UUID, TreeObject] = {}
        places: dict[int, tuple[TreeObject, list[TreeObject]]] = {}
        for annotation, node in zip(new, nodes, strict=True):
            wanted = annotation.parent_id
            parent = self._tree
            if wanted is not None:
                parent = made.get(wanted) or known.get(wanted) or self._tree
            each = TreeObject(node, parent)
            each.id = annotation.id
            made[annotation.id] = each
            places.setdefault(id(parent), (parent, []))[1].append(each)
        for parent, appended in places.values():
            parent.set_children([*parent.children, *appended])
        self._known = None

    def remove(self, ids: Iterable[UUID]) -> None:
        """Take annotations out; what lies in them moves up to where they were.

        Raises
        ------
        QpannotError
            If one is not in the file.
        """
        known = self._by_id()
        removed = {id(each): each for each in (self._find(known, wanted) for wanted in ids)}
        if not removed:
            return
        self._changing()
        for each in removed.values():
            parent = each.parent
            if parent is None or id(parent) in removed:
                continue
            if any(id(child) in removed for child in parent.children):
                parent.set_children(_without(parent, removed))
        self._known = None

    def replace(self, annotation: Annotation) -> None:
        """Change the annotation of this ID to these values, where it is in the hierarchy.

        Only what differs is written anew. Its place, and what lies in it, stay.

        Raises
        ------
        QpannotError
            If it is not in the file, or cannot be stored.
        """
        check_storable([annotation])
        known = self._by_id()
        each = self._find(known, annotation.id)
        with self._meaning():
            old = read_annotations([each])[0]
            if self._annotation_writer().update(each, old, annotation):
                self._changing()

    def summary(self) -> dict[str, Any]:
        """Return the counts of objects that QuPath writes to ``summary.json`` ("hierarchy").

        As DefaultProject.HierarchySummary has them: root among the objects, detections with cells
        and tiles.
        """
        objects = [self._tree, *depth_first(self._tree)]
        kinds = Counter(each.kind for each in objects)
        with self._meaning():
            annotations = Counter(_class_label(each) for each in objects if each.is_annotation)
            detections = Counter(_class_label(each) for each in objects if each.kind in _DETECTIONS)
        return {
            "nObjects": len(objects),
            "objectTypeCounts": {
                _KIND_NAMES.get(kind, f"{kind} objects"): count for kind, count in kinds.items()
            },
            "annotationClassificationCounts": dict(annotations),
            "detectionClassificationCounts": dict(detections),
        }

    def _by_id(self) -> dict[UUID, TreeObject]:
        if self._known is None:
            with self._meaning():
                self._known, self._without_id = assign_ids(self._tree)
        return self._known

    def _find(self, known: dict[UUID, TreeObject], wanted: UUID) -> TreeObject:
        each = known.get(wanted)
        if each is None or not each.is_annotation:
            raise QpannotError(
                f"{self.source} has no annotation {wanted}.",
                hint="It may have been deleted in QuPath: read the annotations again.",
            )
        return each

    def _annotation_writer(self) -> AnnotationWriter:
        if self._writer is None:
            self._writer = AnnotationWriter(self._table, self._tree)
        return self._writer

    def _changing(self) -> None:
        """Keep the IDs that were made: places change now, and an ID must not."""
        self._annotations = None
        self._annotation_writer()
        with self._meaning():
            for each in self._without_id:
                assert each.id is not None
                each.set_metadata(new_metadata(self._table, each.metadata, each.id))
        self._without_id = []

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        try:
            yield
        except UnexpectedError as error:
            offset = error.offset if error.offset >= 0 else None
            raise FormatError(self.source, str(error), offset=offset, hint=_HINT) from error


def _class_label(each: TreeObject) -> str:
    return class_name_of(each.class_node) or "Unclassified"


def _without(parent: TreeObject, removed: dict[int, TreeObject]) -> list[TreeObject]:
    """Return the children of an object with those removed replaced by what lies in them."""
    kept: list[TreeObject] = []
    pending = parent.children[::-1]
    while pending:
        each = pending.pop()
        if id(each) in removed:
            pending.extend(each.children[::-1])
        else:
            kept.append(each)
    return kept


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


def _new_contents(
    table: ClassTable, qupath_version: str, server_json: str | None, image_type: str
) -> list[Content]:
    header = f'{{"dataVersion":{_DATA_FILE_VERSION},"qupathVersion":{json.dumps(qupath_version)}'
    if server_json is not None:
        try:
            json.loads(server_json)
        except ValueError as error:
            raise QpannotError(
                f"The image's server is described by no JSON: {error}.",
                hint="Add the image to the project again.",
            ) from error
        header += f',"server":{server_json}'
    line = encode_utf(f"Data file version {_DATA_FILE_VERSION}")
    empty = JavaString.of("")
    locale = table.new(
        "java.util.Locale",
        hashcode=-1,
        country=JavaString.of("US"),
        extensions=empty,
        language=JavaString.of("en"),
        script=empty,
        variant=empty,
    )
    properties = table.new("java.util.HashMap", loadFactor=0.75, threshold=0)
    properties.contents.append(struct.pack(">ii", 16, 0))
    root = table.external(
        OBJECTS + "PathRootObject",
        [None, None, new_metadata(table, {}, uuid4()), None, struct.pack(">i", 0)],
    )
    return [
        struct.pack(">H", len(line)) + line,
        JavaString.of(header + "}"),
        locale,
        table.enum(IMAGE_TYPE, image_type),
        None,
        table.external(WORKFLOW, [struct.pack(">ii", 1, 0)]),
        table.new(HIERARCHY, rootObject=root),
        properties,
        JavaString.of("EOF"),
    ]
