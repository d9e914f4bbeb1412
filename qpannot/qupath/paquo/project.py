"""The paquo backend: QuPath projects through QuPath's own Java, as paquo runs it.

QuPath never touches the project's folder. It reads and writes a copy of the project file in a
folder of its own, and what it wrote there is stored by the same safe writes as the other
backend's. So opening changes no file (QuPath makes folders, paquo's ``QuPathProject`` saves when
it is left), nothing is written without lock, snapshot and read-back, and what QuPath does not
understand of a project stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import jpype
import numpy as np
from jpype import JArray, JClass, JInt, JString
from numpy.typing import NDArray

from qpannot.errors import FormatError
from qpannot.qupath import gson, server
from qpannot.qupath.annotation import PathClass, argb_from_color
from qpannot.qupath.paquo.data import JavaData
from qpannot.qupath.paquo.jvm import running
from qpannot.qupath.paquo.objects import path_class_of
from qpannot.qupath.paquo.versions import (
    change_entry_metadata,
    entry_metadata,
    entry_tags,
    forget_classes,
)
from qpannot.qupath.project import Json, NewEntry, StoredProject, last_id
from qpannot.qupath.protocol import ImageChanges

_HINT = "Open the project with backend 'builtin', which keeps what it does not know."


class PaquoProject(StoredProject):
    """A project read and written by QuPath. Implements ``qupath.protocol.Project``."""

    backend: ClassVar[str] = "paquo"

    def parse_data(self, data: bytes, *, source: Path) -> JavaData:
        """Read the bytes of a data file; ``FormatError`` where they are damaged."""
        return JavaData.parse(data, source=source)

    def new_data(
        self, *, qupath_version: str, server_json: str, image_type: str = "UNSET"
    ) -> JavaData:
        """Return an empty data file."""
        return JavaData.new(
            qupath_version=qupath_version, server_json=server_json, image_type=image_type
        )

    def _new_document(self) -> Json:
        with self._copy(None) as copy:
            return copy.save()

    def _read_entries(self, document: Json) -> list[Json]:
        raw = {str(entry["entryID"]): entry for entry in document["images"]}
        with self._copy(document) as copy:
            return [_read_entry(entry, raw[key]) for key, entry in copy.entries.items()]

    def _make_entries(
        self, document: Json, sources: Sequence[server.ImageSource]
    ) -> list[NewEntry]:
        thumbnails: dict[str, bytes | None] = {}
        with self._copy({**document, "lastID": last_id(document)}) as copy:
            for source in sources:
                entry = copy.add(server.build(source))
                while self.is_taken(int(str(entry.getID()))):
                    copy.java.removeImage(entry, False)
                    entry = copy.add(server.build(source))
                entry.setImageName(JString(source.path.name))
                change_entry_metadata(entry, source.metadata)
                thumbnails[str(entry.getID())] = copy.thumbnail(entry, source.thumbnail)
            written = copy.save()["images"]
        return [
            NewEntry(entry, thumbnails[str(entry["entryID"])])
            for entry in written
            if str(entry["entryID"]) in thumbnails
        ]

    def _change_entries(self, document: Json, changes: Mapping[str, ImageChanges]) -> None:
        with self._copy(document) as copy:
            for image_id, wanted in changes.items():
                entry = copy.entries[image_id]
                change_entry_metadata(entry, wanted.metadata or {})
                if wanted.uris:
                    entry.updateURIs(_java_uris(wanted.uris))
            written = {str(entry["entryID"]): entry for entry in copy.save()["images"]}
        for entry in document["images"]:
            wanted = changes.get(str(entry["entryID"]), ImageChanges())
            new = written[str(entry["entryID"])]
            if wanted.metadata and (new.get("metadata") or {}) != (entry.get("metadata") or {}):
                entry["metadata"] = new.get("metadata") or {}
            if wanted.uris:
                entry["serverBuilder"] = new["serverBuilder"]

    def _read_classes(self, data: bytes) -> list[PathClass]:
        with self._copy(None, classes=data) as copy:
            found = [path_class_of(each) for each in copy.java.getPathClasses()]
        return [each for each in found if each is not None]

    def _write_classes(self, classes: Sequence[PathClass]) -> list[Json]:
        with self._copy(None) as copy:
            copy.save()
            listed = JClass("java.util.ArrayList")()
            for each in classes:
                make = JClass("qupath.lib.objects.classes.PathClass").fromString
                made = make(JString(each.name), None)
                if each.color:  # also where it was made as the parent of one before
                    made.setColor(JClass("java.lang.Integer")(JInt(argb_from_color(each.color))))
                listed.add(made)
            copy.java.setPathClasses(listed)
            return copy.read_classes() if classes else []

    @contextmanager
    def _copy(self, document: Json | None, classes: bytes | None = None) -> Iterator[_Copy]:
        """Open a copy of the project, or a new one, in a folder of QuPath's own."""
        with tempfile.TemporaryDirectory(prefix="qpannot-") as name, running():
            from paquo.projects import QuPathProject

            folder = Path(name)
            path = folder / "project.qpproj"
            forget_classes()
            try:
                if document is None:
                    created = QuPathProject(path, mode="x").java_object
                    if classes is not None:
                        created.syncChanges()
                if document is not None:
                    path.write_text(gson.dumps(document, pretty=True), encoding="utf-8")
                if classes is not None:
                    (folder / "classifiers").mkdir(exist_ok=True)
                    (folder / "classifiers" / "classes.json").write_bytes(classes)
                if document is not None or classes is not None:
                    created = QuPathProject(path, mode="r").java_object
                yield _Copy(created, path)
            except jpype.JException as error:
                raise FormatError(
                    self.path, f"QuPath cannot read it ({error}).", hint=_HINT
                ) from error


class _Copy:
    """A project in QuPath's own folder."""

    def __init__(self, java: Any, path: Path) -> None:
        self.java = java
        self.path = path

    @property
    def entries(self) -> dict[str, Any]:
        """The Java entries by ID."""
        return {str(entry.getID()): entry for entry in self.java.getImageList()}

    def add(self, builder: Json) -> Any:
        """Add an image of a server that is described by JSON."""
        text = JString(gson.dumps(builder, pretty=False))
        kind = JClass("qupath.lib.images.servers.ImageServerBuilder$ServerBuilder").class_
        return self.java.addImage(_gson().fromJson(text, kind))

    def thumbnail(self, entry: Any, pixels: NDArray[np.uint8] | None) -> bytes | None:
        """Return the file that QuPath makes of a thumbnail."""
        if pixels is None:
            return None
        height, width, _ = pixels.shape
        packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        image = JClass("java.awt.image.BufferedImage")
        made = image(width, height, image.TYPE_INT_RGB)
        made.setRGB(0, 0, width, height, JArray(JInt)(packed.ravel()), 0, width)
        entry.setThumbnail(made)
        return (self.path.parent / "data" / str(entry.getID()) / "thumbnail.jpg").read_bytes()

    def save(self) -> Json:
        """Let QuPath write the project, and return what it wrote."""
        self.java.syncChanges()
        document: Json = gson.loads(self.path.read_text(encoding="utf-8"))
        return document

    def read_classes(self) -> list[Json]:
        """Return the list of classes that QuPath wrote."""
        text = (self.path.parent / "classifiers" / "classes.json").read_text(encoding="utf-8")
        classes: list[Json] = gson.loads(text)["pathClasses"]
        return classes


def _read_entry(entry: Any, raw: Json) -> Json:
    kind = JClass("qupath.lib.images.servers.ImageServerBuilder$ServerBuilder").class_
    name, description = entry.getOriginalImageName(), entry.getDescription()
    tags = entry_tags(entry)
    return {
        "entryID": int(str(entry.getID())),
        "imageName": None if name is None else str(name),
        "description": None if description is None else str(description),
        "serverBuilder": gson.loads(str(_gson().toJson(entry.getServerBuilder(), kind))),
        "metadata": entry_metadata(entry),
        # a QuPath without tags leaves them in the file
        "tags": raw.get("tags") if tags is None else [str(tag) for tag in tags],
    }


def _gson() -> Any:
    return JClass("qupath.lib.io.GsonTools").getInstance()


def _java_uris(uris: Mapping[str, str]) -> Any:
    found = JClass("java.util.HashMap")()
    for old, new in uris.items():
        found.put(JClass("java.net.URI")(JString(old)), JClass("java.net.URI")(JString(new)))
    return found
