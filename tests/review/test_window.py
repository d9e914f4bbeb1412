"""The real window under a real screen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from qpannot.affine import Affine
from qpannot.bootstrap.said import STATE_KEY
from qpannot.geometry import Mpp
from qpannot.heatmap import Heatmap
from qpannot.qupath import open_project
from qpannot.qupath.annotation import Annotation, PathClass
from qpannot.qupath.proposals import is_untouched
from qpannot.review.session import Session

if TYPE_CHECKING:
    from napari import Viewer

    from qpannot.qupath import Project
    from qpannot.review.viewer import ReviewWindow
    from tests.conftest import Study
    from tests.review.conftest import Hand


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
    hand.until(lambda: "1 stroke" in window.panel._saved.text())
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


def test_a_window_asks_before_it_closes_only_where_strokes_cannot_be_kept(
    window: ReviewWindow, hand: Hand, study: Study
) -> None:
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QMessageBox

    from qpannot.review.closing import Closing

    asked = []

    def stay() -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        asked.append(box.text())
        box.reject()

    assert window.opened is not None
    closing = Closing(window.panel.window(), window)
    try:
        hand.drag((400, 480))
        hand.until(lambda: window.opened is not None and window.opened.unsaved == 1)
        assert closing._may_close()
        (journal,) = (study.project / "qpannot" / "review").glob("*.journal")
        journal.unlink()
        journal.mkdir()
        QTimer.singleShot(200, stay)
        assert not closing._may_close()
        assert "cannot" in asked[0] and "lost" in asked[0]
        journal.rmdir()
        assert closing._may_close() and len(asked) == 1
    finally:
        window.panel.window().removeEventFilter(closing)


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


def test_slide_heatmap_and_canvas_lie_over_each_other(window: ReviewWindow, hand: Hand) -> None:
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
    assert window._pyramid.wait(60)
    slide.refresh()
    without = shown(window).astype(int)
    laid.opacity, laid.interpolation2d = 1.0, "nearest"
    window.layers.turn_heatmap(True, 0)
    changed = np.argwhere(np.abs(shown(window) - without)[..., :3].sum(axis=2) > 30)
    ratio = shown(window).shape[1] / window.viewer.canvas.size[1]
    left, top = hand._on_screen((256, 128))
    right, bottom = hand._on_screen((384, 256))
    low, high = changed.min(axis=0) / ratio, changed.max(axis=0) / ratio
    assert np.allclose((*low, *high), (top, left, bottom, right), atol=2)
    edited.visible = True


def test_a_note_goes_to_the_project(window: ReviewWindow, hand: Hand, project: Project) -> None:
    assert window.opened is not None
    image_id = window.opened.image.id
    window.panel._note.setPlainText("folded tissue")
    hand.key("S")
    with open_project(project.path) as read:
        (image,) = (image for image in read.images if image.id == image_id)
        assert image.metadata["qpannot.note"] == "folded tissue"


def test_context_is_drawn_below_what_is_painted(window: ReviewWindow, hand: Hand) -> None:
    assert window._pyramid is not None
    area = Annotation(shapely.box(50, 50, 200, 200), PathClass("Region*", (0, 0, 180)))
    window.layers.show_context([area], window._pyramid)
    names = [layer.name for layer in window.viewer.layers]
    assert names.index("Slide") < names.index("Other annotations") < names.index("Annotations")
    window.layers.labels.visible = False  # type: ignore[union-attr]
    picture = shown(window)
    ratio = picture.shape[1] / window.viewer.canvas.size[1]
    x, y = (round(each * ratio) for each in hand._on_screen((50, 120)))
    around = picture[y - 3 : y + 4, x - 4 : x + 5, :3].astype(int)
    assert (around[..., 2] - around[..., 0]).max() > 100


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
