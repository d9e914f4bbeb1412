"""The state of a slide: unannotated, proposed, reviewed, approved.

What a person said goes first (``qpannot approve``, or the state set inside QuPath), then what a
person did: a proposal whose outline or class was changed is reviewed. A proposal nobody touched
is never more than proposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from qpannot.bootstrap.ledger import ImageRecord, Ledger, Seen
from qpannot.bootstrap.proposals import is_proposal, is_untouched
from qpannot.errors import QpannotError
from qpannot.qupath import ImageChanges, Project, ProjectImage

STATE_KEY = "qpannot.state"
"""Image metadata: the state, where QuPath's project pane shows and sorts by it."""

TAG_PREFIX = "qpannot: "


class State(StrEnum):
    """The state of a slide in the loop."""

    UNANNOTATED = "unannotated"
    PROPOSED = "proposed"
    REVIEWED = "reviewed"
    APPROVED = "approved"


@dataclass(frozen=True)
class ImageStatus:
    """Where one image stands, and why.

    Parameters
    ----------
    annotations, proposals
        How many annotations the image has, and how many of them qpannot made. ``None`` where
        they could not be read.
    reason
        In words, for people.
    rejected
        Whether a person deleted every proposal and left nothing: it is not proposed for again
        unless asked.
    nothing_found
        Whether a proposal came out empty.
    error
        Why the image's data could not be read, else ``None``.
    """

    image: ProjectImage
    state: State
    reason: str
    annotations: int | None
    proposals: int | None
    round: int | None
    rejected: bool = False
    nothing_found: bool = False
    error: str | None = None

    @property
    def slide_is_missing(self) -> bool:
        """Whether the slide's file is not where the project says."""
        path = self.image.path
        return path is None or not path.exists()


def survey(project: Project, ledger: Ledger) -> list[ImageStatus]:
    """Return where every image of a project stands. Changes no file.

    An image whose data cannot be read is given with its ``error`` instead of stopping the rest.
    """
    return [status_of(image, ledger.image(image.id, image.name)) for image in project.images]


def status_of(image: ProjectImage, record: ImageRecord) -> ImageStatus:
    """Return where one image stands.

    The image's annotations are read only where they changed since the ledger last saw them.
    """
    try:
        seen = look(image, record)
    except QpannotError as error:
        said = _said(image, record)
        return ImageStatus(
            image,
            said or State.UNANNOTATED,
            "its annotations cannot be read",
            None,
            None,
            _round_of(record),
            error=str(error),
        )
    state, reason = _judge(image, record, seen)
    return ImageStatus(
        image,
        state,
        reason,
        seen.annotations,
        seen.proposals,
        _round_of(record),
        rejected=_is_rejected(record, seen),
        nothing_found=state is State.UNANNOTATED and record.nothing_found is not None,
    )


def look(image: ProjectImage, record: ImageRecord) -> Seen:
    """Return what is to be seen in the image's annotations, read only where they changed."""
    fingerprint = image.fingerprint()
    if record.seen and record.seen.holds_for(fingerprint):
        return record.seen
    if not record.proposals and STATE_KEY not in image.metadata:
        # nothing was ever proposed here, so a count is all there is to know
        return Seen(
            size=fingerprint.size,
            mtime_ns=fingerprint.mtime_ns,
            touched=False,
            annotations=image.count_annotations(),
            proposals=0,
        )
    annotations = image.annotations()
    proposals = [annotation for annotation in annotations if is_proposal(annotation)]
    present = {annotation.id for annotation in annotations}
    gone = {kept.id for kept in record.standing} - present
    if any(kept.id in present for kept in record.proposals if not kept.written):
        gone = set()  # a run broke off after it had replaced them, before it could say so
    drawn = len(annotations) - len(proposals)
    return Seen(
        size=fingerprint.size,
        mtime_ns=fingerprint.mtime_ns,
        touched=any(not is_untouched(proposal) for proposal in proposals)
        or bool(gone and annotations)
        or bool(drawn and not proposals),
        annotations=len(annotations),
        proposals=len(proposals),
    )


def _said(image: ProjectImage, record: ImageRecord) -> State | None:
    words = [record.last_word.state] if record.last_word else []
    words.append(image.metadata.get(STATE_KEY, ""))
    for state in (State.APPROVED, State.REVIEWED):
        if state.value in words:
            return state
    return None


def _judge(image: ProjectImage, record: ImageRecord, seen: Seen) -> tuple[State, str]:
    done, why = _tell(record, seen)
    said, word = _said(image, record), record.last_word
    if said is None or (said is done and not (word and word.state == said)):
        return done, why
    if word is None or word.state != said:
        return said, f"marked {said} in QuPath"
    by = f" by {word.by}" if word.by else ""
    changed = word.data and word.data != (seen.size, seen.mtime_ns)
    return said, f"{said}{by} on {word.when[:10]}{'; saved again since' if changed else ''}"


def _tell(record: ImageRecord, seen: Seen) -> tuple[State, str]:
    """Return the state that the annotations alone tell, and why."""
    if not seen.annotations:
        if _is_rejected(record, seen):
            return State.UNANNOTATED, "the proposal was deleted"
        if record.nothing_found:
            return State.UNANNOTATED, f"{record.nothing_found['method']} found nothing"
        return State.UNANNOTATED, "no annotations"
    if not seen.proposals and not record.standing:
        return State.REVIEWED, "annotated by a person, never proposed for"
    if seen.touched:
        return State.REVIEWED, "the proposal was corrected"
    drawn = seen.annotations - seen.proposals
    beside = f", {drawn} more drawn by a person" if drawn else ""
    return State.PROPOSED, f"waits for a person{beside}"


def _is_rejected(record: ImageRecord, seen: Seen) -> bool:
    return not seen.annotations and bool(record.standing)


def _round_of(record: ImageRecord) -> int | None:
    return record.proposals[-1].round if record.proposals else None


def mirror(project: Project, statuses: Iterable[ImageStatus]) -> None:
    """Write the states into the project, where QuPath shows them and can sort by them.

    As image metadata, and as tags where the project's version of QuPath knows them. Only images
    whose state changed are written, in one write; an unannotated image carries no mark.
    """
    changes: dict[str, ImageChanges] = {}
    for status in statuses:
        shown = None if status.state is State.UNANNOTATED else status.state.value
        if status.error or status.image.metadata.get(STATE_KEY) == shown:
            continue
        tags = {
            TAG_PREFIX + state.value: state.value == shown
            for state in State
            if state is not State.UNANNOTATED
        }
        changes[status.image.id] = ImageChanges(metadata={STATE_KEY: shown}, tags=tags)
    if changes:
        project.update_images(changes)
