"""What a training gives, and the model that it must not overwrite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qpannot.errors import QpannotError
from qpannot.training.checkpoints import Kept
from qpannot.training.curves import Row, best_of
from qpannot.training.keeper import CURVES, Diverged, FitSettings, Stop, why_to_stop

MODEL = "model"
VALIDATION = "validation."


class ModelExistsError(QpannotError):
    """A folder holds the model of another training; no model is ever overwritten.

    Parameters
    ----------
    model
        The folder of its bundle.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        super().__init__(
            f"There is already a model at {model}, of another training.",
            hint="Name another folder, or move that one away; no model is ever overwritten.",
        )


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Parameters
    ----------
    bundle
        Folder of the model of the best epoch.
    metrics
        Of that epoch, on what chose the model (see `patch_metrics`). Patches are drawn as the
        training's are, evenly over the levels of the recipe, not as frequent as on the slides.
    curves
        CSV, a row for each epoch.
    epochs, best_epoch
        How many there were, and which had the lowest validation loss, from 1.
    stopped
        ``epochs``: all were run; ``patience``: it had stopped to get better.
    resumed_after
        Epochs of an earlier call that were not run again.
    failures
        By slide, why patches of it could not be read. Others were taken instead.
    """

    bundle: Path
    metrics: dict[str, float]
    curves: Path
    epochs: int
    best_epoch: int
    stopped: Stop
    resumed_after: int
    failures: dict[str, str]


def result_of(
    folder: Path, kept: Kept, settings: FitSettings, resumed_after: int
) -> TrainingResult:
    """Return what a training that is over gave, from what was kept of it."""
    return TrainingResult(
        bundle=folder / MODEL,
        metrics=validation_metrics(kept),
        curves=folder / CURVES,
        epochs=len(kept.rows),
        best_epoch=int(best_row(kept)["epoch"]),
        stopped=why_to_stop(kept.rows, settings) or "epochs",
        resumed_after=resumed_after,
        failures=kept.failures,
    )


def best_row(kept: Kept) -> Row:
    """Return the best epoch of a training of at least one."""
    best = best_of(kept.rows)
    assert best is not None
    return best


def validation_metrics(kept: Kept) -> dict[str, float]:
    """Return what the best epoch measured on what chose the model."""
    return {
        key.removeprefix(VALIDATION): value
        for key, value in best_row(kept).items()
        if key.startswith(VALIDATION)
    }


def explained(
    error: Diverged, section: str, folder: Path, key: str, save: Callable[[Path, Kept], None]
) -> Diverged:
    """Return what to tell of a loss that is no number, once the best model so far is safe.

    Parameters
    ----------
    section
        Of the recipe, where the settings are.
    key
        Of the run; names the model's folder within its own.
    save
        Writes a model to a folder, from what was kept.
    """
    hint = f"Set a smaller {section}.learning_rate, or {section}.precision to 32, and train again."
    if not error.kept.rows:
        return Diverged(error.epoch, error.kept, hint=hint)
    model = folder / f"{MODEL}-of-epoch-{best_row(error.kept)['epoch']}-{key}"
    if not model.exists():
        save(model, error.kept)
    return Diverged(error.epoch, error.kept, hint=f"The best model until then is {model}. {hint}")
