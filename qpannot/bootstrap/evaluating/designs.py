"""What can be evaluated: anything that gives a heatmap of a slide."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from qpannot.errors import UsageError
from qpannot.evaluation.metrics import PixelGrid
from qpannot.heatmap import Heatmap, load_heatmap
from qpannot.inference import (
    EngineName,
    Engines,
    SlideProgress,
    heatmap_key,
    predict_heatmap,
    predict_slides,
)
from qpannot.models import Bundle, load_bundle
from qpannot.models.bundle import ModelCard, read_card
from qpannot.recipe import Recipe
from qpannot.recipe.settings import TissueSettings
from qpannot.sampling import Opener, Part
from qpannot.slide import Slide
from qpannot.slide.fingerprint import fingerprint_slide
from qpannot.tissue import detect_tissue

ShowPatches = Callable[[int, int], None]
"""Told how many patches of a slide are done, of how many."""

Baseline = Literal["otsu", "tissue"]


@dataclass(frozen=True)
class Timed:
    """How long a slide took.

    Parameters
    ----------
    engine
        What really ran it; empty where the slide has no tissue.
    seconds
        Of each stage, in their order.
    """

    engine: str
    seconds: Mapping[str, float]


Runner = Callable[[Slide], Timed]


class Design(Protocol):
    """One way to tell what is where on a slide.

    Attributes
    ----------
    name
        What tables call it.
    is_baseline
        Whether it is a threshold that no slide taught anything and that gives no probabilities.
    seen
        What it knows slides from, by image ID: fitted to (``train``) or chosen by
        (``validation``).
    runners
        What runs it, to be timed: each takes a slide from pixels to heatmap, whatever is kept of
        earlier runs. None of a baseline.
    """

    name: str
    is_baseline: bool
    seen: Mapping[str, Part]

    @property
    def runners(self) -> Sequence[Runner]:
        """What can run it, to be timed."""
        ...

    def key(self, slide: Slide) -> str:
        """Return what changes whenever its heatmap of a slide would."""
        ...

    def heatmap(self, slide_id: str, opener: Opener, show: ShowPatches) -> Heatmap:
        """Return its heatmap of a slide, which has every class of the recipe.

        Raises
        ------
        QpannotError
            The slide cannot be predicted.
        """
        ...


@dataclass
class ModelDesign:
    """A patch network.

    Parameters
    ----------
    model
        The folder of its bundle.
    heatmaps
        The folder where its heatmaps are, or will be.
    """

    name: str
    model: Path
    recipe: Recipe
    heatmaps: Path
    seen: Mapping[str, Part]
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    is_baseline: bool = False

    @property
    def runners(self) -> Sequence[Runner]:
        """The engines that are installed; torch takes a GPU where there is one."""
        return [partial(self._timed, engine) for engine in self.installed]

    @property
    def installed(self) -> list[EngineName]:
        """The engines that are installed."""
        engines: tuple[EngineName, ...] = ("torch", "openvino", "onnxruntime")
        return [engine for engine in engines if find_spec(engine)]

    @cached_property
    def _bundle(self) -> Bundle:
        return load_bundle(self.model)

    @cached_property
    def _runners(self) -> dict[EngineName, Engines]:
        return {}

    def _engines(self, engine: EngineName = "auto") -> Engines:
        if engine not in self._runners:
            size = self.recipe.heatmap.batch_size
            self._runners[engine] = Engines(self._bundle, engine=engine, batch_size=size)
        return self._runners[engine]

    def key(self, slide: Slide) -> str:
        """Return the heatmap's own key: the weights, the slide and the settings decide it."""
        return heatmap_key(slide, self._bundle, self.recipe, precision=self._engines().precision)

    def heatmap(self, slide_id: str, opener: Opener, show: ShowPatches) -> Heatmap:
        """Return the heatmap that is kept, predicted where it is not there or fits no more."""

        def shown(progress: SlideProgress) -> None:
            show(progress.patches_done, progress.patches)

        (result,) = predict_slides(
            {slide_id: opener},
            self._bundle,
            self.recipe,
            self.heatmaps,
            engines=self._engines(),
            colors=self.colors,
            show=shown,
        )
        if result.error:
            raise result.error
        return load_heatmap(result.path)

    def _timed(self, engine: EngineName, slide: Slide) -> Timed:
        return self.run(engine, slide)[1]

    def run(self, engine: EngineName, slide: Slide) -> tuple[Heatmap, Timed]:
        """Return its heatmap of a slide, whatever is kept of it, and how long that took."""
        engines = self._engines(engine)
        start = time.perf_counter()
        found = predict_heatmap(slide, self._bundle, self.recipe, engines=engines)
        # reading, which overlaps with the network, and finding the tissue are part of it
        seconds = {"Patch-wise": time.perf_counter() - start}
        return found.heatmap, Timed(found.engine, seconds)


@dataclass
class TissueDesign:
    """A tissue threshold that takes all tissue for one class: what any network should beat.

    Parameters
    ----------
    class_name
        What the tissue is taken for.
    settings
        The threshold.
    mpp
        Micrometres per pixel of its heatmaps.
    """

    name: str
    settings: TissueSettings
    classes: tuple[str, ...]
    class_name: str
    mpp: float
    is_baseline: bool = True
    seen: Mapping[str, Part] = field(default_factory=dict)
    runners: Sequence[Runner] = ()

    def key(self, slide: Slide) -> str:
        """Return a digest of the slide and the threshold's settings."""
        told = [
            fingerprint_slide(slide.path).digest,
            slide.bounds_origin,
            (slide.size.width, slide.size.height, slide.mpp.x, slide.mpp.y, slide.quarter_turns),
            self.settings.model_dump(mode="json"),
            (self.classes, self.class_name, self.mpp),
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]

    def heatmap(self, slide_id: str, opener: Opener, show: ShowPatches) -> Heatmap:
        """Return 1 in the tissue for its class and 0 elsewhere."""
        with opener() as slide:
            grid = PixelGrid.of(slide.size, slide.mpp, self.mpp)
            found = np.zeros((*grid.shape, len(self.classes)), np.float32)
            tissue = detect_tissue(slide, self.settings)
            found[..., self.classes.index(self.class_name)] = grid.mask(tissue)
            return Heatmap(found, self.classes, grid.affine, slide.mpp, slide_id, self.name)


def baseline(kind: Baseline, recipe: Recipe) -> TissueDesign:
    """Return a tissue threshold to compare with.

    Parameters
    ----------
    kind
        ``otsu``: Otsu's threshold on saturation (H2G-Net's design I). ``tissue``: AN1 as the recipe
        says, which is what round 1 proposes.
    """
    settings = recipe.tissue
    if kind == "otsu":
        settings = settings.model_copy(update={"method": "otsu"})
    classes = recipe.labels.classes
    proposed = recipe.proposal.class_name
    taken = proposed if proposed in classes else classes[0]
    return TissueDesign(kind, settings, classes, taken, recipe.evaluation.mpp)


def checked_card(model: Path, recipe: Recipe) -> ModelCard:
    """Return the card of a patch network that knows every class of a recipe.

    Raises
    ------
    QpannotError
        There is no such model, or it does not know a class.
    """
    card = read_card(model)
    check_classes(model, card.architecture.classes, recipe)
    return card


def check_classes(model: Path, known: Sequence[str], recipe: Recipe) -> None:
    """Find out whether a model knows every class of a recipe.

    Raises
    ------
    UsageError
        It does not know a class.
    """
    if missing := [name for name in recipe.labels.classes if name not in known]:
        raise UsageError(
            f"{model}: tells {', '.join(known)} apart, and not {', '.join(missing)}.",
            hint="Evaluate it for what it knows: --set 'labels.classes=[...]'",
        )
