"""Snapshots put back, so that the loop still knows where each slide stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qpannot.bootstrap.ledger import TAKEN_BACK, ImageRecord, Ledger, Word, now
from qpannot.bootstrap.states import STATE_KEY, TAG_PREFIX, ImageStatus, mirror, status_of
from qpannot.errors import FormatError
from qpannot.qupath import Project, ProjectImage, gson
from qpannot.qupath.files import ProjectFiles
from qpannot.qupath.qpdata.datafile import QpData
from qpannot.qupath.snapshots import Snapshot

_HINT = "Choose another one; 'qpannot snapshots' lists them."


def restore_image(project: Project, image: ProjectImage, snapshot: Snapshot) -> ImageStatus:
    """Put an image's data back as it was, and let its state follow.

    What a person said of other annotations than those restored is taken back. Proposals count
    as made where they are in the file again, and as replaced where they are not: a restored
    proposal is not taken for a corrected one.

    Returns
    -------
    ImageStatus
        Where the image stands afterwards.

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
    said_of = (snapshot.size, snapshot.path.stat().st_mtime_ns)

    def change(record: ImageRecord) -> None:
        for kept in record.proposals:
            kept.written |= kept.id in restored
            kept.replaced = kept.id not in restored
        while record.word and record.word.data != said_of:
            record.words.append(Word(state=TAKEN_BACK, when=now()))
        record.seen = None

    ledger = Ledger.of(project)
    mirror(project, ledger, [status_of(image, ledger)])  # takes down what was said in QuPath
    if not (snapshot.of.is_file() and snapshot.of.read_bytes() == data):
        # before the file, so that a crash in between leaves no slide that seems reviewed
        ledger.edit_image(image.id, image.name, change)
        image.restore(snapshot)
    mirror(project, ledger, [_status(project, image, ledger)])
    return _status(project, image, ledger)


def _status(project: Project, image: ProjectImage, ledger: Ledger) -> ImageStatus:
    shown_now = next((each for each in project.images if each.id == image.id), image)
    return status_of(shown_now, ledger)


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
    """Return a project's document with the states shown in another; none where that is damaged.

    An older state, shown again, would be taken for a person's word.
    """
    shown = {str(entry.get("entryID")): entry for entry in current.get("images", [])}
    images = []
    for entry in document.get("images", []):
        by = shown.get(str(entry.get("entryID")), {} if not current else entry)
        marks = {k: v for k, v in (by.get("metadata") or {}).items() if k == STATE_KEY}
        others = {k: v for k, v in (entry.get("metadata") or {}).items() if k != STATE_KEY}
        tags = [tag for tag in entry.get("tags") or () if not tag.startswith(TAG_PREFIX)]
        tags += [tag for tag in by.get("tags") or () if tag.startswith(TAG_PREFIX)]
        changed = dict(entry)
        if {**others, **marks} != (entry.get("metadata") or {}):
            changed["metadata"] = {**others, **marks}
        if sorted(tags) != sorted(entry.get("tags") or ()):
            changed["tags"] = tags
        images.append(changed)
    return {**document, "images": images}


def _last_id(document: dict[str, Any]) -> int:
    return int(document.get("lastID") or 0)


def _data_ids(folder: Path) -> list[int]:
    return [int(path.name) for path in (folder / "data").glob("*") if path.name.isdecimal()]
