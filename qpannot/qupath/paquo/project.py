"""The paquo backend: QuPath's formats through QuPath's own Java, as paquo runs it.

QuPath never touches the project's folder. It reads and writes in a folder of its own, and what
it wrote there is stored by the same safe writes as the other backend's. So opening changes no
file (QuPath makes folders, paquo's ``QuPathProject`` saves when it is left), nothing is written
without lock, snapshot and read-back, and what QuPath does not understand of a project stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jpype
import numpy as np
from jpype import JArray, JClass, JInt, JString
from numpy.typing import NDArray

from qpannot.errors import QpannotError
from qpannot.qupath import gson, server
from qpannot.qupath.paquo.data import JavaData
from qpannot.qupath.paquo.exceptions import said_by
from qpannot.qupath.paquo.jvm import running
from qpannot.qupath.project import NewEntry
from qpannot.qupath.projectfile import Json


class QuPathBackend:
    """QuPath's formats read and written by QuPath. Implements ``project.ProjectBackend``."""

    name: Final = "paquo"

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

    def new_document(self) -> Json:
        """Return the project file of a new project."""
        return _saved_by_qupath([])[0]

    def make_entries(self, sources: Sequence[server.ImageSource]) -> list[NewEntry]:
        """Return entries for new images, in their order, but for IDs, names and metadata.

        Raises
        ------
        QpannotError
            If QuPath does not take one.
        """
        document, thumbnails = _saved_by_qupath(sources)
        return [
            NewEntry(entry, thumbnail)
            for entry, thumbnail in zip(document["images"], thumbnails, strict=True)
        ]


def _saved_by_qupath(sources: Sequence[server.ImageSource]) -> tuple[Json, list[bytes | None]]:
    """Return the file that QuPath writes for a project of these images, and their thumbnails."""
    with tempfile.TemporaryDirectory(prefix="qpannot-") as name, running():
        from paquo.projects import QuPathProject

        path = Path(name) / "project.qpproj"
        try:
            project = QuPathProject(path, mode="x").java_object
            entries = [_add(project, source) for source in sources]
            thumbnails = [
                _thumbnail(entry, source.thumbnail, path.parent)
                for entry, source in zip(entries, sources, strict=True)
            ]
            project.syncChanges()
        except jpype.JException as error:
            raise QpannotError(
                f"QuPath cannot make the project's file: {said_by(error)}.",
                hint="Use backend 'builtin', which does without it.",
            ) from error
        return gson.loads(path.read_text(encoding="utf-8")), thumbnails


def _add(project: Any, source: server.ImageSource) -> Any:
    builder = JClass("qupath.lib.images.servers.ImageServerBuilder$ServerBuilder").class_
    text = gson.encode(gson.dumps(server.build(source), pretty=False)).decode("utf-8")
    read = JClass("qupath.lib.io.GsonTools").getInstance()
    return project.addImage(read.fromJson(JString(text), builder))


def _thumbnail(entry: Any, pixels: NDArray[np.uint8] | None, folder: Path) -> bytes | None:
    """Return the file that QuPath makes of a thumbnail."""
    if pixels is None:
        return None
    height, width, _ = pixels.shape
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    image = JClass("java.awt.image.BufferedImage")
    made = image(width, height, image.TYPE_INT_RGB)
    made.setRGB(0, 0, width, height, JArray(JInt)(packed.ravel()), 0, width)
    entry.setThumbnail(made)
    return (folder / "data" / str(entry.getID()) / "thumbnail.jpg").read_bytes()
