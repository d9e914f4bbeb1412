"""How well a model does on slides that a person reviewed and that it was not fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.records import Score
from qpannot.bootstrap.truth import Lesson
from qpannot.evaluation import overlap
from qpannot.heatmap import Heatmap
from qpannot.recipe import Recipe
from qpannot.sampling.areas import Areas, looked_through, resolve_areas
from qpannot.slide import Slide
from qpannot.tissue import detect_tissue
from qpannot.vectorize import Outline, outlines_of


def outlines_in(heatmap: Heatmap, slide: Slide, recipe: Recipe) -> list[Outline]:
    """Return the outlines of a heatmap's classes, the rest left out, cut at the tissue (AN2).

    Parameters
    ----------
    slide
        The one the heatmap is of; read at low resolution.
    """
    names = [None if name == recipe.labels.rest else name for name in heatmap.classes]
    return outlines_of(
        heatmap.probabilities,
        heatmap.affine,
        heatmap.mpp,
        names,
        recipe.outlines,
        within=detect_tissue(slide, recipe.tissue),
    )


def score(outlines: Sequence[Outline], lesson: Lesson, recipe: Recipe) -> Score:
    """Compare predicted outlines with a person's, where the person looked."""
    areas = resolve_areas(lesson.annotations, recipe.labels, is_truth=lesson.is_truth)
    within = judged_area(areas, recipe)
    found = {
        name: overlap(_of_class(outlines, name), truth, within=within)
        for name, truth in zip(recipe.labels.classes, areas.classes, strict=True)
    }
    present = [each for each in found.values() if each.true_area or each.predicted_area]
    return Score(
        dice=fmean(each.dice for each in present) if present else 1.0,
        iou=fmean(each.iou for each in present) if present else 1.0,
        by_class={name: each.dice for name, each in found.items()},
    )


def mean_dice(scores: Iterable[Score]) -> float | None:
    """Return the mean over slides, ``None`` of none."""
    dices = [each.dice for each in scores]
    return fmean(dices) if dices else None


def _of_class(outlines: Sequence[Outline], name: str) -> BaseGeometry:
    found: BaseGeometry = shapely.union_all(
        [outline.polygon for outline in outlines if outline.class_name == name]
    )
    return found


def judged_area(areas: Areas, recipe: Recipe) -> BaseGeometry | None:
    """Return the area where annotations tell the truth; ``None``: everywhere."""
    if recipe.labels.coverage == "partial":
        return looked_through(areas).difference(areas.ignored)
    if areas.ignored.is_empty:
        return None
    reach = 1e7  # pixels; wider than any slide
    return shapely.box(-reach, -reach, reach, reach).difference(areas.ignored)
