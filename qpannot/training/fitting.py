"""One process's part of a training, with Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from qpannot.errors import QpannotError, UsageError
from qpannot.models import PatchNetwork, fit_clusters, patch_network, save_clusters
from qpannot.recipe import Recipe
from qpannot.recipe.settings import TrainingSettings
from qpannot.sampling import EpochSampler, Opener, PatchTree
from qpannot.sampling.loading import PatchLoader
from qpannot.torchvision_import import import_torchvision
from qpannot.training.checkpoints import Kept, SafeCheckpoints
from qpannot.training.data import PatchData
from qpannot.training.identity import Identity, key_of
from qpannot.training.keeper import Keeper, TrainingInterrupted, handlers_kept
from qpannot.training.processes import Place, count_workers, share_cores
from qpannot.training.progress import Progress, ShowProgress, show_nothing
from qpannot.training.task import PatchTask

import_torchvision()  # before lightning, which imports it by itself

from lightning.fabric.utilities.warnings import PossibleUserWarning  # noqa: E402
from lightning.pytorch import Trainer  # noqa: E402

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


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
    precision = precision_of(recipe.training, uses_gpu=run.uses_gpu)
    workers = count_workers(recipe.training.workers, place, uses_gpu=run.uses_gpu)
    network = network or empty_network(recipe, run.train)
    keeper = Keeper(run.folder, run.identity, recipe.training, show)
    task = PatchTask(network, recipe.training)
    if recipe.training.loss == "cluster_weighted":
        file = run.folder / f"clusters-{key_of(run.identity)}.safetensors"
        task.use_clusters(file, partial(_make_clusters, run, file, workers, show))
    data = PatchData(run.train, run.validation, run.openers, recipe, workers=workers)
    readers = workers if recipe.training.workers is None else 0  # a number asked for is extra
    with (
        share_cores(place, readers),
        handlers_kept(),
        _quiet_lightning(),
        torch.random.fork_rng(devices=[]),
    ):
        trainer = Trainer(
            accelerator="cuda" if run.uses_gpu else "cpu",
            devices=place.on_machine,
            num_nodes=place.machines,
            strategy="ddp" if place.processes > 1 else "auto",
            precision=precision,
            plugins=[SafeCheckpoints(), place.environment()],
            callbacks=[keeper],
            max_epochs=recipe.training.epochs,
            benchmark=run.uses_gpu,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=run.folder,
        )
        try:
            trainer.fit(task, datamodule=data, ckpt_path=run.checkpoint)
        except SystemExit as error:
            # What Lightning makes of a signal before we listen, or of a second Ctrl-C.
            raise keeper.interruption or TrainingInterrupted("a signal") from error
        except torch.OutOfMemoryError as error:
            raise QpannotError(
                f"The memory of the GPU does not suffice for {recipe.training.batch_size} patches "
                f"of {recipe.patches.size_px} px at a time.",
                hint="Set a smaller training.batch_size, or end what else uses the GPU.",
            ) from error
        except (OSError, EOFError, RuntimeError) as error:
            # A signal to all processes can be heard of first by what it ends.
            if keeper.interruption is not None:
                raise keeper.interruption from error
            # torch has no exception of its own for a worker that ended, and may first miss what
            # that was about to hand over.
            is_of_worker = str(error).startswith("DataLoader worker")
            if workers and (is_of_worker or not isinstance(error, RuntimeError)):
                raise _worker_ended(error) from error
            raise
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


def precision_of(settings: TrainingSettings, *, uses_gpu: bool) -> Precision:
    """Return what Lightning calls the precision of a recipe.

    Raises
    ------
    UsageError
        The processor is asked for what only a GPU can.
    """
    if settings.precision == "auto":
        return "16-mixed" if uses_gpu else "32-true"
    if settings.precision == "32":
        return "32-true"
    if settings.precision == "16-mixed" and not uses_gpu:
        raise UsageError(
            "training.precision 16-mixed needs a GPU.", hint="Set training.precision to auto."
        )
    return settings.precision


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


def _worker_ended(error: Exception) -> QpannotError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return QpannotError(
        f"A process that reads patches ended before its time ({reason}).",
        hint="Mostly the memory did not suffice (in a container also its shared memory, which "
        "--shm-size sets). Set fewer training.workers, or 0, and run the command again; it goes "
        "on where it was.",
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and advice, which are for programmers, from the person's screen."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
