"""Checkpoints: written whole or not at all, and read without running any code in them.

A training folder has up to three: ``last`` of the last epoch, ``previous`` of the one before,
in case the last is damaged, and ``middle`` of the epoch that is being trained.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qpannot.models.weights import READING_FAILS
from qpannot.qupath.files import write_atomically
from qpannot.torchvision_import import import_torchvision
from qpannot.training.identity import Identity, describe_changes

import_torchvision()  # before lightning, which imports it by itself

from lightning.pytorch.plugins import CheckpointIO  # noqa: E402

logger = logging.getLogger(__name__)

OWN = "qpannot"
"""Key of a Lightning checkpoint under which ours lies."""

LAST, PREVIOUS, MIDDLE = "last.ckpt", "previous.ckpt", "middle.ckpt"


@dataclass
class Kept:
    """What is kept of a training, besides what Lightning needs to go on.

    Parameters
    ----------
    rows
        The curves so far, an epoch each.
    best_weights
        The network's, of the best epoch so far, on the CPU.
    failures
        By slide, why patches of it could not be read.
    seconds
        What the epoch has taken so far.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Parameters
    ----------
    processes
        Of the training; the middle of an epoch means something to as many only.
    step
        Steps of the optimiser.
    """

    path: Path
    identity: Identity
    processes: int
    step: int
    kept: Kept


def add_own(
    content: dict[str, Any], identity: Identity, kept: Kept, *, processes: int, step: int
) -> None:
    """Add to a Lightning checkpoint what `Checkpoint` tells of it."""
    content[OWN] = {
        "identity": identity,
        "processes": processes,
        "step": step,
        "kept": dict(vars(kept)),
    }


def own_of(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    """Return what `add_own` added."""
    own = dict(content[OWN])
    return Checkpoint(path=path, kept=Kept(**own.pop("kept")), **own)


class SafeCheckpoints(CheckpointIO):
    """Writes Lightning's checkpoints atomically; reads them as plain data.

    Lightning's own reader unpickles whatever a file holds unless told otherwise. Of ours, every
    part is a number, a text, a tensor, or a list or dictionary of these.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Write a checkpoint.

        Raises
        ------
        ProjectError
            When the disk is full, or the folder cannot be written; older checkpoints are kept.
        """
        path = Path(path)
        file = io.BytesIO()
        torch.save(checkpoint, file)
        fresh = path.with_name(f"{path.name}.new")
        write_atomically(fresh, file.getvalue())
        if path.name == LAST and path.exists():
            path.replace(path.with_name(PREVIOUS))
        fresh.replace(path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, tensors on the CPU."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)


def find_checkpoint(folder: Path, identity: Identity, processes: int) -> Checkpoint | None:
    """Return the furthest checkpoint of a run; None where it has to begin.

    Damaged ones, and those of a run with other settings, are passed over, with a warning.
    """
    found = [each for name in (MIDDLE, LAST, PREVIOUS) if (each := _read(folder / name))]
    own = [each for each in found if each.identity == identity]
    if found and not own:
        logger.warning(
            "%s is of a training that differs in %s. Training starts anew.",
            folder,
            describe_changes(found[0].identity, identity),
        )
    usable = [e for e in own if e.path.name != MIDDLE or e.processes == processes]
    return max(usable, key=lambda each: each.step, default=None)


def _read(path: Path) -> Checkpoint | None:
    try:
        return own_of(path, SafeCheckpoints().load_checkpoint(path))
    except FileNotFoundError:
        return None
    except (*READING_FAILS, TypeError) as error:
        logger.warning("%s is damaged and passed over (%s).", path, str(error).split("\n")[0])
        return None
