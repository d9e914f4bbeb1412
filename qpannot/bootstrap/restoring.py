"""Snapshots put back, so that the loop still knows where each slide stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from qpannot.bootstrap.image_record import TAKEN_BACK, ImageRecord, Word, now
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.queue import QUEUE_KEY
from qpannot.bootstrap.said import SAID_KEY, STATE_KEY, TAG_PREFIX, WRITTEN_KEY
from qpannot.bootstrap.states import ImageStatus, digest_of, status_of
from qpannot.bootstrap.words import mirror
from qpannot.errors import FormatError, QpannotError
from qpannot.qupath import Annotation, Project, ProjectImage, gson
from qpannot.qupath.annotators import by_annotator
from qpannot.qupath.files import ProjectFiles
from qpannot.qupath.qpdata.datafile import QpData
from qpannot.qupath.snapshots import Snapshot

_HINT = "Choose another one; 'qpannot snapshots' lists them."

_MARKS = (STATE_KEY, WRITTEN_KEY, SAID_KEY, QUEUE_KEY)
"""Metadata of images that is of now, whatever an older project file says."""


@dataclass(frozen=True)
class Restored:
    """What putting an image's data back came to.

    Parameters
    ----------
    status
        Where the image stands afterwards.
    lifted
        What a person had said of the annotations that went, and is taken back; the last first.
    """

    status: ImageStatus
    lifted: tuple[Word, ...]


def restore_image(project: Project, image: ProjectImage, snapshot: Snapshot) -> Restored:
    """Put an image's data back as it was, and let its state follow.

    What a person said of other annotations than those restored is taken back. Proposals count
    as made where they are in the file again, and as replaced where they go from it: a restored
    proposal is not taken for a corrected one, and one that a person had deleted stays deleted.

    Raises
    ------
    FormatError
        When the snapshot cannot be understood. Nothing is changed then.
    """
    data = snapshot.read()
    try:
        annotations = QpData.parse(data, source=snapshot.path).annotations()
    except FormatError as error:
        raise FormatError(
            snapshot.path, f"cannot be restored: {error.reason}", hint=_HINT
        ) from None
    restored = {annotation.id for annotation in annotations}
    readers = by_annotator(annotations)
    present = _present(image)
    lifted: list[Word] = []

    def change(record: ImageRecord) -> None:
        for kept in record.proposals:
            if kept.id in restored:
                kept.written, kept.replaced = True, False
            elif kept.written and (present is None or kept.id in present):
                kept.replaced = True  # one that a person had deleted stays rejected
        for word in _lifted(record, readers):
            lifted.append(word)
            by = word.by if word.independent else ""
            record.words.append(
                Word(state=TAKEN_BACK, by=by, when=now(), independent=word.independent)
            )
        record.seen = None

    ledger = Ledger.of(project)
    mirror(project, ledger, [status_of(image, ledger)])  # takes down what was said in QuPath
    if not (snapshot.of.is_file() and snapshot.of.read_bytes() == data):
        # before the file, so that a crash in between leaves no slide that seems reviewed
        ledger.edit_image(image.id, image.name, change)
        image.restore(snapshot)
    mirror(project, ledger, [_status(project, image, ledger)])
    return Restored(_status(project, image, ledger), tuple(lifted))


def _lifted(record: ImageRecord, readers: Mapping[str, Sequence[Annotation]]) -> Iterator[Word]:
    """Yield the words, last first, that were said of other annotations than these.

    Parameters
    ----------
    readers
        The annotations by who drew them, under ``""`` those that are nobody's own.
    """
    below = False
    for word in reversed(record.standing_words):
        holds = word.digest == digest_of(readers.get(word.by if word.independent else "", ()))
        if not holds and (word.independent or not below):
            yield word
        below |= holds and not word.independent


def _present(image: ProjectImage) -> set[UUID] | None:
    try:
        return {annotation.id for annotation in image.annotations()}
    except QpannotError:
        return None  # damaged: that is why it is restored


def _status(project: Project, image: ProjectImage, ledger: Ledger) -> ImageStatus:
    shown_now = next((each for each in project.images if each.id == image.id), image)
    return status_of(shown_now, ledger)


@dataclass(frozen=True)
class FileChange:
    """What restoring a project's file or its list of classes changes.

    Parameters
    ----------
    come_back, go, change
        The names of images, or of classes.
    """

    come_back: tuple[str, ...] = ()
    go: tuple[str, ...] = ()
    change: tuple[str, ...] = ()


def file_change(snapshot: Snapshot, now: bytes | None) -> FileChange | None:
    """Return what restoring a snapshot of a project's file or its list of classes would change.

    Parameters
    ----------
    now
        The bytes of the file as it is, ``None`` where it is gone.

    Returns
    -------
    FileChange or None
        ``None`` where what is there now cannot be understood.

    Raises
    ------
    FormatError
        When the snapshot cannot be.
    """
    then = _document(snapshot.read(), snapshot.path)
    try:
        current = _document(now, snapshot.of) if now is not None else {}
    except FormatError:
        return None
    before, after = _items(_with_marks(then, current)), _items(current)
    return FileChange(
        tuple(name for key, (name, _) in before.items() if key not in after),
        tuple(name for key, (name, _) in after.items() if key not in before),
        tuple(n for key, (n, value) in before.items() if key in after and after[key][1] != value),
    )


def _items(document: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the images or classes of a document by what they are known by: name and values."""
    images = {
        str(entry.get("entryID")): (str(entry.get("imageName") or entry.get("entryID")), entry)
        for entry in document.get("images") or ()
    }
    classes = {
        str(entry.get("name")): (str(entry.get("name")), entry)
        for entry in document.get("pathClasses") or ()
        if isinstance(entry, dict)
    }
    return images or classes


def restore_file(project_path: Path, snapshot: Snapshot) -> bool:
    """Put the project's file or its list of classes back as it was.

    The states of slides as they are shown in the project stay those of now, and no ID of an image
    is given out twice: the data of images that were added since lies in the folder still.

    Parameters
    ----------
    project_path
        The ``.qpproj`` file, which may be damaged or gone.

    Returns
    -------
    bool
        Whether anything changed.
    """
    files = ProjectFiles(project_path.parent)
    document = _document(snapshot.read(), snapshot.path)
    if snapshot.of != project_path:
        return files.restore(snapshot) is not None

    def change(old: bytes | None) -> bytes:
        try:
            current = _document(old, project_path) if old else {}
        except FormatError:
            current = {}
        made = _with_marks(document, current)
        made["lastID"] = max(_last_id(document), _last_id(current), *_data_ids(project_path.parent))
        if made == document:
            return snapshot.read()
        return gson.encode(gson.dumps(made, pretty=True))

    backup = project_path.with_name(f"{project_path.name}.backup")
    return files.edit(project_path, change, backup=backup) is not None


def _document(data: bytes, path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = gson.loads(data.decode("utf-8"))
    except ValueError as error:
        raise FormatError(path, f"no file of a project: {error}", hint=_HINT) from error
    images = document.get("images", []) if isinstance(document, dict) else None
    if not isinstance(images, list) or not all(isinstance(each, dict) for each in images):
        raise FormatError(path, "no file of a project.", hint=_HINT)
    return document


def _with_marks(document: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """Return a project's document with the states shown in another; none of images it lacks.

    An older state, shown again, would be taken for a person's word. What a person did say stands
    in the ledger, and is shown again by the next run.
    """
    shown = {str(entry.get("entryID")): entry for entry in current.get("images", [])}
    images = []
    for entry in document.get("images", []):
        by = shown.get(str(entry.get("entryID")), {})
        marks = {k: v for k, v in (by.get("metadata") or {}).items() if k in _MARKS}
        others = {k: v for k, v in (entry.get("metadata") or {}).items() if k not in _MARKS}
        tags = [tag for tag in entry.get("tags") or () if not tag.startswith(TAG_PREFIX)]
        tags += [tag for tag in by.get("tags") or () if tag.startswith(TAG_PREFIX)]
        changed = dict(entry)
        if {**others, **marks} != (entry.get("metadata") or {}):
            changed["metadata"] = {**others, **marks}
        if sorted(tags) != sorted(entry.get("tags") or ()):
            changed["tags"] = tags
        images.append(changed)
    return {**document, "images": images} if "images" in document else document


def _last_id(document: dict[str, Any]) -> int:
    return int(document.get("lastID") or 0)


def _data_ids(folder: Path) -> list[int]:
    return [int(path.name) for path in (folder / "data").glob("*") if path.name.isdecimal()]
