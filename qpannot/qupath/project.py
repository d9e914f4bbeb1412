"""What both backends share of a project: its file, its folder, and safe changes of them.

A backend reads and makes the entries of images; here they are put into the project file, all
else in it kept. Source of the layout: QuPath 0.6 ``DefaultProject``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from qpannot.errors import FormatError, ProjectError, ReadOnlyError
from qpannot.qupath import gson, server
from qpannot.qupath.annotation import Color, PathClass, argb_from_color, color_from_argb
from qpannot.qupath.files import ProjectFiles, now_ms
from qpannot.qupath.image import WRITTEN_AS, ImageContents, StoredImage
from qpannot.qupath.paquo.installation import version_tuple
from qpannot.qupath.protocol import ImageChanges, Mode

_FIRST_WITH_TAGS = (0, 6)

Json = dict[str, Any]


@dataclass(frozen=True)
class NewEntry:
    """What a backend makes for an image that is added.

    Parameters
    ----------
    entry
        For the project file.
    thumbnail
        A JPEG, or ``None``.
    """

    entry: Json
    thumbnail: bytes | None


class StoredProject(ABC):
    """A project on disk. Implements ``qupath.protocol.Project`` but for what backends differ in."""

    backend: ClassVar[str]

    def __init__(self, path: Path, mode: Mode) -> None:
        self.path = path.absolute()
        self.folder = self.path.parent
        self.mode = mode
        self.files = ProjectFiles(self.folder)
        if mode == "x":
            self._create()
        if mode == "r+":
            self.files.tidy()
        self._load(self._read())

    @abstractmethod
    def parse_data(self, data: bytes, *, source: Path) -> ImageContents:
        """Read the bytes of a data file; ``FormatError`` where they are damaged."""

    @abstractmethod
    def new_data(
        self, *, qupath_version: str, server_json: str, image_type: str = "UNSET"
    ) -> ImageContents:
        """Return an empty data file."""

    @abstractmethod
    def _new_document(self) -> Json:
        """Return the project file of a new project."""

    @abstractmethod
    def _read_entries(self, document: Json) -> Sequence[Json]:
        """Return the entries of the images."""

    @abstractmethod
    def _make_entries(
        self, document: Json, sources: Sequence[server.ImageSource]
    ) -> Sequence[NewEntry]:
        """Return entries of new images, with the next free IDs."""

    @abstractmethod
    def _change_entries(self, document: Json, changes: Mapping[str, ImageChanges]) -> None:
        """Change the metadata and URIs of entries, which are all there, in the document."""

    @abstractmethod
    def _read_classes(self, data: bytes) -> Sequence[PathClass]:
        """Return the classes of ``classes.json``; raises ``ValueError`` and its like."""

    @abstractmethod
    def _write_classes(self, classes: Sequence[PathClass]) -> Sequence[Json]:
        """Return the entries of ``classes.json`` for these classes."""

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
        self._images: tuple[StoredImage, ...] = tuple(
            StoredImage(self, entry) for entry in self._read_entries(self.document)
        )

    @property
    def version(self) -> str | None:
        """The version of QuPath that last wrote the project."""
        version = self.document.get("version")
        return None if version is None else str(version)

    @property
    def images(self) -> tuple[StoredImage, ...]:
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
            return tuple(self._read_classes(self._classes_path.read_bytes()))
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
        wanted = self._write_classes(list(classes))

        def change(old: bytes | None) -> bytes:
            document = {"pathClasses": []} if old is None else gson.loads(old.decode("utf-8"))
            entries = [e for e in document.get("pathClasses") or [] if isinstance(e, dict)]
            known = {class_of(entry): entry for entry in entries if is_class(entry)}
            made = [entry for entry in entries if not is_class(entry)]
            for each in wanted:
                entry = known.get(class_of(each), each)
                color = class_color(each)
                if color and class_color(entry) != color:
                    entry = {**entry, "color": argb_from_color(color)}
                made.append(entry)
            return gson.encode(gson.dumps({**document, "pathClasses": made}, pretty=True))

        self.files.edit(self._classes_path, change)

    def add_images(self, sources: Sequence[server.ImageSource]) -> tuple[StoredImage, ...]:
        """Add images as QuPath's import does, in one write of the project file."""
        self.check_writable()
        with self.files.locked():
            made = self._make_entries(_parse_project(self.path, self._read()), sources)
            ids = json.dumps([str(new.entry["entryID"]) for new in made]).encode()
            self.files.edit(self._adding_path, lambda _: ids, keeps_snapshot=False)
            for new, source in zip(made, sources, strict=True):
                self._write_files(new, source.image_type)

            def change(document: Json) -> None:
                document["images"].extend(new.entry for new in made)
                document["lastID"] = last_id(document)

            self._edit_project(change)
            self._adding_path.unlink(missing_ok=True)
        return self._images[len(self._images) - len(made) :]

    @property
    def _adding_path(self) -> Path:
        """The IDs of images being added: after a crash, their data is nobody's but ours."""
        return self.files.house / "adding.json"

    def _write_files(self, new: NewEntry, image_type: str) -> None:
        image = StoredImage(self, new.entry)
        self._write_server_copy(image)
        if new.thumbnail is not None:
            jpeg = new.thumbnail
            self.files.edit(image.folder / "thumbnail.jpg", lambda _: jpeg, keeps_snapshot=False)
        if image_type != "UNSET":
            data = self.new_data(
                qupath_version=self.version or WRITTEN_AS,
                server_json=gson.dumps(new.entry["serverBuilder"], pretty=True),
                image_type=image_type,
            )
            image.write_data(lambda _: data)

    def is_taken(self, entry_id: int) -> bool:
        """Tell whether there is data under an ID: an orphan's, which is not ours to adopt.

        That of an addition of ours that broke off is: it is written anew.
        """
        try:
            if str(entry_id) in json.loads(self._adding_path.read_bytes()):
                return False
        except (OSError, ValueError):
            pass
        return (self.folder / "data" / str(entry_id)).exists()

    def update_images(self, changes: Mapping[str, ImageChanges]) -> None:
        """Change the entries of images, by image ID, in one write of the project file."""
        self.check_writable()

        def change(document: Json) -> None:
            entries = {str(entry.get("entryID")): entry for entry in document["images"]}
            asked: dict[str, ImageChanges] = {}
            for image_id, wanted in changes.items():
                if image_id in entries and _is_as_expected(entries[image_id], wanted):
                    asked[image_id] = wanted
                elif wanted.only_if is None:
                    raise ProjectError(self.path, f"image {image_id} is no longer in the project.")
            if version_tuple(document.get("version")) >= _FIRST_WITH_TAGS:
                for image_id, wanted in asked.items():
                    _change_tags(entries[image_id], wanted.tags or {})
            self._change_entries(document, asked)

        self._edit_project(change)
        for image in self._images:
            if image.id in changes and changes[image.id].uris:
                self._write_server_copy(image)

    def _write_server_copy(self, image: StoredImage) -> None:
        text = gson.dumps(image.entry["serverBuilder"], pretty=True)
        self.files.edit(
            image.folder / "server.json", lambda _: gson.encode(text), keeps_snapshot=False
        )

    def _edit_project(self, change: Callable[[Json], None]) -> None:
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
        document = {**self._new_document(), "uri": server.uri_from_path(self.path)}

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

    def close(self) -> None:  # noqa: B027 - part of the protocol, and there is nothing to do
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


def _parse_project(path: Path, data: bytes) -> Json:
    try:
        document = gson.loads(data.decode("utf-8"))
    except ValueError as error:
        raise FormatError(
            path,
            f"not a QuPath project: {error}",
            hint=f"QuPath keeps the last good one as {path.name}.backup, and "
            f"'qpannot snapshots {path.parent} --file project' lists what qpannot kept.",
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


def class_of(entry: Mapping[str, Any]) -> PathClass:
    """Return the class of an entry of ``classes.json``."""
    return PathClass(str(entry["name"]), class_color(entry))


def class_color(entry: Mapping[str, Any]) -> Color | None:
    """Return the colour of an entry of ``classes.json``."""
    color = entry.get("color")
    return None if color is None else color_from_argb(int(color))


def is_class(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry of ``classes.json`` is a class, and not QuPath's null class."""
    name = str(entry.get("name") or "").strip()
    # QuPath 0.2 and 0.3 list their null class; as a class of its own it means something else
    return bool(name) and not (name == "Unclassified" and entry.get("color") is None)


def last_id(document: Mapping[str, Any]) -> int:
    """Return the highest image ID a project has given out."""
    ids = [int(entry["entryID"]) for entry in document["images"]]
    return max([int(document.get("lastID") or 0), *ids])


def _is_as_expected(entry: Json, changes: ImageChanges) -> bool:
    metadata = entry.get("metadata") or {}
    return all(metadata.get(key) == value for key, value in (changes.only_if or {}).items())


def _change_tags(entry: Json, changes: Mapping[str, bool]) -> None:
    tags = [tag for tag in entry.get("tags") or () if changes.get(tag, True)]
    tags += [tag for tag, wanted in changes.items() if wanted and tag not in tags]
    if tags != (entry.get("tags") or []):
        entry["tags"] = tags
