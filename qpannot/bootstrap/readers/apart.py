"""Who read a slide, and which of its annotations are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qpannot.bootstrap.image_record import ImageRecord
from qpannot.bootstrap.states import State, counts_as_area, digest_of
from qpannot.qupath import Annotation
from qpannot.qupath.annotators import by_annotator
from qpannot.qupath.proposals import is_untouched
from qpannot.sampling.areas import polygonal

SHARED = ""
"""The reader of what is nobody's own: whoever corrected the proposals themselves."""


@dataclass(frozen=True)
class Readers:
    """What each reader of a slide says.

    Parameters
    ----------
    annotations
        By reader; empty where a reader found nothing.
    context
        Classes such as ``Ignore*`` and ``Region*`` that hold for every reader.
    last
        The reader who approved, else who said last that the slide is reviewed.
    is_vouched
        Whether somebody said that those that are nobody's own are right (`states.is_vouched`).
    """

    annotations: Mapping[str, tuple[Annotation, ...]]
    context: tuple[Annotation, ...]
    last: str
    is_vouched: bool

    def of(self, reader: str) -> tuple[Annotation, ...]:
        """Return the annotations that a reader's truth is made of, in QuPath's order of each."""
        return (*self.context, *self.annotations[reader])

    def is_truth(self, annotation: Annotation) -> bool:
        """Tell whether an annotation is what its reader says: no proposal that nobody touched."""
        return self.is_vouched or not is_untouched(annotation)


def readers_of(
    annotations: Sequence[Annotation], record: ImageRecord, *, is_vouched: bool
) -> Readers | None:
    """Return who read a slide, if somebody did so independently; ``None`` where nobody did.

    An annotator who did not say to be done is left out, unless there is nobody else. Whoever
    corrected or vouched for the proposals is one reader more; if nobody did, they are no reader's.
    Where nothing is left that is nobody's own, that one is a reader who found nothing only by an
    explicit word. A correction that was taken or sent back is no reader's until it is changed.

    Parameters
    ----------
    annotations
        All of the image's.
    is_vouched
        As in `Readers`.
    """
    own = by_annotator(annotations)
    shared = own.pop(SHARED, ())
    done = record.independent_readers
    if not own and not done:
        return None
    drawn = tuple(each for each in shared if is_vouched or not is_untouched(each))
    found = {name: own.get(name, ()) for name in done}
    context: tuple[Annotation, ...] = ()
    back = record.called_back
    waits = back is not None and back.digest == digest_of(shared)
    is_read = is_vouched and (bool(shared) or _found_nothing(record))
    if not waits and (is_read or any(_is_of_a_class(each) for each in drawn)):
        found[SHARED] = shared
    else:
        context = tuple(
            each for each in drawn if each.class_name and not counts_as_area(each.class_name)
        )
    if not found:
        found = dict(own)
    return Readers(found, context, _last(record, found), is_vouched)


def _found_nothing(record: ImageRecord) -> bool:
    return any(not (word.independent or word.of_others) for word in record.standing_words)


def _is_of_a_class(annotation: Annotation) -> bool:
    name = annotation.class_name
    return name is not None and counts_as_area(name) and bool(polygonal(annotation.geometry).area)


def _last(record: ImageRecord, readers: Mapping[str, object]) -> str:
    """Return whose word decides: who approved, by name where there is an own reading of that one.

    Where nobody said anything, that is whoever corrected the proposals, or the first by name.
    """
    said = sorted(record.standing_words, key=lambda word: (word.state == State.APPROVED, word.when))
    for word in reversed(said):
        for reader in (word.by, SHARED) if not word.independent else (word.by,):
            if reader in readers:
                return reader
    return min(readers)
