"""What a person says of slides: reviewed, approved, or taken back."""

from __future__ import annotations

from collections.abc import Sequence

from qpannot.bootstrap.ledger import TAKEN_BACK, Ledger
from qpannot.bootstrap.states import ImageStatus, State, mirror, record_word, status_of
from qpannot.errors import UsageError
from qpannot.qupath import Project, ProjectImage


def say(
    project: Project,
    images: Sequence[ProjectImage],
    state: State,
    *,
    by: str = "",
    allow_empty: bool = False,
) -> list[ImageStatus]:
    """Record that a person says ``state`` of images, and show it in the project.

    Parameters
    ----------
    state
        ``REVIEWED``: the annotations are right; ``APPROVED``: a second reader says so too.
    by
        Whatever the person wants to be known as; may be empty.
    allow_empty
        Accept images without annotations: all of their tissue is then non-tumour.

    Returns
    -------
    list of ImageStatus
        Of the images, afterwards.

    Raises
    ------
    UsageError
        When an image has no annotations and that was not allowed, or a second reader comes
        before the first. Nothing is recorded then.
    """
    ledger = Ledger.of(project)
    before = [status_of(image, ledger) for image in images]
    unreadable = [status for status in before if status.error]
    if unreadable:
        raise UsageError(f"{unreadable[0].image.name}: {unreadable[0].error}")
    empty = [status.image.name for status in before if not status.annotations]
    if empty and not allow_empty:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if empty[5:] else "")
        raise UsageError(
            f"No annotations on {shown}; nothing was recorded.",
            hint="Name only slides that have some. Where a person looked and there truly is "
            "nothing to annotate, say so of that slide with --empty.",
        )
    early = [
        status.image.name
        for status in before
        if status.state not in (State.REVIEWED, State.APPROVED)
    ]
    if state is State.APPROVED and early:
        raise UsageError(
            f"Not reviewed yet: {', '.join(early)}; nothing was recorded.",
            hint="A second reader comes after the first: 'qpannot approve' without "
            "--second-reader marks slides reviewed.",
        )
    for status in before:
        word = ledger.image(status.image.id, status.image.name).word
        again = word and (word.state, word.by, word.data) == (state, by, _data_of(status.image))
        if not again and (status.state is not State.APPROVED or state is State.APPROVED):
            record_word(ledger, status.image, state.value, by=by)
    return _mirrored(project, ledger, images)


def _data_of(image: ProjectImage) -> tuple[int, int]:
    fingerprint = image.fingerprint()
    return fingerprint.size, fingerprint.mtime_ns


def take_back(
    project: Project, images: Sequence[ProjectImage], *, by: str = ""
) -> list[ImageStatus]:
    """Take back the last word on each image: approved becomes reviewed, reviewed waits again.

    Also where a correction made a slide reviewed: it then waits until it is saved again.
    """
    ledger = Ledger.of(project)
    statuses = [status_of(image, ledger) for image in images]
    mirror(project, ledger, statuses)  # takes down what was said in QuPath, to be taken back
    for image in images:
        record_word(ledger, image, TAKEN_BACK, by=by)
    return _mirrored(project, ledger, images)


def _mirrored(
    project: Project, ledger: Ledger, images: Sequence[ProjectImage]
) -> list[ImageStatus]:
    wanted = {image.id for image in images}

    def statuses() -> list[ImageStatus]:
        return [status_of(image, ledger) for image in project.images if image.id in wanted]

    mirror(project, ledger, statuses())
    return statuses()
