"""A refinement network, to be evaluated as any other design."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from qpannot.bootstrap.evaluating.designs import ModelDesign, Runner, ShowPatches, Timed
from qpannot.bootstrap.evaluating.store import key_of
from qpannot.heatmap import Heatmap, load_heatmap
from qpannot.inference import (
    Engines,
    heatmap_path,
    predict_heatmap,
    refine_heatmap,
    refine_slides,
    refined_key,
)
from qpannot.models import Bundle, load_bundle
from qpannot.models.refinement import RefinementBundle, load_refinement
from qpannot.sampling import Opener, Part
from qpannot.slide import Slide


@dataclass
class RefinedDesign:
    """A refinement network over the heatmaps of a patch network, or over slides alone.

    Parameters
    ----------
    model
        The folder of its bundle.
    patch
        Whose heatmaps it refines; None: it takes none.
    heatmaps
        The folder where its own are, or will be.
    """

    name: str
    model: Path
    patch: ModelDesign | None
    heatmaps: Path
    seen: Mapping[str, Part]
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    is_baseline: bool = False

    @property
    def runners(self) -> Sequence[Runner]:
        """The patch network's best engine, and torch for the refinement."""
        return [self._run]

    @cached_property
    def _bundle(self) -> RefinementBundle:
        return load_refinement(self.model)

    @cached_property
    def _engines(self) -> tuple[Bundle, Engines] | None:
        if self.patch is None:
            return None
        bundle = load_bundle(self.patch.model)
        return bundle, Engines(bundle, batch_size=self.patch.recipe.heatmap.batch_size)

    def key(self, slide: Slide) -> str:
        """Return a digest of the slide, the network and the heatmap that it refines."""
        refines = self.patch.key(slide) if self.patch else None
        return key_of(refined_key(slide, None, self._bundle), refines)

    def heatmap(self, slide_id: str, opener: Opener, show: ShowPatches) -> Heatmap:
        """Return the heatmap that is kept, made where it is not there or fits no more."""
        paths: dict[str, Path] = {}
        if self.patch:
            self.patch.heatmap(slide_id, opener, show)
            paths[slide_id] = heatmap_path(self.patch.heatmaps, slide_id)
        (result,) = refine_slides(
            {slide_id: opener}, paths, self._bundle, self.heatmaps, colors=self.colors
        )
        if result.error:
            raise result.error
        return load_heatmap(result.path)

    def _run(self, slide: Slide) -> Timed:
        seconds: dict[str, float] = {}
        heatmap, engine = None, "torch"
        if self.patch and self._engines:
            bundle, engines = self._engines
            start = time.perf_counter()
            found = predict_heatmap(slide, bundle, self.patch.recipe, engines=engines)
            seconds["Patch-wise"] = time.perf_counter() - start
            heatmap, engine = found.heatmap, found.engine
        start = time.perf_counter()
        refine_heatmap(slide, heatmap, self._bundle)
        seconds["Refinement"] = time.perf_counter() - start
        return Timed(engine, seconds)
