"""The first half of a round with a network: learn from what was reviewed, judge what came of it.

Each stage leaves what it made before the next begins, so that a run that was broken off goes on
where it was.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from qpannot.bootstrap.areas import areas_by_class
from qpannot.bootstrap.corrections import Correction, measure_correction
from qpannot.bootstrap.ledger import RoundRecord
from qpannot.bootstrap.predicting import heatmaps_of
from qpannot.bootstrap.records import Judgement, Score, TrainingRecord
from qpannot.bootstrap.scoring import mean_dice, outlines_in, score
from qpannot.bootstrap.truth import Lesson, Material, material_of
from qpannot.bootstrap.work import Work
from qpannot.console import Each
from qpannot.errors import MissingSlideError, QpannotError
from qpannot.heatmap import load_heatmap
from qpannot.models import Bundle, load_bundle
from qpannot.recipe import Recipe
from qpannot.sampling import Part, split_slides
from qpannot.training import ModelExistsError, Progress, ShowProgress, train_patch_network
from qpannot.training.keeper import CHECKPOINTS

logger = logging.getLogger(__name__)


def gather(work: Work, lessons: Sequence[Lesson], folder: Path) -> Material:
    """Return what can be learned from reviewed slides; their patches are kept in a folder."""
    return material_of(
        work.project,
        lessons,
        work.recipe,
        folder,
        mpp=work.mpp,
        each=lambda name, done, total: work.each("Finding patches", name, done, total),
    )


def learn(
    work: Work, record: RoundRecord, lessons: Sequence[Lesson], material: Material
) -> TrainingRecord:
    """Train the network of a round, and record it.

    Raises
    ------
    QpannotError
        There is too little to learn from, or the training failed; it says what to do.
    TrainingInterrupted
        It was asked to stop; run again, it goes on.
    """
    ledger, recipe = work.ledger, work.recipe
    parts = split_slides(material.metadata, recipe.split, ledger.parts())
    ledger.save_parts(parts)
    before = ledger.kept_model()
    name = model_name(record.number)
    started = time.monotonic()
    train = partial(
        train_patch_network,
        material.tables,
        material.metadata,
        material.openers,
        parts,
        recipe,
        ledger.model_folder(name).parent,
        start_from=_usable(ledger.model_folder(before)) if before else None,
        round=record.number,
        progress=shown(work.each),
    )
    try:
        result = train()
    except ModelExistsError as error:  # no round is recorded that has it
        set_aside(error.model.parent)
        result = train()
    missing = {image.id for image, error in material.failed if isinstance(error, MissingSlideError)}
    record.training = TrainingRecord(
        model=name,
        before=before,
        slides={
            lesson.image.id: lesson.key for lesson in lessons if lesson.image.id not in missing
        },
        parts={key: part.value for key, part in parts.items()},
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        stopped=result.stopped,
        seconds=round(time.monotonic() - started, 1),
        metrics=result.metrics,
    )
    ledger.save_round(record)
    # several times as large as the model, and of no use once that is recorded
    shutil.rmtree(ledger.model_folder(name).parent / CHECKPOINTS, ignore_errors=True)
    return record.training


def _usable(folder: Path) -> Bundle | None:
    try:
        return load_bundle(folder)
    except QpannotError as error:
        logger.warning("%s It is left out.", error.message)
        return None


def set_aside(folder: Path) -> None:
    """Give the folder of a training that no round records another name; no model is deleted."""
    for number in count(1):
        aside = folder.with_name(f"{folder.name}-unrecorded-{number}")
        if not aside.exists():
            logger.warning("%s is of no recorded round; it is now %s.", folder, aside.name)
            folder.rename(aside)
            return


def shown(each: Each, stage: str = "Training") -> ShowProgress:
    """Return what tells of a training as of any other stage."""

    def show(progress: Progress) -> None:
        each(stage, str(progress), progress.done, progress.total)

    return show


def model_name(number: int) -> str:
    """Return what the model of a round is called."""
    return f"round-{number:03d}"


def judge(
    work: Work, record: RoundRecord, lessons: Sequence[Lesson], material: Material
) -> Judgement:
    """Compare the new model with the one before on slides neither was fitted to, and record it.

    Both are judged on the same slides by the annotations of today; slides that cannot be read are
    added to ``material.failed``. The one with the higher mean Dice on the validation slides is
    kept, the new one where they are equal; test slides have no say.
    """
    training = record.training
    assert training is not None
    judged = held_out(lessons, training.parts, material)
    scores: dict[str, dict[str, Score]] = {}
    for name in filter(None, (training.model, training.before)):
        bundle = _usable(work.ledger.model_folder(name))
        if bundle and tells_apart(bundle, work.recipe):
            folder = work.ledger.heatmap_folder(name)
            scores[name] = scores_of(work, bundle, folder, judged, material)

    def validation(name: str | None) -> float | None:
        found = scores.get(name or "", {}).items()
        return mean_dice(each for key, each in found if training.parts[key] == Part.VALIDATION)

    new, old = validation(training.model), validation(training.before)
    helped = None if new is None or old is None else new > old
    is_worse = new is not None and old is not None and new < old
    kept = training.before if is_worse and training.before else training.model
    record.judgement = Judgement(scores=scores, kept=kept, helped=helped)
    work.ledger.save_round(record)
    return record.judgement


def tells_apart(bundle: Bundle, recipe: Recipe) -> bool:
    """Tell whether a model knows the classes of a recipe, and no others."""
    return set(bundle.card.architecture.classes) == {recipe.labels.rest, *recipe.labels.classes}


def held_out(
    lessons: Sequence[Lesson], parts: Mapping[str, str], material: Material
) -> list[Lesson]:
    """Return the slides that a network was not fitted to."""
    return [
        lesson
        for lesson in lessons
        if parts.get(lesson.image.id, Part.TRAIN) != Part.TRAIN
        and lesson.image.id in material.openers
    ]


def scores_of(
    work: Work, bundle: Bundle, folder: Path, lessons: Sequence[Lesson], material: Material
) -> dict[str, Score]:
    """Return how well a model does on reviewed slides, by image ID.

    Slides that cannot be read are added to ``material.failed``.

    Parameters
    ----------
    folder
        Where its heatmaps are.
    """
    openers = {lesson.image.id: material.openers[lesson.image.id] for lesson in lessons}
    heatmaps, failed = heatmaps_of(work, "Judging", bundle, folder, openers)
    material.failed += failed
    scores: dict[str, Score] = {}
    for lesson in lessons:
        if lesson.image.id in heatmaps:
            with openers[lesson.image.id]() as slide:
                heatmap = load_heatmap(heatmaps[lesson.image.id])
                outlines = outlines_in(heatmap, slide, work.recipe)
            scores[lesson.image.id] = score(outlines, lesson, work.recipe)
    return scores


def corrections_of(
    work: Work, lessons: Sequence[Lesson], known: Mapping[str, str]
) -> dict[str, Correction]:
    """Return what people changed of the proposals of slides, by image ID.

    Parameters
    ----------
    known
        Keys (`Lesson.key`) of slides by image ID: those that are the same still are left out.
    """
    found: dict[str, Correction] = {}
    for lesson in lessons:
        image = lesson.image
        proposals = work.ledger.image(image.id, image.name).standing
        if known.get(image.id) == lesson.key or not proposals:
            continue
        found[image.id] = measure_correction(
            areas_by_class((each.class_name, each.shape) for each in proposals),
            areas_by_class((each.class_name, each.geometry) for each in lesson.annotations),
            image.server.mpp or work.mpp,
        )
    return found
