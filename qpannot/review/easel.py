"""The tools to paint with, upon napari's own, and how the painted layer is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer

from qpannot.errors import QpannotError
from qpannot.geometry import Region, Size
from qpannot.review.layers import SlideLayers
from qpannot.review.panel import TOOLS, Panel

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

    from qpannot.review.session import Opened

BRUSH_ON_SCREEN_PX = 30
BRUSH_STEP = 1.3
OUTLINE_ON_SCREEN_PX = 2
HELP = "1 ... 9: class to paint;  [ and ]: brush;  space bar held: move;  wheel: zoom"
"""In napari's status bar; its own words there are of keys that are ours."""

LEAST_VIEW_PX = 16
"""In full-resolution pixels; nobody paints on less."""

MODES = dict(zip(TOOLS, ("paint", "erase", "fill", "polygon", "pan_zoom"), strict=True))
NOT_PAINTING = ("erase", "pan_zoom", "pick", "transform")


class Easel:
    """Paints on the canvas of the slide that is open. Its commands are those of `keys.COMMANDS`.

    Parameters
    ----------
    painted
        Called after each stroke.
    stepped
        Called after something was undone, with -1, or done again, with 1.
    """

    def __init__(
        self,
        viewer: Viewer,
        layers: SlideLayers,
        panel: Panel,
        painted: Callable[[], None],
        stepped: Callable[[int], None],
    ) -> None:
        self._viewer, self._layers, self._panel = viewer, layers, panel
        self._painted, self._stepped = painted, stepped
        self._n_classes = 0
        self._pixel = 1.0
        self._followed: Labels | None = None

    @property
    def labels(self) -> Labels:
        """The layer that is painted on.

        Raises
        ------
        QpannotError
            It was taken away, as a person can in napari's list of layers.
        """
        if (labels := self._layers.labels) is None:
            raise QpannotError(
                "The layer to paint on is gone.", hint="Press W to have it again; nothing is lost."
            )
        return labels

    def put(self, opened: Opened) -> None:
        """Put a slide's canvas on, as it is now; tool, class and look stay as they were."""
        self._layers.show_canvas(opened.labels, opened.canvas, opened.classes)
        self._n_classes = len(opened.classes)
        self._pixel = opened.canvas.downsample * self._layers.world.scale[1]
        labels = self.labels
        if labels is not self._followed:
            self._followed = labels
            labels.mode = "paint"
            # napari may tell of a stroke before it paints it
            labels.events.paint.connect(lambda event: QTimer.singleShot(0, self._painted))
            labels.events.mode.connect(self._show_tool, position="last")  # after napari's help
            labels.events.brush_size.connect(self._show_brush)
            labels.events.selected_label.connect(self._show_class)
        labels.brush_size = self._on_canvas(BRUSH_ON_SCREEN_PX)
        if labels.contour:
            labels.contour = self._on_canvas(OUTLINE_ON_SCREEN_PX)
        self._viewer.layers.selection.active = labels
        self._show_tool()
        self._show_brush()

    @property
    def chosen_class(self) -> int | None:
        """The class that is painted, by its place in the list."""
        labels = self._layers.labels
        return labels.selected_label - 1 if labels is not None and labels.selected_label else None

    def choose_class(self, index: int) -> None:
        """Paint a class."""
        if index >= self._n_classes:
            return
        self.labels.selected_label = index + 1
        if self.labels.mode in NOT_PAINTING:
            self.paint()

    def paint(self) -> None:
        """Take the brush."""
        self._take("paint")

    def erase(self) -> None:
        """Take the eraser."""
        self._take("erase")

    def fill(self) -> None:
        """Take the bucket."""
        self._take("fill")

    def polygon(self) -> None:
        """Take the polygon."""
        self._take("polygon")

    def pan(self) -> None:
        """Move the view."""
        self._take("pan")

    def smaller_brush(self) -> None:
        """Make the brush smaller."""
        size = self.labels.brush_size
        self.labels.brush_size = max(1, min(size - 1, round(size / BRUSH_STEP)))

    def larger_brush(self) -> None:
        """Make the brush larger."""
        size = self.labels.brush_size
        self.labels.brush_size = max(size + 1, round(size * BRUSH_STEP))

    def undo(self) -> None:
        """Undo the last stroke."""
        self._step(self.labels.undo, -1)

    def redo(self) -> None:
        """Do it again."""
        self._step(self.labels.redo, 1)

    def _step(self, step: Callable[[], None], strokes: int) -> None:
        before = self.labels.data.copy()
        step()
        if not np.array_equal(before, self.labels.data):
            self._stepped(strokes)

    def toggle_annotations(self) -> None:
        """Show or hide what is painted."""
        self.labels.visible = not self.labels.visible

    def toggle_outlines(self) -> None:
        """Show areas filled or by their outlines."""
        on = self._on_canvas(OUTLINE_ON_SCREEN_PX)
        self.labels.contour = 0 if self.labels.contour else on

    def seen(self, size: Size) -> Region | None:
        """Return what the view shows of a slide of a size; None where that is next to nothing."""
        camera = self._viewer.scene.camera
        height, width = (length / camera.zoom for length in self._viewer.canvas.size)
        *_, y, x = camera.center
        view = self._layers.world.region(y - height / 2, x - width / 2, height, width)
        left, top = max(0.0, view.x), max(0.0, view.y)
        right, bottom = min(float(size.width), view.right), min(float(size.height), view.bottom)
        if min(right - left, bottom - top) < LEAST_VIEW_PX:
            return None
        return Region(left, top, right - left, bottom - top)

    def _take(self, tool: str) -> None:
        self._viewer.layers.selection.active = self.labels
        self.labels.mode = MODES[tool]

    def _on_canvas(self, screen_px: float) -> int:
        """Return a length on the screen in pixels of the canvas, at least 1."""
        zoom: float = self._viewer.scene.camera.zoom
        return max(1, round(screen_px / (zoom * self._pixel)))

    def _show_tool(self, event: object = None) -> None:
        if (labels := self._layers.labels) is not None:
            labels.help = HELP
            if self._viewer.layers.selection.active is labels:
                self._viewer.help = HELP
            mode = str(labels.mode)
            self._panel.show_tool(next((tool for tool in TOOLS if MODES[tool] == mode), None))

    def _show_brush(self, event: object = None) -> None:
        if (labels := self._layers.labels) is not None:
            unit = "µm" if self._layers.world.mpp else "px"
            brush = labels.brush_size * self._pixel
            self._panel.show_brush(f"brush {brush:,.0f} {unit}, pixel {self._pixel:,.1f} {unit}")

    def _show_class(self, event: object = None) -> None:
        if (index := self.chosen_class) is not None:
            self._panel.show_chosen(index)
        chosen, heatmaps = self.chosen_class, self._layers.heatmaps
        if chosen is not None and any(layer.visible for layer in heatmaps.values()):
            self._layers.turn_heatmap(True, chosen)
