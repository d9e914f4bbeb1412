"""What a QuPath project can do, whichever backend reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from qpannot.geometry import Mpp
from qpannot.qupath.annotation import Annotation, PathClass, PathObject
from qpannot.qupath.server import ImageSource, ServerInfo
from qpannot.qupath.snapshots import Snapshot

Mode = Literal["r", "r+", "x"]
"""``r`` reads and changes no file, ``r+`` reads and writes, ``x`` makes a new project."""


@dataclass(frozen=True)
class ImageChanges:
    """What to change of an image's entry in the project.

    Parameters
    ----------
    metadata
        Values to set by key; ``None`` removes the key. Other keys stay.
    tags
        ``True`` to add a tag, ``False`` to remove it. Ignored by projects of QuPath before 0.6,
        which know no tags.
    uris
        New places of the image's files, by old.
    mpp
        Pixel size of the image as it is shown; kept where the project states one already, which a
        person may have set in QuPath.
    only_if
        Change the image only where its metadata still has these values at the moment of writing
        (``None``: no such key) and it is still in the project. Otherwise it is left as it is.
    """

    metadata: Mapping[str, str | None] | None = None
    tags: Mapping[str, bool] | None = None
    uris: Mapping[str, str] | None = None
    mpp: Mpp | None = None
    only_if: Mapping[str, str | None] | None = None


@dataclass(frozen=True)
class Fingerprint:
    """Tells whether an image's data file is still the one that was read or written.

    Size in bytes and modification time in ns, ``0, 0`` where there is no file.
    """

    size: int
    mtime_ns: int


class ProjectImage(Protocol):
    """One image of a project.

    Its values are those at the time the project was opened or last written to by this process.
    """

    @property
    def id(self) -> str:
        """QuPath's entry ID, what an image is known by."""

    @property
    def name(self) -> str:
        """The name shown in QuPath."""

    @property
    def server(self) -> ServerInfo:
        """Where its pixels are, and their size and resolution as the project states them."""

    @property
    def path(self) -> Path | None:
        """The slide's file if it can be found; else where the project says it is.

        A project moved together with its slides finds them. ``None`` for images that are no
        local files.
        """

    @property
    def metadata(self) -> Mapping[str, str]:
        """The entry's metadata, as in QuPath's project pane."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The entry's tags (QuPath 0.6 and newer)."""

    @property
    def description(self) -> str | None:
        """The entry's description."""

    @property
    def thumbnail_path(self) -> Path | None:
        """QuPath's thumbnail, if there is one."""

    def annotations(self) -> tuple[Annotation, ...]:
        """Read every annotation of the image, parents before children.

        Raises
        ------
        FormatError
            When the data file cannot be understood.
        """

    def objects(self) -> tuple[PathObject, ...]:
        """Read every object of the image, of whatever kind, parents before children.

        Raises
        ------
        FormatError
            When the data file cannot be understood.
        """

    def count_annotations(self) -> int:
        """Return how many annotations there are.

        They are not read where QuPath's summary of the image is up to date.
        """

    def fingerprint(self) -> Fingerprint:
        """Return what tells whether the annotations changed since."""

    def write_annotations(
        self,
        *,
        add: Sequence[PathObject] = (),
        replace: Sequence[tuple[Annotation, Annotation]] = (),
        remove: Sequence[Annotation] = (),
        unless_changed_since: Fingerprint | None = None,
    ) -> None:
        """Change annotations safely, in one step, leaving all others as they are.

        The change is applied to what is on disk at that moment, by object ID, so that what
        QuPath saved since we read is kept. The new file is read back before it replaces the old
        one: each object must be as it was, or was to be, and all else as well.

        Nothing is returned: ask `annotations` for what is there afterwards.

        Parameters
        ----------
        add
            New annotations; detections, cells and tiles too, which are never edited afterwards.
            One whose ID is there already must be equal, and is not added again.
        replace
            Pairs of the annotation as it was read and as it shall be, of the same ID.
        remove
            Annotations as they were read. Their children move up to their parents.
        unless_changed_since
            Refuse to write when the data file is no longer the one this was taken of.

        Raises
        ------
        ConcurrentChangeError
            When an annotation to be replaced or removed is no longer as it was read, or QuPath
            keeps saving the file. Nothing is changed then.
        ReadOnlyError, LockedError, FormatError, ProjectError
        """

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return what was kept of the image's data before each write, oldest first."""

    def restore(self, snapshot: Snapshot) -> tuple[Annotation, ...]:
        """Put the image's data back as it was; what is there now, damaged or not, is kept.

        Returns
        -------
        tuple of Annotation
            Every annotation of the image afterwards.

        Raises
        ------
        FormatError
            When the snapshot cannot be understood. Nothing is changed then.
        ReadOnlyError, LockedError, ConcurrentChangeError, ProjectError
        """


class Project(Protocol):
    """A QuPath project."""

    @property
    def path(self) -> Path:
        """The ``.qpproj`` file."""

    @property
    def folder(self) -> Path:
        """The folder it lies in."""

    @property
    def mode(self) -> Mode:
        """How it was opened."""

    @property
    def backend(self) -> str:
        """``builtin`` or ``paquo``."""

    @property
    def version(self) -> str | None:
        """The version of QuPath that last wrote it."""

    @property
    def has_tags(self) -> bool:
        """Whether that version knows tags of images (QuPath 0.6 and newer)."""

    @property
    def images(self) -> Sequence[ProjectImage]:
        """Its images, in QuPath's order."""

    @property
    def classes(self) -> tuple[PathClass, ...]:
        """The classes offered for annotating; empty lets QuPath offer its own."""

    def set_classes(self, classes: Iterable[PathClass]) -> None:
        """Replace the list of classes."""

    def add_images(self, sources: Sequence[ImageSource]) -> tuple[ProjectImage, ...]:
        """Add images as QuPath's import does, in one write of the project file."""

    def update_images(self, changes: Mapping[str, ImageChanges]) -> None:
        """Change the entries of images, by image ID, in one write of the project file."""

    def close(self) -> None:
        """Let go of the project. Everything written is on disk already."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
