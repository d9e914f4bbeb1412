"""The network over many slides, one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qpannot.errors import QpannotError
from qpannot.heatmap import heatmap_path, load_heatmap, save_heatmap
from qpannot.inference.choosing import Engines
from qpannot.inference.predict import heatmap_key, predict_heatmap
from qpannot.models import Bundle
from qpannot.recipe import Recipe
from qpannot.sampling import Opener
from qpannot.slide import Slide

logger = logging.getLogger(__name__)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class SlideProgress:
    """How far the prediction of slides is.

    Parameters
    ----------
    slide
        The one that runs.
    number, slides
        Which it is, from 1, and how many there are.
    patches_done, patches
        Of this slide.
    """

    slide: str
    number: int
    slides: int
    patches_done: int
    patches: int

    @property
    def slides_done(self) -> float:
        """How many slides are done, the part of this one included."""
        return self.number - 1 + self.patches_done / max(1, self.patches)


@dataclass(frozen=True)
class SlideResult:
    """What became of one slide.

    Parameters
    ----------
    slide
        Its id.
    state
        ``current``: there was a heatmap already that this one would equal.
    path
        The heatmap's file.
    patches
        How many the network saw, 0 where no tissue was found; None unless predicted now.
    engine, difference
        As of `qpannot.inference.Prediction`.
    seconds
        What it took.
    error
        Why it failed.
    """

    slide: str
    state: Literal["predicted", "current", "failed"]
    path: Path
    patches: int | None = None
    engine: str = ""
    difference: float | None = None
    seconds: float = 0.0
    error: QpannotError | None = None


def no_result(result: SlideResult) -> None:
    """Do nothing about a result."""


def no_progress(progress: SlideProgress) -> None:
    """Show no progress."""


def predict_slides(
    slides: Mapping[str, Opener],
    bundle: Bundle,
    recipe: Recipe,
    folder: Path,
    *,
    engines: Engines | None = None,
    colors: Mapping[str, Color] | None = None,
    each: Callable[[SlideResult], None] = no_result,
    show: Callable[[SlideProgress], None] = no_progress,
) -> list[SlideResult]:
    """Predict the heatmaps of slides and save them.

    Run again after an interruption it goes on where it was: what is there and still fits is kept.
    A slide that fails leaves no new file, and does not keep the others from being predicted.

    Parameters
    ----------
    slides
        What opens them, by id.
    bundle, recipe
        As for `predict_heatmap`.
    folder
        Where heatmaps are saved, as ``<id>.ome.tif``; made where it is missing.
    engines
        What runs the network; by default the best there are.
    colors
        Of classes by name, as the project has them.
    each
        Called with each result, as soon as there is one.
    show
        Called as patches are done.

    Returns
    -------
    list of SlideResult
        One for each slide, in their order. Whether some failed is for the caller to tell.
    """
    runs = engines or Engines(bundle, batch_size=recipe.heatmap.batch_size)

    def key_of(slide: Slide, slide_id: str) -> str:
        return heatmap_key(slide, bundle, recipe, precision=runs.precision)

    def make(slide: Slide, slide_id: str, path: Path, number: int) -> SlideResult:
        def show_patches(done: int, total: int) -> None:
            show(SlideProgress(slide_id, number, len(slides), done, total))

        return _predicted(slide, slide_id, path, bundle, recipe, runs, colors, show_patches)

    return each_slide(slides, folder, key_of, make, each)


def each_slide(
    slides: Mapping[str, Opener],
    folder: Path,
    key_of: Callable[[Slide, str], str],
    make: Callable[[Slide, str, Path, int], SlideResult],
    each: Callable[[SlideResult], None],
) -> list[SlideResult]:
    """Make the heatmaps of slides that are not there yet, or no longer fit.

    Parameters
    ----------
    key_of
        From a slide and its ID to what its heatmap would be known by (``Heatmap.model``).
    make
        Saves the heatmap of a slide, given its ID, the file and which of the slides it is, from 1.
    slides, folder, each
        As for `predict_slides`.
    """
    results = []
    for number, (slide_id, opener) in enumerate(slides.items(), start=1):
        path = heatmap_path(folder, slide_id)
        start = time.monotonic()
        try:
            with opener() as slide:
                if _is_current(path, slide_id, key_of(slide, slide_id)):
                    result = SlideResult(slide_id, "current", path)
                else:
                    result = make(slide, slide_id, path, number)
        except QpannotError as error:
            result = _failed(slide_id, path, start, error)
        except Exception as error:
            logger.exception("%s: predicting it failed in a way nobody foresaw", slide_id)
            unforeseen = QpannotError(
                f"{slide_id}: {type(error).__name__}: {error}",
                hint="Report this with the log, which tells where it happened.",
            )
            unforeseen.__cause__ = error
            result = _failed(slide_id, path, start, unforeseen)
        results.append(result)
        each(result)
    return results


def _predicted(
    slide: Slide,
    slide_id: str,
    path: Path,
    bundle: Bundle,
    recipe: Recipe,
    engines: Engines,
    colors: Mapping[str, Color] | None,
    show: Callable[[int, int], None],
) -> SlideResult:
    start = time.monotonic()
    found = predict_heatmap(slide, bundle, recipe, slide_id=slide_id, engines=engines, show=show)
    save_heatmap(path, found.heatmap, colors=colors)
    return SlideResult(
        slide_id,
        "predicted",
        path,
        patches=found.patches,
        engine=found.engine,
        difference=found.difference,
        seconds=time.monotonic() - start,
    )


def _failed(slide_id: str, path: Path, start: float, error: QpannotError) -> SlideResult:
    seconds = time.monotonic() - start
    return SlideResult(slide_id, "failed", path, seconds=seconds, error=error)


def _is_current(path: Path, slide_id: str, key: str) -> bool:
    if not path.exists():
        return False
    try:
        heatmap = load_heatmap(path)
    except QpannotError as error:
        logger.warning("%s It is predicted again.", error.message)
        return False
    return (heatmap.slide, heatmap.model) == (slide_id, key)
