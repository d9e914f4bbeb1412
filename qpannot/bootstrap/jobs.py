"""Training and prediction by themselves: for a project that is only read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qpannot.bootstrap.evaluating.seen import keep_seen, seen_by
from qpannot.bootstrap.learning import gather, held_out, scores_of, shown
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.predicting import (
    heatmaps_of,
    kept_refinement,
    openers_of,
    patch_network,
    refined_of,
)
from qpannot.bootstrap.records import Score
from qpannot.bootstrap.scoring import outlines_in
from qpannot.bootstrap.states import survey
from qpannot.bootstrap.truth import Failures, lessons_of
from qpannot.bootstrap.work import Work
from qpannot.console import Each, silent
from qpannot.geometry import Mpp
from qpannot.heatmap import load_heatmap
from qpannot.models import load_bundle
from qpannot.models.refinement import RefinementBundle, load_refinement
from qpannot.qupath import Annotation, PathClass, Project, ProjectImage
from qpannot.qupath.geojson.writing import write_geojson
from qpannot.recipe import Recipe
from qpannot.sampling import Part, split_slides
from qpannot.training import TrainingResult, is_first_process, train_patch_network


@dataclass(frozen=True)
class Trained:
    """What a training of its own gave.

    Parameters
    ----------
    slides
        Names of the slides of each part: train, validation, test.
    scores
        By name, on the slides the model was not fitted to; of several processes the first has them.
    failed
        Slides that could not be read.
    """

    trained: TrainingResult
    slides: Mapping[str, list[str]]
    scores: Mapping[str, Score]
    failed: Failures


@dataclass(frozen=True)
class Predicted:
    """What was predicted of one image.

    Parameters
    ----------
    heatmap, outlines
        The files: OME-TIFF and GeoJSON.
    area_mm2
        Of each class that was found.
    """

    image: ProjectImage
    heatmap: Path
    outlines: Path
    area_mm2: Mapping[str, float]


def train_alone(
    project: Project,
    recipe: Recipe,
    folder: Path,
    *,
    start: Path | None = None,
    mpp: Mpp | None = None,
    each: Each = silent,
) -> Trained:
    """Train a network on the reviewed slides of a project, and judge it on those held out.

    Slides keep the parts that the loop gave them. Repeated, it goes on where it was.

    Parameters
    ----------
    folder
        Of the training alone; made where it is missing.
    start
        A model to go on from.
    mpp
        Resolution of slides of which neither the project nor the file tells it.
    each
        Told of the stage, what is worked on, how much is done, and how much there is.

    Raises
    ------
    QpannotError
        There is too little to learn from, or the training failed; it says what to do.
    """
    ledger = Ledger.of(project)
    work = Work(project, ledger, recipe, mpp, each)
    bundle = load_bundle(start) if start else None
    lessons, failed = lessons_of(survey(project, ledger, each), ledger, recipe, each)
    material = gather(work, lessons, folder / "patches")
    parts = split_slides(material.metadata, recipe.split, ledger.parts())
    trained = train_patch_network(
        material.tables,
        material.metadata,
        material.openers,
        parts,
        recipe,
        folder,
        start_from=bundle,
        progress=shown(each),
    )
    names = {lesson.image.id: lesson.image.name for lesson in lessons}
    if is_first_process():
        keep_seen(folder, parts, names, seen_by(start, ledger, names) if start else {})
    judged = held_out(lessons, parts, material) if is_first_process() else []
    scores = scores_of(work, load_bundle(trained.bundle), folder / "heatmaps", judged, material)
    return Trained(
        trained,
        {part.value: [names[key] for key, own in parts.items() if own is part] for part in Part},
        {names[key]: found for key, found in scores.items()},
        [*failed, *material.failed],
    )


def _kept_refinement(work: Work, model: Path | None) -> RefinementBundle | None:
    kept = work.ledger.kept_model()
    if model is not None or kept is None or work.ledger.kept_refinement() is None:
        return None
    return kept_refinement(work, patch_network(work, None))


def predict_alone(
    project: Project,
    images: Sequence[ProjectImage],
    recipe: Recipe,
    folder: Path,
    *,
    model: Path | None = None,
    refine: Path | None = None,
    leave_unrefined: bool = False,
    mpp: Mpp | None = None,
    each: Each = silent,
) -> tuple[list[Predicted], Failures]:
    """Write heatmaps of images, and their outlines as GeoJSON. Repeated, it goes on where it was.

    Parameters
    ----------
    folder
        Gets ``<ID>.ome.tif`` and ``<ID>.geojson``; made where it is missing. Of heatmaps that are
        refined, those of the patch network go to ``unrefined`` in it.
    model
        The folder of a bundle; by default the model that the project keeps. Not needed for a
        refinement network that takes no heatmap.
    refine
        The folder of a refinement network's bundle; by default the one that the project keeps for
        its model, if it does, and none for another model.
    leave_unrefined
        Whether heatmaps stay as they are all the same.
    mpp, each
        As for `train_alone`.

    Raises
    ------
    QpannotError
        There is no such model.
    """
    ledger = Ledger.of(project)
    work = Work(project, ledger, recipe, mpp, each)
    refinement = None
    if not leave_unrefined:
        refinement = load_refinement(refine) if refine else _kept_refinement(work, model)
    openers, failed = openers_of(work, images)
    heatmaps: dict[str, Path] = {}
    if refinement is None or refinement.card.takes_heatmap:
        bundle = patch_network(work, model)
        own = folder / "unrefined" if refinement else folder
        heatmaps, not_predicted = heatmaps_of(work, "Predicting", bundle, own, openers)
        failed += not_predicted
        openers = {key: opener for key, opener in openers.items() if key in heatmaps}
        rest = bundle.card.architecture.classes[0]  # as the recipe it was trained by calls it
    if refinement:
        heatmaps, not_refined = refined_of(work, "Refining", refinement, folder, openers, heatmaps)
        failed += not_refined
        rest = refinement.card.classes[0]
    labels = recipe.labels.model_copy(update={"rest": rest})
    recipe = recipe.model_copy(update={"labels": labels})
    known = {each.name: each for each in project.classes}
    predicted: list[Predicted] = []
    for image in images:
        if image.id not in heatmaps:
            continue
        path = heatmaps[image.id]
        heatmap = load_heatmap(path)
        with openers[image.id]() as slide:
            outlines = outlines_in(heatmap, slide, recipe)
        pixel_mm2 = heatmap.mpp.x * heatmap.mpp.y / 1e6
        areas: dict[str, float] = defaultdict(float)
        for outline in outlines:
            areas[outline.class_name] += outline.polygon.area * pixel_mm2
        target = path.with_name(path.name.removesuffix(".ome.tif") + ".geojson")
        write_geojson(
            target,
            [
                Annotation(
                    outline.polygon,
                    path_class=known.get(outline.class_name, PathClass(outline.class_name)),
                    measurements={"Probability": outline.score},
                )
                for outline in outlines
            ],
        )
        predicted.append(Predicted(image, path, target, dict(areas)))
    return predicted, failed
