"""What a reader paints on a slide, upon the annotations as they were last read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qpannot.qupath import Annotation, PathClass, ProjectImage
from qpannot.qupath.annotation import differences
from qpannot.review.canvas import Canvas, Labels, draw
from qpannot.review.merging import Edits, edits_between, merged
from qpannot.review.painted import Painted, painted_again
from qpannot.review.views import View
from qpannot.review.writing import digest_in_any_order


class Drawing:
    """The annotations of an image, and what is painted on them and not saved.

    `labels` is painted on in place. What another thread may ask for, `painted` and `digest`, is
    guarded.

    Parameters
    ----------
    image
        Its annotations are read.
    view
        Tells which of all annotations the reader works on.
    classes
        The class of label 1, of 2, and so on.
    metadata
        Of new annotations.
    canvas
        What is painted on at first.
    """

    def __init__(
        self,
        image: ProjectImage,
        view: Callable[[Sequence[Annotation]], View],
        classes: tuple[PathClass, ...],
        metadata: Mapping[str, str],
        canvas: Canvas,
    ) -> None:
        self.image, self.classes = image, classes
        self._view, self._metadata = view, metadata
        self._guard = threading.RLock()
        self._layers: list[Painted] = []
        self._read()
        self._show(canvas)

    def _read(self) -> None:
        """Read the annotations as they are now, none of what is painted on them."""
        fingerprint = self.image.fingerprint()  # first, so that no later change is missed
        stored = self.image.annotations()
        seen = self._view(stored)
        digest = digest_in_any_order(stored)
        with self._guard:
            self.fingerprint, self.stored, self.digest = fingerprint, stored, digest
            self.context, self._drawn = seen.context, seen.own

    def _show(self, canvas: Canvas) -> None:
        before = draw(self._drawn, self.classes, canvas)
        with self._guard:
            self.canvas, self._before = canvas, before
            self.labels: Labels = before.copy()

    def redraw(self) -> None:
        """Draw the annotations, with the layers that are kept, into `labels`, in place."""
        before = draw(self._drawn, self.classes, self.canvas)
        with self._guard:
            self._before = before
            self.labels[...] = before

    @property
    def own(self) -> tuple[Annotation, ...]:
        """The annotations that the reader works on, as they are stored."""
        return self._view(self.stored).own

    @property
    def _seen(self) -> tuple[Annotation, ...]:
        """All that the reader sees, as it is stored."""
        seen = self._view(self.stored)
        return (*{each.id: each for each in (*seen.own, *seen.context)}.values(),)

    @property
    def is_painted(self) -> bool:
        """Whether anything was painted that is not saved."""
        return bool(self._layers) or not np.array_equal(self._before, self.labels)

    def painted(self) -> list[Painted]:
        """Return all that was painted and is not saved; may be called while more is painted."""
        with self._guard:
            layers, canvas, before = list(self._layers), self.canvas, self._before
            after = self.labels.copy()
        last = Painted.between(before, after, canvas)
        return layers if last is None else [*layers, last]

    def annotations(self) -> tuple[Annotation, ...]:
        """Return the annotations that the reader works on with all that was painted."""
        edits = merged(
            self._drawn,
            self._before,
            self.labels,
            self.canvas,
            self.classes,
            metadata=self._metadata,
        )
        return edits.applied_to(self._drawn)

    def edits(self) -> Edits:
        """Return what makes of the annotations that are stored those that the reader has drawn."""
        own = {each.id for each in self.own}
        others = [each for each in self.stored if each.id not in own]
        return edits_between(self.stored, (*others, *self.annotations()))

    def turn_to(self, canvas: Canvas) -> None:
        """Go on with another canvas and its `labels`; what was painted is kept."""
        layers, drawn = self.painted(), self.annotations()
        with self._guard:
            self._layers, self._drawn = layers, drawn
            self._show(canvas)

    def take_over(self, layers: Sequence[Painted]) -> None:
        """Do what was painted in another session, before anything is painted in this one."""
        *kept, last = layers
        if last.canvas != self.canvas:
            kept.append(last)
        if kept:
            with self._guard:
                self._layers = list(kept)
            self._paint_again()
            self.redraw()
        if last.canvas == self.canvas:
            last.put_on(self.labels)

    def _paint_again(self) -> None:
        self._drawn = painted_again(self.own, self._layers, self.classes, metadata=self._metadata)

    def rebase(self) -> int:
        """Read the annotations anew, and do upon them what was painted.

        Returns
        -------
        int
            How many of those that the reader sees somebody else has changed. If any, `labels` is
            drawn anew, in place.
        """
        last = Painted.between(self._before, self.labels, self.canvas)
        before = self._seen
        self._read()
        self._paint_again()
        changes = _count_changes(before, self._seen)
        if changes:
            self.redraw()
            if last is not None:
                last.put_on(self.labels)
        return changes

    def settle(self, wanted: str) -> bool:
        """Go on from what is stored now, in which everything painted is.

        Parameters
        ----------
        wanted
            The digest of what was stored (`digest_in_any_order`).

        Returns
        -------
        bool
            Whether somebody else changed it at that moment: `labels` is then drawn anew, in place.
        """
        self._read()
        with self._guard:
            self._layers = []
            self._before = self.labels.copy()
        if self.digest != wanted:
            self.redraw()
        return self.digest != wanted

    def forget(self) -> None:
        """Forget what was painted; `labels` is drawn anew, in place."""
        with self._guard:
            self._layers = []
            self._drawn = self.own
        self.redraw()


def _count_changes(before: Sequence[Annotation], after: Sequence[Annotation]) -> int:
    """Return how many annotations are new, gone or other ones."""
    old, new = ({each.id: each for each in some} for some in (before, after))
    common = old.keys() & new.keys()
    return len(old.keys() ^ new.keys()) + sum(bool(differences(old[k], new[k])) for k in common)
