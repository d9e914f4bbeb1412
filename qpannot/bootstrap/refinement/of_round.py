"""The refinement stage of a round (H2G-Net sec. 2.6): learn, judge, and record what came of it.

It never ends a round: where there are too few slides, or it fails, proposals come from heatmaps as
they are. Each half leaves what it made before the next begins, as those of the patch network do.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial

from qpannot.bootstrap.learning import model_name, set_aside, shown
from qpannot.bootstrap.ledger import RoundRecord
from qpannot.bootstrap.predicting import heatmaps_of, openers_of, refined_of, refines
from qpannot.bootstrap.records import Judgement, RefinementRecord, RefinementTraining, Score
from qpannot.bootstrap.refinement.alone import (
    Prepared,
    judged_of,
    prepare,
    scores_in,
    slides_fitted,
)
from qpannot.bootstrap.scoring import mean_dice
from qpannot.bootstrap.truth import Failures, Lesson
from qpannot.bootstrap.work import Work
from qpannot.errors import QpannotError
from qpannot.models import Bundle, load_bundle
from qpannot.models.refinement import RefinementBundle, load_refinement
from qpannot.recipe import Recipe
from qpannot.training import (
    ModelExistsError,
    TooFewSlidesError,
    TrainingInterrupted,
    TrainingResult,
    check_refinement_design,
    train_refinement_network,
)
from qpannot.training.keeper import CHECKPOINTS

logger = logging.getLogger(__name__)

AGAIN = "The next round that trains tries again."


def check_refinement(recipe: Recipe) -> None:
    """Find out whether the recipe's refinement network can be, before hours of other training.

    Raises
    ------
    UsageError
        There is no such design, or it cannot take images of that size.
    """
    if recipe.refinement.enabled:
        check_refinement_design(recipe)


def refine(work: Work, record: RoundRecord, lessons: Sequence[Lesson]) -> Failures:
    """Train and judge a network that refines the heatmaps of the model the round keeps.

    What came of it is recorded in ``record.refinement``; nothing is done again that is recorded
    there of the same patch model.

    Parameters
    ----------
    record
        Of a round that was judged.
    lessons
        The reviewed slides; those that the round's training did not see are left out.

    Returns
    -------
    list
        Slides that could not be read, or predicted.

    Raises
    ------
    TrainingInterrupted
        It was asked to stop; run again, it goes on.
    """
    assert record.training is not None and record.judgement is not None
    ledger = work.ledger
    failed: Failures = []
    bundle = load_bundle(ledger.model_folder(record.judgement.kept))
    own = [lesson for lesson in lessons if lesson.image.id in record.training.parts]
    known = record.refinement
    if known is None or not _stands(work, known.training, bundle):
        known, failed = _learn(work, record, own, bundle)
        record.refinement = known
        ledger.save_round(record)
    if known.training is None:
        return failed
    # as large as several models, and of no use once that is recorded
    shutil.rmtree(
        ledger.model_folder(known.training.model).parent / CHECKPOINTS, ignore_errors=True
    )
    if known.judgement is None or not ledger.has_model(known.judgement.kept):
        known.judgement, not_judged = _judge(work, record, known.training, own, bundle)
        failed += not_judged
        ledger.save_round(record)
    return failed


def _stands(work: Work, training: RefinementTraining | None, bundle: Bundle) -> bool:
    """Tell whether a recorded training is of this patch model, and what it made is there."""
    return (
        training is not None
        and training.patch_model_sha256 == bundle.card.weights_sha256
        and _usable(work, training.model, bundle) is not None
    )


def _usable(work: Work, name: str, bundle: Bundle) -> RefinementBundle | None:
    """Return a refinement network, if it is there and refines this patch model's heatmaps."""
    if not work.ledger.has_model(name):
        return None
    try:
        network = load_refinement(work.ledger.model_folder(name))
    except QpannotError as error:
        logger.warning("%s It is left out.", error.message)
        return None
    return network if refines(network, bundle) else None


def _learn(
    work: Work, record: RoundRecord, lessons: Sequence[Lesson], bundle: Bundle
) -> tuple[RefinementRecord, Failures]:
    assert record.judgement is not None
    settings, ledger = work.recipe.refinement, work.ledger
    if len(lessons) < settings.train_after:
        return RefinementRecord(
            why_not=f"{len(lessons)} of {settings.train_after} reviewed slides "
            "(refinement.train_after)."
        ), []
    name, patch_model = f"{model_name(record.number)}-refinement", record.judgement.kept
    started = time.monotonic()
    failed: Failures = []
    try:
        prepared = prepare(
            work,
            lessons,
            bundle if settings.use_heatmap else None,
            heatmaps=ledger.heatmap_folder(patch_model),
            slides=ledger.house / "whole",
        )
        failed = prepared.failed
        result = _train(work, record, name, prepared, bundle)
    except TrainingInterrupted:
        raise
    except TooFewSlidesError as error:
        return RefinementRecord(why_not=error.message), failed
    except QpannotError as error:
        logger.warning("The refinement network was not trained: %s", error.message)
        hint = f"{error.hint} {AGAIN}" if error.hint else AGAIN
        return RefinementRecord(error=error.message, hint=hint), failed
    except Exception as error:  # the round has a model already, which must not be lost to this
        logger.exception("training the refinement network failed in a way nobody foresaw")
        return RefinementRecord(error=f"{type(error).__name__}: {error}", hint=AGAIN), failed
    training = RefinementTraining(
        model=name,
        patch_model=patch_model,
        patch_model_sha256=bundle.card.weights_sha256,
        protocol=prepared.roles.protocol,
        reason=prepared.roles.reason,
        teach=list(prepared.roles.teach),
        choose=list(prepared.roles.choose),
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        stopped=result.stopped,
        seconds=round(time.monotonic() - started, 1),
        metrics=result.metrics,
    )
    return RefinementRecord(training=training), failed


def _train(
    work: Work, record: RoundRecord, name: str, prepared: Prepared, bundle: Bundle
) -> TrainingResult:
    train = partial(
        train_refinement_network,
        prepared.slides,
        prepared.roles,
        work.recipe,
        work.ledger.model_folder(name).parent,
        patch_model_sha256=(
            bundle.card.weights_sha256 if work.recipe.refinement.use_heatmap else None
        ),
        round=record.number,
        progress=shown(work.each, "Training refinement"),
    )
    try:
        return train().trained
    except ModelExistsError as error:  # no round is recorded that has it
        set_aside(error.model.parent)
        return train().trained


def _judge(
    work: Work,
    record: RoundRecord,
    training: RefinementTraining,
    lessons: Sequence[Lesson],
    bundle: Bundle,
) -> tuple[Judgement, Failures]:
    """Compare refined heatmaps with those as they were; by the slides that chose, one is kept.

    An earlier refinement network of the same patch model is judged with them. Where they are
    equal the newest is kept; where no slide can be read, heatmaps stay as they are.
    """
    ledger = work.ledger
    network = _usable(work, training.model, bundle)
    assert network is not None
    networks = {training.model: network, **_earlier(work, record, training, bundle)}
    fitted = slides_fitted(bundle, ledger.parts(), ledger, work.project.images)
    judged = judged_of(work, lessons, {*fitted, *training.teach})
    openers, failed = openers_of(work, [lesson.image for lesson in judged])
    folder = ledger.heatmap_folder(training.patch_model)
    paths, not_predicted = heatmaps_of(work, "Judging", bundle, folder, openers)
    failed += not_predicted
    openers = {key: opener for key, opener in openers.items() if key in paths}
    found = {training.patch_model: paths}
    for name, network in networks.items():
        found[name], not_refined = refined_of(
            work, "Judging", network, ledger.heatmap_folder(name), openers, paths
        )
        failed += not_refined
    same = set(openers).intersection(*found.values())
    scores = {
        name: scores_in(work, [own for own in judged if own.image.id in same], openers, own_paths)
        for name, own_paths in found.items()
    }
    means = {name: _mean(own, training.choose) for name, own in scores.items()}
    new, before = means[training.model], means[training.patch_model]
    if new is None or before is None:
        return Judgement(scores=scores, kept=training.patch_model, helped=None), failed
    kept = max([*networks, training.patch_model], key=lambda name: means[name] or 0.0)
    return Judgement(scores=scores, kept=kept, helped=new > before), failed


def _mean(scores: Mapping[str, Score], keys: Sequence[str]) -> float | None:
    return mean_dice(scores[key] for key in keys if key in scores)


def _earlier(
    work: Work, record: RoundRecord, training: RefinementTraining, bundle: Bundle
) -> dict[str, RefinementBundle]:
    """Return the last refinement network of the same patch model that the loop kept, by name.

    None where it learned from a slide that chooses now.
    """
    for round_ in reversed(work.ledger.rounds()):
        earlier = round_.refinement
        if round_.number >= record.number or earlier is None or earlier.training is None:
            continue
        name = earlier.training.model
        if earlier.kept != name:
            continue
        network = _usable(work, name, bundle)
        has_seen = set(earlier.training.teach).intersection(training.choose)
        return {name: network} if network and not has_seen else {}
    return {}
