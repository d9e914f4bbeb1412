"""Starting napari for a review: what it needs, and how it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpannot.errors import QpannotError

if TYPE_CHECKING:
    from napari import Viewer

    from qpannot.review.closing import Closing
    from qpannot.review.session import Session
    from qpannot.review.viewer import ReviewWindow

IN_QUPATH = "or correct the proposals in QuPath instead"

DISPLAY_TRIAL = """
from qtpy.QtGui import QGuiApplication, QOpenGLContext
application = QGuiApplication([])
raise SystemExit(0 if QOpenGLContext().create() else "OpenGL cannot be used here.")
"""
"""Run by itself: without a screen Qt ends the whole process."""

TRIAL_S = 60

NAPARI_SETTINGS = {
    "NAPARI_APPLICATION_CONFIRM_CLOSE_WINDOW": "0",  # all is kept, so there is nothing to ask
    "NAPARI_APPLICATION_SAVE_WINDOW_STATE": "0",  # that its panels are hidden is ours alone
}
"""By the names under which napari reads its settings from the environment, and saves none."""

PART_OF_SCREEN = 0.9
"""Of its width and height, where the window is not maximized."""

DOUBLES = ("layer controls", "layer list")
"""napari's own panels, of which ours has all that a review needs."""


@dataclass(frozen=True)
class Ended:
    """How a review in a window ended.

    Parameters
    ----------
    lines
        What to tell the person.
    exit_code
        0, or that of a process ended by a signal.
    """

    lines: tuple[str, ...]
    exit_code: int


def check_napari() -> None:
    """Refuse to go on without napari.

    Raises
    ------
    QpannotError
        It is not installed, or without Qt.
    """
    for package, what in (("napari", "napari"), ("qtpy", "Qt")):
        if importlib.util.find_spec(package) is None:
            raise QpannotError(
                f"A review needs {what}, which is not installed in {sys.prefix}.",
                hint=f'pip install "qpannot[review]", {IN_QUPATH}.',
            )


def check_display() -> None:
    """Refuse to go on without a screen that windows can be drawn on.

    Raises
    ------
    QpannotError
        Qt finds none, or lacks a library for it, or OpenGL.
    """
    if sys.platform != "linux":
        return  # others have one, or nobody is there to start this
    if not (
        os.environ.get("DISPLAY")
        or os.environ.get("WAYLAND_DISPLAY")
        or os.environ.get("QT_QPA_PLATFORM")
    ):
        raise QpannotError(
            "There is no screen here: neither DISPLAY nor WAYLAND_DISPLAY is set.",
            hint="On a machine far away, use a remote desktop or log in with 'ssh -X'; copy the "
            f"project and its slides to a machine with a screen; {IN_QUPATH}.",
        )
    try:
        tried = subprocess.run(
            [sys.executable, "-c", DISPLAY_TRIAL],
            capture_output=True,
            text=True,
            timeout=TRIAL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return  # slow is not broken
    if tried.returncode:
        said = [line for line in tried.stderr.splitlines() if line.strip()]
        raise QpannotError(
            f"No window can be opened here: {said[0] if said else 'Qt ended without a word'}",
            hint="Check that the screen can be reached (DISPLAY) and what Qt needs: on Debian and "
            "Ubuntu the packages libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libopengl0 libgl1 "
            f"libegl1; {IN_QUPATH}.",
        )


def dock_alone(viewer: Viewer, window: ReviewWindow) -> Closing:
    """Put the panel of a review into a viewer that is there for nothing else.

    napari's own panels are hidden; its menu *Window* shows them again. Ours cannot be closed by
    itself.
    """
    from qtpy.QtWidgets import QDockWidget, QWidget

    from qpannot.review.closing import Closing

    dock = viewer.window.add_dock_widget(window.panel, name="qpannot review", area="right")
    dock.setTitleBarWidget(QWidget())
    main = window.panel.window()
    for theirs in main.findChildren(QDockWidget):
        if theirs.objectName() in DOUBLES:
            theirs.hide()
    return Closing(main, window)


def run(session: Session) -> Ended:
    """Review in a new napari window until it is closed, or the process is asked to end.

    Raises
    ------
    QpannotError
        Something that was painted could not be kept.
    """
    for name, value in NAPARI_SETTINGS.items():
        os.environ.setdefault(name, value)
    import napari
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    from qpannot.console import say
    from qpannot.review.viewer import ReviewWindow

    viewer = napari.Viewer(title="qpannot")
    window = ReviewWindow(viewer, session)
    closing = dock_alone(viewer, window)
    signals: list[int] = []

    def end(number: int, frame: object) -> None:
        signals.append(number)
        QTimer.singleShot(0, viewer.close)  # a signal may come in the midst of Qt's own work

    before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        main = window.panel.window()
        main.resize(main.screen().availableSize() * PART_OF_SCREEN)
        main.showMaximized()  # the slide is what is looked at
        QApplication.processEvents()  # so that it is fitted into the view as it will be
        window.start(None if session.waiting else session.queue[0].image.id)
        say("The window is open; closing it ends the review.")
        napari.run()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        unsaved = window.unsaved
        window.close()
    if closing.problem is not None:
        raise closing.problem
    lines = [f"{name}: changes are kept and not yet in the project." for name in unsaved]
    if unsaved:
        lines.append("Run the same command again to go on with them.")
    return Ended(tuple(lines), 128 + signals[0] if signals else 0)
