"""One process's part of a training, with Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from qpannot.models import PatchNetwork, fit_clusters, patch_network, save_clusters
from qpannot.recipe import Recipe
from qpannot.sampling import EpochSampler, Opener, PatchTree
from qpannot.sampling.loading import PatchLoader
from qpannot.training.checkpoints import Kept
from qpannot.training.data import PatchData
from qpannot.training.identity import Identity, key_of
from qpannot.training.keeper import Keeper
from qpannot.training.processes import Place, count_workers
from qpannot.training.progress import Progress, ShowProgress, show_nothing
from qpannot.training.task import PatchTask
from qpannot.training.trainer import run_trainer


@dataclass(frozen=True)
class Run:
    """A training, as each of its processes needs to know it; it can be pickled.

    Parameters
    ----------
    folder
        Of this training alone.
    checkpoint
        What it goes on from.
    """

    train: PatchTree
    validation: PatchTree
    openers: Mapping[str, Opener]
    recipe: Recipe
    folder: Path
    identity: Identity
    checkpoint: Path | None
    uses_gpu: bool


def fit(
    run: Run,
    place: Place,
    network: PatchNetwork | None = None,
    show: ShowProgress = show_nothing,
) -> Kept:
    """Train to the end, and return what was kept.

    Parameters
    ----------
    network
        To be trained; None: an empty one, for a process that gets its weights from the checkpoint
        or from the first process.

    Raises
    ------
    QpannotError
        The training was interrupted or diverged, no slide can be read, or the disk is full.
    """
    recipe = run.recipe
    workers = count_workers(recipe.training.workers, place, uses_gpu=run.uses_gpu)
    network = network or empty_network(recipe, run.train)
    keeper = Keeper(run.folder, run.identity, recipe.training, show)
    task = PatchTask(network, recipe.training)
    if recipe.training.loss == "cluster_weighted":
        file = run.folder / f"clusters-{key_of(run.identity)}.safetensors"
        task.use_clusters(file, partial(_make_clusters, run, file, workers, show))
    data = PatchData(run.train, run.validation, run.openers, recipe, workers=workers)
    run_trainer(
        task,
        data,
        keeper,
        recipe.training,
        place,
        section="training",
        batch=f"{recipe.training.batch_size} patches of {recipe.patches.size_px} px",
        workers=workers,
        uses_gpu=run.uses_gpu,
        checkpoint=run.checkpoint,
    )
    return keeper.kept


def empty_network(recipe: Recipe, tree: PatchTree, weights: str | None = None) -> PatchNetwork:
    """Return the network of a recipe, the same each time.

    Parameters
    ----------
    weights
        As in `patch_network`; None: at random, to be replaced.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        return patch_network(
            recipe.network.encoder,
            tree.classes,
            hidden_units=recipe.network.hidden_units,
            dropout=recipe.network.dropout,
            weights=weights,
            size_px=recipe.patches.size_px,
        )


def _make_clusters(run: Run, file: Path, workers: int, show: ShowProgress) -> None:
    if file.exists():
        return
    settings = run.recipe.clusters
    sampler = EpochSampler(
        run.train,
        batch_size=settings.batch_size,
        batches=settings.batches,
        seed=run.recipe.training.seed,
    )

    def batches() -> Iterator[Tensor]:
        for done, batch in enumerate(PatchLoader(sampler, run.openers, workers=workers)):
            show(Progress("Clustering patches", done, settings.batches, f"{settings.k} clusters"))
            yield batch.pixels

    model = fit_clusters(
        batches(),
        settings,
        seed=run.recipe.training.seed,
        device="cuda" if run.uses_gpu else "cpu",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_clusters(file, model)
