"""The built-in backend: QuPath projects in pure Python, without Java."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from PIL import Image

from qpannot.qupath import gson, server
from qpannot.qupath.annotation import PathClass, argb_from_color
from qpannot.qupath.files import now_ms
from qpannot.qupath.image import WRITTEN_AS
from qpannot.qupath.project import (
    Json,
    NewEntry,
    StoredProject,
    class_of,
    is_class,
    last_id,
)
from qpannot.qupath.protocol import ImageChanges
from qpannot.qupath.qpdata.datafile import QpData


class BuiltinProject(StoredProject):
    """A project read and written without Java. Implements ``qupath.protocol.Project``."""

    backend: ClassVar[str] = "builtin"

    def parse_data(self, data: bytes, *, source: Path) -> QpData:
        """Read the bytes of a data file; ``FormatError`` where they are damaged."""
        return QpData.parse(data, source=source)

    def new_data(
        self, *, qupath_version: str, server_json: str, image_type: str = "UNSET"
    ) -> QpData:
        """Return an empty data file."""
        return QpData.new(
            qupath_version=qupath_version, server_json=server_json, image_type=image_type
        )

    def _new_document(self) -> Json:
        now = now_ms()
        return {
            "version": WRITTEN_AS,
            "createTimestamp": now,
            "modifyTimestamp": now,
            "uri": "",
            "lastID": 0,
            "images": [],
        }

    def _read_entries(self, document: Json) -> Sequence[Json]:
        images: list[Json] = document["images"]
        return images

    def _make_entries(
        self, document: Json, sources: Sequence[server.ImageSource]
    ) -> list[NewEntry]:
        last = last_id(document)
        made = []
        for source in sources:
            last += 1
            while self.is_taken(last):
                last += 1
            entry = {
                "serverBuilder": server.build(source),
                "entryID": last,
                "randomizedName": str(uuid4()),
                "imageName": source.path.name,
                "metadata": dict(source.metadata),
                "tags": [],
            }
            jpeg = io.BytesIO()
            if source.thumbnail is not None:
                Image.fromarray(source.thumbnail).save(jpeg, "JPEG", quality=85)
            made.append(NewEntry(entry, jpeg.getvalue() or None))
        return made

    def _change_entries(self, document: Json, changes: Mapping[str, ImageChanges]) -> None:
        for entry in document["images"]:
            if wanted := changes.get(str(entry["entryID"])):
                _change_entry(entry, wanted)

    def _read_classes(self, data: bytes) -> list[PathClass]:
        entries = gson.loads(data.decode("utf-8")).get("pathClasses") or []
        return [class_of(entry) for entry in entries if is_class(entry)]

    def _write_classes(self, classes: Sequence[PathClass]) -> list[Json]:
        return [
            {"name": each.name, **({"color": argb_from_color(each.color)} if each.color else {})}
            for each in classes
        ]


def _change_entry(entry: Json, changes: ImageChanges) -> None:
    metadata = dict(entry.get("metadata") or {})
    for key, value in (changes.metadata or {}).items():
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value
    if metadata != (entry.get("metadata") or {}):
        entry["metadata"] = metadata
    if changes.uris:
        entry["serverBuilder"] = server.replace_uris(entry.get("serverBuilder"), changes.uris)
