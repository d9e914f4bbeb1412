"""The refinement stage by itself: learn from reviewed slides and their heatmaps, and judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qpannot.bootstrap.learning import shown
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.predicting import heatmaps_of, openers_of, patch_network, refined_of
from qpannot.bootstrap.records import Score
from qpannot.bootstrap.scoring import outlines_in, score
from qpannot.bootstrap.states import survey
from qpannot.bootstrap.truth import Failures, Lesson, lessons_of
from qpannot.bootstrap.work import Work
from qpannot.console import Each, silent
from qpannot.errors import QpannotError
from qpannot.geometry import Mpp
from qpannot.heatmap import load_heatmap
from qpannot.models import Bundle
from qpannot.models.refinement import load_refinement
from qpannot.qupath import Project
from qpannot.recipe import Recipe
from qpannot.sampling import Opener, Part, split_slides, with_their_patients
from qpannot.sampling.whole import StoredSlide, stored_whole
from qpannot.training import RefinementResult, assign_roles, train_refinement_network


@dataclass(frozen=True)
class Refined:
    """What the training of a refinement network of its own gave.

    Parameters
    ----------
    before, after
        By name, scores of the patch network's heatmaps and of the refined ones, on the slides
        of patients that neither network was fitted to; ``before`` is empty where there is no patch
        network.
    choosing
        Names of those of them that chose the refinement network's best epoch.
    names
        Of all reviewed slides, by image ID.
    failed
        Slides that could not be read.
    """

    trained: RefinementResult
    before: Mapping[str, Score]
    after: Mapping[str, Score]
    choosing: frozenset[str]
    names: Mapping[str, str]
    failed: Failures


def train_refinement_alone(
    project: Project,
    recipe: Recipe,
    folder: Path,
    *,
    patch_model: Path | None = None,
    mpp: Mpp | None = None,
    each: Each = silent,
) -> Refined:
    """Train a refinement network on the reviewed slides of a project, and judge it.

    Slides keep the parts that the loop gave them. Repeated, it goes on where it was.

    Parameters
    ----------
    folder
        Of the training alone; also gets the slides it is trained on (``slides``), the heatmaps
        (``heatmaps``) and the refined ones of the slides it is judged on (``refined``).
    patch_model
        Whose heatmaps are refined; by default the model that the project keeps.
    mpp
        Resolution of slides of which neither the project nor the file tells it.
    each
        Told of the stage, what is worked on, how much is done, and how much there is.

    Raises
    ------
    QpannotError
        There is too little to learn from, no patch network, or the training failed.
    """
    ledger = Ledger.of(project)
    work = Work(project, ledger, recipe, mpp, each)
    bundle = patch_network(work, patch_model) if recipe.refinement.use_heatmap else None
    lessons, failed = lessons_of(survey(project, ledger, each), ledger)
    openers, not_opened = openers_of(work, [lesson.image for lesson in lessons])
    failed += not_opened
    heatmaps: dict[str, Path] = {}
    if bundle:
        heatmaps, not_predicted = heatmaps_of(
            work, "Predicting", bundle, folder / "heatmaps", openers
        )
        failed += not_predicted
        openers = {key: opener for key, opener in openers.items() if key in heatmaps}
    lessons = [lesson for lesson in lessons if lesson.image.id in openers]
    slides, not_read = slides_of(work, lessons, openers, heatmaps, folder / "slides")
    failed += not_read
    metadata = {lesson.image.id: lesson.image.metadata for lesson in lessons}
    kept_parts = ledger.parts()
    parts = split_slides(metadata, recipe.split, kept_parts)
    fitted = slides_fitted(bundle, kept_parts)
    roles = assign_roles({key: metadata[key] for key in slides}, parts, fitted, recipe)
    trained = train_refinement_network(
        slides,
        roles,
        recipe,
        folder,
        patch_model_sha256=bundle.card.weights_sha256 if bundle else None,
        progress=shown(each),
    )
    everything = {image.id: image.metadata for image in project.images}
    taught = with_their_patients({*fitted, *roles.teach}, everything, recipe.split.by)
    judged = {
        lesson.image.id: lesson for lesson in lessons if lesson.image.id in slides.keys() - taught
    }
    network = load_refinement(trained.trained.bundle)
    own = {key: openers[key] for key in judged}
    refined, not_refined = refined_of(work, "Judging", network, folder / "refined", own, heatmaps)
    failed += not_refined
    names = {lesson.image.id: lesson.image.name for lesson in lessons}

    def scores(paths: Mapping[str, Path]) -> dict[str, Score]:
        return {names[key]: _score(work, judged[key], openers[key], paths[key]) for key in refined}

    return Refined(
        trained,
        scores(heatmaps) if bundle else {},
        scores(refined),
        frozenset(names[key] for key in judged if key in roles.choose),
        names,
        failed,
    )


def slides_fitted(bundle: Bundle | None, parts: Mapping[str, str]) -> frozenset[str]:
    """Return the slides whose patches a patch network learned from.

    Parameters
    ----------
    parts
        What the loop used slides for: where the model does not say by which of its slides only
        its best epoch was chosen.
    """
    if bundle is None:
        return frozenset()
    card = bundle.card
    chose = card.chosen_by or [key for key in card.slides if parts.get(key) == Part.VALIDATION]
    return frozenset(card.slides).difference(chose)


def slides_of(
    work: Work,
    lessons: Sequence[Lesson],
    openers: Mapping[str, Opener],
    heatmaps: Mapping[str, Path],
    folder: Path,
) -> tuple[dict[str, StoredSlide], Failures]:
    """Return reviewed slides to learn from, by image ID, made where they are not there already."""
    slides: dict[str, StoredSlide] = {}
    failed: Failures = []
    for done, lesson in enumerate(lessons):
        image = lesson.image
        work.each("Reading slides", image.name, done, len(lessons))
        try:
            with openers[image.id]() as slide:
                slides[image.id] = stored_whole(
                    folder,
                    image.id,
                    slide,
                    load_heatmap(heatmaps[image.id]) if image.id in heatmaps else None,
                    lesson.annotations,
                    work.recipe,
                    is_truth=lesson.is_truth,
                )
        except QpannotError as error:
            failed.append((image, error))
    return slides, failed


def _score(work: Work, lesson: Lesson, opener: Opener, path: Path) -> Score:
    with opener() as slide:
        return score(outlines_in(load_heatmap(path), slide, work.recipe), lesson, work.recipe)
