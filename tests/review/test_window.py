"""The real window under a real screen. In one file: so that one process makes the viewers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely

from qpannot.affine import Affine
from qpannot.bootstrap.said import STATE_KEY
from qpannot.geometry import Mpp
from qpannot.heatmap import Heatmap
from qpannot.qupath import open_project
from qpannot.qupath.annotation import Annotation, PathClass
from qpannot.qupath.proposals import is_untouched
from qpannot.review.keys import CLASS_KEYS, COMMANDS
from qpannot.review.session import Session

if TYPE_CHECKING:
    from napari import Viewer

    from qpannot.qupath import Project
    from qpannot.review.viewer import ReviewWindow
    from tests.conftest import Study

PATIENCE_S = 60


def until(true: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
    """Let Qt work until something is so."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not true():
        QApplication.processEvents()
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


class Hand:
    """A person at the mouse and the keys of a viewer.

    Parameters
    ----------
    mpp
        Of the slides; places are told in their full-resolution pixels.
    """

    def __init__(self, viewer: Viewer, mpp: float) -> None:
        self.viewer, self._mpp = viewer, mpp
        self._widget: Any = viewer.window._qt_viewer.canvas.native

    def key(self, text: str) -> None:
        """Press a key, as ``"A"`` or ``"Shift-N"``."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        *held, letter = text.split("-")
        modifiers = {"Shift": Qt.ShiftModifier, "Control": Qt.ControlModifier}
        pressed = Qt.NoModifier
        for name in held:
            pressed |= modifiers[name]
        QTest.keyClick(self._widget, getattr(Qt, f"Key_{letter}"), pressed)
        until(lambda: True)

    def drag(self, *places: tuple[float, float]) -> None:
        """Move the mouse over places (x, y), its button held."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        points = [QPointF(*self._on_screen(place)) for place in places]
        left, none = Qt.LeftButton, Qt.NoButton
        events = [(QEvent.MouseButtonPress, points[0], left, left)]
        events += [(QEvent.MouseMove, point, none, left) for point in points]
        events += [(QEvent.MouseButtonRelease, points[-1], left, none)]
        for kind, point, button, held in events:
            there = self._widget.mapToGlobal(point)
            event = QMouseEvent(kind, point, there, button, held, Qt.NoModifier)
            QApplication.sendEvent(self._widget, event)
            QApplication.processEvents()

    def _on_screen(self, place: tuple[float, float]) -> tuple[float, float]:
        camera, (height, width) = self.viewer.scene.camera, self.viewer.canvas.size
        x, y = np.array(place) * self._mpp
        return (x - camera.center[-1]) * camera.zoom + width / 2, (
            y - camera.center[-2]
        ) * camera.zoom + height / 2


@pytest.fixture(scope="module")
def shared_viewer(display: dict[str, str]) -> Iterator[Viewer]:
    """One viewer for all tests: each costs seconds."""
    import napari

    viewer = napari.Viewer()
    yield viewer
    viewer.close()


@pytest.fixture
def study(proposed_study: Study, tmp_path: Path) -> Study:
    """Eight slides of 768 x 512 px with a proposal each, of a project of its own."""
    return proposed_study.copied(tmp_path / "study")


@pytest.fixture
def project(study: Study) -> Iterator[Project]:
    with study.open("r+") as opened:
        yield opened


@pytest.fixture
def window(shared_viewer: Viewer, project: Project) -> Iterator[ReviewWindow]:
    """A review of the study, its first slide open."""
    from qpannot.review.viewer import ReviewWindow

    review = ReviewWindow(shared_viewer, Session(project))
    shared_viewer.window.add_dock_widget(review.panel, name="review", area="right")
    review.start()
    until(lambda: shared_viewer.canvas.size[0] > 100)
    yield review
    review.close()
    review.layers.clear()
    shared_viewer.window.remove_dock_widget(review.panel)


@pytest.fixture
def hand(window: ReviewWindow) -> Hand:
    return Hand(window.viewer, mpp=1.0)


def painted(window: ReviewWindow) -> np.ndarray:
    assert window.opened is not None
    return window.opened.labels


def shown(window: ReviewWindow) -> np.ndarray:
    """The picture of the slide alone, without paint."""
    picture: np.ndarray = window.viewer.screenshot(canvas_only=True, flash=False)
    return picture


def outlines(project_path: Path, image_id: str) -> list[Annotation]:
    with open_project(project_path) as project:
        (image,) = (image for image in project.images if image.id == image_id)
        return list(image.annotations())


def test_a_stroke_of_the_mouse_is_saved_and_the_next_slide_opens(
    window: ReviewWindow, hand: Hand, project: Project
) -> None:
    assert window.opened is not None
    first = window.opened.image.id
    before = shapely.union_all([each.geometry for each in outlines(project.path, first)])
    assert not before.contains(shapely.Point(400, 480))
    hand.key("P")
    hand.drag((380, 480), (420, 480))
    assert painted(window)[480, 400] == 1
    until(lambda: "1 stroke" in window.panel._saved.text())
    hand.key("S")
    after = shapely.union_all([each.geometry for each in outlines(project.path, first)])
    assert after.contains(shapely.Point(400, 480))
    assert "Saved" in window.panel._saved.text()
    hand.key("N")
    assert window.opened.image.id != first
    assert painted(window)[480, 400] == 0


def test_accepting_marks_the_slide_reviewed_and_goes_on(
    window: ReviewWindow, hand: Hand, project: Project
) -> None:
    assert window.opened is not None
    first = window.opened.image.id
    hand.key("A")
    assert window.opened.image.id != first
    with open_project(project.path) as read:
        (image,) = (image for image in read.images if image.id == first)
        assert image.metadata[STATE_KEY] == "reviewed"
    assert window.panel._bar.value() == 1
    hand.key("Shift-N")
    assert window.opened.image.id == first
    assert "reviewed" in window.panel._state.text()


def test_what_somebody_saved_meanwhile_is_shown_before_it_is_accepted(
    window: ReviewWindow, hand: Hand, project: Project
) -> None:
    assert window.opened is not None
    first = window.opened.image.id
    row, column = 10, 10
    assert painted(window)[row, column] == 0
    with open_project(project.path, "r+") as other:
        (image,) = (image for image in other.images if image.id == first)
        drawn = Annotation(shapely.box(0, 0, 100, 100), path_class=PathClass("Tumor"))
        image.write_annotations(add=[drawn])
    hand.key("A")
    assert window.opened.image.id == first
    assert "Somebody else" in window.panel._message.text()
    labels = window.layers.labels
    assert labels is not None and labels.data[row, column] > 0
    hand.key("A")
    assert window.opened.image.id != first


def test_eraser_fill_and_polygon_paint_and_undo_takes_it_back(
    window: ReviewWindow, hand: Hand
) -> None:
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    start = painted(window).copy()
    hand.key("E")
    hand.drag((400, 250), (440, 250))
    assert start[250, 420] == 1
    assert painted(window)[250, 420] == 0
    hand.key("Control-Z")
    assert np.array_equal(painted(window), start)
    hand.key("2")
    hand.key("F")
    hand.drag((20, 20))
    assert painted(window)[500, 20] == 2
    hand.key("Control-Z")
    assert np.array_equal(painted(window), start)
    hand.key("G")
    hand.key("1")
    widget = hand._widget
    corners = [(10, 10), (50, 10), (50, 50)]
    for x, y in corners:
        place = QPoint(*(round(each) for each in hand._on_screen((x, y))))
        QTest.mouseClick(widget, Qt.LeftButton, pos=place)
    QTest.keyClick(widget, Qt.Key_Return)
    assert painted(window)[15, 45] == 1
    hand.key("Control-Z")
    assert np.array_equal(painted(window), start)


def test_nothing_happens_outside_the_editable_area_which_is_framed(
    window: ReviewWindow, hand: Hand
) -> None:
    hand.viewer.scene.camera.zoom *= 3
    until(lambda: True)
    hand.key("D")
    assert window.opened is not None
    region = window.opened.canvas.region
    assert region.width < 768
    hand.viewer.reset_view()
    before = painted(window).copy()
    hand.key("P")
    hand.drag((5, 5), (25, 5))
    assert np.array_equal(painted(window), before)
    frame = next(layer for layer in window.layers if layer.name == "Editable area")
    low, high = np.min(frame.data[0], axis=0), np.max(frame.data[0], axis=0)
    assert np.allclose((*low, *high), (region.y, region.x, region.bottom, region.right))


def test_a_finer_canvas_keeps_what_was_painted_and_the_whole_one_what_was_painted_on_it(
    window: ReviewWindow, hand: Hand
) -> None:
    hand.key("P")
    hand.drag((30, 480))
    hand.viewer.scene.camera.zoom *= 4
    hand.key("D")
    assert window.opened is not None
    region = window.opened.canvas.region
    x, y = region.x + region.width / 2, region.y + region.height / 2
    hand.key("E")
    hand.drag((x, y))
    hand.key("W")
    assert window.opened.canvas.region.width >= 768
    assert painted(window)[480, 30] == 1
    assert painted(window)[round(y), round(x)] == 0


def test_rejecting_asks_first(window: ReviewWindow, hand: Hand, project: Project) -> None:
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QMessageBox

    assert window.opened is not None
    image_id = window.opened.image.id
    asked = []

    def answer(role: Any) -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        asked.append(box.text())
        next(each for each in box.buttons() if box.buttonRole(each) == role).click()

    QTimer.singleShot(200, lambda: answer(QMessageBox.RejectRole))
    hand.key("Shift-R")
    assert any(map(is_untouched, outlines(project.path, image_id)))
    QTimer.singleShot(200, lambda: answer(QMessageBox.AcceptRole))
    hand.key("Shift-R")
    assert not any(map(is_untouched, outlines(project.path, image_id)))
    assert len(asked) == 2


def test_what_was_not_saved_is_discarded_once_the_person_is_sure(
    window: ReviewWindow, hand: Hand
) -> None:
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QMessageBox

    def answer(role: Any) -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        next(each for each in box.buttons() if box.buttonRole(each) == role).click()

    assert window.opened is not None
    before = painted(window).copy()
    hand.key("Shift-D")  # nothing to discard: it does not ask
    hand.drag((400, 480))
    window.panel.note_edited.emit("folded tissue")
    after = painted(window).copy()
    assert not np.array_equal(before, after)
    QTimer.singleShot(200, lambda: answer(QMessageBox.RejectRole))
    hand.key("Shift-D")
    assert np.array_equal(painted(window), after)
    QTimer.singleShot(200, lambda: answer(QMessageBox.AcceptRole))
    hand.key("Shift-D")
    assert np.array_equal(painted(window), before)
    assert not window.opened.is_changed and not window.opened.note


def test_the_way_to_accept_is_seen_in_a_small_window_too(window: ReviewWindow) -> None:
    from qtpy.QtCore import QPoint
    from qtpy.QtWidgets import QPushButton

    panel = window.panel
    panel.resize(panel.minimumWidth(), 400)
    panel.layout().activate()
    (accept,) = panel.findChildren(QPushButton, "accept")
    bottom = accept.mapTo(panel, QPoint(0, accept.height())).y()
    assert panel.minimumSizeHint().height() <= 400
    assert 0 < bottom <= 400


def test_naparis_status_bar_tells_our_keys(window: ReviewWindow, hand: Hand) -> None:
    for key in ("E", "P"):
        hand.key(key)
        assert "class to paint" in window.viewer.help


def test_slide_heatmap_and_canvas_lie_over_each_other(window: ReviewWindow) -> None:
    from napari.layers import Image

    assert window.opened is not None
    assert window._pyramid is not None
    probabilities = np.zeros((4, 6, 1), np.float32)
    probabilities[1, 2] = 1
    heatmap = Heatmap(
        probabilities, ("Tumor",), Affine(128, 128, 0, 0), Mpp(1, 1), slide="", model=""
    )
    window.layers.show_heatmap(heatmap, ["Tumor"])
    slide, edited = window.layers.slide, window.layers.labels
    laid = window.layers.heatmaps["Tumor"]
    assert isinstance(slide, Image)
    assert edited is not None
    corner = np.array([-0.5, -0.5])
    for layer in (slide, edited, laid):
        assert np.allclose(layer.data_to_world(corner), 0), layer.name
    for layer in (edited, laid):
        far = np.array(layer.data.shape) - 0.5
        assert np.allclose(layer.data_to_world(far), (512, 768)), layer.name
    # on the screen as well: the middle of the one probable pixel is at x 320, y 192
    window.layers.turn_heatmap(False, 0)
    edited.visible = False
    assert window._pyramid.wait(PATIENCE_S)
    slide.refresh()
    without = shown(window).astype(int)
    laid.opacity, laid.interpolation2d = 1.0, "nearest"
    window.layers.turn_heatmap(True, 0)
    changed = np.argwhere(np.abs(shown(window) - without)[..., :3].sum(axis=2) > 30)
    hand = Hand(window.viewer, mpp=1.0)
    ratio = shown(window).shape[1] / window.viewer.canvas.size[1]
    left, top = hand._on_screen((256, 128))
    right, bottom = hand._on_screen((384, 256))
    low, high = changed.min(axis=0) / ratio, changed.max(axis=0) / ratio
    assert np.allclose((*low, *high), (top, left, bottom, right), atol=2)
    edited.visible = True


def test_keys_show_and_hide(window: ReviewWindow, hand: Hand) -> None:
    edited = window.layers.labels
    assert edited is not None
    hand.key("V")
    assert not edited.visible
    hand.key("V")
    assert edited.visible
    hand.key("O")
    assert edited.contour >= 1
    hand.key("O")
    assert edited.contour == 0
    size = edited.brush_size
    hand.key("BracketRight")
    assert edited.brush_size > size
    hand.key("H")
    assert "no heatmap" in window.panel.message


def test_a_note_goes_to_the_project(window: ReviewWindow, hand: Hand, project: Project) -> None:
    assert window.opened is not None
    image_id = window.opened.image.id
    window.panel._note.setPlainText("folded tissue")
    hand.key("S")
    with open_project(project.path) as read:
        (image,) = (image for image in read.images if image.id == image_id)
        assert image.metadata["qpannot.note"] == "folded tissue"


def test_our_keys_take_none_of_naparis_tools_away() -> None:
    pytest.importorskip("napari")
    from napari.utils.shortcuts import default_shortcuts

    words = ("label", "brush_size", "reset_polygon", "complete_polygon")
    theirs = {
        action: [str(key) for key in keys]
        for action, keys in default_shortcuts.items()
        if any(word in action for word in words)
    }
    ours = {
        key.replace("-", "+").replace("Control", "Ctrl"): command.name
        for command in COMMANDS
        for key in command.keys
    } | {key: "a class" for key in CLASS_KEYS}
    gone = {
        action
        for action, keys in theirs.items()
        if all(key in ours and ours[key] not in action.replace("pan_zoom", "pan") for key in keys)
    }
    assert gone == {
        "napari:activate_labels_polygon_mode",  # ours is G
        "napari:activate_labels_transform_mode",  # would only move annotations off their slide
        "napari:decrease_brush_size",  # ours is on the same key
        "napari:increase_brush_size",
    }


def test_napari_offers_the_widget_which_opens_a_project(
    shared_viewer: Viewer, study: Study, manifest_path: Path
) -> None:
    import npe2
    from qtpy.QtWidgets import QPushButton

    plugins = npe2.PluginManager.instance()
    if "qpannot" not in plugins:
        plugins.register(npe2.PluginManifest.from_file(manifest_path))
    dock, widget = shared_viewer.window.add_plugin_dock_widget("qpannot", "Review")
    (start,) = (each for each in widget.findChildren(QPushButton) if each.text() == "Review")
    widget.path.setText(str(study.project / "nothing.qpproj"))
    start.click()
    assert "nothing.qpproj" in widget.message.text()
    widget.path.setText(str(study.project))
    start.click()
    try:
        assert widget.review.opened is not None
        assert "Annotations" in shared_viewer.layers
        assert widget.review.panel.isVisibleTo(widget)
    finally:
        widget.close_project()
        shared_viewer.layers.clear()
        shared_viewer.window.remove_dock_widget(dock)


def test_naparis_menu_opens_a_project(
    shared_viewer: Viewer, study: Study, manifest_path: Path
) -> None:
    import npe2
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QFileDialog

    plugins = npe2.PluginManager.instance()
    if "qpannot" not in plugins:
        plugins.register(npe2.PluginManifest.from_file(manifest_path))
    (project,) = study.project.glob("*.qpproj")

    def choose() -> None:
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, QFileDialog):
            waiting.stop()
            dialog.selectFile(str(project))
            dialog.accept()

    waiting = QTimer(interval=100)
    waiting.timeout.connect(choose)
    waiting.start()
    from napari._app_model import get_app_model

    widget = get_app_model().commands.execute_command("qpannot.open_project").result()
    try:
        assert widget.review.opened is not None
        assert "Annotations" in shared_viewer.layers
    finally:
        widget.close_project()
        shared_viewer.layers.clear()
        shared_viewer.window.remove_dock_widget(widget)


PAINTER = """
import sys, time
from pathlib import Path
import napari
from qtpy.QtWidgets import QApplication
from qpannot.qupath import open_project
from qpannot.review.session import Session
from qpannot.review.viewer import ReviewWindow

project = open_project(Path(sys.argv[1]), "r+")
window = ReviewWindow(napari.Viewer(show=False), Session(project))
window.start()
window.layers.labels.paint((480, 400), 1)
end = time.monotonic() + 5
while time.monotonic() < end:
    QApplication.processEvents()
    time.sleep(0.01)
print("painted", window.opened.image.id, flush=True)
time.sleep(600)
"""


def test_a_killed_process_loses_no_stroke(
    shared_viewer: Viewer, study: Study, display: dict[str, str]
) -> None:
    from qpannot.review.viewer import ReviewWindow

    painter = subprocess.Popen(
        [sys.executable, "-c", PAINTER, str(study.project)],
        stdout=subprocess.PIPE,
        text=True,
        env={**display, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert painter.stdout is not None
    told = painter.stdout.readline().split()
    painter.send_signal(signal.SIGKILL)
    painter.wait()
    painter.stdout.close()
    assert told[:1] == ["painted"]
    assert not any(
        each.geometry.contains(shapely.Point(400, 480)) for each in outlines(study.project, told[1])
    )
    with study.open("r+") as project:
        window = ReviewWindow(shared_viewer, Session(project))
        window.start(told[1])
        assert window.opened is not None
        assert window.opened.recovered
        assert painted(window)[480, 400] == 1
        assert window.panel.message
        window.do("save")
        window.close()
        window.layers.clear()
    assert any(
        each.geometry.contains(shapely.Point(400, 480)) for each in outlines(study.project, told[1])
    )


def test_the_command_opens_a_window_and_ends_when_it_is_told_to(
    study: Study, display: dict[str, str]
) -> None:
    command = [sys.executable, "-u", "-m", "qpannot", "review", str(study.project)]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**display, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if "window" in line:
            break
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=PATIENCE_S)
    assert "8 slides to review" in "".join(lines), err
    assert running.returncode == 143, out + err
    assert "Stopped" in err


def test_context_is_drawn_below_what_is_painted(window: ReviewWindow) -> None:
    assert window._pyramid is not None
    area = Annotation(shapely.box(50, 50, 200, 200), PathClass("Region*", (0, 0, 180)))
    window.layers.show_context([area], window._pyramid)
    names = [layer.name for layer in window.viewer.layers]
    assert names.index("Slide") < names.index("Other annotations") < names.index("Annotations")
    window.layers.labels.visible = False  # type: ignore[union-attr]
    picture = shown(window)
    hand = Hand(window.viewer, mpp=1.0)
    ratio = picture.shape[1] / window.viewer.canvas.size[1]
    x, y = (round(each * ratio) for each in hand._on_screen((50, 120)))
    around = picture[y - 3 : y + 4, x - 4 : x + 5, :3].astype(int)
    assert (around[..., 2] - around[..., 0]).max() > 100
