"""What lies in the viewer: the slide, its heatmap, other annotations, and what is painted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.geometry import Mpp, Region
from qpannot.heatmap import Heatmap
from qpannot.heatmap.files import COLORS
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.annotation import Color
from qpannot.review.outlines import Outlines

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Labels, Layer

    from qpannot.review.canvas import Canvas
    from qpannot.review.pyramid import Pyramid

SLIDE, HEATMAP, CONTEXT, FRAME, EDITED = (
    "Slide",
    "Heatmap: ",
    "Other annotations",
    "Editable area",
    "Annotations",
)
"""Names of the layers, from the lowest up; a heatmap's is followed by its class."""

HEATMAP_STOPS = (
    (0.19, 0.20, 0.60, 0.0),
    (0.25, 0.40, 0.90, 0.35),
    (0.20, 0.75, 0.65, 0.60),
    (0.98, 0.85, 0.25, 0.80),
    (0.85, 0.10, 0.10, 0.90),
)
"""Red, green, blue and opacity at probabilities 0, 1/4, 1/2, 3/4 and 1: seen over pink tissue."""


@dataclass(frozen=True)
class World:
    """The viewer's coordinates: micrometres, or full-resolution pixels where mpp is unknown.

    Rows come before columns. The upper left corner of the slide is at 0, 0.

    Parameters
    ----------
    mpp
        Of full resolution.
    """

    mpp: Mpp | None

    @property
    def scale(self) -> tuple[float, float]:
        """Height and width of a full-resolution pixel."""
        return (self.mpp.y, self.mpp.x) if self.mpp else (1.0, 1.0)

    @property
    def unit(self) -> str:
        """What the viewer calls the unit."""
        return "um" if self.mpp else "pixel"

    def placed(self, affine: Affine = Affine(1, 1)) -> dict[str, Any]:  # noqa: B008, it is frozen
        """Return a layer's arguments for an array whose pixels lie on the slide as told.

        A viewer has the middle of the first pixel where we have its corner.
        """
        height, width = self.scale
        return {
            "scale": (affine.dy * height, affine.dx * width),
            "translate": ((affine.y + affine.dy / 2) * height, (affine.x + affine.dx / 2) * width),
            "units": (self.unit, self.unit),
        }

    def points(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return full-resolution points (x, y), shape [n, 2], as rows and columns."""
        return np.asarray(xy, np.float64)[:, ::-1] * self.scale

    def region(self, top: float, left: float, height: float, width: float) -> Region:
        """Return a rectangle of the viewer in full-resolution pixels."""
        dy, dx = self.scale
        return Region(left / dx, top / dy, width / dx, height / dy)


def color_of(index: int, path_class: PathClass) -> Color:
    """Return a class's colour, of its place in the list where it has none."""
    return path_class.color or COLORS[index % len(COLORS)]


class SlideLayers:
    """The layers of one slide after the other, in a viewer that may have others beside them.

    Layers are kept from slide to slide and given other data: making and removing them takes napari
    seconds.

    Parameters
    ----------
    viewer
        Where they are shown.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layers: dict[str, Layer] = {}
        self._class_names: tuple[str, ...] = ()
        self.world = World(None)

    @property
    def slide(self) -> Image | None:
        """The slide itself."""
        return self._present(SLIDE)

    @property
    def labels(self) -> Labels | None:
        """What is painted on."""
        return self._present(EDITED)

    @property
    def heatmaps(self) -> dict[str, Image]:
        """By the names of the classes."""
        return {
            name.removeprefix(HEATMAP): layer
            for name in list(self._layers)
            if name.startswith(HEATMAP) and (layer := self._present(name)) is not None
        }

    def __iter__(self) -> Iterator[Layer]:
        return (layer for name in list(self._layers) if (layer := self._present(name)) is not None)

    def show_slide(self, pyramid: Pyramid, mpp: Mpp | None) -> None:
        """Show a slide, and nothing of the one before but what is shown anew afterwards."""
        from napari.layers import Image

        world = World(mpp)
        for name in list(self._layers):
            if world.unit != self.world.unit or name == CONTEXT:
                self._drop(name)
        self.world = world
        levels = list(pyramid.levels)
        if (layer := self.slide) is not None:
            layer.data = levels
            self._move(layer, world.placed())
        else:
            made = Image(
                levels,
                name=SLIDE,
                multiscale=True,
                rgb=True,
                interpolation2d="linear",
                **world.placed(),
            )
            self._add(SLIDE, made)

    def show_heatmap(self, heatmap: Heatmap | None, class_names: Sequence[str]) -> None:
        """Have a heatmap's channels at hand, hidden; clear where nothing was predicted.

        Parameters
        ----------
        class_names
            Of which classes, as far as it has them.
        """
        from napari.layers import Image
        from napari.utils import Colormap

        self._class_names = tuple(class_names)
        here = [name for name in class_names if heatmap and name in heatmap.classes]
        for name in self.heatmaps:
            if name not in here:
                self._drop(HEATMAP + name)
        for name in here:
            assert heatmap is not None
            probabilities = np.nan_to_num(heatmap.channel(name), nan=0.0)
            placed = self.world.placed(heatmap.affine)
            if (layer := self._present(HEATMAP + name)) is not None:
                layer.visible = False
                layer.data = probabilities
                self._move(layer, placed)
                continue
            made = Image(
                probabilities,
                name=HEATMAP + name,
                colormap=Colormap(HEATMAP_STOPS, name="qpannot probability"),
                contrast_limits=(0, 1),
                interpolation2d="linear",
                opacity=0.5,
                visible=False,
                **placed,
            )
            self._add(HEATMAP + name, made)

    def turn_heatmap(self, is_shown: bool, class_index: int) -> None:
        """Show the heatmap of a class, of another where it has none; or none."""
        heatmaps = self.heatmaps
        wanted = self._class_names[class_index] if class_index < len(self._class_names) else ""
        if wanted not in heatmaps:
            wanted = next(iter(heatmaps), "")
        for name, layer in heatmaps.items():
            layer.visible = is_shown and name == wanted

    def show_canvas(
        self, labels: NDArray[np.uint8], canvas: Canvas, classes: Sequence[PathClass]
    ) -> None:
        """Show what is painted on, and its frame; the viewer paints into ``labels`` itself."""
        from napari.layers import Labels
        from napari.utils import DirectLabelColormap

        self._show_frame(canvas.region)
        colors: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
        for index, path_class in enumerate(classes):
            colors[index + 1] = (*(part / 255 for part in color_of(index, path_class)), 1.0)
        colormap, placed = DirectLabelColormap(color_dict=colors), self.world.placed(canvas.affine)
        if (layer := self.labels) is None:
            made = Labels(labels, name=EDITED, colormap=colormap, opacity=0.4, **placed)
            self._add(EDITED, made)
            return
        mode = layer.mode
        layer.editable = False  # what is undone must not be of another canvas
        layer.data = labels
        self._move(layer, placed)
        layer.colormap = colormap
        layer.editable, layer.mode = True, mode

    def _show_frame(self, region: Region) -> None:
        from napari.layers import Shapes

        x, y = (region.x, region.right), (region.y, region.bottom)
        corners = self.world.points(
            np.array(list(zip((*x, *x[::-1]), np.repeat(y, 2), strict=True)))
        )
        width = max(region.width, region.height) / 600 * self.world.scale[0]
        if (layer := self._present(FRAME)) is not None:
            layer.data = [corners]
            layer.edge_width = [width]
            return
        made = Shapes(
            [corners],
            shape_type="polygon",
            name=FRAME,
            face_color="transparent",
            edge_color="#2b7fff",
            edge_width=width,
            opacity=0.9,
            units=(self.world.unit, self.world.unit),
        )
        made.editable = False
        self._add(FRAME, made)

    def show_context(self, annotations: Sequence[Annotation], pyramid: Pyramid) -> None:
        """Show annotations that are not edited here, as outlines."""
        from napari.layers import Image

        if not annotations:
            return
        outlines = Outlines(annotations, [level.shape[:2] for level in pyramid.levels])
        made = Image(
            list(outlines.levels),
            name=CONTEXT,
            multiscale=True,
            rgb=True,
            blending="translucent",
            **self.world.placed(),
        )
        self._add(CONTEXT, made)

    def clear(self) -> None:
        """Take all of them away."""
        for name in list(self._layers):
            self._drop(name)

    def _present(self, name: str) -> Any:
        layer = self._layers.get(name)
        return layer if layer is not None and layer in self._viewer.layers else None

    def _add(self, name: str, layer: Layer) -> None:
        """Add a layer below those of ours that belong above it."""
        self._layers[name] = layer
        rank = _rank(name)
        places = [self._viewer.layers.index(each) for each in self if _rank(each.name) > rank]
        self._viewer.layers.insert(min(places, default=len(self._viewer.layers)), layer)

    def _drop(self, name: str) -> None:
        layer = self._present(name)
        del self._layers[name]
        if layer is not None:
            self._viewer.layers.remove(layer)

    @staticmethod
    def _move(layer: Layer, placed: dict[str, Any]) -> None:
        layer.scale, layer.translate = placed["scale"], placed["translate"]


def _rank(name: str) -> int:
    order = (SLIDE, HEATMAP, CONTEXT, FRAME, EDITED)
    return next((i for i, each in enumerate(order) if name.startswith(each)), len(order))
