"""What watches a training: keeps its curves, its best weights and its checkpoints, and stops it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from qpannot.errors import QpannotError
from qpannot.recipe.refining import RefinementSettings
from qpannot.recipe.settings import TrainingSettings
from qpannot.torchvision_import import import_torchvision
from qpannot.training.checkpoints import LAST, MIDDLE, Kept, add_own, own_of
from qpannot.training.curves import Row, TensorBoard, best_of, write_curves
from qpannot.training.identity import Identity
from qpannot.training.metrics import Tally
from qpannot.training.progress import Progress, ShowProgress, describe_epoch
from qpannot.training.tallied import TalliedTask

import_torchvision()  # before lightning, which imports it by itself

from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import Checkpoint  # noqa: E402

CHECKPOINTS, CURVES, TENSORBOARD = "checkpoints", "curves.csv", "tensorboard"

SAVED_EVERY_S = 600.0
"""The middle of an epoch is saved this often; an epoch of the paper takes an hour without a GPU."""

LOOKED_EVERY_S = 0.25
"""Looking at a loss makes a GPU wait."""

AGREED_EVERY = 10
"""Batches after which several processes tell each other whether to go on."""

Stop = Literal["epochs", "patience"]

FitSettings = TrainingSettings | RefinementSettings
"""A section of a recipe that says how a network is fitted."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks a training to stop: Ctrl-C, and a cluster."""


class TrainingInterrupted(QpannotError):
    """A person or the cluster asked a training to stop; run again, it goes on.

    Parameters
    ----------
    what
        The signal's name, or another process.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The training was stopped by {what}.",
            hint="Run the command again; it goes on where it was.",
        )
        self.exit_code = 143 if what == signal.SIGTERM.name else 130


class Diverged(QpannotError):
    """The loss is no number any more.

    Parameters
    ----------
    epoch
        Of which the loss is none.
    kept
        What was kept until then.
    """

    def __init__(self, epoch: int, kept: Kept, *, hint: str | None = None) -> None:
        self.epoch = epoch
        self.kept = kept
        super().__init__(f"The loss is no finite number any more, in epoch {epoch}.", hint=hint)


def why_to_stop(rows: Sequence[Row], settings: FitSettings) -> Stop | None:
    """Return why no epoch should follow, None where one should."""
    best = best_of(rows)
    if best and settings.patience and len(rows) - best["epoch"] >= settings.patience:
        return "patience"
    return "epochs" if len(rows) >= settings.epochs else None


class Keeper(Checkpoint):
    """Keeps what a training needs to be resumed, and to be judged.

    All of it lies in the checkpoint, from which the files beside it are written anew: whatever
    breaks off, they fit together.

    Attributes
    ----------
    kept
        So far.
    """

    def __init__(
        self, folder: Path, identity: Identity, settings: FitSettings, show: ShowProgress
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.settings = settings
        self.show = show
        self.kept = Kept()
        self._signal: str | None = None
        self._tensorboard: TensorBoard | None = None
        self._looked = self._saved = self._epoch_began = time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what is kept to a checkpoint, and say of which run it is."""
        self.kept.seconds = time.monotonic() - self._epoch_began
        processes, step = trainer.world_size, trainer.global_step
        add_own(checkpoint, self.identity, self.kept, processes=processes, step=step)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from what was kept."""
        self.kept = own_of(self.folder, checkpoint).kept

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, and go on with the curves."""
        # After Lightning did: its answer talks to the other processes from within the handler.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._on_signal)
        if trainer.is_global_zero:
            self._tensorboard = TensorBoard(self.folder / TENSORBOARD, len(self.kept.rows) + 1)
        self._saved = time.monotonic()
        self._epoch_began = time.monotonic() - self.kept.seconds  # an epoch may have begun before

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second time, at once

    @property
    def interruption(self) -> TrainingInterrupted | None:
        """What to raise if a signal asked to stop."""
        return TrainingInterrupted(self._signal) if self._signal else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the seconds."""
        self._epoch_began = time.monotonic()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let what is random depend on the batch's place alone, to be repeated by a rerun."""
        place = (trainer.current_epoch, batch_idx, trainer.global_rank)
        sequence = np.random.SeedSequence((self.settings.seed % 2**64, *place))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look after the training now and then."""
        self._look(
            trainer, cast(TalliedTask, pl_module).train_tally, batch_idx + 1, of_training=True
        )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look after the validation now and then."""
        tally = cast(TalliedTask, pl_module).validation_tally
        self._look(trainer, tally, batch_idx + 1, of_training=False)

    def _look(self, trainer: Trainer, tally: Tally, batch: int, *, of_training: bool) -> None:
        now = time.monotonic()
        if trainer.world_size > 1:
            is_due = batch % AGREED_EVERY == 0
        else:
            is_due = self._signal is not None or now - self._looked >= LOOKED_EVERY_S
        if not is_due:
            return
        self._looked = now
        loss = tally.loss
        has_diverged, is_interrupted, is_old = _any_of(
            trainer,
            not math.isfinite(loss),
            self._signal is not None,
            now - self._saved >= SAVED_EVERY_S,
        )
        epoch = trainer.current_epoch + 1
        if has_diverged:
            raise Diverged(epoch, self.kept)
        batches = int(trainer.num_training_batches)
        # Gradients that wait for others are in no checkpoint: first the step is finished.
        is_saved_whole = batch % trainer.accumulate_grad_batches == 0 or batch >= batches
        if of_training and batch < batches and is_saved_whole and (is_interrupted or is_old):
            trainer.save_checkpoint(self.folder / CHECKPOINTS / MIDDLE)
            self._saved = now
        if is_interrupted and (is_saved_whole or not of_training):
            raise self.interruption or TrainingInterrupted("another process")
        if of_training:
            self._tell(trainer, batch, loss)
        elif batches + batch < self._batches(trainer):  # of the last one tells the epoch's end
            self._tell(trainer, batches + batch, None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the epoch gave, and judge whether it was the last."""
        task = cast(TalliedTask, pl_module)
        epoch = len(self.kept.rows) + 1
        row: dict[str, float] = {
            "epoch": epoch,
            "seconds": round(time.monotonic() - self._epoch_began, 3),
        }
        parts = {"train": task.train_tally, "validation": task.validation_tally}
        for part, tally in parts.items():
            metrics = tally.reduced(task.sum_of_processes).metrics(task.class_names)
            if not math.isfinite(metrics["loss"]):
                raise Diverged(epoch, self.kept)
            row |= {f"{part}.{name}": value for name, value in metrics.items()}
        self.kept.rows.append(row)
        if best_of(self.kept.rows) is row:
            state = task.network.state_dict()
            self.kept.best_weights = {key: value.cpu().clone() for key, value in state.items()}
        self.kept.failures |= _failures(trainer)
        if why_to_stop(self.kept.rows, self.settings):
            trainer.should_stop = True
        trainer.save_checkpoint(self.folder / CHECKPOINTS / LAST)
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            (self.folder / CHECKPOINTS / MIDDLE).unlink(missing_ok=True)
            write_curves(self.folder / CURVES, self.kept.rows)
            if self._tensorboard is not None:
                self._tensorboard.add(row)
        self._tell(trainer, self._batches(trainer), row["train.loss"])
        (is_interrupted,) = _any_of(trainer, self._signal is not None)
        if is_interrupted and not trainer.should_stop:
            raise self.interruption or TrainingInterrupted("another process")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close TensorBoard's file."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close TensorBoard's file."""
        self.teardown(trainer, pl_module, "fit")

    @staticmethod
    def _batches(trainer: Trainer) -> int:
        return int(trainer.num_training_batches) + int(sum(trainer.num_val_batches))

    def _tell(self, trainer: Trainer, batch: int, loss: float | None) -> None:
        if not trainer.is_global_zero:
            return
        epoch, batches = trainer.current_epoch + 1, self._batches(trainer)
        done, total = (epoch - 1) * batches + batch, self.settings.epochs * batches
        text = describe_epoch(epoch, self.settings.epochs, loss, self.kept.rows)
        self.show(Progress("Training", done, total, text, ends_epoch=batch == batches))


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Give signals back to who had them before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _failures(trainer: Trainer) -> dict[str, str]:
    """Return, by slide, why patches could not be read by any of the processes."""
    own: dict[str, str] = trainer.datamodule.failures  # type: ignore[attr-defined]
    if trainer.world_size == 1:
        return own
    found: list[dict[str, str]] = [{}] * trainer.world_size
    torch.distributed.all_gather_object(found, own)
    return {slide: why for each in found for slide, why in each.items()}


def _any_of(trainer: Trainer, *flags: bool) -> list[bool]:
    """Return which flags are set in any of the processes."""
    if trainer.world_size == 1:
        return list(flags)
    numbers = torch.tensor(flags, dtype=torch.int32, device=trainer.strategy.root_device)
    total = cast(Tensor, trainer.strategy.reduce(numbers, reduce_op="sum"))
    return [number > 0 for number in total.tolist()]
