"""The built-in backend: QuPath projects in pure Python, without Java.

Source of the layout: QuPath 0.6 ``DefaultProject``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from PIL import Image

from qpannot.errors import FormatError, ProjectError, ReadOnlyError
from qpannot.qupath import gson, server
from qpannot.qupath.annotation import Color, PathClass, argb_from_color, color_from_argb
from qpannot.qupath.builtin_image import WRITTEN_AS, BuiltinImage
from qpannot.qupath.files import ProjectFiles, now_ms
from qpannot.qupath.protocol import ImageChanges, Mode
from qpannot.qupath.qpdata import QpData

_FIRST_WITH_TAGS = (0, 6)


class BuiltinProject:
    """A project read and written without Java. Implements ``qupath.protocol.Project``."""

    backend = "builtin"

    def __init__(self, path: Path, mode: Mode) -> None:
        self.path = path.absolute()
        self.folder = self.path.parent
        self.mode = mode
        self.files = ProjectFiles(self.folder)
        if mode == "x":
            self._create()
        self._load(self._read())

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise ProjectError(
                self.path,
                "there is no such project.",
                hint="Give the .qpproj file or its folder; 'qpannot init SLIDES... -o FOLDER' "
                "makes a new one.",
            ) from None
        except OSError as error:
            raise ProjectError(self.path, f"cannot be read ({error.strerror or error}).") from error

    def _load(self, data: bytes) -> None:
        self.document = _parse_project(self.path, data)
        self._images: tuple[BuiltinImage, ...] = tuple(
            BuiltinImage(self, entry) for entry in self.document["images"]
        )

    @property
    def version(self) -> str | None:
        """The version of QuPath that last wrote the project."""
        version = self.document.get("version")
        return None if version is None else str(version)

    @property
    def images(self) -> tuple[BuiltinImage, ...]:
        """The images, in QuPath's order."""
        return self._images

    @property
    def moved_from(self) -> Path | None:
        """The folder the project lay in when QuPath last saved it, where that is another."""
        uri = self.document.get("uri")
        path = server.path_from_uri(uri) if isinstance(uri, str) else None
        return path.parent if path and path.parent != self.folder else None

    @property
    def _classes_path(self) -> Path:
        return self.folder / "classifiers" / "classes.json"

    @property
    def classes(self) -> tuple[PathClass, ...]:
        """The classes offered for annotating."""
        try:
            document = gson.loads(self._classes_path.read_text(encoding="utf-8"))
            entries = document.get("pathClasses") or []
            return tuple(_class_of(entry) for entry in entries if _is_class(entry))
        except FileNotFoundError:
            return ()
        except (ValueError, AttributeError, TypeError, OSError) as error:
            raise FormatError(
                self._classes_path,
                f"the list of classes cannot be read ({error}).",
                hint="Move the file away; QuPath then offers its own classes.",
            ) from error

    def set_classes(self, classes: Iterable[PathClass]) -> None:
        """Replace the list of classes; entries of classes that stay as they are stay whole."""
        self.check_writable()
        wanted = list(classes)

        def change(old: bytes | None) -> bytes:
            document = {"pathClasses": []} if old is None else gson.loads(old.decode("utf-8"))
            entries = [e for e in document.get("pathClasses") or [] if isinstance(e, dict)]
            known = {_class_of(entry): entry for entry in entries if _is_class(entry)}
            made = [entry for entry in entries if not _is_class(entry)]
            for path_class in wanted:
                entry = known.get(path_class, {"name": path_class.name})
                if path_class.color and _class_color(entry) != path_class.color:
                    entry = {**entry, "color": argb_from_color(path_class.color)}
                made.append(entry)
            return gson.encode(gson.dumps({**document, "pathClasses": made}, pretty=True))

        self.files.edit(self._classes_path, change)

    def add_images(self, sources: Sequence[server.ImageSource]) -> tuple[BuiltinImage, ...]:
        """Add images as QuPath's import does, in one write of the project file."""
        self.check_writable()
        with self.files.locked():
            last = _last_id(_parse_project(self.path, self._read()))
            entries = []
            for source in sources:
                last += 1
                while (self.folder / "data" / str(last)).exists():  # an orphan's; not ours to adopt
                    last += 1
                entries.append(self._write_entry(last, source))

            def change(document: dict[str, Any]) -> None:
                document["images"].extend(entries)
                document["lastID"] = max(last, _last_id(document))

            self._edit_project(change)
        return self._images[len(self._images) - len(entries) :]

    def _write_entry(self, entry_id: int, source: server.ImageSource) -> dict[str, Any]:
        builder = server.build(source)
        folder = self.folder / "data" / str(entry_id)
        server_json = gson.dumps(builder, pretty=True)
        self.files.edit(
            folder / "server.json", lambda _: gson.encode(server_json), keeps_snapshot=False
        )
        if source.thumbnail is not None:
            jpeg = io.BytesIO()
            Image.fromarray(source.thumbnail).save(jpeg, "JPEG", quality=85)
            self.files.edit(
                folder / "thumbnail.jpg", lambda _: jpeg.getvalue(), keeps_snapshot=False
            )
        entry = {
            "serverBuilder": builder,
            "entryID": entry_id,
            "randomizedName": str(uuid4()),
            "imageName": source.path.name,
            "metadata": dict(source.metadata),
            "tags": [],
        }
        if source.image_type != "UNSET":
            data = QpData.new(
                qupath_version=self.version or WRITTEN_AS,
                server_json=server_json,
                image_type=source.image_type,
            )
            BuiltinImage(self, entry).write_data(lambda _: data)
        return entry

    def update_images(self, changes: Mapping[str, ImageChanges]) -> None:
        """Change the entries of images, by image ID, in one write of the project file."""
        self.check_writable()

        def change(document: dict[str, Any]) -> None:
            entries = {str(entry.get("entryID")): entry for entry in document["images"]}
            knows_tags = _version_tuple(document.get("version")) >= _FIRST_WITH_TAGS
            for image_id, wanted in changes.items():
                if image_id not in entries and wanted.only_if is not None:
                    continue
                if image_id not in entries:
                    raise ProjectError(self.path, f"image {image_id} is no longer in the project.")
                _change_entry(entries[image_id], wanted, knows_tags=knows_tags)

        self._edit_project(change)
        for image_id, wanted in changes.items():
            if wanted.uris:
                self._write_server_copy(image_id)

    def _write_server_copy(self, image_id: str) -> None:
        image = next(image for image in self._images if image.id == image_id)
        text = gson.dumps(image.entry["serverBuilder"], pretty=True)
        self.files.edit(
            image.folder / "server.json", lambda _: gson.encode(text), keeps_snapshot=False
        )

    def _edit_project(self, change: Callable[[dict[str, Any]], None]) -> None:
        def edit(old: bytes | None) -> bytes | None:
            if old is None:
                raise ProjectError(self.path, "the project file has gone; nothing was changed.")
            document = _parse_project(self.path, old)
            before = gson.dumps(document, pretty=True)
            change(document)
            if gson.dumps(document, pretty=True) == before:
                return None
            document["modifyTimestamp"] = now_ms()
            return gson.encode(gson.dumps(document, pretty=True))

        self.files.edit(self.path, edit)
        self._load(self._read())

    def _create(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProjectError(self.folder, f"cannot be made ({error.strerror}).") from error
        if found := sorted(self.folder.glob("*.qpproj")):
            raise self._exists_already(found[0])
        now = now_ms()
        document = {
            "version": WRITTEN_AS,
            "createTimestamp": now,
            "modifyTimestamp": now,
            "uri": server.uri_from_path(self.path),
            "lastID": 0,
            "images": [],
        }

        def make(old: bytes | None) -> bytes:
            if old is not None:  # another process was quicker
                raise self._exists_already(self.path)
            return gson.encode(gson.dumps(document, pretty=True))

        self.files.edit(
            self.folder / "data" / "metadata.json", lambda old: b"{}" if old is None else None
        )
        self.files.edit(self.path, make)

    def _exists_already(self, path: Path) -> ProjectError:
        return ProjectError(
            path,
            "there is a project already.",
            hint="Choose another folder, or open this project to add to it.",
        )

    def check_writable(self) -> None:
        """Raise ``ReadOnlyError`` when the project was opened for reading."""
        if self.mode == "r":
            raise ReadOnlyError(self.path)

    def close(self) -> None:
        """Let go of the project; everything written is on disk already."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _parse_project(path: Path, data: bytes) -> dict[str, Any]:
    try:
        document = gson.loads(data.decode("utf-8"))
    except ValueError as error:
        raise FormatError(
            path,
            f"not a QuPath project: {error}",
            hint=f"QuPath keeps the last good one as {path.name}.backup.",
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("images", []), list):
        raise FormatError(path, "not a QuPath project: it has no list of images.")
    if "version" not in document and "lastID" not in document:
        raise FormatError(
            path,
            "written by a QuPath before 0.2, whose projects later versions do not read.",
            hint="Open and save the project with QuPath 0.2 or newer.",
        )
    document.setdefault("images", [])
    for entry in document["images"]:
        if not isinstance(entry, dict) or "entryID" not in entry:
            raise FormatError(path, "not a QuPath project: an image has no entryID.")
    return document


def _class_of(entry: Mapping[str, Any]) -> PathClass:
    return PathClass(str(entry["name"]), _class_color(entry))


def _class_color(entry: Mapping[str, Any]) -> Color | None:
    color = entry.get("color")
    return None if color is None else color_from_argb(int(color))


def _is_class(entry: Mapping[str, Any]) -> bool:
    name = str(entry.get("name") or "").strip()
    # QuPath 0.2 and 0.3 list their null class; as a class of its own it means something else
    return bool(name) and not (name == "Unclassified" and entry.get("color") is None)


def _last_id(document: Mapping[str, Any]) -> int:
    ids = [int(entry["entryID"]) for entry in document["images"]]
    return max([int(document.get("lastID") or 0), *ids])


def _version_tuple(version: object) -> tuple[int, ...]:
    parts = str(version or "0").lstrip("v").split("-")[0].split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def _change_entry(entry: dict[str, Any], changes: ImageChanges, *, knows_tags: bool) -> None:
    metadata = dict(entry.get("metadata") or {})
    if any(metadata.get(key) != value for key, value in (changes.only_if or {}).items()):
        return
    for key, value in (changes.metadata or {}).items():
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value
    if metadata != (entry.get("metadata") or {}):
        entry["metadata"] = metadata
    if changes.tags and knows_tags:
        tags = [tag for tag in entry.get("tags") or () if changes.tags.get(tag, True)]
        tags += [tag for tag, wanted in changes.tags.items() if wanted and tag not in tags]
        if tags != (entry.get("tags") or []):
            entry["tags"] = tags
    if changes.uris:
        entry["serverBuilder"] = server.replace_uris(entry.get("serverBuilder"), changes.uris)
