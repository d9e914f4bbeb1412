"""What is written of the states of slides: people's words, what was seen, marks in the project."""

from __future__ import annotations

from collections.abc import Iterable

from qpannot.bootstrap.image_record import TAKEN_BACK, ImageRecord, Seen, Word, now
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.readers.readings import keep_correction, keep_reading, second_reading_of
from qpannot.bootstrap.states import (
    STATE_KEY,
    TAG_PREFIX,
    ImageStatus,
    State,
    digest_of,
    look,
    said_in_qupath,
)
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
    """Record what a person said of an image, and of which annotations.

    With the word are kept the outlines it was said of, and what a second reader changed of those
    that the reader before had left.
    """
    is_shared = state != TAKEN_BACK and not independent
    second = None
    if is_shared and state == State.APPROVED:
        second = second_reading_of(ledger, image, by=by)

    def change(record: ImageRecord) -> None:
        record.seen = look(image, record)
        digest = digest_of_own(image, by) if independent else record.seen.shared_digest
        record.words.append(
            Word(
                state=state,
                by=by,
                where=where,
                when=now(),
                digest=digest,
                independent=independent,
                second_reading=second,
            )
        )

    if is_shared:
        keep_reading(ledger, image, state, by=by)
    ledger.edit_image(image.id, image.name, change)


def digest_of_own(image: ProjectImage, name: str) -> str:
    """Return the digest of the annotations that a person drew independently."""
    return digest_of([each for each in image.annotations() if annotator_of(each) == name])


def mirror(project: Project, ledger: Ledger, statuses: Iterable[ImageStatus]) -> None:
    """Write the states into the project, where QuPath shows them and can sort by them.

    As image metadata, and as tags where the project's version of QuPath knows them. Only images
    whose state changed are written, in one write; an unannotated image carries no mark.
    """
    changes: dict[str, ImageChanges] = {}
    echoes: dict[str, str | None] = {}
    before: dict[str, str | None] = {}
    for status in statuses:
        if status.error:
            continue
        image, shown = status.image, status.image.metadata.get(STATE_KEY)
        record = ledger.image(image.id, image.name)
        said = said_in_qupath(image, record)
        if said in (State.REVIEWED, State.APPROVED):
            record_word(ledger, image, said, where="in QuPath")
        wanted = None if status.state is State.UNANNOTATED else status.state.value
        if record.mirrored != wanted or record.mirrored_before is not None:
            echoes[image.id] = wanted
            if shown in (State.REVIEWED, State.APPROVED) and shown != wanted:
                before[image.id] = shown
        if shown != wanted:
            tags = {
                TAG_PREFIX + state.value: state.value == wanted
                for state in State
                if state is not State.UNANNOTATED
            }
            changes[image.id] = ImageChanges(
                metadata={STATE_KEY: wanted}, tags=tags, only_if={STATE_KEY: shown}
            )
    if echoes:  # first, and with what they replace, so that a crash never makes an echo a word
        ledger.save_mirrored(echoes, before=before)
    if changes:
        project.update_images(changes)
    if before:
        ledger.save_mirrored({key: echoes[key] for key in before}, before={})
