"""From labelled patches to a model bundle (H2G-Net sec. 2.2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from qpannot.errors import QpannotError
from qpannot.models import Bundle, PatchNetwork, save_bundle
from qpannot.recipe import Recipe
from qpannot.sampling import (
    Opener,
    Part,
    PatchTable,
    PatchTree,
    class_names,
    describe_patches,
)
from qpannot.training.checkpoints import Kept, find_checkpoint
from qpannot.training.curves import write_curves
from qpannot.training.fitting import Run, empty_network, fit
from qpannot.training.identity import key_of, run_identity
from qpannot.training.keeper import (
    CHECKPOINTS,
    CURVES,
    Diverged,
    why_to_stop,
)
from qpannot.training.processes import find_place, other_processes
from qpannot.training.progress import ShowProgress, show_nothing
from qpannot.training.results import (
    MODEL,
    ModelExistsError,
    TrainingResult,
    explained,
    result_of,
    validation_metrics,
)
from qpannot.training.trainer import Device, precision_of, uses_gpu_on

logger = logging.getLogger(__name__)


def train_patch_network(
    tables: Mapping[str, PatchTable],
    metadata: Mapping[str, Mapping[str, str]],
    openers: Mapping[str, Opener],
    parts: Mapping[str, Part],
    recipe: Recipe,
    folder: Path,
    *,
    start_from: Bundle | None = None,
    round: int | None = None,
    progress: ShowProgress = show_nothing,
    device: Device = "auto",
    processes: int | None = None,
) -> TrainingResult:
    """Train a patch network and save the model of the best epoch (H2G-Net sec. 2.2).

    Called again with the same folder, it goes on where an earlier call broke off: after the last
    whole epoch, or within one where it was asked to stop (Ctrl-C, SIGTERM) or had run for ten
    minutes; an uninterrupted run would have given the same, on a CPU to the bit. Where it was
    finished it returns the result again. Where the recipe or the patches are others by now it
    starts anew, and logs a warning that says why; more or fewer epochs, patience and workers may
    be asked for in between.

    A script that calls it with workers or several processes has to guard its main module with
    ``if __name__ == "__main__":``. `qpannot.training.processes` says how it runs on many machines.

    Parameters
    ----------
    tables
        Patches by slide, all made with this recipe.
    metadata
        Image metadata by slide, for the levels of the sampling.
    openers
        By slide, for each that has patches.
    parts
        What each slide is for; those that test the model, and others, are left alone.
    folder
        Of this training alone: gets ``model``, ``curves.csv``, ``tensorboard``, ``checkpoints``.
        Once there is a model, these hold no weights any more.
    start_from
        The last round's model, of which the weights are taken if ``training.start`` says so. Where
        the recipe means another network, other classes or other patches by now, a warning says
        so, and ``network.weights`` are taken instead.
    round
        The round of the loop, for the bundle.
    progress
        Called several times a second, in this process and from its main thread.
    device
        ``auto``: the GPU where there is one.
    processes
        Among which it is divided on this machine; None: one for each GPU, one without any. Each
        takes ``batch_size`` patches for a step, so that steps are fewer.

    Raises
    ------
    TrainingInterrupted
        It was asked to stop.
    QpannotError
        A class has no patches, no slide can be read, weights cannot be had, the loss is no number
        any more, the memory or the disk is full, or there is already a model of other settings.
    """
    uses_gpu = uses_gpu_on(device)
    precision_of(recipe.training, section="training", uses_gpu=uses_gpu)
    train, validation = _trees(tables, metadata, parts, recipe)
    start = start_from if recipe.training.start == "last" else None
    if start is not None and not _continues(start, train.classes, recipe):
        start = None
    sha256 = start.card.weights_sha256 if start else None
    identity = run_identity(train, validation, recipe, start=sha256)
    place = find_place(processes, uses_gpu=uses_gpu)
    model = folder / MODEL
    checkpoint = find_checkpoint(folder / CHECKPOINTS, identity, place.processes)
    kept = checkpoint.kept if checkpoint else Kept()
    resumed_after = len(kept.rows)
    is_over = why_to_stop(kept.rows, recipe.training) is not None
    if model.exists() and not is_over:
        raise ModelExistsError(model)
    run = Run(
        train=train,
        validation=validation,
        openers={slide: openers[slide] for slide in (*train.slides, *validation.slides)},
        recipe=recipe,
        folder=folder,
        identity=identity,
        checkpoint=checkpoint.path if checkpoint else None,
        uses_gpu=uses_gpu,
    )
    if not is_over:
        network = None if checkpoint else _new_network(run, start)
        try:
            with other_processes(fit, run, place):
                kept = fit(run, place, network, progress)
        except Diverged as error:
            if place.rank == 0:
                raise explained(
                    error,
                    "training",
                    folder,
                    key_of(identity),
                    lambda to, kept: _save(to, run, kept, round),
                ) from None
            raise
    if place.rank == 0 and not model.exists():
        write_curves(folder / CURVES, kept.rows)
        _save(model, run, kept, round)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first process has written the model
    return result_of(folder, kept, recipe.training, resumed_after)


def _trees(
    tables: Mapping[str, PatchTable],
    metadata: Mapping[str, Mapping[str, str]],
    parts: Mapping[str, Part],
    recipe: Recipe,
) -> tuple[PatchTree, PatchTree]:
    """Return the patches that teach, and those that choose the model, by slides in fixed order."""
    own = {
        part: {slide: tables[slide] for slide in sorted(tables) if parts.get(slide) == part}
        for part in (Part.TRAIN, Part.VALIDATION)
    }
    for part, what in ((Part.TRAIN, "learn from"), (Part.VALIDATION, "choose the model by")):
        if not any(len(table) for table in own[part].values()):
            raise QpannotError(
                f"There are no patches to {what}, on {len(own[part])} slides.",
                hint="Review more slides, or change their shares (split.train, split.validation).",
            )
    for part, found in own.items():
        missing = [
            name
            for name in class_names(recipe.labels)
            if not any(table.counts[name] for table in found.values())
        ]
        if missing and part is Part.TRAIN:
            raise QpannotError(
                f"The slides to learn from have no patches of {' and '.join(missing)}.",
                hint=describe_patches(found),
            )
        if missing:
            logger.warning(
                "The slides that choose the model have no patches of %s: how well it is found "
                "has no influence.",
                " and ".join(missing),
            )
    levels = recipe.sampling.levels
    return (
        PatchTree(own[Part.TRAIN], metadata, levels),
        PatchTree(own[Part.VALIDATION], metadata, levels),
    )


def _continues(start: Bundle, classes: tuple[str, ...], recipe: Recipe) -> bool:
    """Tell whether a model can be gone on from; the dropout may be another."""
    old = start.card.architecture
    pairs: dict[str, tuple[object, object]] = {
        "network.encoder": (old.encoder, recipe.network.encoder),
        "network.hidden_units": (old.hidden_units, recipe.network.hidden_units),
        "the classes": (", ".join(old.classes), ", ".join(classes)),
        "patches.size_px": (old.size_px, recipe.patches.size_px),
        "patches.mpp": (start.card.mpp, recipe.patches.mpp),
    }
    differing = [f"{key} ({was}, now {now})" for key, (was, now) in pairs.items() if was != now]
    if differing:
        logger.warning(
            "The model %s differs from the recipe in %s. Training starts from network.weights "
            "(%s) instead.",
            start.folder,
            " and ".join(differing),
            recipe.network.weights or "null",
        )
    return not differing


def _new_network(run: Run, start: Bundle | None) -> PatchNetwork:
    if start is None:
        return empty_network(run.recipe, run.train, weights=run.recipe.network.weights)
    network = empty_network(run.recipe, run.train)
    network.load_state_dict(start.network.state_dict())
    return network


def _save(folder: Path, run: Run, kept: Kept, round: int | None) -> None:
    network = empty_network(run.recipe, run.train)
    network.load_state_dict(kept.best_weights)
    slides = (*run.train.slides, *run.validation.slides)
    metrics = validation_metrics(kept)
    save_bundle(
        folder,
        network,
        run.recipe,
        slides=slides,
        chosen_by=run.validation.slides,
        metrics=metrics,
        round=round,
    )
