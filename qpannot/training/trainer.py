"""Lightning's trainer, as every training here runs it, and what is told where it fails."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from qpannot.errors import QpannotError, UsageError
from qpannot.torchvision_import import import_torchvision
from qpannot.training.checkpoints import SafeCheckpoints
from qpannot.training.keeper import FitSettings, Keeper, TrainingInterrupted, handlers_kept
from qpannot.training.processes import Place, share_cores
from qpannot.training.tallied import TalliedTask

import_torchvision()  # before lightning, which imports it by itself

from lightning.fabric.utilities.warnings import PossibleUserWarning  # noqa: E402
from lightning.pytorch import LightningDataModule, Trainer  # noqa: E402

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
Device = Literal["auto", "cpu", "cuda"]


def run_trainer(
    task: TalliedTask,
    data: LightningDataModule,
    keeper: Keeper,
    settings: FitSettings,
    place: Place,
    *,
    section: str,
    batch: str,
    workers: int,
    uses_gpu: bool,
    checkpoint: Path | None,
    accumulate: int = 1,
) -> None:
    """Train to the end; the keeper has what came of it.

    Parameters
    ----------
    section
        Of the recipe, where the settings are.
    batch
        What is in one, in words.
    workers
        Processes that read for this one.
    checkpoint
        What it goes on from.
    accumulate
        Batches that make a step.

    Raises
    ------
    QpannotError
        The training was interrupted or diverged, no slide can be read, or the disk or the memory
        is full.
    """
    readers = workers if settings.workers is None else 0  # a number asked for is extra
    with (
        share_cores(place, readers),
        handlers_kept(),
        _quiet_lightning(),
        torch.random.fork_rng(devices=[]),
    ):
        trainer = Trainer(
            accelerator="cuda" if uses_gpu else "cpu",
            devices=place.on_machine,
            num_nodes=place.machines,
            strategy="ddp" if place.processes > 1 else "auto",
            precision=precision_of(settings, section=section, uses_gpu=uses_gpu),
            plugins=[SafeCheckpoints(), place.environment()],
            callbacks=[keeper],
            max_epochs=settings.epochs,
            accumulate_grad_batches=accumulate,
            benchmark=uses_gpu,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=keeper.folder,
        )
        try:
            trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
        except SystemExit as error:
            # What Lightning makes of a signal before we listen, or of a second Ctrl-C.
            raise keeper.interruption or TrainingInterrupted("a signal") from error
        except torch.OutOfMemoryError as error:
            raise QpannotError(
                f"The memory of the GPU does not suffice for {batch} at a time.",
                hint=f"Set a smaller {section}.batch_size, or end what else uses the GPU.",
            ) from error
        except (OSError, EOFError, RuntimeError) as error:
            # A signal to all processes can be heard of first by what it ends.
            if keeper.interruption is not None:
                raise keeper.interruption from error
            # torch has no exception of its own for a worker that ended, and may first miss what
            # that was about to hand over.
            is_of_worker = str(error).startswith("DataLoader worker")
            if workers and (is_of_worker or not isinstance(error, RuntimeError)):
                raise _worker_ended(error, section) from error
            raise


def precision_of(settings: FitSettings, *, section: str, uses_gpu: bool) -> Precision:
    """Return what Lightning calls the precision of a recipe's section.

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
            f"{section}.precision 16-mixed needs a GPU.", hint=f"Set {section}.precision to auto."
        )
    return settings.precision


def uses_gpu_on(device: Device) -> bool:
    """Return whether a GPU calculates.

    Raises
    ------
    UsageError
        There is none, where one is asked for.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "There is no GPU that torch can use.",
            hint="Train with device auto, or install torch for your GPU: https://pytorch.org",
        )
    return device != "cpu" and torch.cuda.is_available()


def _worker_ended(error: Exception, section: str) -> QpannotError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return QpannotError(
        f"A process that reads for the training ended before its time ({reason}).",
        hint="Mostly the memory did not suffice (in a container also its shared memory, which "
        f"--shm-size sets). Set fewer {section}.workers, or 0, and run the command again; it goes "
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
