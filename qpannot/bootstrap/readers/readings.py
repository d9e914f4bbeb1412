"""What a reader left, kept, so that what the next reader changed of it can be measured.

The outlines lie in ``qpannot/readings/<image ID>/<digest>.json``, one file for each state of the
annotations, apart from the image's record: they are large, and seldom read. They are of what is
nobody's own; independent readers (`qpannot.qupath.annotators`) are compared by themselves
(`qpannot.bootstrap.readers.agreement`).
"""

from __future__ import annotations

import json
from pathlib import Path

from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.areas import areas_by_class
from qpannot.bootstrap.corrections import measure_correction
from qpannot.bootstrap.image_record import (
    ImageRecord,
    Reading,
    SecondReading,
    geojson_of,
    now,
)
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.states import State, digest_of, look
from qpannot.qupath import Annotation, ProjectImage
from qpannot.qupath.annotators import annotator_of
from qpannot.qupath.files import write_atomically

CORRECTED = "corrected"
"""Of a reading: a person changed the annotations, and said nothing of them."""


def keep_reading(ledger: Ledger, image: ProjectImage, state: str, *, by: str = "") -> None:
    """Keep the outlines of an image as a reader left them.

    Parameters
    ----------
    state
        What the reader says of them: ``reviewed`` or ``approved``, or `CORRECTED`.
    """
    annotations = _shared(image)
    reading = Reading(digest=digest_of(annotations), state=state, by=by, when=now())
    path = _path(ledger, image, reading.digest)
    if not path.is_file():
        outlines = {name: geojson_of(area) for name, area in _areas(annotations).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(outlines, ensure_ascii=False).encode())

    def change(record: ImageRecord) -> None:
        record.readings.append(reading)

    ledger.edit_image(image.id, image.name, change)


def keep_correction(ledger: Ledger, image: ProjectImage, record: ImageRecord) -> None:
    """Keep the outlines of a corrected proposal of which nobody said anything yet.

    Each state that is seen is the first reader's, until a second reader begins.
    """
    last = record.readings[-1] if record.readings else None
    if record.word or not record.standing or (last and last.handed_over):
        return
    if not (last and record.seen and last.digest == record.seen.shared_digest):
        keep_reading(ledger, image, CORRECTED)


def hand_over(ledger: Ledger, image: ProjectImage) -> None:
    """Keep what the first reader left, before a second reader changes anything.

    What changes from then on, until somebody says something of the slide, is the second reader's.
    """
    record = ledger.image(image.id, image.name)
    last = record.readings[-1] if record.readings else None
    if last and last.handed_over:
        return
    if last is None or last.digest != look(image, record).shared_digest:
        keep_reading(ledger, image, CORRECTED, by=record.word.by if record.word else "")

    def change(record: ImageRecord) -> None:
        record.readings[-1] = record.readings[-1].model_copy(update={"handed_over": True})

    ledger.edit_image(image.id, image.name, change)


def hand_back(ledger: Ledger, image: ProjectImage) -> None:
    """End what `hand_over` began: what changes from now on is a first reader's."""
    readings = ledger.image(image.id, image.name).readings
    if not (readings and readings[-1].handed_over):
        return

    def change(record: ImageRecord) -> None:
        record.readings[-1] = record.readings[-1].model_copy(update={"handed_over": False})

    ledger.edit_image(image.id, image.name, change)


def second_reading_of(ledger: Ledger, image: ProjectImage, *, by: str) -> SecondReading | None:
    """Measure what a second reader changed of what the reader before had left.

    Returns
    -------
    SecondReading or None
        ``None`` where nobody knows what was left: the slide was corrected in QuPath, and no command
        saw it before the second reader changed it.
    """
    record = ledger.image(image.id, image.name)
    annotations = _shared(image)
    now_there = _areas(annotations)
    before, word = _before(record), record.word
    if before:
        first, left = before.by, _kept(_path(ledger, image, before.digest))
    elif word and word.digest == digest_of(annotations):  # said before outlines were kept
        first, left = word.by, now_there
    else:
        return None
    if left is None:
        return None
    change = measure_correction(left, now_there, image.server.mpp)
    return SecondReading(first=first, second=by, change=change)


def _before(record: ImageRecord) -> Reading | None:
    """Return what the reader before left.

    That is the last approval only while it stands: one that was taken back is nobody's word.
    """
    is_approved = record.word is not None and record.word.state == State.APPROVED
    for reading in reversed(record.readings):
        if is_approved or reading.state != State.APPROVED:
            return reading
    return None


def _shared(image: ProjectImage) -> list[Annotation]:
    return [each for each in image.annotations() if not annotator_of(each)]


def _areas(annotations: list[Annotation]) -> dict[str, BaseGeometry]:
    return areas_by_class((each.class_name, each.geometry) for each in annotations)


def _path(ledger: Ledger, image: ProjectImage, digest: str) -> Path:
    return ledger.house / "readings" / image.id / f"{digest}.json"


def _kept(path: Path) -> dict[str, BaseGeometry] | None:
    """Return the outlines in a file; ``None`` where it is gone or damaged, and they unknown."""
    try:
        return {name: shape(area) for name, area in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ShapelyError):
        return None
