"""A review in napari: the slide, what is painted on it, and the panel, upon a `Session`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QMessageBox

from qpannot.console import counted
from qpannot.errors import QpannotError
from qpannot.heatmap import load_heatmap
from qpannot.review.easel import Easel
from qpannot.review.keys import BY_NAME, CLASS_KEYS, COMMANDS
from qpannot.review.layers import SlideLayers
from qpannot.review.panel import Panel
from qpannot.review.pyramid import Pyramid
from qpannot.review.session import (
    ChangedMeanwhileError,
    NothingAnnotatedError,
    Opened,
    Saved,
    Session,
)

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels, Layer

REFRESH_MS = 60
"""The slide is drawn anew at most so often while its pixels come in."""

TICK_MS = 500
FIRST_LOOK_S = 1.0
"""So long the window waits for a first look at a slide; that of a pyramid is there at once."""

UNDO_ANEW = "What was painted so far is kept; undo begins anew here."

NONE_WAITS = "No other slide waits. 'qpannot bootstrap' does the next step of the loop."


class ReviewWindow(QObject):  # type: ignore[misc]
    """Shows the slides of a session in a viewer, one at a time, and does what the person asks.

    Each command of `keys.COMMANDS` is a method; keys and buttons lead to `do`, which shows what
    goes wrong in the panel.

    Parameters
    ----------
    viewer
        Layers of others in it are left alone.
    """

    _pixels_came = Signal()
    _pixels_failed = Signal(object)

    def __init__(self, viewer: Viewer, session: Session) -> None:
        super().__init__()
        self.viewer, self.session = viewer, session
        self.opened: Opened | None = None
        self.layers = SlideLayers(viewer)
        self._bound: set[int] = set()
        self._pyramid: Pyramid | None = None
        self._unsaved: dict[str, str] = {}
        self._is_closed = False
        self.panel = Panel(self.do, self._choose_class, second_reader=session.second_reader)
        self.easel = Easel(viewer, self.layers, self.panel, self._painted, self._stepped)
        self.panel.note_edited.connect(self._note)
        self._bind(viewer)
        self._listens = (
            viewer.mouse_move_callbacks,
            viewer.mouse_drag_callbacks,
            viewer.mouse_wheel_callbacks,
        )
        for callbacks in self._listens:
            callbacks.append(self._touched)
        self._redraw = QTimer(self, singleShot=True, interval=REFRESH_MS)
        self._redraw.timeout.connect(self._refresh_slide)
        self._pixels_came.connect(self._draw_soon)
        self._pixels_failed.connect(self._tell_error)
        self._ticks = QTimer(self, interval=TICK_MS)  # signals such as SIGTERM are seen meanwhile
        self._ticks.timeout.connect(self._show_saved)
        self._ticks.start()

    def start(self, image_id: str | None = None) -> None:
        """Open a slide, by default the first that waits."""
        self._attempt(lambda: self._show(self.session.open(image_id)))

    @property
    def labels(self) -> Labels | None:
        """The layer that is painted on."""
        return self.layers.labels

    @property
    def unsaved(self) -> tuple[str, ...]:
        """The names of slides that were left with changes that the project does not hold."""
        self._remember()
        return tuple(self._unsaved.values())

    def close(self) -> None:
        """Let go of the session: what was not saved is kept beside the project. May be repeated."""
        if self._is_closed:
            return
        self._remember()
        self._is_closed = True
        self._ticks.stop()
        self._redraw.stop()
        for callbacks in self._listens:
            callbacks.remove(self._touched)
        self.opened = None
        if self._pyramid:
            self._pyramid.close()
        self.session.close()

    def leave(self) -> None:
        """Let go of the session in a viewer that stays: nobody shall paint what is not kept."""
        if not self._is_closed:
            self.close()
            self.layers.clear()

    def do(self, name: str) -> None:
        """Do what a command is called by."""
        self._touched()
        self._attempt(getattr(self.easel if hasattr(Easel, name) else self, name))

    # slides

    def accept(self) -> None:
        """Save, say that the annotations are right, and open the next slide that waits."""
        opened = self._at_hand()
        try:
            try:
                saved = opened.accept()
            except NothingAnnotatedError:
                sure = "Nothing is annotated on this slide. Is all of its tissue normal?"
                if not self.ask(sure, "All is normal"):
                    return
                saved = opened.accept(allow_empty=True)
        except ChangedMeanwhileError as error:
            self._after(error.saved)
            raise
        self._after(saved)
        self._go(self.session.next, NONE_WAITS, told=f"{opened.image.name}: {saved.message}")

    def save(self) -> None:
        """Write what was painted to the project."""
        self._after(self._at_hand().save())

    def discard(self) -> None:
        """Forget what was painted and noted since the last save, if the person is sure."""
        opened = self._at_hand()
        if not opened.is_changed:
            self.panel.tell("There is nothing to discard: the project has all of it.")
        elif self.ask("Forget what was painted and noted here since the last save?", "Forget it"):
            opened.discard()
            self._put_canvas()
            self.panel.show_note(opened.note)
            self.panel.tell("What was not saved is forgotten.")

    def next(self) -> None:
        """Open the next slide that waits."""
        self._go(self.session.next, NONE_WAITS)

    def previous(self) -> None:
        """Open the slide before this one."""
        self._go(self.session.previous, "This is the first slide of the queue.")

    def skip(self) -> None:
        """Come back to this slide at the end."""
        self._go(self.session.skip, "No other slide waits.")

    def reject(self) -> None:
        """Take the proposals away that nobody touched, if the person is sure."""
        sure = (
            "Take away every proposal on this slide that nobody touched? What a person drew stays."
        )
        opened = self._at_hand()
        if not self.ask(sure, "Take them away"):
            return
        try:
            self._after(opened.reject())
        except ChangedMeanwhileError as error:
            self._after(error.saved)
            raise

    def send_back(self) -> None:
        """Have the slide wait again."""
        self._after(self._at_hand().send_back())

    # view

    def toggle_heatmap(self) -> None:
        """Show or hide the heatmap of the class that is painted."""
        heatmaps = self.layers.heatmaps
        if not heatmaps:
            self.panel.tell("There is no heatmap of this slide: no network has looked at it yet.")
            return
        is_shown = any(layer.visible for layer in heatmaps.values())
        self.layers.turn_heatmap(not is_shown, self.easel.chosen_class or 0)

    def finer(self) -> None:
        """Paint what is seen at a finer pixel."""
        opened = self._at_hand()
        region = self.easel.seen(opened.slide.size)
        if region is None:
            self.panel.tell("The view does not show the slide: press W, or Ctrl+R.")
            return
        opened.finer(region)
        self._put_canvas()
        self.panel.tell(f"{UNDO_ANEW} W goes back to the whole slide.")

    def whole(self) -> None:
        """Paint on the whole slide again."""
        self._at_hand().whole()
        self._put_canvas()
        self.viewer.reset_view()
        self.panel.tell(UNDO_ANEW)

    # how it is done

    def _attempt(self, act: Callable[[], object]) -> None:
        QGuiApplication.setOverrideCursor(Qt.WaitCursor)
        try:
            act()
        except QpannotError as error:
            self._tell_error(error)
        finally:
            QGuiApplication.restoreOverrideCursor()
        self._show_saved()

    def _tell_error(self, error: QpannotError) -> None:
        self.panel.tell(str(error), is_error=True)

    def ask(self, text: str, yes: str) -> bool:
        """Ask the person; tell whether the answer is what the button ``yes`` says."""
        QGuiApplication.setOverrideCursor(Qt.ArrowCursor)
        try:
            box = QMessageBox(QMessageBox.Question, "qpannot", text, parent=self.panel)
            sure = box.addButton(yes, QMessageBox.AcceptRole)
            box.setDefaultButton(box.addButton(QMessageBox.Cancel))
            box.exec_()
            return bool(box.clickedButton() is sure)
        finally:
            QGuiApplication.restoreOverrideCursor()

    def _at_hand(self) -> Opened:
        if self.opened is None:
            raise QpannotError("No slide is open.", hint="Press N to open the next that waits.")
        return self.opened

    def _remember(self) -> None:
        """Note whether the slide that is open is saved, as long as it can be asked."""
        if self.opened is None or self._is_closed:
            return
        if self.opened.is_changed:
            self._unsaved[self.opened.image.id] = self.opened.image.name
        else:
            self._unsaved.pop(self.opened.image.id, None)

    def _go(self, way: Callable[[], Opened | None], otherwise: str, told: str = "") -> None:
        self._remember()
        try:
            opened = way()
        except QpannotError:
            if self.session.current is not self.opened:  # that one was closed before
                self.opened = None
                self.layers.clear()
                self._show_place()
            raise
        if opened is None:
            self.panel.tell(f"{told} {otherwise}".strip())
            self._show_place()
        else:
            self._show(opened, told)

    def _after(self, saved: Saved) -> None:
        self.panel.tell(saved.message)
        if saved.is_redrawn:
            self._put_canvas()
        self._show_place()

    def _show(self, opened: Opened, told: str = "") -> None:
        messages = [told, *opened.messages]
        if self._pyramid:
            self._pyramid.close()
        self.opened = opened
        self._pyramid = Pyramid(
            opened.slide, changed=self._pixels_came.emit, failed=self._pixels_failed.emit
        )
        self._pyramid.wait(FIRST_LOOK_S)
        self.layers.show_slide(self._pyramid, opened.slide.mpp_or_none)
        self.viewer.reset_view()
        try:
            heatmap = load_heatmap(opened.heatmap) if opened.heatmap else None
        except QpannotError as error:
            heatmap = None
            messages.append(str(error))
        names = [path_class.name for path_class in opened.classes]
        self.layers.show_heatmap(heatmap, names)
        self.layers.show_context(opened.context, self._pyramid)
        self._put_canvas()
        self.easel.choose_class(0)
        self.viewer.canvas.overlays.scale_bar.visible = True
        self.viewer.title = f"{opened.image.name} - qpannot"
        self.panel.show_classes(opened.classes, 0)
        self.panel.show_note(opened.note)
        self.panel.tell("\n".join(filter(None, messages)))
        self._show_place()

    def _put_canvas(self) -> None:
        self.easel.put(self._at_hand())
        for layer in self.layers:
            if id(layer) not in self._bound:
                self._bind(layer)
        self._bound = {id(layer) for layer in self.layers}

    def _bind(self, provider: Viewer | Layer) -> None:
        for command in COMMANDS:
            for key in command.keys:
                provider.bind_key(key, lambda _, name=command.name: self.do(name), overwrite=True)
        for index, key in enumerate(CLASS_KEYS):
            provider.bind_key(key, lambda _, index=index: self._choose_class(index), overwrite=True)

    # what happens meanwhile

    def _painted(self) -> None:
        if self.opened is not None:
            self.opened.changed()
            self._show_saved()

    def _stepped(self, strokes: int) -> None:
        if self.opened is not None:
            self.opened.stepped(strokes)
            self._show_saved()

    def _note(self, text: str) -> None:
        if self.opened is not None and self.opened.note != text:
            self.opened.note = text
            self._show_saved()

    def _touched(self, *event: object) -> None:
        if self.opened is not None:
            self.opened.touched()

    def _choose_class(self, index: int) -> None:
        self._touched()
        self._attempt(lambda: self.easel.choose_class(index))

    def _draw_soon(self) -> None:
        if not self._redraw.isActive():
            self._redraw.start()

    def _refresh_slide(self) -> None:
        if (slide := self.layers.slide) is not None:
            slide.refresh(extent=False)

    # what the panel shows

    def _show_place(self) -> None:
        queue = self.session.queue
        self.panel.show_progress(
            next((i + 1 for i, item in enumerate(queue) if self._is_open(item.image.id)), None),
            sum(item.done for item in queue),
            len(queue),
        )
        if self.opened is None:
            self.panel.show_slide("No slide is open", "", "", "", is_taken=False)
            return
        image_id = self.opened.image.id
        item = next((each for each in queue if each.image.id == image_id), self.opened.item)
        name = f"round {item.round}"
        about = [] if item.round is None or name in item.reason else [name]
        if item.score is not None:
            about.append(f"score {item.score:.2f}")
        state = item.status.state.value
        if self.session.independent:  # others' words say nothing of this reading
            state = "read" if item.done else "to be read"
        self.panel.show_slide(item.image.name, state, ", ".join(about), item.reason)

    def _is_open(self, image_id: str) -> bool:
        return self.opened is not None and self.opened.image.id == image_id

    def _show_saved(self) -> None:
        opened = self.opened
        if opened is None or self._is_closed:
            self.panel.show_saved("", is_saved=True)
        elif opened.problem is not None:
            self._tell_error(opened.problem)
            self.panel.show_saved("Not kept: save now.", is_saved=False)
        elif not opened.is_changed:
            self.panel.show_saved("Saved in the project.", is_saved=True)
        else:
            what = counted(opened.unsaved, "stroke") if opened.unsaved else "Changes"
            save = BY_NAME["save"].shown
            self.panel.show_saved(
                f"{what} kept, not yet in the project ({save} saves).", is_saved=False
            )
