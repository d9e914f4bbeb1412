"""The built-in backend: QuPath projects in pure Python, without Java."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

from qpannot.qupath import server
from qpannot.qupath.files import now_ms
from qpannot.qupath.image import WRITTEN_AS
from qpannot.qupath.project import NewEntry
from qpannot.qupath.projectfile import Json
from qpannot.qupath.qpdata.datafile import QpData


class BuiltinBackend:
    """QuPath's formats read and written without Java. Implements ``project.ProjectBackend``."""

    name: Final = "builtin"

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

    def new_document(self) -> Json:
        """Return the project file of a new project."""
        now = now_ms()
        return {
            "version": WRITTEN_AS,
            "createTimestamp": now,
            "modifyTimestamp": now,
            "uri": "",
            "lastID": 0,
            "images": [],
        }

    def make_entries(self, sources: Sequence[server.ImageSource]) -> list[NewEntry]:
        """Return entries for new images, in their order, but for IDs, names and metadata."""
        from PIL import Image  # slow to import, and only of use here

        made = []
        for source in sources:
            entry = {
                "serverBuilder": server.build(source),
                "entryID": 0,
                "randomizedName": str(uuid4()),
                "imageName": "",
                "metadata": {},
                "tags": [],
            }
            jpeg = io.BytesIO()
            if source.thumbnail is not None:
                Image.fromarray(source.thumbnail).save(jpeg, "JPEG", quality=85)
            made.append(NewEntry(entry, jpeg.getvalue() or None))
        return made
