"""What is written of the states of slides: people's words, what was seen, marks in the project."""

from __future__ import annotations

from collections.abc import Iterable

from qpannot.bootstrap.image_record import SENT_BACK, TAKEN_BACK, ImageRecord, Seen, Word, now
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.queue import QUEUE_KEY, shown_places
from qpannot.bootstrap.readers.readings import (
    hand_back,
    keep_correction,
    keep_reading,
    second_reading_of,
)
from qpannot.bootstrap.said import (
    IN_QUPATH,
    SAID_KEY,
    SAYABLE,
    STATE_KEY,
    TAG_PREFIX,
    WRITTEN_KEY,
    hear,
    unheard,
)
from qpannot.bootstrap.states import ImageStatus, State, digest_of, look
from qpannot.qupath import ImageChanges, Project, ProjectImage
from qpannot.qupath.annotators import annotator_of


def remember(ledger: Ledger, statuses: Iterable[ImageStatus]) -> None:
    """Record what was seen of images that have annotations, so that they need not be read again.

    Of a corrected slide the outlines are kept too, for a second reader to be compared with.
    """
    for status in statuses:
        image, seen = status.image, status.seen
        if seen is None or not seen.annotations:
            continue

        def change(record: ImageRecord, seen: Seen = seen) -> None:
            record.seen = seen

        record = ledger.image(image.id, image.name)
        if record.seen != seen:
            record = ledger.edit_image(image.id, image.name, change)
        if status.state is State.REVIEWED:
            keep_correction(ledger, image, record)


def record_word(
    ledger: Ledger,
    image: ProjectImage,
    state: str,
    *,
    by: str = "",
    where: str = "",
    independent: bool = False,
) -> None:
    """Record what a person says of an image now, and of which annotations.

    With the word are kept the outlines it was said of, and what a second reader changed of those
    that the reader before had left.
    """
    word = Word(state=state, by=by, where=where, when=now(), independent=independent)
    _record(ledger, image, word)


def _record(ledger: Ledger, image: ProjectImage, word: Word) -> None:
    is_idle = ledger.image(image.id, image.name).is_idle(word)
    is_back = word.state in (TAKEN_BACK, SENT_BACK)
    is_shared = not (is_back or is_idle or word.independent)
    second = None
    if is_shared and word.state == State.APPROVED:
        second = second_reading_of(ledger, image, by=word.by)

    def change(record: ImageRecord) -> None:
        record.seen = look(image, record)
        own = digest_of_own(image, word.by) if word.independent else record.seen.shared_digest
        is_all_owned = bool(record.seen.annotators) and record.seen.shared == digest_of(())
        said_of = {
            "digest": own,
            "second_reading": second,
            "of_others": is_shared
            and is_all_owned
            and (word.state == State.APPROVED or word.where == IN_QUPATH),
        }
        record.words.append(word.model_copy(update=said_of))

    if is_shared:
        keep_reading(ledger, image, word.state, by=word.by)
    elif is_back and not word.independent:
        hand_back(ledger, image)
    ledger.edit_image(image.id, image.name, change)


def digest_of_own(image: ProjectImage, name: str) -> str:
    """Return the digest of the annotations that a person drew independently."""
    return digest_of([each for each in image.annotations() if annotator_of(each) == name])


def mirror(project: Project, ledger: Ledger, statuses: Iterable[ImageStatus]) -> None:
    """Write the states into the project, where QuPath shows them and can sort by them.

    As image metadata, and as tags where the project's version of QuPath knows them, with the place
    in the queue of slides that wait. What was said inside QuPath is heard first. Only images of
    which something changed are written, in one write; an unannotated image carries no mark.
    """
    changes: dict[str, ImageChanges] = {}
    echoes: dict[str, str | None] = {}
    before: dict[str, str | None] = {}
    places = shown_places(project.images, ledger)
    for status in statuses:
        if status.error:
            continue
        image, shown = status.image, status.image.metadata.get(STATE_KEY)
        record = ledger.image(image.id, image.name)
        for word in hear(record, unheard(image, record)).words[len(record.words) :]:
            _record(ledger, image, word)
        wanted = None if status.state is State.UNANNOTATED else status.state.value
        if record.mirrored != wanted or record.mirrored_before is not None:
            echoes[image.id] = wanted
            if shown in SAYABLE and shown != wanted:
                before[image.id] = shown
        place = places.get(image.id) if status.state is State.PROPOSED else None
        marks = {
            STATE_KEY: wanted,
            WRITTEN_KEY: None if project.has_tags else wanted,
            QUEUE_KEY: place,
            SAID_KEY: None,
        }
        tags = {
            TAG_PREFIX + state.value: state.value == wanted
            for state in State
            if state is not State.UNANNOTATED
        }
        if any(image.metadata.get(key) != value for key, value in marks.items()) or (
            project.has_tags and any((tag in image.tags) != there for tag, there in tags.items())
        ):
            heard = {key: image.metadata.get(key) for key in (STATE_KEY, SAID_KEY)}
            changes[image.id] = ImageChanges(metadata=marks, tags=tags, only_if=heard)
    if echoes:  # first, and with what they replace, so that a crash never makes an echo a word
        ledger.save_mirrored(echoes, before=before)
    if changes:
        project.update_images(changes)
    if before:
        ledger.save_mirrored({key: echoes[key] for key in before}, before={})
