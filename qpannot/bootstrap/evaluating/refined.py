"""A patch network's heatmaps, refined: the whole method as a design."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from qpannot.bootstrap.evaluating.designs import ModelDesign, Runner, ShowPatches, Timed
from qpannot.heatmap import Heatmap, load_heatmap
from qpannot.inference import EngineName, heatmap_path, refine_heatmap, refine_slides, refined_key
from qpannot.models.refinement import RefinementBundle, load_refinement
from qpannot.sampling import Opener, Part
from qpannot.slide import Slide


@dataclass
class RefinedDesign:
    """A refinement network over the heatmaps of its patch network.

    Parameters
    ----------
    model
        The folder of its bundle.
    patch
        The patch network; None for a network that takes no heatmap.
    heatmaps
        The folder where refined heatmaps are, or will be.
    seen
        What either network knows slides from.
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
        """The patch network on each engine, then the refinement network on torch."""
        if self.patch is None:
            return [partial(self._run, "torch")]
        return [partial(self._run, engine) for engine in self.patch.installed]

    @cached_property
    def _bundle(self) -> RefinementBundle:
        return load_refinement(self.model)

    def key(self, slide: Slide) -> str:
        """Return the refined heatmap's own key, which the patch network's heatmap decides too."""
        return refined_key(slide, self.patch.key(slide) if self.patch else None, self._bundle)

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

    def _run(self, engine: EngineName, slide: Slide) -> Timed:
        found, before = self.patch.run(engine, slide) if self.patch else (None, Timed("torch", {}))
        start = time.perf_counter()
        refine_heatmap(slide, found, self._bundle)
        taken = {"Refinement": time.perf_counter() - start}
        return Timed(before.engine, {**before.seconds, **taken})
