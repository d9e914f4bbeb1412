"""Which annotations of a slide a reader paints on, and which are shown beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qpannot.bootstrap.states import counts_as_area
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.annotators import annotator_of, copied_for
from qpannot.qupath.proposals import is_untouched
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
    has_read: bool = False,
) -> View:
    """Return what a reader works on and sees of all annotations of a slide.

    Readers together work on what is nobody's own, and do not see what is somebody's. One who reads
    independently works on annotations that carry the name: at first on copies of the areas that are
    nobody's own.

    Parameters
    ----------
    has_read
        Whether an independent reader was done with the slide before: what that one erased is not
        copied again.
    """
    shared = tuple(each for each in annotations if not annotator_of(each))
    if not reader.independent:
        return View(shared, tuple(each for each in shared if not is_editable(each, classes)))
    own = tuple(each for each in annotations if annotator_of(each) == reader.by)
    copied = [
        each for each in shared if is_editable(each, classes) and counts_as_area(each.class_name)
    ]
    if not own and not has_read:
        own = tuple(copied_for(each, reader.by) for each in copied)
    beside = {each.id for each in shared} - {each.id for each in copied}
    return View(
        own,
        (
            *(each for each in shared if each.id in beside),
            *(each for each in own if not is_editable(each, classes)),
        ),
    )


def said_of_copies(stored: Sequence[Annotation], own: Sequence[Annotation]) -> tuple[str, ...]:
    """Tell an independent reader who begins with what others corrected, which is not alone.

    Parameters
    ----------
    stored
        All annotations of the slide.
    own
        Those the reader works on (`View.own`); copies are not stored yet.
    """
    there = {each.id for each in stored}
    areas = [each for each in stored if not annotator_of(each) and counts_as_area(each.class_name)]
    if all(each.id in there for each in own) or all(map(is_untouched, areas)):
        return ()
    return (
        "Others corrected this slide, and you begin with a copy of what they left. To read it "
        "without that, erase it first.",
    )
