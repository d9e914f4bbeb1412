"""One slide on the table: what is painted on it, kept, and written to the project."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qpannot.bootstrap.image_record import now
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.readers.effort import Effort, EffortClock, record_effort
from qpannot.bootstrap.review import Said, say, take_back
from qpannot.bootstrap.states import REVIEWED, ImageStatus, State, digest_of, status_of
from qpannot.bootstrap.words import mirror, remember
from qpannot.console import counted
from qpannot.errors import ConcurrentChangeError, QpannotError, UsageError
from qpannot.geometry import Region
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project
from qpannot.qupath.annotation import differences
from qpannot.qupath.annotators import ANNOTATOR
from qpannot.qupath.proposals import is_untouched
from qpannot.review.canvas import Canvas, Labels, draw
from qpannot.review.journal import Claimed, Entry, claim, forget
from qpannot.review.merging import Edits, edits_between, merged
from qpannot.review.painted import Painted, painted_again
from qpannot.review.queue import NOTE, Item, Reader
from qpannot.review.views import View, view_of
from qpannot.slide import Slide

ATTEMPTS = 5
"""How often a save is begun anew because somebody saved the slide meanwhile."""

PASSING_BY_S = 5.0
"""Who did nothing but look for so long has not worked on a slide."""


class NothingAnnotatedError(UsageError):
    """A slide without annotations was accepted without saying that there are none."""


@dataclass(frozen=True)
class Saved:
    """What a save changed in the project.

    Parameters
    ----------
    added, changed, removed
        Annotations.
    conflicts
        Annotations that somebody else, as QuPath, changed since they were shown. What was painted
        was done upon those.
    status
        How the slide stands now.
    is_redrawn
        Whether `Opened.labels` was drawn anew, in place.
    """

    added: int
    changed: int
    removed: int
    conflicts: int
    status: ImageStatus
    is_redrawn: bool = False

    @property
    def message(self) -> str:
        """What happened, in a sentence."""
        counts = {"added": self.added, "changed": self.changed, "removed": self.removed}
        done = [f"{n} {what}" for what, n in counts.items() if n]
        text = f"annotations: {', '.join(done)}" if done else "no annotation was changed"
        if self.conflicts:
            text += (
                f"; {counted(self.conflicts, 'annotation')} had been changed by somebody else "
                "meanwhile, and what was painted was done upon that"
            )
        return f"{self.status.state}; {text}."


class Opened:
    """A slide that a person works on. Made by `Session.open`.

    `labels` is painted on in place; whoever does calls `changed` after each stroke.

    Parameters
    ----------
    project
        Opened for writing.
    item, reader
        The slide, and who reads it.
    slide
        Its pixels; closed with this.
    heatmap
        Where its heatmap is, if there is one.
    classes
        The class of label 1, of 2, and so on.
    tell
        Told how the slide stands after anything was written.
    tool
        Where it is worked on, for the record.
    clock
        Seconds that only ever grow.
    """

    def __init__(
        self,
        project: Project,
        item: Item,
        reader: Reader,
        slide: Slide,
        heatmap: Path | None,
        classes: Sequence[PathClass],
        *,
        tell: Callable[[ImageStatus], None],
        tool: str,
        clock: Callable[[], float],
    ) -> None:
        self.image, self.item, self.slide, self.heatmap = item.image, item, slide, heatmap
        self._project, self._ledger, self._reader = project, Ledger.of(project), reader
        self._tell, self._tool = tell, tool
        self._effort, self._started = EffortClock(clock), now()
        self._note = self._noted = item.note
        self._guard = threading.RLock()
        self._layers: list[Painted] = []
        self._strokes = 0
        self._saving = ""
        name = f"{self.image.id} {reader.by}" if reader.independent else self.image.id
        claimed = claim(self._ledger.house / "review", name)
        self._journal = claimed.journal
        try:
            known = {each.name for each in classes}
            left = {each: None for _, entry in claimed.left for each in entry.classes}
            self.classes = (*classes, *(PathClass(each) for each in left if each not in known))
            self._read()
            self._show(Canvas.of_slide(slide.size))
            self._beginning = self._before
            self.messages = tuple(self._recover(claimed))
            self._journal.start(self._entry)
            self._journal.write()
            if self._journal.problem is None:  # all is kept in one place now
                forget([path for path, _ in claimed.left if path != self._journal.path])
        except BaseException:
            self._journal.abandon()
            raise

    def _read(self) -> None:
        """Read the annotations as they are now."""
        self._fingerprint = self.image.fingerprint()  # first, so that no later change is missed
        self._stored = self.image.annotations()
        self._drawn = self._view(self._stored).own
        self.context = self._view(self._stored).context

    def _view(self, annotations: Sequence[Annotation]) -> View:
        has_read = False
        if self._reader.independent:
            record = self._ledger.image(self.image.id, self.image.name)
            has_read = self._reader.by in record.independent_readers
        return view_of(annotations, self._reader, self.classes, has_read=has_read)

    def _show(self, canvas: Canvas) -> None:
        before = draw(self._drawn, self.classes, canvas)
        with self._guard:
            self.canvas = canvas
            self._before = before
            self.labels: Labels = before.copy()

    def _redraw(self) -> None:
        """Draw the annotations into `labels`, in place."""
        before = draw(self._drawn, self.classes, self.canvas)
        with self._guard:
            self._before = before
            self.labels[...] = before

    def _recover(self, claimed: Claimed) -> Iterator[str]:
        """Take over what sessions that broke off have left; yield what to tell of it."""
        digest = _digest(self._stored)
        painted: list[Painted] = []
        for _, entry in claimed.left:
            if entry.saving and entry.saving == digest:
                continue
            painted += [_in_classes(layer, entry, self.classes) for layer in entry.layers]
            self._note = entry.note
            by = f" by {entry.by}" if entry.by else ""
            text = f"What was painted{by} on {entry.when[:16].replace('T', ' ')} UTC and not saved "
            text += "is here again: save it, or discard it."
            if entry.digest != digest:
                text += " The annotations were changed since, so it was painted upon the new ones."
            yield text
        self.recovered = bool(painted) or self._note != self._noted
        last = painted.pop() if painted and painted[-1].canvas == self.canvas else None
        if painted:
            self._layers = painted
            self._drawn = self._painted_again(self._drawn, painted)
            self._redraw()
        if last is not None:
            last.put_on(self.labels)
        for path in claimed.damaged:
            yield f"A journal of this slide could not be read and was set aside: {path}"
        for other in claimed.others:
            yield (
                f"This slide is open in {other}: what is saved there and here is brought together, "
                "but agree on who paints."
            )

    def _painted_again(
        self, annotations: Sequence[Annotation], layers: Sequence[Painted]
    ) -> tuple[Annotation, ...]:
        return painted_again(annotations, layers, self.classes, metadata=self._metadata)

    @property
    def _metadata(self) -> dict[str, str]:
        return {ANNOTATOR: self._reader.by} if self._reader.independent else {}

    @property
    def note(self) -> str:
        """What the person notes of the slide; kept with the image in the project once saved."""
        return self._note

    @note.setter
    def note(self, text: str) -> None:
        self._note = text.strip()
        self.keep()

    @property
    def is_changed(self) -> bool:
        """Whether something was painted or noted that the project does not hold yet."""
        is_painted = bool(self._layers) or not np.array_equal(self._before, self.labels)
        return is_painted or self._note != self._noted

    @property
    def unsaved(self) -> int:
        """How many strokes were made since the last save, in this session."""
        return self._strokes

    @property
    def problem(self) -> QpannotError | None:
        """Why what is painted cannot be kept on disk at the moment, if it cannot."""
        return self._journal.problem

    def changed(self) -> None:
        """Say that a stroke was made. Returns at once; the stroke is on disk a second later."""
        self._strokes += 1
        self._effort.stroke()
        self.keep()

    def touched(self) -> None:
        """Say that the person did something else, as moving the view: it counts as work."""
        self._effort.touched()

    def keep(self) -> None:
        """Have what is painted and noted written to disk soon. Returns at once."""
        self._journal.ask()

    def _entry(self) -> Entry | None:
        with self._guard:
            layers, canvas, before = list(self._layers), self.canvas, self._before
            after = self.labels.copy()
            saving, note = self._saving, self._note
        if (last := Painted.between(before, after, canvas)) is not None:
            layers.append(last)
        if not layers and note == self._noted:
            return None
        return Entry(
            by=self._reader.by,
            when=now(),
            digest=_digest(self._stored),
            saving=saving,
            note=note,
            classes=tuple(each.name for each in self.classes),
            layers=tuple(layers),
        )

    def finer(self, region: Region) -> None:
        """Go on with a canvas over a part of the slide; what was painted is kept.

        `canvas` and `labels` are other ones afterwards.

        Parameters
        ----------
        region
            What lies beyond the slide is left out.
        """
        size = self.slide.size
        left, top = max(0.0, region.x), max(0.0, region.y)
        right, bottom = min(size.width, region.right), min(size.height, region.bottom)
        if left < right and top < bottom:
            self._turn_to(Canvas.of(Region(left, top, right - left, bottom - top)))

    def whole(self) -> None:
        """Go on with a canvas over the whole slide; otherwise as `finer`."""
        self._turn_to(Canvas.of_slide(self.slide.size))

    def _turn_to(self, canvas: Canvas) -> None:
        painted, drawn = self._all_painted()
        with self._guard:
            self._layers = painted
            self._drawn = drawn
            self._show(canvas)
        self.keep()

    def _all_painted(self) -> tuple[list[Painted], tuple[Annotation, ...]]:
        """Return all that was painted, and the annotations with it."""
        last = Painted.between(self._before, self.labels, self.canvas)
        if last is None:
            return self._layers, self._drawn
        edits = merged(
            self._drawn,
            self._before,
            self.labels,
            self.canvas,
            self.classes,
            metadata=self._metadata,
        )
        return [*self._layers, last], edits.applied_to(self._drawn)

    def save(self) -> Saved:
        """Write what was painted and noted to the project.

        Where somebody saved the slide meanwhile, what was painted is done upon what is there now.

        Raises
        ------
        QpannotError
            It cannot be written. Nothing is lost: it stays painted, and in the journal.
        """
        conflicts = 0
        for attempt in range(ATTEMPTS):
            if self.image.fingerprint() != self._fingerprint:
                conflicts += self._rebase()
            edits = self._edits(self._all_painted()[1])
            if not edits:
                break
            with self._guard:
                self._saving = _digest(edits.applied_to(self._stored))
            self._journal.write()
            try:
                self.image.write_annotations(
                    add=edits.add,
                    replace=edits.replace,
                    remove=edits.remove,
                    unless_changed_since=self._fingerprint,
                )
                break
            except ConcurrentChangeError:
                if attempt == ATTEMPTS - 1:
                    raise
        self._save_note()
        is_redrawn = self._settle(bool(edits)) or conflicts > 0
        self._strokes = 0
        status = self._look()
        self._record_effort()
        n = len(edits.add), len(edits.replace), len(edits.remove)
        return Saved(*n, conflicts, status, is_redrawn)

    def _rebase(self) -> int:
        """Read the annotations anew and do upon them what was painted; return how many differ."""
        last = Painted.between(self._before, self.labels, self.canvas)
        before = self._stored
        self._read()
        self._drawn = self._painted_again(self._drawn, self._layers)
        changes = _count_changes(before, self._stored)
        if changes:
            self._redraw()
            if last is not None:
                last.put_on(self.labels)
        return changes

    def _settle(self, was_written: bool) -> bool:
        """Begin anew from what the project holds now; return whether `labels` were drawn anew."""
        wanted = self._saving
        if was_written:
            self._read()
        else:
            self._drawn = self._view(self._stored).own
        is_other = was_written and _digest(self._stored) != wanted
        with self._guard:
            self._layers, self._saving = [], ""
            self._before = self.labels.copy()
        if is_other:
            self._redraw()
        self._journal.write()
        return is_other

    def _edits(self, drawn: Sequence[Annotation]) -> Edits:
        """Return what makes of the annotations that are there those that the reader drew."""
        own = {each.id for each in self._view(self._stored).own}
        others = tuple(each for each in self._stored if each.id not in own)
        return edits_between(self._stored, (*others, *drawn))

    def _save_note(self) -> None:
        if self._note != self._noted:
            changes = ImageChanges(metadata={NOTE: self._note or None})
            self._project.update_images({self.image.id: changes})
            self._noted = self._note

    def _look(self) -> ImageStatus:
        """Return how the slide stands now, and show it in the project."""
        status = status_of(self.image, self._ledger)
        remember(self._ledger, [status])
        mirror(self._project, self._ledger, [status])
        self._tell(status)
        return status

    def accept(self, *, allow_empty: bool = False) -> Saved:
        """Save, and say that the annotations are right: reviewed, for a second reader approved.

        Parameters
        ----------
        allow_empty
            Whether the person said that there truly is nothing to annotate.

        Raises
        ------
        NothingAnnotatedError
            There is nothing annotated, and the person did not say so. What was painted is saved.
        UsageError
            A second reader came before the first.
        """
        state = State.APPROVED if self._reader.second_reader else State.REVIEWED
        return self._say(state, allow_empty=allow_empty)

    def approve(self, *, allow_empty: bool = False) -> Saved:
        """Save, and say what a second reader says, whoever reads; otherwise as `accept`."""
        return self._say(State.APPROVED, allow_empty=allow_empty)

    def _say(self, state: State, *, allow_empty: bool) -> Saved:
        saved = self.save()
        if not allow_empty and not (self._drawn if self._reader.independent else self._stored):
            raise NothingAnnotatedError(
                f"Nothing is annotated on {self.image.name}.",
                hint="Where there truly is nothing to annotate, say so: accept it as empty.",
            )
        said = say(
            self._project,
            [self.image],
            state,
            by=self._reader.by,
            allow_empty=allow_empty,
            independent=self._reader.independent,
        )
        return replace(saved, status=self._told(said))

    def send_back(self) -> Saved:
        """Save, and take back what was said of the slide: it waits for a first reader again."""
        saved = self.save()
        by, independent = self._reader.by, self._reader.independent
        said = take_back(self._project, [self.image], by=by, independent=independent)
        status = self._told(said)
        if status.state in REVIEWED and not independent:
            status = self._told(take_back(self._project, [self.image], by=by))
        return replace(saved, status=status)

    def _told(self, said: Said) -> ImageStatus:
        if said.skipped:
            raise said.skipped[0][1]
        (status,) = said.statuses
        self._tell(status)
        return status

    def reject(self) -> Saved:
        """Save, and take away the proposals of the slide that nobody touched.

        Raises
        ------
        UsageError
            An independent reader leaves them to others.
        """
        if self._reader.independent:
            raise UsageError(
                "An independent reader draws beside the proposals and cannot reject them.",
                hint="Erase what is wrong of your own copy, and accept the rest.",
            )
        saved = self.save()
        for attempt in range(ATTEMPTS):
            gone = [each for each in self._view(self._stored).own if is_untouched(each)]
            try:
                self.image.write_annotations(remove=gone, unless_changed_since=self._fingerprint)
                break
            except ConcurrentChangeError:
                if attempt == ATTEMPTS - 1:
                    raise
                self._rebase()
        self._read()
        self._redraw()
        removed = saved.removed + len(gone)
        return replace(saved, removed=removed, status=self._look(), is_redrawn=True)

    def discard(self) -> None:
        """Forget what was painted and noted since the last save; `labels` is drawn anew."""
        with self._guard:
            self._layers = []
            self._note = self._noted
        self._drawn = self._view(self._stored).own
        self._redraw()
        self._strokes = 0
        self._journal.write()

    def close(self) -> None:
        """Let go of the slide. What is not saved is kept, and there again next time.

        Raises
        ------
        ProjectError
            The journal cannot be written.
        """
        try:
            self._record_effort()
        finally:
            try:
                self._journal.close()
            finally:
                self.slide.close()

    def _record_effort(self) -> None:
        """Record what this sitting has cost so far."""
        clock = self._effort
        if not clock.strokes and clock.active_seconds < PASSING_BY_S:
            return
        area, mpp = None, self.slide.mpp_or_none
        if mpp is not None:
            whole = Canvas.of_slide(self.slide.size)
            shown = self.labels if self.canvas == whole else self._all_drawn(whole)
            pixel_um2 = whole.downsample**2 * mpp.x * mpp.y
            area = float(np.count_nonzero(shown != self._beginning) * pixel_um2)
        effort = Effort(
            by=self._reader.by,
            tool=self._tool,
            started=self._started,
            active_seconds=clock.active_seconds,
            strokes=clock.strokes,
            area_changed_um2=area,
            round=self.item.round,
            second_reader=self._reader.second_reader,
        )
        record_effort(self._ledger, self.image, effort)

    def _all_drawn(self, canvas: Canvas) -> Labels:
        return draw(self._all_painted()[1], self.classes, canvas)


def _digest(annotations: Sequence[Annotation]) -> str:
    """Return a digest of annotations in whatever order."""
    return digest_of(sorted(annotations, key=lambda each: each.id))


def _count_changes(before: Sequence[Annotation], after: Sequence[Annotation]) -> int:
    """Return how many annotations are new, gone or other ones."""
    old, new = ({each.id: each for each in some} for some in (before, after))
    common = old.keys() & new.keys()
    return len(old.keys() ^ new.keys()) + sum(bool(differences(old[k], new[k])) for k in common)


def _in_classes(layer: Painted, entry: Entry, classes: Sequence[PathClass]) -> Painted:
    """Return what was painted in the values that classes have now."""
    names = [each.name for each in classes]
    values = np.arange(256, dtype=np.uint8)
    values[1 : len(entry.classes) + 1] = [names.index(name) + 1 for name in entry.classes]
    return replace(layer, values=values[layer.values])
