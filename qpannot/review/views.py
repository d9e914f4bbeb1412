"""Which annotations of a slide a reader paints on, and which are shown beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qpannot.bootstrap.image_record import ImageRecord
from qpannot.bootstrap.states import counts_as_area
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.annotators import annotator_of, copied_for
from qpannot.qupath.proposals import is_proposal, is_untouched
from qpannot.review.canvas import is_editable
from qpannot.review.queue import Reader


@dataclass(frozen=True)
class View:
    """The annotations of a slide as a reader sees them.

    Parameters
    ----------
    own
        Those the reader works on; the editable ones among them can be painted on.
    context
        What else is shown, and not editable.
    """

    own: tuple[Annotation, ...]
    context: tuple[Annotation, ...]


def view_of(
    annotations: Sequence[Annotation],
    reader: Reader,
    classes: Sequence[PathClass],
    *,
    proposed: Sequence[Annotation] = (),
    has_read: bool = False,
) -> View:
    """Return what a reader works on and sees of all annotations of a slide.

    Readers together work on what is nobody's own, and do not see what is somebody's. One who reads
    independently works on annotations that carry the name: at first on copies of the proposals as
    they were made, whatever others made of them, and sees no area that a person drew.

    Parameters
    ----------
    proposed
        The proposals as they were made, as far as that is known (`as_proposed`). Of others what
        they are now is copied.
    has_read
        Whether an independent reader was done with the slide before: what that one erased is not
        copied again.
    """
    shared = tuple(each for each in annotations if not annotator_of(each))
    if not reader.independent:
        return View(shared, tuple(each for each in shared if not is_editable(each, classes)))
    own = tuple(each for each in annotations if annotator_of(each) == reader.by)
    areas = [
        each for each in shared if is_editable(each, classes) and counts_as_area(each.class_name)
    ]
    if not own and not has_read:
        known = {each.id for each in proposed}
        others = (each for each in areas if is_proposal(each) and each.id not in known)
        own = tuple(copied_for(each, reader.by) for each in (*proposed, *others))
    beside = {each.id for each in shared} - {each.id for each in areas}
    return View(
        own,
        (
            *(each for each in shared if each.id in beside),
            *(each for each in own if not is_editable(each, classes)),
        ),
    )


def as_proposed(record: ImageRecord, classes: Sequence[PathClass]) -> tuple[Annotation, ...]:
    """Return the proposals that stand as they were made, of classes that can be painted."""
    by_name = {each.name: each for each in classes}
    return tuple(
        Annotation(kept.shape, path_class=by_name[kept.class_name], id=kept.id)
        for kept in record.standing
        if kept.class_name in by_name
    )


def said_of_copies(
    stored: Sequence[Annotation], own: Sequence[Annotation], proposed: Sequence[Annotation]
) -> tuple[str, ...]:
    """Tell an independent reader who begins with what others corrected, which is not alone.

    Parameters
    ----------
    stored
        All annotations of the slide.
    own
        Those the reader works on (`View.own`); copies are not stored yet.
    proposed
        As for `view_of`.
    """
    there, known = {each.id for each in stored}, {each.id for each in proposed}
    unknown = [
        each
        for each in stored
        if is_proposal(each) and not annotator_of(each) and each.id not in known
    ]
    if all(each.id in there for each in own) or all(map(is_untouched, unknown)):
        return ()
    return (
        "Others corrected this slide, and how it had been proposed is not known any more: you "
        "begin with a copy of what they left. To read it without that, erase it first.",
    )
