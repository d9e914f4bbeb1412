"""The state of a slide: unannotated, proposed, reviewed, approved.

What a person said goes first (``qpannot approve``, or the state set inside QuPath), then what a
person did: a proposal whose outline or class was changed is reviewed. A proposal nobody touched
is never more than proposed. What was taken back stays so until the annotations are saved again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import shapely
from shapely import make_valid
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.image_record import ImageRecord, Seen, Word
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.said import STATE_KEY, hear, unheard
from qpannot.console import Each, listed, silent
from qpannot.errors import QpannotError
from qpannot.qupath import Annotation, Project, ProjectImage
from qpannot.qupath.annotators import ANNOTATOR, by_annotator
from qpannot.qupath.glancing import glance_at
from qpannot.qupath.proposals import FINGERPRINT, is_proposal, is_untouched
from qpannot.qupath.server import is_there


class State(StrEnum):
    """The state of a slide in the loop."""

    UNANNOTATED = "unannotated"
    PROPOSED = "proposed"
    REVIEWED = "reviewed"
    APPROVED = "approved"


REVIEWED = (State.REVIEWED, State.APPROVED)
"""States in which a slide may be learned from."""


def key_of(status: ImageStatus, ledger: Ledger, rule: str) -> str:
    """Return what tells whether something else can be learned from a reviewed slide than before.

    Parameters
    ----------
    rule
        By which annotations of several people become one truth (``annotators.rule``).
    """
    image = status.image
    record = ledger.image(image.id, image.name)
    vouched = " vouched" if is_vouched(image, record) else ""
    seen = status.seen
    several = ""
    if record.independent_readers or (seen and seen.annotators):
        several = f" {rule} of {', '.join(record.independent_readers)}"
        if record.word:
            several += f", {record.word.state} by {record.word.by}"
        if seen and (back := record.called_back) and back.digest == seen.shared_digest:
            several += ", without what waits"
    return f"{seen.digest if seen else None}{vouched}{several}"


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
    seen
        What was found in the image's annotations, ``None`` where they could not be read.
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
    error: QpannotError | None = None
    seen: Seen | None = None

    @property
    def slide_is_missing(self) -> bool:
        """Whether the slide's file is not where the project says."""
        return not is_there(self.image.path)


def survey(
    project: Project,
    ledger: Ledger,
    each: Each = silent,
    *,
    at_a_glance: bool = False,
) -> list[ImageStatus]:
    """Return where every image of a project stands. Changes no file.

    An image whose data cannot be read is given with its ``error`` instead of stopping the rest.

    Parameters
    ----------
    each
        Told of each image before it is looked at, in the stage ``Looking``.
    at_a_glance
        Read no more of images that were never proposed for than shows their state.
    """
    statuses = []
    for done, image in enumerate(project.images):
        each("Looking", image.name, done, len(project.images))
        folder = project.folder / "data" / image.id if at_a_glance else None
        statuses.append(status_of(image, ledger, folder))
    return statuses


def status_of(image: ProjectImage, ledger: Ledger, folder: Path | None = None) -> ImageStatus:
    """Return where one image stands.

    The image's annotations are read only where they changed since the ledger last saw them. What
    cannot be read is the status's ``error``.

    Parameters
    ----------
    folder
        The folder of the image's data, for a first look at it that may do (`glance`).
    """
    try:
        record = ledger.image(image.id, image.name)
        glanced = glance(image, record, folder) if folder else None
        seen = glanced or look(image, record)
    except QpannotError as error:
        shown = image.metadata.get(STATE_KEY)
        state = State(shown) if shown in list(State) else State.UNANNOTATED
        reason = "its annotations or records cannot be read"
        return ImageStatus(image, state, reason, None, None, None, error=error)
    state, reason = _judge(image, record, seen)
    if unfinished := [name for name in seen.annotators if name not in record.independent_readers]:
        reason += f"; {listed(unfinished)} not finished"
    unannotated = state is State.UNANNOTATED
    return ImageStatus(
        image,
        state,
        reason,
        seen.annotations,
        seen.proposals,
        record.standing[-1].round if record.standing else None,
        rejected=unannotated and _is_rejected(record, seen),
        nothing_found=unannotated and record.nothing_found is not None,
        seen=None if glanced else seen,
    )


def glance(image: ProjectImage, record: ImageRecord, folder: Path) -> Seen | None:
    """Return what is to be seen in the image's annotations, if its summary and a first look tell.

    They do where nothing was ever proposed, no word said, and either no class counts or an area
    that a person drew lies near the start of the data: a line or point among the first decides
    nothing. How many areas were drawn is not told.

    Parameters
    ----------
    folder
        The folder of the image's data, ``data/<ID>`` of the project.

    Returns
    -------
    Seen or None
        ``None`` where all must be read, or need not be because the ledger knows.
    """
    fingerprint = image.fingerprint()
    is_known = record.seen is not None and record.seen.holds_for(fingerprint)
    in_the_loop = bool(record.proposals or record.words) or STATE_KEY in image.metadata
    if is_known or in_the_loop or (found := glance_at(folder)) is None:
        return None
    if not found.annotations:
        return None  # `look` tells as much from the summary
    if found.mentions(FINGERPRINT) or found.mentions(ANNOTATOR):
        return None  # proposals of another project or of a ledger that is gone, readings of people
    drawn = 0
    if any(counts_as_area(name) for name in found.class_names):
        for some in found.first_annotations():
            drawn = sum(is_drawn_area(annotation) for annotation in some)
            if drawn:
                break
        else:
            return None
    return Seen(
        size=fingerprint.size,
        mtime_ns=fingerprint.mtime_ns,
        touched=bool(drawn),
        annotations=found.annotations,
        proposals=0,
        drawn=drawn,
    )


def look(image: ProjectImage, record: ImageRecord) -> Seen:
    """Return what is to be seen in the image's annotations, read only where they changed."""
    fingerprint = image.fingerprint()
    if record.seen and record.seen.holds_for(fingerprint):
        return record.seen
    nothing = not record.proposals and image.count_annotations() == 0
    annotations = () if nothing else image.annotations()
    proposals = [annotation for annotation in annotations if is_proposal(annotation)]
    drawn = sum(is_drawn_area(annotation) for annotation in annotations)
    readers = by_annotator(annotations)
    anybodys = any(is_drawn_area(annotation) for annotation in readers.get("", ()))
    present = {annotation.id for annotation in annotations}
    gone = {kept.id for kept in record.standing} - present
    if any(kept.id in present for kept in record.proposals if not kept.written):
        gone = set()  # a run broke off after it had replaced them, before it could say so
    return Seen(
        size=fingerprint.size,
        mtime_ns=fingerprint.mtime_ns,
        touched=any(not is_untouched(proposal) for proposal in proposals)
        or bool(gone and proposals)
        or (anybodys and not proposals),
        annotations=len(annotations),
        proposals=len(proposals),
        drawn=drawn,
        digest=digest_of(annotations),
        annotators=tuple(sorted(filter(None, readers))),
        shared=digest_of(readers.get("", ())) if any(readers) else None,
    )


def digest_of(annotations: Sequence[Annotation]) -> str:
    """Return a digest of what a person may change of annotations: outline, class, name, lock.

    The same for the same annotations in any file, whoever wrote that and when.
    """
    digest = hashlib.sha256()
    outlines = shapely.to_wkb([annotation.geometry for annotation in annotations], byte_order=1)
    for annotation, outline in zip(annotations, outlines, strict=True):
        told = (str(annotation.id), annotation.class_name, annotation.name, annotation.locked)
        digest.update(repr(told).encode("utf-8", "backslashreplace"))
        digest.update(outline)
    return digest.hexdigest()[:16]


def is_drawn_area(annotation: Annotation) -> bool:
    """Tell whether a person outlined an area here: no line, point or class such as ``Region*``."""
    if is_proposal(annotation) or not _has_area(annotation.geometry):
        return False
    return counts_as_area(annotation.class_name)


def counts_as_area(class_name: str | None) -> bool:
    """Tell whether what has this class is an area to learn from: QuPath's ``Region*`` is none."""
    return class_name is None or not class_name.endswith("*")


def _has_area(geometry: BaseGeometry) -> bool:
    # the two halves of a bow tie, as people draw them, have areas that cancel each other
    return bool(geometry.area) or (
        geometry.geom_type in ("Polygon", "MultiPolygon")
        and not geometry.is_valid
        and bool(make_valid(geometry).area)
    )


def said_of(image: ProjectImage, record: ImageRecord) -> State | None:
    """Return what a person said of an image, here or in QuPath; ``None`` if nothing stands."""
    word = hear(record, unheard(image, record)).word
    return State(word.state) if word else None


def is_vouched(image: ProjectImage, record: ImageRecord) -> bool:
    """Tell whether a person said that all of the annotations that nobody calls his own are right.

    An independent reader says so of that reader's alone, and who approves what such readers did
    does not speak of proposals that none of them took over.
    """
    heard = hear(record, unheard(image, record))
    said = {word.state for word in heard.standing_words if not word.independent}
    return State.REVIEWED in said or (State.APPROVED in said and not heard.independent_readers)


def _judge(image: ProjectImage, record: ImageRecord, seen: Seen) -> tuple[State, str]:
    new = unheard(image, record)
    heard = hear(record, new)
    word, back = heard.word, heard.taken_back
    others = listed(heard.independent_readers)
    if word and word.independent:
        return State(word.state), f"{word.state} by {others}, independently"
    if word:
        changed = word.digest and word.digest != seen.shared_digest
        said = f"{word.state}{_by(word)} on {word.when[:10]}{'; changed since' if changed else ''}"
        return State(word.state), said + (f"; independently by {others}" if others else "")
    if back and seen.annotations:
        is_unchanged = bool(back.digest) and back.digest == seen.shared_digest
        if is_unchanged or back in new:
            return State.PROPOSED, _waits(back)
    return _tell(record, seen)


def _by(word: Word) -> str:
    return (f" {word.where}" if word.where else "") + (f" by {word.by}" if word.by else "")


def _waits(back: Word) -> str:
    return f"{back.state}{_by(back)} on {back.when[:10]}, waits for a person"


def _tell(record: ImageRecord, seen: Seen) -> tuple[State, str]:
    """Return the state that the annotations alone tell, and why."""
    if seen.touched:
        if record.standing or seen.proposals:
            return State.REVIEWED, "the proposal was corrected"
        return State.REVIEWED, "annotated by a person, never proposed for"
    if seen.proposals:
        beside = f"; beside it {seen.drawn} drawn by a person" if seen.drawn else ""
        return State.PROPOSED, f"waits for a person{beside}"
    if seen.annotators:  # who draws independently says when it is done
        return State.PROPOSED, "waits for a person"
    if _is_rejected(record, seen):
        return State.UNANNOTATED, (
            "the proposal was deleted, or QuPath had the slide open and saved over it"
        )
    if record.nothing_found:
        return State.UNANNOTATED, f"{record.nothing_found['method']}: nothing found"
    marks = "no annotations" if not seen.annotations else "only marks, no area of a class"
    return State.UNANNOTATED, marks


def _is_rejected(record: ImageRecord, seen: Seen) -> bool:
    return not seen.proposals and not seen.drawn and bool(record.standing)
