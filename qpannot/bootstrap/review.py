"""What a person says of slides: reviewed, approved, taken back, or sent back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from qpannot.bootstrap.image_record import SENT_BACK, TAKEN_BACK, ImageRecord
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.states import ImageStatus, State, digest_of, look, status_of
from qpannot.bootstrap.words import digest_of_own, mirror, record_word
from qpannot.console import listed
from qpannot.errors import QpannotError, UsageError
from qpannot.qupath import Project, ProjectImage


@dataclass(frozen=True)
class Said:
    """What came of a person's word on images.

    Parameters
    ----------
    statuses
        The images it was recorded of, as they stand afterwards.
    skipped
        Those of which it cannot be said, each with the reason.
    """

    statuses: tuple[ImageStatus, ...]
    skipped: tuple[tuple[ProjectImage, QpannotError], ...]


def say(
    project: Project,
    images: Sequence[ProjectImage],
    state: State,
    *,
    by: str = "",
    allow_empty: bool = False,
    independent: bool = False,
) -> Said:
    """Record that a person says ``state`` of images, and show it in the project.

    Images without annotations are skipped, those that cannot be read, and for a second reader
    those without a review. What a second reader changed is measured
    (`ImageRecord.second_reading`).

    Parameters
    ----------
    state
        ``REVIEWED``: the annotations are right; ``APPROVED``: a second reader says so too.
    by
        Whatever the person wants to be known as; may be empty.
    allow_empty
        Accept images without annotations: all of their tissue is then non-tumour.
    independent
        The person read the slide alone, and speaks of the annotations that carry the name ``by``
        and no others (`qpannot.qupath.annotators`).

    Raises
    ------
    UsageError
        An independent reader is not named, or wants to approve.
    """
    if independent and (not by or state is not State.REVIEWED):
        raise UsageError(
            "An independent reader needs a name, and says no more than reviewed.",
            hint="Give the name that the annotations carry: --by NAME",
        )
    ledger = Ledger.of(project)
    before = [status_of(image, ledger) for image in images]
    skipped = []
    accepted = []
    for status in before:
        image = status.image
        if objection := _objection(status, state, allow_empty=allow_empty, own=independent and by):
            skipped.append((image, objection))
            continue
        accepted.append(image)
        record = ledger.image(image.id, image.name)
        if independent:
            said = (by, digest_of_own(image, by))
            standing = [
                (word.by, word.digest) for word in record.standing_words if word.independent
            ]
            if said not in standing:
                record_word(ledger, image, state.value, by=by, independent=True)
            continue
        seen = look(image, record)
        word = record.word
        again = word and (word.state, word.by, word.digest) == (state, by, seen.shared_digest)
        if not again and (status.state is not State.APPROVED or state is State.APPROVED):
            record_word(ledger, image, state.value, by=by)
    return Said(tuple(_mirrored(project, ledger, accepted)), tuple(skipped))


def _objection(
    status: ImageStatus, state: State, *, allow_empty: bool, own: str | bool
) -> QpannotError | None:
    if status.error:
        return status.error
    if own and not allow_empty and not (status.seen and own in status.seen.annotators):
        return UsageError(
            f"No annotations of {own} on {status.image.name}.",
            hint="Import what that person drew (qpannot import geojson --by NAME), or, where the "
            "person looked and there truly is nothing to annotate, say so with --empty.",
        )
    is_all_owned = status.seen and status.seen.annotators and status.seen.shared == digest_of(())
    if is_all_owned and state is State.REVIEWED and not own and not allow_empty:
        names = listed(status.seen.annotators if status.seen else ())
        return UsageError(
            f"Everything on {status.image.name} is {names}'s own.",
            hint="To say that such a reader is done: --independent --by NAME. To say that you "
            "looked too, and found nothing to annotate: --empty.",
        )
    if not status.annotations and not allow_empty:
        return UsageError(
            f"No annotations on {status.image.name}.",
            hint="Where a person looked and there truly is nothing to annotate, say so of that "
            "slide with --empty.",
        )
    if state is State.APPROVED and status.state not in (State.REVIEWED, State.APPROVED):
        return UsageError(
            f"Not reviewed yet: {status.image.name}.",
            hint="A second reader comes after the first: 'qpannot approve' without "
            "--second-reader marks slides reviewed.",
        )
    return None


def take_back(
    project: Project,
    images: Sequence[ProjectImage],
    *,
    by: str = "",
    independent: bool = False,
) -> Said:
    """Take back the last word on each image: approved becomes reviewed, reviewed waits again.

    Also where a correction made a slide reviewed: it then waits until it is changed again. Images
    that cannot be read are skipped.

    Parameters
    ----------
    independent
        Take back what the person ``by`` said of that person's own annotations.
    """
    return _undo(project, images, TAKEN_BACK, by=by, independent=independent)


def send_back(project: Project, images: Sequence[ProjectImage], *, by: str = "") -> Said:
    """Send images back to the first reader: they wait again, whatever was said of them before.

    Otherwise as `take_back`.
    """
    return _undo(project, images, SENT_BACK, by=by, independent=False)


def _undo(
    project: Project, images: Sequence[ProjectImage], state: str, *, by: str, independent: bool
) -> Said:
    ledger = Ledger.of(project)
    statuses = [status_of(image, ledger) for image in images]
    mirror(project, ledger, statuses)  # takes down what was said in QuPath, to be taken back
    readable = [status.image for status in statuses if not status.error]
    for image in readable:
        record_word(ledger, image, state, by=by, independent=independent)
    skipped = tuple((status.image, status.error) for status in statuses if status.error)
    return Said(tuple(_mirrored(project, ledger, readable)), skipped)


@contextmanager
def still_waiting(project: Project) -> Iterator[None]:
    """Let images that a person made wait again wait on, whatever we write meanwhile.

    What a person changes ends the waiting; what a program adds does not.
    """
    ledger = Ledger.of(project)
    waiting = []
    for image in project.images:
        with suppress(QpannotError):  # whoever needs what cannot be read says so
            record = ledger.image(image.id, image.name)
            back = record.called_back
            if back and back.digest and back.digest == look(image, record).shared_digest:
                waiting.append((image, back.digest))
    try:
        yield
    finally:
        for image, digest in waiting:
            _wait_on(ledger, image, digest)


def _wait_on(ledger: Ledger, image: ProjectImage, digest: str) -> None:
    def change(record: ImageRecord) -> None:
        record.seen = look(image, record)
        if back := record.called_back:
            back.digest = record.seen.shared_digest

    if look(image, ledger.image(image.id, image.name)).shared_digest != digest:
        ledger.edit_image(image.id, image.name, change)


def _mirrored(
    project: Project, ledger: Ledger, images: Sequence[ProjectImage]
) -> list[ImageStatus]:
    wanted = {image.id for image in images}

    def statuses() -> list[ImageStatus]:
        return [status_of(image, ledger) for image in project.images if image.id in wanted]

    mirror(project, ledger, statuses())
    return statuses()
