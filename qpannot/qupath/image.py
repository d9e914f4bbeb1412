"""One image of a project: its entry, and its data file, whichever backend understands that.

Source of the layout: QuPath 0.6 ``DefaultProject.DefaultProjectImageEntry``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from uuid import UUID

from qpannot.errors import ConcurrentChangeError, FormatError, ProjectError
from qpannot.qupath import gson, server
from qpannot.qupath.annotation import Annotation, PathClass, PathObject, differences
from qpannot.qupath.files import ProjectFiles
from qpannot.qupath.protocol import Fingerprint
from qpannot.qupath.qpdata.javastream import collector_paused
from qpannot.qupath.qpdata.storable import ObjectT
from qpannot.qupath.snapshots import Snapshot

WRITTEN_AS = "0.6.0"
"""The version of QuPath whose layout new projects and data files have."""


class ImageContents(Protocol):
    """A ``data.qpdata`` file in memory: `QpData`, or what QuPath's own Java makes of it."""

    @property
    def image_type(self) -> str:
        """QuPath's image type."""

    def annotations(self) -> tuple[Annotation, ...]:
        """Return every annotation, parents before children."""

    def objects(self) -> tuple[PathObject, ...]:
        """Return every object, parents before children."""

    def all_as_stored(self, values: Sequence[ObjectT]) -> list[ObjectT]:
        """Return what a read-back gives after ``values`` were written to this file."""

    def digests(self, *, only_annotations: bool) -> dict[int, int]:
        """Return a number per object, by `UUID.int`, another where anything of it differs."""

    def add(self, values: Iterable[PathObject]) -> dict[int, int]:
        """Append objects to the hierarchy; return the digests that a read-back must give."""

    def remove(self, ids: Iterable[UUID]) -> None:
        """Take annotations out; what lies in them moves up."""

    def replace(self, annotation: Annotation) -> int:
        """Change the annotation of this ID; return the digest that a read-back must give."""

    def summary(self) -> dict[str, Any]:
        """Return the counts of objects for ``summary.json``."""

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""

    def is_same(self, other: Any) -> bool:
        """Return whether another file holds the same objects, and what else is compared."""


class Owner(Protocol):
    """What an image needs of the project it is in."""

    folder: Path
    files: ProjectFiles

    def parse_data(self, data: bytes, *, source: Path) -> ImageContents:
        """Read the bytes of a data file; ``FormatError`` where they are damaged."""

    def new_data(
        self, *, qupath_version: str, server_json: str, image_type: str = "UNSET"
    ) -> ImageContents:
        """Return an empty data file."""

    @property
    def version(self) -> str | None:
        """The version of QuPath that last wrote the project."""

    @property
    def moved_from(self) -> Path | None:
        """The folder the project lay in when QuPath last saved it, where that is another."""

    @property
    def classes(self) -> tuple[PathClass, ...]:
        """The classes offered for annotating."""

    def check_writable(self) -> None:
        """Raise ``ReadOnlyError`` when the project was opened for reading."""


class StoredImage:
    """One image of a ``StoredProject``. Implements ``qupath.protocol.ProjectImage``."""

    def __init__(self, project: Owner, entry: dict[str, Any]) -> None:
        self.project = project
        self.entry = entry
        self.id = str(entry["entryID"])
        self.folder = project.folder / "data" / self.id
        self.data_path = self.folder / "data.qpdata"
        self.backup_path = self.folder / "data.qpdata.bkp"

    @property
    def name(self) -> str:
        """The name shown in QuPath."""
        return str(self.entry.get("imageName") or f"Image {self.id}")

    @cached_property
    def server(self) -> server.ServerInfo:
        """Where the pixels are, and their size and resolution as the project states them."""
        return server.read_builder(self.entry.get("serverBuilder") or {})

    @property
    def path(self) -> Path | None:
        """The slide's file if it can be found; else where the project says it is."""
        path = server.path_from_uri(self.server.uris[0]) if self.server.uris else None
        moved_from = self.project.moved_from
        if path and moved_from and not server.is_there(path):
            # what lay beside the project when it was saved may have moved along with it
            for up, ancestor in enumerate([moved_from, *moved_from.parents]):
                folders = [self.project.folder, *self.project.folder.parents]
                if up >= len(folders) or ancestor == ancestor.parent:
                    break
                if path.is_relative_to(ancestor):
                    candidate = folders[up] / path.relative_to(ancestor)
                    if server.is_there(candidate):
                        return candidate
        return path

    @property
    def metadata(self) -> Mapping[str, str]:
        """The entry's metadata."""
        return MappingProxyType(self.entry.get("metadata") or {})

    @property
    def tags(self) -> tuple[str, ...]:
        """The entry's tags (QuPath 0.6 and newer)."""
        return tuple(self.entry.get("tags") or ())

    @property
    def description(self) -> str | None:
        """The entry's description."""
        return self.entry.get("description")

    @property
    def thumbnail_path(self) -> Path | None:
        """QuPath's thumbnail, if there is one."""
        path = self.folder / "thumbnail.jpg"
        return path if path.is_file() else None

    def annotations(self) -> tuple[Annotation, ...]:
        """Read every annotation of the image."""
        data = self._read_data()
        return data.annotations() if data else ()

    def objects(self) -> tuple[PathObject, ...]:
        """Read every object of the image, of whatever kind."""
        data = self._read_data()
        return data.objects() if data else ()

    def count_annotations(self) -> int:
        """Return how many annotations there are, from QuPath's summary where it is up to date."""
        if not self.data_path.exists():
            return len(self.annotations()) if self.backup_path.exists() else 0
        try:
            summary = gson.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
            if summary["timestamp"] == self.data_path.stat().st_mtime_ns // 1_000_000:
                return int(summary["hierarchy"]["objectTypeCounts"].get("Annotations", 0))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return len(self.annotations())

    def fingerprint(self) -> Fingerprint:
        """Return what tells whether the annotations changed since."""
        try:
            status = self.data_path.stat()
        except OSError:
            return Fingerprint(0, 0)
        return Fingerprint(status.st_size, status.st_mtime_ns)

    def _read_data(self) -> ImageContents | None:
        # QuPath moves the old data aside while it saves, and reads that when a save broke off
        problem: FormatError | None = None
        for path in (self.data_path, self.backup_path):
            try:
                return self.project.parse_data(path.read_bytes(), source=path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ProjectError(path, f"cannot be read ({error.strerror or error}).") from error
            except FormatError as error:
                problem = problem or error
        if problem:
            raise problem
        return None

    def write_data(
        self,
        make: Callable[[ImageContents | None], ImageContents | None],
        check: Callable[[ImageContents], None] = lambda _: None,
    ) -> None:
        """Replace the data file by what ``make`` returns for what is there.

        ``make`` returns ``None`` to leave the file alone; ``check`` is shown what the new bytes
        read back as, and raises to keep the old ones.
        """
        self.project.check_writable()
        written: list[ImageContents] = []

        @collector_paused()
        def change(old: bytes | None) -> bytes | None:
            made = make(
                None if old is None else self.project.parse_data(old, source=self.data_path)
            )
            if made is None:
                return None
            new = made.to_bytes()
            del made  # large, and no longer of use
            written[:] = [self.project.parse_data(new, source=self.data_path)]
            check(written[0])
            return new

        edited = self.project.files.edit(
            self.data_path, change, backup=self.backup_path, is_whole=_is_whole
        )
        if edited is not None:
            self._write_summary(written[0])

    def _write_summary(self, data: ImageContents) -> None:
        size = self.server.size
        builder = self.entry.get("serverBuilder") or {}
        metadata = builder.get("metadata") or {}
        summary: dict[str, Any] = {
            "timestamp": self.data_path.stat().st_mtime_ns // 1_000_000,
            "imageType": data.image_type,
        }
        if size:
            summary["server"] = {
                "width": size.width,
                "height": size.height,
                "sizeC": len(metadata.get("channels") or ()) or 3,
                "sizeZ": metadata.get("sizeZ", 1),
                "sizeT": metadata.get("sizeT", 1),
            }
        summary["hierarchy"] = data.summary()
        text = gson.dumps(summary, pretty=False)
        self.project.files.edit(
            self.folder / "summary.json", lambda _: gson.encode(text), keeps_snapshot=False
        )

    def write_annotations(
        self,
        *,
        add: Sequence[PathObject] = (),
        replace: Sequence[tuple[Annotation, Annotation]] = (),
        remove: Sequence[Annotation] = (),
        unless_changed_since: Fingerprint | None = None,
    ) -> None:
        """Change annotations safely, in one step, leaving all others as they are."""
        expected: dict[int, int] = {}  # digests: the outlines of 100,000 objects are half a GB
        edited: list[ImageContents] = []
        added = self._with_class_colors(add)
        replaced = self._with_class_colors([new for _, new in replace])
        # annotations are a few, detections may be a million: read those only where they matter
        only_annotations = all(isinstance(each, Annotation) for each in add)

        def make(data: ImageContents | None) -> ImageContents | None:
            if unless_changed_since not in (None, self.fingerprint()):
                raise ConcurrentChangeError(
                    self.data_path,
                    f"the annotations of {self.name} were saved meanwhile; nothing was changed.",
                    hint="Run the command again: it starts from what is there now.",
                )
            data = data or self.project.new_data(
                qupath_version=self.project.version or WRITTEN_AS,
                server_json=gson.dumps(self.entry.get("serverBuilder"), pretty=False),
            )
            digests = data.digests(only_annotations=only_annotations)
            new = [each for each in added if each.id.int not in digests]
            again = [each for each in added if each.id.int in digests]
            if replace or remove or again:
                found = data.annotations() if only_annotations else data.objects()
                values = {value.id: value for value in found}
                known = (*(old for old, _ in replace), *remove, *data.all_as_stored(again))
                for each in known:
                    self._check_unchanged(each, values.get(each.id))
                del found, values
            if not new and not replace and not remove:
                return None
            data.remove([annotation.id for annotation in remove])
            for annotation in remove:
                digests.pop(annotation.id.int, None)
            digests |= {annotation.id.int: data.replace(annotation) for annotation in replaced}
            digests |= data.add(new)
            edited[:] = [data]
            expected.clear()
            expected.update(digests)
            return data

        def check(data: ImageContents) -> None:
            others_are_there = edited.pop().is_same(data)
            back = data.digests(only_annotations=only_annotations)
            self._check_readback(back, expected, others_are_there)

        self.write_data(make, check)

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return what was kept of the image's data before each write, oldest first."""
        return tuple(self.project.files.snapshots(self.data_path))

    def restore(self, snapshot: Snapshot) -> tuple[Annotation, ...]:
        """Put the image's data back as it was; what is there now, damaged or not, is kept."""
        self.project.check_writable()
        if snapshot.of != self.data_path:
            raise ProjectError(
                snapshot.path,
                f"no snapshot of {self.name}; nothing was changed.",
                hint=f"Choose one of 'qpannot snapshots --image {self.id}'.",
            )
        data = self.project.parse_data(snapshot.read(), source=snapshot.path)
        annotations = data.annotations()
        restored = self.project.files.restore(snapshot, backup=self.backup_path, is_whole=_is_whole)
        if restored is not None:
            self._write_summary(data)
        return annotations

    def _with_class_colors(self, annotations: Sequence[ObjectT]) -> list[ObjectT]:
        """Give classes without a colour the one they have in the project."""
        colors = {path_class.name: path_class.color for path_class in self.project.classes}
        return [
            annotation.with_changes(
                path_class=PathClass(annotation.path_class.name, colors[annotation.path_class.name])
            )
            if annotation.path_class
            and annotation.path_class.color is None
            and colors.get(annotation.path_class.name)
            else annotation
            for annotation in annotations
        ]

    def _check_unchanged(self, known: PathObject, found: PathObject | None) -> None:
        if found is not None and not (changed := differences(known, found)):
            return
        what = "was deleted" if found is None else f"has another {', '.join(changed)}"
        label = known.name or known.class_name or "unclassified"
        raise ConcurrentChangeError(
            self.data_path,
            f"the {known.kind} {label} ({known.id}) of {self.name} {what} since it was read; "
            "nothing was changed.",
            hint="Run the command again: it starts from what is there now.",
        )

    def _check_readback(
        self,
        back: Mapping[int, int],
        expected: Mapping[int, int],
        others_are_there: bool,
    ) -> None:
        if back != expected or not others_are_there:
            wrong = {key for key, _ in expected.items() ^ back.items()}
            raise ProjectError(
                self.data_path,
                f"{len(wrong) or 'other'} objects would read back differently; nothing changed.",
                hint="This is a defect of qpannot: please report it with this file.",
            )


def _is_whole(data: bytes) -> bool:
    # QuPath writes the string "EOF" last: a save that is under way, or broke off, lacks it
    return data.endswith(b"t\x00\x03EOF")
