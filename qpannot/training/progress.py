"""How far a training is, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qpannot.training.curves import Row, best_of


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Parameters
    ----------
    stage
        ``Clustering patches`` or ``Training``.
    done, total
        Batches of the stage, those of validation included; of one process where there are several.
    text
        In words: the epoch, its loss, and the validation's.
    ends_epoch
        Whether an epoch was just finished: what is worth a line where there is no terminal.
    """

    stage: str
    done: int
    total: int
    text: str
    ends_epoch: bool = False

    def __str__(self) -> str:
        return self.text


ShowProgress = Callable[[Progress], None]


def show_nothing(progress: Progress) -> None:
    """Show no progress."""


def describe_epoch(
    epoch: int,
    epochs: int,
    loss: float | None,
    rows: Sequence[Row],
) -> str:
    """Return in words how far an epoch is.

    Parameters
    ----------
    epoch
        From 1.
    loss
        Mean of the epoch so far; None while it is validated.
    rows
        The epochs that are over.
    """
    parts = [f"epoch {epoch}/{epochs}"]
    if loss is not None:
        parts.append(f"loss {loss:.4f}")
    if best := best_of(rows):
        parts.append(f"validation {rows[-1]['validation.loss']:.4f}")
        if best["epoch"] != epoch:
            parts.append(f"best {best['validation.loss']:.4f} in epoch {best['epoch']}")
    return ", ".join(parts)
