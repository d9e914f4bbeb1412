"""A project on disk: its file, its folder, and safe changes of them.

What is told of images and classes is JSON, and read and changed here. Data files, and the entries
of new images, are a `ProjectBackend`'s: all else in the project file is kept.
Source of the layout: QuPath 0.6 ``DefaultProject``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from qpannot.errors import FormatError, ProjectError, QpannotError, ReadOnlyError
from qpannot.qupath import gson, server
from qpannot.qupath.annotation import PathClass, argb_from_color
from qpannot.qupath.files import ProjectFiles, now_ms
from qpannot.qupath.image import WRITTEN_AS, ImageContents, StoredImage
from qpannot.qupath.paquo.installation import version_tuple
from qpannot.qupath.projectfile import (
    Json,
    backup_of,
    change_metadata,
    change_tags,
    class_color,
    is_class,
    last_id,
    parse_project,
    path_class_of,
    read_project_file,
)
from qpannot.qupath.protocol import ImageChanges, Mode
from qpannot.qupath.qpdata.storable import CLASS_SEPARATOR, class_parts, is_text

_FIRST_WITH_TAGS = (0, 6)


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


class ProjectBackend(Protocol):
    """What reads and writes the formats that are QuPath's own: our code, or QuPath's."""

    @property
    def name(self) -> str:
        """``builtin`` or ``paquo``."""

    def parse_data(self, data: bytes, *, source: Path) -> ImageContents:
        """Read the bytes of a data file; ``FormatError`` where they are damaged."""

    def new_data(
        self, *, qupath_version: str, server_json: str, image_type: str = "UNSET"
    ) -> ImageContents:
        """Return an empty data file."""

    def new_document(self) -> Json:
        """Return the project file of a new project."""

    def make_entries(self, sources: Sequence[server.ImageSource]) -> Sequence[NewEntry]:
        """Return entries for new images, in their order, but for IDs, names and metadata."""


class StoredProject:
    """A project on disk. Implements ``qupath.protocol.Project``.

    Parameters
    ----------
    path
        The ``.qpproj`` file.
    mode
        As of `open_project`.
    choose
        Returns the backend. Not called before one is needed: QuPath's Java takes a second to
        start, and nothing that is told of images or classes asks for it.
    """

    def __init__(self, path: Path, mode: Mode, choose: Callable[[], ProjectBackend]) -> None:
        # with ".." it reads badly in advice, and only the system knows where that leads to
        self.path = path.resolve() if ".." in path.parts else path.absolute()
        self.folder = self.path.parent
        self.mode = mode
        self.files = ProjectFiles(self.folder)
        self._choose = choose
        if mode == "x":
            self._create()
        if mode == "r+":
            self.files.tidy()
        self._load()

    @cached_property
    def _backend(self) -> ProjectBackend:
        return self._choose()

    @property
    def backend(self) -> str:
        """``builtin`` or ``paquo``; asking chooses."""
        return self._backend.name

    def parse_data(self, data: bytes, *, source: Path) -> ImageContents:
        """Read the bytes of a data file; ``FormatError`` where they are damaged."""
        return self._backend.parse_data(data, source=source)

    def new_data(
        self, *, qupath_version: str, server_json: str, image_type: str = "UNSET"
    ) -> ImageContents:
        """Return an empty data file."""
        return self._backend.new_data(
            qupath_version=qupath_version, server_json=server_json, image_type=image_type
        )

    def _read(self) -> Json:
        return parse_project(self.path, read_project_file(self.path))

    def _load(self) -> None:
        self.document = self._read()
        self._images = tuple(StoredImage(self, entry) for entry in self.document["images"])

    @property
    def version(self) -> str | None:
        """The version of QuPath that last wrote the project."""
        version = self.document.get("version")
        return None if version is None else str(version)

    @property
    def has_tags(self) -> bool:
        """Whether that version knows tags of images (QuPath 0.6 and newer)."""
        return _has_tags(self.document)

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
            listed = gson.loads(self._classes_path.read_text(encoding="utf-8"))
            entries = listed.get("pathClasses") or []
            return tuple(path_class_of(entry) for entry in entries if is_class(entry))
        except FileNotFoundError:
            return ()
        except (ValueError, AttributeError, TypeError, OSError) as error:
            raise FormatError(
                self._classes_path,
                f"the list of classes cannot be read ({error}).",
                hint="Move the file away; QuPath then offers its own classes.",
            ) from error

    def set_classes(self, classes: Iterable[PathClass]) -> None:
        """Replace the list of classes; entries of classes that stay as they are stay whole.

        Raises
        ------
        QpannotError
            When QuPath could not read one of them. Nothing is changed then.
        """
        self.check_writable()
        wanted = [_class_entry(each) for each in classes]

        def change(old: bytes | None) -> bytes:
            document = {"pathClasses": []} if old is None else gson.loads(old.decode("utf-8"))
            entries = [e for e in document.get("pathClasses") or [] if isinstance(e, dict)]
            known = {path_class_of(entry): entry for entry in entries if is_class(entry)}
            made = [entry for entry in entries if not is_class(entry)]
            for each in wanted:
                entry = known.get(path_class_of(each), each)
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
            made = self._make_entries(self._read(), sources)
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

    def _make_entries(
        self, document: Json, sources: Sequence[server.ImageSource]
    ) -> Sequence[NewEntry]:
        made = self._backend.make_entries(sources) if sources else []
        last = last_id(document)
        for new, source in zip(made, sources, strict=True):
            last += 1
            while self.is_taken(last):
                last += 1
            new.entry["entryID"] = last
            new.entry["imageName"] = source.path.name
            change_metadata(new.entry, source.metadata)
        return made

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
            entries = {str(entry["entryID"]): entry for entry in document["images"]}
            for image_id, wanted in changes.items():
                entry = entries.get(image_id)
                if entry is None or not _is_as_expected(entry, wanted):
                    if wanted.only_if is None:
                        raise ProjectError(
                            self.path, f"image {image_id} is no longer in the project."
                        )
                    continue
                change_metadata(entry, wanted.metadata or {})
                if wanted.uris:
                    entry["serverBuilder"] = server.replace_uris(
                        entry.get("serverBuilder"), wanted.uris
                    )
                if wanted.mpp:
                    entry["serverBuilder"] = server.state_mpp(
                        entry.get("serverBuilder"), wanted.mpp
                    )
                if _has_tags(document):
                    change_tags(entry, wanted.tags or {})

        self._edit_project(change)
        for image in self._images:
            if image.id in changes and (changes[image.id].uris or changes[image.id].mpp):
                self._write_server_copy(image)

    def _write_server_copy(self, image: StoredImage) -> None:
        text = gson.dumps(image.entry["serverBuilder"], pretty=True)
        self.files.edit(
            image.folder / "server.json", lambda _: gson.encode(text), keeps_snapshot=False
        )

    def _edit_project(self, change: Callable[[Json], None]) -> None:
        def edit(_: bytes | None) -> bytes | None:
            # not QuPath's backup, where a save broke off: that stays behind after each, and is old
            document = self._read()
            before = json.dumps(document)
            change(document)
            if json.dumps(document) == before:
                return None
            document["modifyTimestamp"] = now_ms()
            return gson.encode(gson.dumps(document, pretty=True))

        self.files.edit(self.path, edit, backup=backup_of(self.path))
        self._load()

    def _create(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProjectError(self.folder, f"cannot be made ({error.strerror}).") from error
        if found := sorted(self.folder.glob("*.qpproj")):
            raise self._exists_already(found[0])
        document = {**self._backend.new_document(), "uri": server.uri_from_path(self.path)}

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


def _class_entry(path_class: PathClass) -> Json:
    problem = ""
    if not class_parts(path_class) or any(each in path_class.name for each in "\n\r"):
        problem = "a name with letters, on one line, is needed"
    elif not is_text(path_class.name):
        problem = "its name holds half a character, which no other program could read"
    elif path_class.color and not all(0 <= value <= 255 for value in path_class.color):
        problem = f"its colour is {path_class.color}, and not three numbers 0-255"
    if problem:
        raise QpannotError(
            f"The class {path_class.name!r} cannot be stored: {problem}.",
            hint="Rename the class. Nothing was changed.",
        )
    color = {"color": argb_from_color(path_class.color)} if path_class.color else {}
    return {"name": CLASS_SEPARATOR.join(class_parts(path_class)), **color}


def _has_tags(document: Json) -> bool:
    return version_tuple(document.get("version")) >= _FIRST_WITH_TAGS


def _is_as_expected(entry: Json, changes: ImageChanges) -> bool:
    metadata = entry.get("metadata") or {}
    return all(metadata.get(key) == value for key, value in (changes.only_if or {}).items())
