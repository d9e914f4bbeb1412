"""The panel beside the slide: where it stands, what can be done, what was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QKeyEvent, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from qpannot.qupath import PathClass
from qpannot.review.keys import BY_NAME, CLASS_KEYS, COMMANDS
from qpannot.review.layers import color_of

STATE_COLORS = {
    "unannotated": "#6b7280",
    "proposed": "#b45309",
    "reviewed": "#1d4ed8",
    "approved": "#15803d",
    "to be read": "#b45309",
    "read": "#1d4ed8",
}
TOOLS = ("paint", "erase", "fill", "polygon", "pan")
TOOL_NAMES = {
    "paint": "Brush",
    "erase": "Eraser",
    "fill": "Fill",
    "polygon": "Polygon",
    "pan": "Move",
}
STYLE = """
QPushButton { padding: 5px 6px; }
QPushButton#accept { background: #15803d; color: white; font-weight: bold; padding: 9px; }
QPushButton#accept:hover { background: #16a34a; }
QPushButton:checked { background: #2b5fd9; color: white; }
QLabel#name { font-size: 15px; font-weight: bold; }
QLabel#heading { font-weight: bold; margin-top: 4px; }
QLabel#message { color: white; border-radius: 4px; }
QLabel#message[kind="error"] { background: #7f1d1d; }
QLabel#message[kind="told"] { background: #1e3a5f; }
"""


class Panel(QWidget):  # type: ignore[misc]
    """Shows a review and asks for what buttons stand for. Knows nothing of slides or layers.

    Parameters
    ----------
    do
        Called with the name of a command (`keys.COMMANDS`).
    choose_class
        Called with a class's place in the list.
    """

    note_edited = Signal(str)

    def __init__(
        self, do: Callable[[str], None], choose_class: Callable[[int], None], *, second_reader: bool
    ) -> None:
        super().__init__()
        self._do, self._choose_class = do, choose_class
        self._second_reader = second_reader
        self.setStyleSheet(STYLE)
        inside = QWidget()
        rows = QVBoxLayout(inside)
        rows.setContentsMargins(8, 4, 8, 4)
        rows.setSpacing(6)
        self._add_slide(rows)
        self._add_painting(rows)
        self._add_view(rows)
        self._add_note(rows)
        self._add_keys(rows)
        rows.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        area.setWidget(inside)
        bar = area.verticalScrollBar().sizeHint().width()
        self.setMinimumWidth(inside.minimumSizeHint().width() + bar)
        around = QVBoxLayout(self)
        around.setContentsMargins(0, 0, 0, 0)
        around.addWidget(area, 1)
        verdict = QVBoxLayout()  # below what scrolls: it is seen in a small window, too
        verdict.setContentsMargins(8, 2, 8, 6)
        self._add_verdict(verdict)
        around.addLayout(verdict)

    def sizeHint(self) -> QSize:
        """Return a size that shows everything on a usual screen."""
        return QSize(self.minimumWidth(), 820)

    # what is shown

    def show_slide(
        self, name: str, state: str, about: str, why: str, *, is_taken: bool = True
    ) -> None:
        """Show which slide it is, its state, its round and score, and why it is in the queue."""
        self._name.setText(name)
        self._state.setText(f" {state} ")
        color = STATE_COLORS.get(state, "#6b7280")
        self._state.setStyleSheet(
            f"background: {color}; color: white; border-radius: 4px; padding: 2px 6px;"
        )
        self._state.setVisible(is_taken)
        self._about.setText(about)
        self._about.setVisible(bool(about))
        self._why.setText(why)
        self._why.setVisible(bool(why))

    def show_progress(self, place: int | None, done: int, total: int) -> None:
        """Show how far the queue is.

        Parameters
        ----------
        place
            Of the slide that is shown, from 1; ``None`` where none is.
        """
        self._bar.setMaximum(max(1, total))
        self._bar.setValue(done)
        where = f"slide {place} of {total}; " if place else ""
        left = total - done
        self._left.setText(f"{where}{done} done, {left} left" if total else "no slide waits")

    def show_classes(self, classes: Sequence[PathClass], chosen: int) -> None:
        """Show the classes to paint with; ``chosen`` is one's place in the list."""
        for button in self._classes.buttons():
            self._classes.removeButton(button)
            button.deleteLater()
        for index, path_class in enumerate(classes):
            key = f"{CLASS_KEYS[index]}  " if index < len(CLASS_KEYS) else ""
            button = _button(f"{key}{path_class.name}", f"Paint {path_class.name}")
            button.setIcon(_swatch(color_of(index, path_class)))
            button.setCheckable(True)
            button.setChecked(index == chosen)
            button.setStyleSheet("text-align: left;")
            self._classes.addButton(button, index)
            self._class_grid.addWidget(button, index // 2, index % 2)

    def show_chosen(self, index: int) -> None:
        """Show which class is painted."""
        if (button := self._classes.button(index)) is not None:
            button.setChecked(True)

    def show_tool(self, name: str | None) -> None:
        """Show which tool is taken (one of `TOOLS`); None where it is none of ours."""
        self._tools.setExclusive(False)
        for index, tool in enumerate(TOOLS):
            self._tools.button(index).setChecked(tool == name)
        self._tools.setExclusive(True)

    def show_brush(self, text: str) -> None:
        """Show how large the brush and the pixel that it paints are."""
        self._brush.setText(text)

    def show_note(self, note: str) -> None:
        """Show the person's note on the slide."""
        if self._note.toPlainText() != note:
            self._note.blockSignals(True)
            self._note.setPlainText(note)
            self._note.blockSignals(False)

    def show_saved(self, text: str, *, is_saved: bool) -> None:
        """Show whether the project has what was painted."""
        self._saved.setText(text)
        self._saved.setStyleSheet("color: #4ade80;" if is_saved else "color: #fbbf24;")

    def tell(self, text: str, *, is_error: bool = False) -> None:
        """Show a message until the next; an empty one takes it away."""
        self._message.setText(text)
        self._message.setProperty("kind", "error" if is_error else "told")
        self._message.style().unpolish(self._message)
        self._message.style().polish(self._message)
        self._message.setVisible(bool(text))

    @property
    def message(self) -> str:
        """What `tell` said last."""
        return str(self._message.text())

    # what it is made of

    def _add_slide(self, rows: QVBoxLayout) -> None:
        top = QHBoxLayout()
        self._name = QLabel("")
        self._name.setObjectName("name")
        self._name.setTextInteractionFlags(Qt.TextSelectableByMouse)
        self._state = QLabel("")
        self._state.setSizePolicy(QSizePolicy.Fixed, QSizePolicy.Fixed)
        top.addWidget(self._name, 1)
        top.addWidget(self._state)
        rows.addLayout(top)
        self._about, self._why = _text(), _text()
        rows.addWidget(self._about)
        rows.addWidget(self._why)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(6)
        rows.addWidget(self._bar)
        self._left = _text()
        rows.addWidget(self._left)
        ways = QHBoxLayout()
        for name, text in (("previous", "Previous"), ("skip", "Skip"), ("next", "Next")):
            ways.addWidget(self._command(name, text))
        rows.addLayout(ways)
        self._message = _text()
        self._message.setObjectName("message")
        self._message.setContentsMargins(6, 6, 6, 6)
        self._message.setTextInteractionFlags(Qt.TextSelectableByMouse)
        self._message.hide()
        rows.addWidget(self._message)

    def _add_painting(self, rows: QVBoxLayout) -> None:
        rows.addWidget(_heading("Paint"))
        self._class_grid = QGridLayout()
        self._class_grid.setSpacing(4)
        self._classes = QButtonGroup(self)
        self._classes.idClicked.connect(self._choose_class)
        rows.addLayout(self._class_grid)
        tools = QHBoxLayout()
        tools.setSpacing(4)
        self._tools = QButtonGroup(self)
        for index, name in enumerate(TOOLS):
            button = self._command(name, TOOL_NAMES[name], below=True)
            button.setCheckable(True)
            self._tools.addButton(button, index)
            tools.addWidget(button)
        rows.addLayout(tools)
        sizes = QHBoxLayout()
        self._brush = _text()
        sizes.addWidget(self._brush, 1)
        for name, text in (("smaller_brush", "-"), ("larger_brush", "+"), ("undo", "Undo")):
            sizes.addWidget(self._command(name, text, key=name == "undo"))
        rows.addLayout(sizes)

    def _add_view(self, rows: QVBoxLayout) -> None:
        rows.addWidget(_heading("View"))
        grid = QGridLayout()
        grid.setSpacing(4)
        names = (
            ("toggle_heatmap", "Heatmap"),
            ("toggle_annotations", "Annotations"),
            ("toggle_outlines", "Outlines"),
            ("finer", "Finer"),
            ("whole", "Whole slide"),
        )
        for index, (name, text) in enumerate(names):
            grid.addWidget(self._command(name, text), index // 3, index % 3)
        rows.addLayout(grid)

    def _add_note(self, rows: QVBoxLayout) -> None:
        rows.addWidget(_heading("Note on this slide"))
        self._note = _Note()
        self._note.setFixedHeight(56)
        self._note.setTabChangesFocus(True)
        self._note.setPlaceholderText(
            "for other readers; QuPath shows it as qpannot.note. Esc: done"
        )
        self._note.textChanged.connect(lambda: self.note_edited.emit(self._note.toPlainText()))
        rows.addWidget(self._note)

    def _add_verdict(self, rows: QVBoxLayout) -> None:
        self._saved = _text()
        rows.addWidget(self._saved)
        text = "Approve, open the next" if self._second_reader else "Accept, open the next"
        accept = self._command("accept", text)
        accept.setObjectName("accept")
        rows.addWidget(accept)
        others = QGridLayout()
        others.setSpacing(4)
        names = (
            ("save", "Save"),
            ("discard", "Discard..."),
            ("reject", "Reject..."),
            ("send_back", "Send back"),
        )
        for index, (name, what) in enumerate(names):
            others.addWidget(self._command(name, what), index // 2, index % 2)
        rows.addLayout(others)

    def _add_keys(self, rows: QVBoxLayout) -> None:
        shown = QPushButton("All keys")
        shown.setCheckable(True)
        shown.setFocusPolicy(Qt.NoFocus)
        rows.addWidget(shown)
        lines = "".join(
            f"<tr><td><b>{escape(command.shown)}</b>&nbsp;&nbsp;</td>"
            f"<td>{escape(command.text)}</td></tr>"
            for command in COMMANDS
        )
        lines += "<tr><td><b>1 ... 9</b>&nbsp;&nbsp;</td><td>class to paint</td></tr>"
        keys = _text()
        keys.setTextFormat(Qt.RichText)
        keys.setText(f"<table>{lines}</table>")
        keys.hide()
        shown.toggled.connect(keys.setVisible)
        rows.addWidget(keys)

    def _command(
        self, name: str, text: str, *, key: bool = True, below: bool = False
    ) -> QPushButton:
        command = BY_NAME[name]
        label = f"{text}{chr(10) if below else '  '}{command.shown}" if key else text
        button = _button(label, f"{command.text} ({command.shown})")
        button.clicked.connect(lambda: self._do(name))
        return button


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text.replace("&", "&&"))
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.NoFocus)  # keys go on to the slide
    return button


def _text() -> QLabel:
    label = QLabel("")
    label.setWordWrap(True)
    label.setTextFormat(Qt.PlainText)
    return label


class _Note(QPlainTextEdit):  # type: ignore[misc]
    """Lets go of the keyboard at Esc, so that keys are commands again."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Qt's own."""
        if event.key() == Qt.Key_Escape:
            self.clearFocus()
        else:
            super().keyPressEvent(event)


def _heading(text: str) -> QLabel:
    label = QLabel(text)
    label.setObjectName("heading")
    return label


def _swatch(color: tuple[int, int, int]) -> QIcon:
    pixmap = QPixmap(14, 14)
    pixmap.fill(QColor(*color))
    return QIcon(pixmap)
