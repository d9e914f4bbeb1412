"""The designs of a study, trained one after the other; what is done is not done again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from qpannot.bootstrap.ablation.planning import Plan, with_patches
from qpannot.bootstrap.ablation.study import Study
from qpannot.bootstrap.evaluating.store import key_of
from qpannot.bootstrap.learning import gather, shown
from qpannot.bootstrap.predicting import heatmaps_of
from qpannot.bootstrap.refinement.alone import slides_fitted, slides_of
from qpannot.bootstrap.truth import Failures
from qpannot.bootstrap.work import Work
from qpannot.errors import QpannotError
from qpannot.models import load_bundle
from qpannot.models.bundle import read_card
from qpannot.qupath.files import write_atomically
from qpannot.recipe import Recipe
from qpannot.sampling import Part
from qpannot.training import (
    TrainingInterrupted,
    TrainingResult,
    assign_roles,
    train_patch_network,
    train_refinement_network,
)
from qpannot.training.identity import settings_of
from qpannot.training.results import MODEL

logger = logging.getLogger(__name__)

DONE = "trained.json"
HEATMAPS = "heatmaps"

PATCHES = ("tissue", "patches", "labels")
"""Sections on which the patches of a slide depend."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "patch": (*PATCHES, "sampling", "network", "augmentation", "clusters", "training"),
    "refinement": ("tissue", "labels", "heatmap", "refinement"),
}
"""On which a training depends, by stage."""

FREE = ("training.workers", "refinement.workers", "refinement.enabled")


class TrainedDesign(BaseModel):
    """A design of one seed that was trained; kept beside its model once that is whole.

    Attributes
    ----------
    key
        Changes whenever it would have to be trained again.
    teach, choose
        Image IDs of the slides it learned from, and by which its best epoch was chosen.
    protocol
        Whose heatmaps a refinement network learned from; None of what refines none.
    reason
        Why another protocol was followed than the recipe asks for, if so.
    seconds
        Of its last run: less than the whole where an earlier one was broken off.
    """

    format: Literal[1] = 1
    key: str
    label: str
    seed: int
    teach: list[str]
    choose: list[str]
    protocol: Literal["held_out", "paper"] | None
    reason: str
    epochs: int
    best_epoch: int
    stopped: str
    was_resumed: bool
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class NotTrained:
    """A design that could not be trained with a seed, and why."""

    plan: Plan
    seed: int
    error: QpannotError


@dataclass
class Trainings:
    """What became of the designs.

    Parameters
    ----------
    done
        By name and seed.
    reused
        How many of them an earlier run had trained.
    not_done
        Those that failed; the others went on.
    failed
        Slides that could not be read.
    """

    done: dict[tuple[str, int], TrainedDesign] = field(default_factory=dict)
    reused: int = 0
    not_done: list[NotTrained] = field(default_factory=list)
    failed: Failures = field(default_factory=list)


def train_plans(study: Study, plans: Sequence[Plan], seeds: Sequence[int]) -> Trainings:
    """Train designs with each seed, and go on where an earlier run was broken off.

    A design that fails is left out, with those that refine its heatmaps; the others go on.

    Parameters
    ----------
    plans
        Those asked for; patch designs that they refine are trained as well.

    Raises
    ------
    TrainingInterrupted
        It was asked to stop.
    """
    found = Trainings()
    tasks = [(plan, seed) for seed in seeds for plan in with_patches(plans)]
    for number, (plan, seed) in enumerate(tasks, 1):
        told = f"{plan.label}, seed {seed} (training {number} of {len(tasks)})"
        name = plan.settings.name
        try:
            if plan.patch and (plan.patch.settings.name, seed) not in found.done:
                raise QpannotError(
                    f"{plan.patch.label}, whose heatmaps it refines, could not be trained."
                )
            trained = _kept(study, plan, seed)
            if trained is None:
                study.check_is_unchanged()
                trained = _trained(study, plan, seed, told, found.failed)
            else:
                found.reused += 1
            found.done[name, seed] = trained
        except TrainingInterrupted:
            raise
        except QpannotError as error:
            found.not_done.append(NotTrained(plan, seed, error))
        except Exception as error:
            logger.exception("%s: training it failed in a way nobody foresaw", told)
            unforeseen = QpannotError(
                f"{type(error).__name__}: {error}",
                hint="Report this with the log, which tells where it happened.",
            )
            unforeseen.__cause__ = error
            found.not_done.append(NotTrained(plan, seed, unforeseen))
    return found


def model_of(study: Study, plan: Plan, seed: int) -> Path:
    """Return the folder of a design's bundle."""
    return plan.folder(study.folder, seed) / MODEL


def _kept(study: Study, plan: Plan, seed: int) -> TrainedDesign | None:
    """Return what an earlier run trained, unless it would have to be trained again."""
    folder = plan.folder(study.folder, seed)
    try:
        found = TrainedDesign.model_validate_json((folder / DONE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    whole = (folder / MODEL).is_dir() and found.key == _key(study, plan, seed)
    return found if whole else None


def _key(study: Study, plan: Plan, seed: int) -> str:
    """Return a digest of all that a training depends on."""
    slides = [
        (key, own.part, own.key)
        for key, own in sorted(study.slides.items())
        if own.part is not Part.TEST
    ]
    settings = settings_of(plan.seeded(seed), SECTIONS[plan.settings.stage], FREE)
    heatmaps = plan.patch and _weights_of(study, plan.patch, seed)
    return key_of(settings, slides, heatmaps)


def _weights_of(study: Study, plan: Plan, seed: int) -> str:
    return read_card(model_of(study, plan, seed)).weights_sha256


def _trained(study: Study, plan: Plan, seed: int, told: str, failed: Failures) -> TrainedDesign:
    """Train a design; slides that cannot be read are added to ``failed``."""
    recipe = plan.seeded(seed)

    def each(stage: str, name: str, done: float, total: int) -> None:
        study.work.each(stage, f"{told}: {name}", done, total)

    work = replace(study.work, recipe=recipe, each=each)
    start = time.monotonic()
    train = _train_patch if plan.settings.stage == "patch" else _train_refinement
    result, used = train(study, work, plan, seed, failed)
    found = TrainedDesign(
        key=_key(study, plan, seed),
        label=plan.label,
        seed=seed,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        stopped=result.stopped,
        was_resumed=result.resumed_after > 0,
        seconds=round(time.monotonic() - start, 1),
        metrics=result.metrics,
        teach=list(used.teach),
        choose=list(used.choose),
        protocol=used.protocol,
        reason=used.reason,
    )
    written = found.model_dump_json(indent=1) + "\n"
    write_atomically(plan.folder(study.folder, seed) / DONE, written.encode())
    return found


@dataclass(frozen=True)
class _Used:
    """Which slides a training used."""

    teach: Sequence[str]
    choose: Sequence[str]
    protocol: Literal["held_out", "paper"] | None = None
    reason: str = ""


def _train_patch(
    study: Study, work: Work, plan: Plan, seed: int, failed: Failures
) -> tuple[TrainingResult, _Used]:
    lessons = [own for own in study.lessons if study.parts[own.image.id] is not Part.TEST]
    # the same for all patch designs and seeds, unless a design changes what a patch is
    folder = study.folder / "patches" / _digest(work.recipe, PATCHES)
    material = gather(work, lessons, folder)
    failed += material.failed
    result = train_patch_network(
        material.tables,
        material.metadata,
        material.openers,
        study.parts,
        work.recipe,
        plan.folder(study.folder, seed),
        progress=shown(work.each),
    )
    own = {
        part: [key for key in sorted(material.tables) if study.parts[key] is part] for part in Part
    }
    return result, _Used(own[Part.TRAIN], own[Part.VALIDATION])


def _train_refinement(
    study: Study, work: Work, plan: Plan, seed: int, failed: Failures
) -> tuple[TrainingResult, _Used]:
    parts = study.parts
    usable = [own for own in study.lessons if parts[own.image.id] is not Part.TEST]
    heatmaps: dict[str, Path] = {}
    bundle = None
    home = study.folder
    if plan.patch:
        home = plan.patch.folder(study.folder, seed)
        bundle = load_bundle(home / MODEL)
        own = replace(work, recipe=plan.patch.recipe)
        openers = {lesson.image.id: study.openers[lesson.image.id] for lesson in usable}
        heatmaps, unpredicted = heatmaps_of(own, "Predicting", bundle, home / HEATMAPS, openers)
        failed += unpredicted
        usable = [lesson for lesson in usable if lesson.image.id in heatmaps]
    # of one patch network, the same for all that refine it
    settings = work.recipe.refinement
    folder = home / "slides" / f"{settings.size_px}-{settings.fit}"
    slides, unread = slides_of(work, usable, study.openers, heatmaps, folder)
    failed += unread
    metadata = {lesson.image.id: lesson.image.metadata for lesson in usable}
    fitted = slides_fitted(bundle, parts, work.ledger, work.project.images)
    roles = assign_roles({key: metadata[key] for key in slides}, parts, fitted, work.recipe)
    result = train_refinement_network(
        slides,
        roles,
        work.recipe,
        plan.folder(study.folder, seed),
        patch_model_sha256=bundle.card.weights_sha256 if bundle else None,
        progress=shown(work.each),
    )
    protocol = roles.protocol if bundle else None
    return result.trained, _Used(roles.teach, roles.choose, protocol, roles.reason)


def _digest(recipe: Recipe, sections: Sequence[str]) -> str:
    return key_of(settings_of(recipe, sections, ()))[:12]
