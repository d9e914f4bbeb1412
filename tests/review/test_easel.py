"""The tools in the real window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qpannot.review.keys import CLASS_KEYS, COMMANDS

if TYPE_CHECKING:
    from qpannot.review.viewer import ReviewWindow
    from tests.review.conftest import Hand


def painted(window: ReviewWindow) -> np.ndarray:
    assert window.opened is not None
    return window.opened.labels


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


def test_what_is_undone_is_no_stroke_and_undoing_nothing_changes_nothing(
    window: ReviewWindow, hand: Hand
) -> None:
    opened = window.opened
    assert opened is not None
    hand.key("E")
    hand.drag((400, 250), (440, 250))
    hand.until(lambda: opened.unsaved == 1)
    hand.key("Control-Z")
    assert (opened.unsaved, opened.is_changed) == (0, False)
    hand.key("Control-Z")
    hand.key("Shift-Control-Z")
    assert (opened.unsaved, opened.is_changed) == (1, True)
    assert opened._sitting._clock.strokes == 1


def test_esc_gives_the_keys_back_from_the_note(window: ReviewWindow, hand: Hand) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    note, main = window.panel._note, window.panel.window()
    main.activateWindow()
    note.setFocus()
    hand.until(note.hasFocus)
    QTest.keyClicks(note, "es")
    assert window.opened is not None and window.opened.note == "es"
    QTest.keyClick(note, Qt.Key_Escape)
    hand.until(lambda: not note.hasFocus())
    QTest.keyClick(QApplication.focusWidget() or main, Qt.Key_E)
    assert window.labels is not None and window.labels.mode == "erase"
    assert window.opened.note == "es"


def test_nothing_happens_outside_the_editable_area_which_is_framed(
    window: ReviewWindow, hand: Hand
) -> None:
    hand.viewer.scene.camera.zoom *= 3
    hand.until(lambda: True)
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


def test_naparis_status_bar_tells_our_keys(window: ReviewWindow, hand: Hand) -> None:
    for key in ("E", "P"):
        hand.key(key)
        assert "class to paint" in window.viewer.help


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
