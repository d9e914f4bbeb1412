"""How far a training is, for people."""

from __future__ import annotations

import time
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
        In words: the epoch, its loss, the validation's, and the time left.
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
    seconds_left: float | None,
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
    seconds_left
        If it goes on as fast, and no early stop comes.
    """
    parts = [f"epoch {epoch}/{epochs}"]
    if loss is not None:
        parts.append(f"loss {loss:.4f}")
    if best := best_of(rows):
        parts.append(f"validation {rows[-1]['validation.loss']:.4f}")
        if best["epoch"] != epoch:
            parts.append(f"best {best['validation.loss']:.4f} in epoch {best['epoch']}")
    if seconds_left:
        parts.append(f"{duration(seconds_left)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


class Clock:
    """Tells how long a job will still take, from what of it was done since it was made."""

    def __init__(self, done: int) -> None:
        self._first = done
        self._start = time.monotonic()

    def seconds_left(self, done: int, total: int) -> float | None:
        """Return the seconds that are left, None where nothing was done yet."""
        if done <= self._first:
            return None
        return (time.monotonic() - self._start) / (done - self._first) * (total - done)
