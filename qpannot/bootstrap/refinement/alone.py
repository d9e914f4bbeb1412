"""The refinement stage by itself: learn from reviewed slides and their heatmaps, and judge it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qpannot.bootstrap.evaluating.seen import keep_seen, seen_before
from qpannot.bootstrap.learning import shown
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.predicting import heatmaps_of, openers_of, patch_network, refined_of
from qpannot.bootstrap.records import Score
from qpannot.bootstrap.scoring import outlines_in, score
from qpannot.bootstrap.states import survey
from qpannot.bootstrap.truth import Failures, Lesson, lessons_of, metadata_of
from qpannot.bootstrap.work import Work
from qpannot.console import Each, silent
from qpannot.errors import QpannotError
from qpannot.geometry import Mpp
from qpannot.heatmap import load_heatmap
from qpannot.models import Bundle
from qpannot.models.refinement import load_refinement
from qpannot.qupath import Project, ProjectImage
from qpannot.recipe import Recipe
from qpannot.sampling import Opener, Part, split_slides, with_their_patients
from qpannot.sampling.whole import StoredSlide, stored_whole
from qpannot.training import (
    RefinementResult,
    Roles,
    assign_roles,
    check_refinement_design,
    train_refinement_network,
)


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
    check_refinement_design(recipe)
    ledger = Ledger.of(project)
    work = Work(project, ledger, recipe, mpp, each)
    bundle = patch_network(work, patch_model) if recipe.refinement.use_heatmap else None
    lessons, failed = lessons_of(survey(project, ledger, each), ledger, recipe, each)
    prepared = prepare(
        work, lessons, bundle, heatmaps=folder / "heatmaps", slides=folder / "slides"
    )
    roles = prepared.roles
    trained = train_refinement_network(
        prepared.slides,
        roles,
        recipe,
        folder,
        patch_model_sha256=bundle.card.weights_sha256 if bundle else None,
        progress=shown(each),
    )
    names = {lesson.image.id: lesson.image.name for lesson in lessons}
    own = dict.fromkeys(roles.teach, Part.TRAIN) | dict.fromkeys(roles.choose, Part.VALIDATION)
    keep_seen(folder, own, names, {})
    network = load_refinement(trained.trained.bundle)
    fitted = slides_fitted(bundle, ledger.parts(), ledger, project.images)
    unreadable = {image.id for image, _ in prepared.failed}
    readable = [lesson for lesson in lessons if lesson.image.id not in unreadable]
    judged = judged_of(work, readable, {*fitted, *roles.teach})
    openers, not_opened = openers_of(work, [lesson.image for lesson in judged])
    heatmaps: dict[str, Path] = {}
    not_predicted: Failures = []
    if bundle:
        heatmaps, not_predicted = heatmaps_of(work, "Judging", bundle, folder / "heatmaps", openers)
        openers = {key: opener for key, opener in openers.items() if key in heatmaps}
    refined, not_refined = refined_of(
        work, "Judging", network, folder / "refined", openers, heatmaps
    )
    before = {key: heatmaps[key] for key in refined if key in heatmaps}

    def scores(paths: Mapping[str, Path]) -> dict[str, Score]:
        return {names[key]: found for key, found in scores_in(work, judged, openers, paths).items()}

    tried = [*failed, *prepared.failed, *not_opened, *not_predicted, *not_refined]
    return Refined(
        trained,
        scores(before),
        scores(refined),
        frozenset(names[lesson.image.id] for lesson in judged if lesson.image.id in roles.choose),
        names,
        list({image.id: (image, error) for image, error in reversed(tried)}.values())[::-1],
    )


@dataclass(frozen=True)
class Prepared:
    """What a refinement network is trained on, by image ID.

    Parameters
    ----------
    roles
        Which slides teach, and which choose.
    slides
        These, small as a whole.
    failed
        Slides that could not be read.
    """

    roles: Roles
    slides: Mapping[str, StoredSlide]
    failed: Failures


def prepare(
    work: Work,
    lessons: Sequence[Lesson],
    bundle: Bundle | None,
    *,
    heatmaps: Path,
    slides: Path,
) -> Prepared:
    """Return what a refinement network is trained on, made where it is not there already.

    Only of slides that teach or choose: of the many that the patch network was fitted to none is
    predicted if others are enough. Those that cannot be read make room for others.

    Parameters
    ----------
    bundle
        The patch network; None where no heatmap is used.
    heatmaps, slides
        Folders: of that network's heatmaps, and of the slides.

    Raises
    ------
    TooFewSlidesError
        There are no slides to learn from, or none to choose by.
    """
    kept_parts = work.ledger.parts()
    fitted = slides_fitted(bundle, kept_parts, work.ledger, work.project.images)
    openers, failed = openers_of(work, [lesson.image for lesson in lessons])
    left = {lesson.image.id: lesson for lesson in lessons if lesson.image.id in openers}
    found: dict[str, StoredSlide] = {}
    while True:
        metadata = {key: lesson.image.metadata for key, lesson in left.items()}
        parts = split_slides(metadata, work.recipe.split, kept_parts)
        roles = assign_roles(metadata, parts, fitted, work.recipe)
        needed = {key: openers[key] for key in (*roles.teach, *roles.choose) if key not in found}
        if not needed:
            return Prepared(roles, found, failed)
        paths: dict[str, Path] = {}
        if bundle:
            paths, not_predicted = heatmaps_of(work, "Predicting", bundle, heatmaps, needed)
            failed += not_predicted
            needed = {key: opener for key, opener in needed.items() if key in paths}
        made, not_read = slides_of(work, [left[key] for key in needed], openers, paths, slides)
        failed += not_read
        found |= made
        unreadable = {image.id for image, _ in failed}
        left = {key: lesson for key, lesson in left.items() if key not in unreadable}


def judged_of(work: Work, lessons: Sequence[Lesson], taught: Collection[str]) -> list[Lesson]:
    """Return the slides of patients of whom no network was fitted to a slide.

    Parameters
    ----------
    taught
        IDs of the slides that either network learned from.
    """
    known = with_their_patients(taught, metadata_of(work.project), work.recipe.split.by)
    return [lesson for lesson in lessons if lesson.image.id not in known]


def slides_fitted(
    bundle: Bundle | None,
    parts: Mapping[str, str],
    ledger: Ledger,
    images: Iterable[ProjectImage],
) -> frozenset[str]:
    """Return the slides whose patches a patch network learned from, or one it was gone on from.

    Parameters
    ----------
    parts
        What the loop used slides for: where the model does not say by which of its slides only
        its best epoch was chosen.
    images
        Of the project.
    """
    if bundle is None:
        return frozenset()
    card = bundle.card
    chose = card.chosen_by or [key for key in card.slides if parts.get(key) == Part.VALIDATION]
    # the card is of the last training alone
    seen = seen_before(bundle.folder, ledger, {image.id: image.name for image in images})
    before = {key for key, part in seen.items() if part is Part.TRAIN}
    return frozenset(card.slides).difference(chose) | before


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


def scores_in(
    work: Work,
    lessons: Sequence[Lesson],
    openers: Mapping[str, Opener],
    paths: Mapping[str, Path],
) -> dict[str, Score]:
    """Return how near the outlines of heatmaps are to a person's, by image ID."""
    scores: dict[str, Score] = {}
    for lesson in lessons:
        key = lesson.image.id
        if key in paths:
            with openers[key]() as slide:
                outlines = outlines_in(load_heatmap(paths[key]), slide, work.recipe)
            scores[key] = score(outlines, lesson, work.recipe)
    return scores
