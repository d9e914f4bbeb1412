"""One slide on the table: what is painted on it, kept, and written to the project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from qpannot.bootstrap.image_record import now
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.review import Said, say, send_back, take_back
from qpannot.bootstrap.states import ImageStatus, State, status_of
from qpannot.bootstrap.words import mirror, remember
from qpannot.errors import ConcurrentChangeError, QpannotError, UsageError
from qpannot.geometry import Region
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, ProjectImage
from qpannot.qupath.annotators import ANNOTATOR
from qpannot.qupath.proposals import is_untouched
from qpannot.review.canvas import Canvas, Labels
from qpannot.review.drawing import Drawing
from qpannot.review.journal import Entry, claim, forget
from qpannot.review.merging import Edits
from qpannot.review.queue import Item, Reader
from qpannot.review.recovery import recover
from qpannot.review.saved import ChangedMeanwhileError, NothingAnnotatedError, Saved
from qpannot.review.sitting import Sitting
from qpannot.review.views import as_proposed, said_of_copies, view_of
from qpannot.review.writing import Writing
from qpannot.slide import Slide

ATTEMPTS = 5
"""How often a save is begun anew because somebody saved the slide meanwhile."""


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
        self.item, self.slide, self.heatmap = item, slide, heatmap
        self._project, self._reader = project, reader
        self._tell = tell
        self._note = self._noted = item.note
        self._saving: Writing | None = None
        self._strokes = 0
        record = self._ledger.image(self.image.id, self.image.name)
        self._has_read = reader.independent and reader.by in record.independent_readers
        proposed = as_proposed(record, classes) if reader.independent else ()
        name = f"{self.image.id} {reader.by}" if reader.independent else self.image.id
        claimed = claim(self._ledger.journals, name)
        self._journal = claimed.journal
        try:
            known = {each.name for each in classes}
            left = {each: None for _, entry in claimed.left for each in entry.classes}
            all_classes = (*classes, *(PathClass(each) for each in left if each not in known))
            self._drawing = Drawing(
                self.image,
                lambda annotations: view_of(
                    annotations,
                    reader,
                    all_classes,
                    proposed=proposed,
                    has_read=self._has_read,
                ),
                all_classes,
                {ANNOTATOR: reader.by} if reader.independent else {},
                Canvas.of_slide(slide.size),
            )
            found = recover(claimed, self._drawing, self._noted)
            # what was recovered was another sitting's work
            self._sitting = Sitting(item, reader, self.labels, tool=tool, clock=clock)
            self._note = self._noted if found.note is None else found.note
            self.recovered = found.is_painted or self._note != self._noted
            self.messages = (
                *said_of_copies(self._drawing.stored, self._drawing.own, proposed),
                *found.messages,
            )
            """To be shown to the person: what was recovered, who else drew here or has it open."""
            self._journal.start(self._entry)
            self._journal.write()
            if self._journal.problem is None:  # all is kept in one place now
                forget([path for path, _ in claimed.left if path != self._journal.path])
        except BaseException:
            self._journal.abandon()
            raise

    @property
    def image(self) -> ProjectImage:
        """The image, with its metadata as last written."""
        return next(each for each in self._project.images if each.id == self.item.image.id)

    @property
    def _ledger(self) -> Ledger:
        """The ledger as it is on disk: one that is kept does not see what others write."""
        return Ledger.of(self._project)

    @property
    def classes(self) -> tuple[PathClass, ...]:
        """The class of label 1, of 2, and so on."""
        return self._drawing.classes

    @property
    def canvas(self) -> Canvas:
        """Where the pixels of `labels` lie on the slide."""
        return self._drawing.canvas

    @property
    def labels(self) -> Labels:
        """Class of each pixel, uint8, shape [height, width]; 0 is none. Painted on in place."""
        return self._drawing.labels

    @property
    def context(self) -> tuple[Annotation, ...]:
        """Annotations that are not editable here: locked, without class, points, ``Region*``."""
        return self._drawing.context

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
        return self._drawing.is_painted or self._note != self._noted

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
        self._sitting.stroke()
        self.keep()

    def stepped(self, strokes: int) -> None:
        """Say that strokes were undone (-1) or done again (1), which is no new one."""
        self._strokes = max(0, self._strokes + strokes)
        self._sitting.touched()
        self.keep()

    def touched(self) -> None:
        """Say that the person did something else, as moving the view: it counts as work."""
        self._sitting.touched()

    def keep(self) -> None:
        """Have what is painted and noted written to disk soon. Returns at once."""
        self._journal.ask()

    def keep_now(self) -> None:
        """Have it written to disk; where that is not possible, `problem` says why."""
        self._journal.write()

    def _entry(self) -> Entry | None:
        layers, note = self._drawing.painted(), self._note
        if not layers and note == self._noted:
            return None
        return Entry(
            by=self._reader.by,
            when=now(),
            digest=self._drawing.digest,
            saving=self._saving,
            note=None if note == self._noted else note,
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
        self._drawing.turn_to(canvas)
        self.keep()

    def save(self) -> Saved:
        """Write what was painted and noted to the project.

        Where somebody saved the slide meanwhile, what was painted is done upon what is there now.

        Raises
        ------
        QpannotError
            It cannot be written. Nothing is lost: it stays painted, and in the journal.
        """
        drawing = self._drawing
        conflicts = 0
        for attempt in range(ATTEMPTS):
            if self.image.fingerprint() != drawing.fingerprint:
                conflicts += drawing.rebase()
            edits = drawing.edits()
            try:
                wanted = self._write(edits)
                break
            except ConcurrentChangeError:
                if attempt == ATTEMPTS - 1:
                    raise
        self._has_read = True  # from now on nothing is copied: what is gone was erased
        is_redrawn = drawing.settle(wanted) or conflicts > 0
        self._strokes = 0
        self._journal.write()
        self._save_note()
        status = self._look()
        self._record_effort()
        n = len(edits.add), len(edits.replace), len(edits.remove)
        said = "saved in your name alone" if self._reader.independent else ""
        return Saved(*n, conflicts, status, is_redrawn, said)

    def _write(self, edits: Edits) -> str:
        """Write edits, if there are any, and return the digest of what is stored then."""
        drawing = self._drawing
        if not edits:
            return drawing.digest
        self._saving = saving = Writing.of(edits, drawing.stored)
        try:
            self._journal.write()  # so that a crash after the write does not bring it up again
            self.image.write_annotations(
                add=edits.add,
                replace=edits.replace,
                remove=edits.remove,
                unless_changed_since=drawing.fingerprint,
            )
            return saving.digest
        finally:
            self._saving = None

    def _save_note(self) -> None:
        if self._note != self._noted:
            changes = ImageChanges(metadata={self._reader.note_key: self._note or None})
            self._project.update_images({self.image.id: changes})
            self._noted = self._note
            self._journal.write()

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
        ChangedMeanwhileError
            Somebody else changed the annotations since they were shown: nobody has seen them as
            they are. What was painted is saved.
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
        if saved.is_redrawn:
            raise ChangedMeanwhileError(self.image.name, saved)
        drawing = self._drawing
        if not allow_empty and not (drawing.stored if state is State.APPROVED else drawing.own):
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
        told = "your reading is done" if self._reader.independent else ""
        return replace(saved, status=self._told(said), said=told)

    def send_back(self) -> Saved:
        """Save, and send the slide back: it waits for a first reader again.

        An independent reader takes back that reader's word alone.
        """
        saved = self.save()
        by = self._reader.by
        if self._reader.independent:
            said = take_back(self._project, [self.image], by=by, independent=True)
            return replace(saved, status=self._told(said), said="your reading waits again")
        said = send_back(self._project, [self.image], by=by)
        return replace(saved, status=self._told(said))

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
        ChangedMeanwhileError
            Somebody else changed the annotations since they were shown: nothing is taken away that
            nobody has seen. What was painted is saved.
        """
        if self._reader.independent:
            raise UsageError(
                "An independent reader draws beside the proposals and cannot reject them.",
                hint="Erase what is wrong of your own copy, and accept the rest.",
            )
        saved = self.save()
        if saved.is_redrawn:
            raise ChangedMeanwhileError(self.image.name, saved)
        drawing = self._drawing
        gone = Edits(remove=tuple(each for each in drawing.own if is_untouched(each)))
        self._write(gone)
        drawing.rebase()
        drawing.forget()
        removed = saved.removed + len(gone.remove)
        return replace(saved, removed=removed, status=self._look(), is_redrawn=True)

    def discard(self) -> None:
        """Forget what was painted and noted since the last save; `labels` is drawn anew."""
        self._drawing.forget()
        self._note, self._strokes = self._noted, 0
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
        self._sitting.record(self._ledger, self._drawing, self.slide)
