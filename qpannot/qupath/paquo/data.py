"""``data.qpdata`` as QuPath's own Java classes read and write it.

Java's ``ObjectInputStream`` is asked for the objects of the file one by one, as QuPath's
``PathIO`` does, and they are written again in the same order. Going through ``ImageData`` instead
would need the slide up to QuPath 0.5, add steps to the workflow of brightfield images at each
save, and hand back an empty image for a damaged file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import jpype
from jpype import JClass, JString
from shapely import Point

from qpannot.errors import FormatError, QpannotError
from qpannot.qupath.annotation import Annotation, Detection, PathObject, differences, digest
from qpannot.qupath.paquo.contents import (
    END,
    HIERARCHY,
    is_a,
    read_contents,
    root_of,
    write_contents,
)
from qpannot.qupath.paquo.exceptions import said_by
from qpannot.qupath.paquo.installation import FIRST_SUPPORTED, version_tuple
from qpannot.qupath.paquo.jvm import running
from qpannot.qupath.paquo.objects import (
    JavaClasses,
    JavaPathObject,
    give_ids,
    is_same_region,
    make_object,
    read_objects,
    read_tree,
    update_object,
)
from qpannot.qupath.paquo.regions import make_region
from qpannot.qupath.paquo.versions import forget_classes
from qpannot.qupath.qpdata.datafile import IMAGE_TYPES
from qpannot.qupath.qpdata.hierarchy import without
from qpannot.qupath.qpdata.javatypes import UnexpectedError
from qpannot.qupath.qpdata.pathobjects import KINDS
from qpannot.qupath.qpdata.roi import shapes_of
from qpannot.qupath.qpdata.storable import ObjectT, all_as_stored, check_storable, nucleus_shapes_of

_VERSION_LINE: Final = "Data file version"
_NEW_VERSION_LINE: Final = "Data file version 3"
_IMAGE_TYPE: Final = "qupath.lib.images.ImageData$ImageType"
_AT_ONCE: Final = 1_000
_ANY_POINT: Final = Point(0, 0)
_HINT: Final = (
    "Put a snapshot of it back: 'qpannot snapshots' lists them. Do not save the image in QuPath, "
    "which may show it as empty. Backend 'builtin' reads files of newer versions of QuPath."
)


class JavaData:
    """A ``data.qpdata`` file as Java objects. Does what `QpData` does.

    Made by `parse` or `new`.
    """

    def __init__(self, version_line: str, contents: list[Any], source: Path | str) -> None:
        self.source = source
        self._version_line = version_line
        self._contents = contents
        self._tree: JavaPathObject | None = None
        self._known: dict[int, JavaPathObject] = {}
        self._all: dict[int, JavaPathObject] = {}
        self._java_classes: JavaClasses | None = None
        self._annotations: tuple[Annotation, ...] | None = None

    @classmethod
    def parse(cls, data: bytes, *, source: Path | str) -> JavaData:
        """Read the bytes of a file.

        Raises
        ------
        FormatError
            If it is no QuPath data file, or broken, or holds objects this QuPath does not know.
        """
        with running(), _reading(source):
            forget_classes()
            version_line, contents = read_contents(data)
            if not version_line.startswith(_VERSION_LINE):
                raise FormatError(source, "not a QuPath data file.", hint=_HINT)
            if not any(is_a(each, HIERARCHY) for each in contents):
                raise FormatError(source, "it holds no objects' hierarchy.", hint=_HINT)
            made = cls(version_line, contents, source)
            if version_tuple(made.qupath_version) < FIRST_SUPPORTED:
                # files of QuPath before 0.4 have no IDs: it makes up others each time it reads
                made._walk(root_of(read_contents(data)[1]))
        return made

    @classmethod
    def new(
        cls, *, qupath_version: str, server_json: str | None = None, image_type: str = "UNSET"
    ) -> JavaData:
        """Return an empty file, laid out as ``PathIO`` does it; see `QpData.new`.

        Raises
        ------
        QpannotError
            If the image type is none that QuPath knows, or ``server_json`` is no JSON.
        """
        if image_type not in IMAGE_TYPES:
            raise QpannotError(
                f"{image_type!r} is no image type of QuPath.", hint=f"Use {', '.join(IMAGE_TYPES)}."
            )
        header = {"dataVersion": 3, "qupathVersion": qupath_version}
        try:
            if server_json is not None:
                header["server"] = json.loads(server_json)
        except ValueError as error:
            raise QpannotError(
                f"The image's server is described by no JSON: {error}.",
                hint="Add the image to the project again.",
            ) from error
        with running():
            forget_classes()
            contents = [
                JString(json.dumps(header)),
                JClass("java.util.Locale").US,
                JClass(_IMAGE_TYPE).valueOf(image_type),
                None,
                JClass("qupath.lib.plugins.workflow.Workflow")(),
                JClass(HIERARCHY)(),
                JClass("java.util.HashMap")(),
                JString(END),
            ]
        return cls(_NEW_VERSION_LINE, contents, "new data")

    def to_bytes(self) -> bytes:
        """Return the file's bytes, as QuPath's classes write them."""
        with self._in_java():
            return write_contents(self._version_line, self._contents)

    @property
    def qupath_version(self) -> str | None:
        """The version of QuPath that wrote the file, where it says."""
        try:
            document = json.loads(str(self._contents[0]))
        except (ValueError, IndexError, RecursionError):
            return None
        version = document.get("qupathVersion") if isinstance(document, dict) else None
        return version if isinstance(version, str) else None

    @property
    def image_type(self) -> str:
        """QuPath's image type, one of `IMAGE_TYPES`."""
        with self._in_java():
            types = [str(each.name()) for each in self._contents if is_a(each, _IMAGE_TYPE)]
        return types[-1] if types else "UNSET"

    def annotations(self) -> tuple[Annotation, ...]:
        """Return every annotation of the hierarchy, each before those within it."""
        if self._annotations is None:
            with self._in_java():
                self._walk()
                objects = [each for each in self._known.values() if each.is_annotation]
                values = read_objects(objects)
            self._annotations = tuple(each for each in values if isinstance(each, Annotation))
        return self._annotations

    def objects(self) -> tuple[PathObject, ...]:
        """Return every object of a known kind, each before those within it."""
        with self._in_java():
            self._walk()
            return tuple(read_objects([each for each in self._all.values() if each.kind in KINDS]))

    def digests(self, *, only_annotations: bool) -> dict[int, int]:
        """Return a number per object that stands for all it is; see `QpData.digests`."""
        return _digests(self.annotations() if only_annotations else self.objects())

    def all_as_stored(self, values: Sequence[ObjectT]) -> list[ObjectT]:
        """Return what a read-back gives after ``values`` were written to this file."""
        stored = all_as_stored(values)
        with self._in_java():
            for i, each in enumerate(stored):
                known = self._classes().stored(each.path_class) if each.path_class else None
                if known is not None:
                    stored[i] = each.with_changes(path_class=known)
        return stored

    def add(self, values: Iterable[PathObject]) -> dict[int, int]:
        """Append annotations, detections, cells and tiles to the hierarchy; see `QpData.add`.

        They are added flat: what lies in what is for QuPath to say, where a person asks it to.

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
        check_storable(new)
        tree = self._walk()
        twice = Counter(value.id for value in new)
        for value in new:
            if value.id.int in self._all or twice[value.id] > 1:
                raise QpannotError(
                    f"The {value.kind} ID {value.id} is taken.",
                    hint=f"Give the new {value.kind} an ID of its own, or replace the old one.",
                )
        regions = zip(new, shapes_of(new), nucleus_shapes_of(new), strict=True)
        made: dict[int, JavaPathObject] = {}
        places: dict[int, tuple[JavaPathObject, list[JavaPathObject]]] = {}
        with self._in_java():
            for value, shape, nucleus in regions:
                parent = tree
                if value.parent_id is not None:
                    wanted = value.parent_id.int
                    parent = made.get(wanted) or self._all.get(wanted, tree)
                java = make_object(value, shape, nucleus, self._classes())
                each = JavaPathObject(java, parent, value.id.int)
                each.id = value.id.int
                made[value.id.int] = each
                places.setdefault(id(parent), (parent, []))[1].append(each)
            for parent, appended in places.values():
                parent.append_children(appended)
        self._tree = self._annotations = None
        digests: dict[int, int] = {}
        for start in range(0, len(new), _AT_ONCE):
            digests |= _digests(self.all_as_stored(new[start : start + _AT_ONCE]))
        return digests

    def remove(self, ids: Iterable[UUID]) -> None:
        """Take annotations out; what lies in them moves up to where they were.

        Raises
        ------
        QpannotError
            If one is not in the file, or has a region that we cannot read.
        """
        removed = {id(each): each for each in map(self._find, ids)}
        with self._in_java():
            for each in removed.values():
                self._check_readable(each, read_objects([each])[0])
            for each in removed.values():
                parent = each.parent
                if parent is None or id(parent) in removed:
                    continue
                if any(id(child) in removed for child in parent.children):
                    parent.set_children(without(parent, removed))
        self._tree = self._annotations = None

    def replace(self, annotation: Annotation) -> int:
        """Change the annotation of this ID to these values, where it is in the hierarchy.

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
        each = self._find(annotation.id)
        with self._in_java():
            (old,) = read_objects([each])
            if not is_same_region(each.java, old, annotation):
                self._check_readable(each, old)
                (shape,) = shapes_of([annotation])
                each.java.setROI(make_region(shape, annotation.plane))
            update_object(each.java, old, annotation, self._classes())
        self._annotations = None
        return _digests([self._as_kept(old, annotation)])[annotation.id.int]

    def _as_kept(self, old: PathObject, new: Annotation) -> Annotation:
        if not new.geometry.is_empty:
            return self.all_as_stored([new])[0]
        # a region that we cannot read, which stays: nothing else of it can be stored by itself
        (stored,) = self.all_as_stored([new.with_changes(geometry=_ANY_POINT, roi=None)])
        return stored.with_changes(geometry=old.geometry, roi=old.roi)

    def is_same(self, other: JavaData) -> bool:
        """Return whether another file holds the same: every object, and the rest."""
        if self.to_bytes() == other.to_bytes():
            return True
        # what regions remember of themselves, and lists of measurements, may be written otherwise
        one, two = self.objects(), other.objects()
        return (
            self._bytes_without_hierarchy() == other._bytes_without_hierarchy()
            and len(self._all) == len(other._all)
            and len(one) == len(two)
            and not any(differences(a, b) for a, b in zip(one, two, strict=True))
        )

    def _bytes_without_hierarchy(self) -> bytes:
        with self._in_java():
            rest = [each for each in self._contents if not is_a(each, HIERARCHY)]
            return write_contents(self._version_line, rest)

    def summary(self) -> dict[str, Any]:
        """Return the counts of objects that QuPath writes to ``summary.json`` ("hierarchy")."""
        with self._in_java():
            objects = [self._walk(), *self._all.values()]
            name_of = JClass("qupath.lib.objects.PathObjectTools").getSuitableName
            kinds = Counter(each.kind for each in objects)
            names = {each.kind: str(name_of(each.java.getClass(), True)) for each in objects}
            annotations = Counter(_label(each) for each in objects if each.java.isAnnotation())
            detections = Counter(_label(each) for each in objects if each.java.isDetection())
        return {
            "nObjects": len(objects),
            "objectTypeCounts": {names[kind]: count for kind, count in kinds.items()},
            "annotationClassificationCounts": dict(annotations),
            "detectionClassificationCounts": dict(detections),
        }

    def _find(self, wanted: UUID) -> JavaPathObject:
        self._walk()
        each = self._known.get(wanted.int)
        if each is None or not each.is_annotation:
            raise QpannotError(
                f"{self.source} has no annotation {wanted}.",
                hint="It may have been deleted in QuPath: read the annotations again.",
            )
        return each

    def _check_readable(self, each: JavaPathObject, value: PathObject) -> None:
        if value.geometry.is_empty and each.java.getROI() is not None:
            label = value.name or value.class_name or "unclassified"
            raise QpannotError(
                f"The region of the annotation {label} ({value.id}) in {self.source} cannot be "
                "read, and would be lost.",
                hint="Change or delete it in QuPath. Nothing was changed.",
            )

    def _walk(self, again: Any = None) -> JavaPathObject:
        """Return the hierarchy, with the IDs of its objects; see `read_tree`."""
        if self._tree is None:
            with self._in_java():
                self._tree = read_tree(root_of(self._contents), again)
                self._known, self._all = give_ids(self._tree)
        return self._tree

    def _classes(self) -> JavaClasses:
        if self._java_classes is None:
            self._walk()
            self._java_classes = JavaClasses(list(self._all.values()))
        return self._java_classes

    @contextmanager
    def _in_java(self) -> Iterator[None]:
        with running(), _reading(self.source):
            yield


def _digests(values: Iterable[PathObject]) -> dict[int, int]:
    digests: dict[int, int] = {}
    for each in values:
        nucleus = each.nucleus if isinstance(each, Detection) else None
        digests[each.id.int] = digest(
            kind=each.kind,
            region=each.geometry.wkb,
            nucleus=None if nucleus is None else nucleus.wkb,
            path_class=each.path_class,
            name=each.name,
            locked=each.locked,
            color=each.color,
            plane=each.plane,
            measurements=each.measurements,
            metadata=each.metadata,
        )
    return digests


@contextmanager
def _reading(source: Path | str) -> Iterator[None]:
    try:
        yield
    except UnexpectedError as error:
        raise FormatError(source, str(error), hint=_HINT) from error
    except jpype.JException as error:
        reason = f"QuPath cannot read it: {said_by(error)}."
        raise FormatError(source, reason, hint=_HINT) from error


def _label(each: JavaPathObject) -> str:
    path_class = each.java.getPathClass()
    return "Unclassified" if path_class is None else str(path_class)
