"""How far a training is, for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Parameters
    ----------
    epoch, epochs
        The one that runs, from 1, and how many there are.
    batch, batches
        Of the epoch, validation included; of one process where there are several.
    loss
        Mean of the epoch so far.
    validation_loss
        Of the last epoch that was validated.
    best_loss, best_epoch
        The lowest validation loss, and when that was.
    seconds_left
        If it goes on as fast, and no early stop comes.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float | None
    validation_loss: float | None
    best_loss: float | None
    best_epoch: int | None
    seconds_left: float | None

    @property
    def ends_epoch(self) -> bool:
        """Whether an epoch was just finished: what is worth a line where there is no terminal."""
        return self.batch == self.batches

    @property
    def done(self) -> int:
        """Batches of all epochs that are done."""
        return (self.epoch - 1) * self.batches + self.batch

    @property
    def total(self) -> int:
        """Batches of all epochs."""
        return self.epochs * self.batches

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch}/{self.epochs}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.validation_loss is not None:
            parts.append(f"validation {self.validation_loss:.4f}")
        if self.best_loss is not None and self.best_epoch != self.epoch:
            parts.append(f"best {self.best_loss:.4f} in epoch {self.best_epoch}")
        if self.seconds_left:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


ShowProgress = Callable[[Progress], None]


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
