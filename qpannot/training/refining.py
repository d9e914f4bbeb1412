"""From slides and their heatmaps to the bundle of a refinement network (H2G-Net sec. 2.6)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from qpannot.errors import UsageError
from qpannot.models.refinement import RefinementNetwork, refinement_network, save_refinement
from qpannot.recipe import Recipe
from qpannot.sampling import class_names
from qpannot.sampling.whole import StoredSlide
from qpannot.training.checkpoints import Kept, find_checkpoint
from qpannot.training.curves import write_curves
from qpannot.training.identity import SLIDES, Identity, key_of, settings_of
from qpannot.training.keeper import CHECKPOINTS, CURVES, Diverged, Keeper, why_to_stop
from qpannot.training.processes import count_workers, find_place
from qpannot.training.progress import ShowProgress, show_nothing
from qpannot.training.refinement_task import RefinementData, RefinementTask
from qpannot.training.results import (
    MODEL,
    ModelExistsError,
    TrainingResult,
    explained,
    result_of,
    validation_metrics,
)
from qpannot.training.roles import Roles
from qpannot.training.trainer import Device, precision_of, run_trainer, uses_gpu_on

SECTION = "refinement"
FREE = tuple(
    f"{SECTION}.{name}"
    for name in ("enabled", "train_after", "protocol", "epochs", "patience", "workers")
)
"""May change while a run goes on: the slides say which protocol was followed."""


@dataclass(frozen=True)
class RefinementResult:
    """What the training of a refinement network gave.

    Parameters
    ----------
    trained
        Its metrics are of pixels of the slides that chose the best epoch; ``loss`` is one minus
        their soft Dice, the mean over slides.
    roles
        Which slides it learned from, and by which protocol.
    """

    trained: TrainingResult
    roles: Roles


def train_refinement_network(
    slides: Mapping[str, StoredSlide],
    roles: Roles,
    recipe: Recipe,
    folder: Path,
    *,
    patch_model_sha256: str | None,
    round: int | None = None,
    progress: ShowProgress = show_nothing,
    device: Device = "auto",
) -> RefinementResult:
    """Train a refinement network and save the model of the best epoch (H2G-Net sec. 2.6, 3.2).

    Called again with the same folder, it goes on where an earlier call broke off, as
    `train_patch_network` does, at a whole step of the optimiser. It begins from random numbers
    each time, as in the paper, and runs in one process.

    A script that calls it with workers has to guard its main module with
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    slides
        By slide, made with this recipe by `stored_whole`; at least those of ``roles``.
    roles
        See `assign_roles`.
    folder
        Of this training alone: gets ``model``, ``curves.csv``, ``tensorboard``, ``checkpoints``.
    patch_model_sha256
        Of the weights of the network whose heatmaps they are; None where the recipe uses none.
    round
        The round of the loop, for the bundle.
    progress
        Called several times a second, in this process and from its main thread.
    device
        ``auto``: the GPU where there is one.

    Raises
    ------
    TrainingInterrupted
        It was asked to stop.
    QpannotError
        There is no such network, the loss is no number any more, the memory or the disk is full,
        or there is already a model of other settings.
    ValueError
        Heatmaps are used, and nobody says whose.
    """
    settings = recipe.refinement
    if settings.use_heatmap != (patch_model_sha256 is not None):
        raise ValueError("heatmaps are used, and only then, if their patch network is named")
    uses_gpu = uses_gpu_on(device)
    precision_of(settings, section=SECTION, uses_gpu=uses_gpu)
    place = find_place(1, uses_gpu=uses_gpu)
    if place.processes > 1:
        raise UsageError(
            "A refinement network is trained in one process.",
            hint="Start the command by itself, without torchrun or srun.",
        )
    network = _new_network(recipe)  # a design that cannot be is told before anything else
    identity = _identity(slides, roles, recipe)
    model = folder / MODEL
    checkpoint = find_checkpoint(folder / CHECKPOINTS, identity, place.processes)
    kept = checkpoint.kept if checkpoint else Kept()
    resumed_after = len(kept.rows)
    is_over = why_to_stop(kept.rows, settings) is not None
    if model.exists() and not is_over:
        raise ModelExistsError(model)

    def save(to: Path, kept: Kept) -> None:
        best = _new_network(recipe)
        best.load_state_dict(kept.best_weights)
        save_refinement(
            to,
            best,
            recipe,
            classes=class_names(recipe.labels),
            patch_model_sha256=patch_model_sha256,
            protocol=roles.protocol,
            slides=(*roles.teach, *roles.choose),
            metrics=validation_metrics(kept),
            round=round,
        )

    if not is_over:
        keeper = Keeper(folder, identity, settings, progress)
        workers = count_workers(settings.workers, place, uses_gpu=uses_gpu)
        try:
            run_trainer(
                RefinementTask(network, class_names(recipe.labels), settings),
                RefinementData(slides, roles.teach, roles.choose, settings, workers=workers),
                keeper,
                settings,
                place,
                section=SECTION,
                batch=f"{settings.batch_size} slides of {settings.size_px} px",
                workers=workers,
                uses_gpu=uses_gpu,
                checkpoint=checkpoint.path if checkpoint else None,
                accumulate=settings.accumulate,
            )
        except Diverged as error:
            raise explained(error, SECTION, folder, key_of(identity), save) from None
        kept = keeper.kept
    if not model.exists():
        write_curves(folder / CURVES, kept.rows)
        save(model, kept)
    return RefinementResult(result_of(folder, kept, settings, resumed_after), roles)


def check_refinement_design(recipe: Recipe) -> None:
    """Find out whether the recipe's refinement network can be built.

    Raises
    ------
    UsageError
        There is no such design, or it cannot take images of that size.
    """
    _new_network(recipe)


def _new_network(recipe: Recipe) -> RefinementNetwork:
    """Return the network of a recipe, the same each time."""
    settings, names = recipe.refinement, class_names(recipe.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return refinement_network(
            settings.design,
            channels=3 + (len(names) - 1 if settings.use_heatmap else 0),
            classes=len(names),
            size_px=settings.size_px,
        )


def _identity(slides: Mapping[str, StoredSlide], roles: Roles, recipe: Recipe) -> Identity:
    identity = settings_of(recipe, (SECTION,), FREE)
    identity["labels.classes"] = list(class_names(recipe.labels))
    used = [[(key, slides[key].key) for key in part] for part in (roles.teach, roles.choose)]
    identity[SLIDES] = hashlib.sha256(json.dumps(used).encode()).hexdigest()
    return identity
