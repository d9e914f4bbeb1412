"""What napari's own menus offer: a project is opened and reviewed in a viewer that is there."""

from __future__ import annotations

from pathlib import Path

import napari  # by name: napari looks at what a command asks for
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from qpannot.errors import QpannotError
from qpannot.qupath import Project
from qpannot.qupath import open_project as open_qupath_project
from qpannot.review.closing import Closing
from qpannot.review.session import Session
from qpannot.review.viewer import ReviewWindow

NAME = "Review (qpannot)"


def open_project(viewer: napari.Viewer) -> ReviewWidget | None:
    """Ask for a project and review it in a viewer; None where the person thinks better of it."""
    widget = ReviewWidget(viewer)
    if not widget.browse():
        widget.deleteLater()
        return None
    viewer.window.add_dock_widget(widget, name=NAME, area="right")
    widget.open()
    return widget


class ReviewWidget(QWidget):  # type: ignore[misc]
    """Asks for a project, then is the panel of its review."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._project: Project | None = None
        self.review: ReviewWindow | None = None
        self.path = QLineEdit()
        self.path.setPlaceholderText("project.qpproj, or its folder")
        self.by = QLineEdit()
        self.by.setPlaceholderText("may stay empty")
        self.independent = QCheckBox("independent: draw beside others, under the reader's name")
        self.second_reader = QCheckBox("second reader: approve what was reviewed")
        self.message = QLabel("")
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextSelectableByMouse)
        browse, start = QPushButton("Browse..."), QPushButton("Review")
        browse.clicked.connect(self.browse)
        start.clicked.connect(self.open)
        self.path.returnPressed.connect(self.open)
        asked, form, place = QWidget(), QFormLayout(), QHBoxLayout()
        place.addWidget(self.path, 1)
        place.addWidget(browse)
        form.addRow("Project", place)
        form.addRow("Reader", self.by)
        rows = QVBoxLayout(asked)
        rows.addLayout(form)
        for each in (self.second_reader, self.independent, start, self.message):
            rows.addWidget(each)
        rows.addStretch(1)
        self._pages = QStackedLayout(self)
        self._pages.addWidget(asked)

    def browse(self) -> bool:
        """Ask for the project's file; tell whether one was chosen."""
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Open a QuPath project", self.path.text(), "QuPath projects (*.qpproj)"
        )
        if chosen:
            self.path.setText(chosen)
        return bool(chosen)

    def event(self, event: QEvent) -> bool:
        """Qt's own: napari takes the panel that a person closes out of its window."""
        if event.type() == QEvent.ParentChange and self.parent() is None:
            self.close_project()
        return bool(super().event(event))

    def open(self) -> None:
        """Open the project that was named, and show its first slide that waits."""
        self.close_project()
        self.message.setText(self._why_not())
        if self.message.text():
            return
        try:
            self._project = open_qupath_project(Path(self.path.text()), "r+")
            session = Session(
                self._project,
                by=self.by.text().strip(),
                second_reader=self.second_reader.isChecked(),
                independent=self.independent.isChecked(),
            )
        except QpannotError as error:
            self.message.setText(str(error))
            self.close_project()
            return
        self.review = review = ReviewWindow(self._viewer, session)
        Closing(self.window(), review)
        self._pages.addWidget(self.review.panel)
        self._pages.setCurrentWidget(self.review.panel)
        self.review.start()

    def _why_not(self) -> str:
        """Return what is still to be said before a project can be opened."""
        if not self.path.text().strip():
            return "Choose the project first: Browse..."
        if self.independent.isChecked() and not self.by.text().strip():
            return "Who draws independently needs a name: fill in Reader."
        if self.independent.isChecked() and self.second_reader.isChecked():
            return "Be one or the other: independent, or second reader."
        return ""

    def close_project(self) -> None:
        """Let go of the project; what was not saved is kept beside it."""
        if self.review is not None:
            self.review.leave()
            self.review = None
        if self._project is not None:
            self._project.close()
            self._project = None
