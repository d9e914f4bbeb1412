"""What is measured while a network is trained: loss, and what is taken for which class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes."""


class Tally:
    """The losses and the confusion of the batches of an epoch, added up on the device.

    Not a module, whose buffers DDP would overwrite by those of the first process.

    Parameters
    ----------
    confusion
        Patches, or pixels, by true and by predicted class, int64, (classes, classes).
    losses
        Sum of the batches' losses, and their number, float64, (2,).
    """

    def __init__(self, confusion: Tensor, losses: Tensor) -> None:
        self.confusion = confusion
        self.losses = losses

    @classmethod
    def empty(cls, classes: int, device: torch.device | str = "cpu") -> Self:
        """Return a tally of nothing."""
        return cls(
            torch.zeros((classes, classes), dtype=torch.int64, device=device),
            torch.zeros(2, dtype=torch.float64, device=device),
        )

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Count a batch.

        Parameters
        ----------
        logits
            (N, classes), or of each pixel, (N, classes, H, W).
        labels
            int64, (N,) or (N, H, W); what is negative does not count.
        loss
            A scalar, the batch's.
        """
        classes = len(self.confusion)
        pairs = labels * classes + logits.detach().argmax(dim=1)
        pairs = torch.where(labels < 0, classes**2, pairs).flatten()
        counts = torch.bincount(pairs, minlength=classes**2 + 1)[:-1]
        self.confusion += counts.view(classes, classes)
        self.losses[0] += loss.detach()
        self.losses[1] += 1

    def reduced(self, reduce: Reduce) -> Self:
        """Return the tally of all processes together."""
        return type(self)(reduce(self.confusion.clone()), reduce(self.losses.clone()))

    @property
    def loss(self) -> float:
        """The mean of the batches' losses."""
        total, batches = self.losses.tolist()
        return total / batches if batches else float("nan")

    def metrics(self, classes: Sequence[str]) -> dict[str, float]:
        """Return the loss and the metrics of `patch_metrics`."""
        return {"loss": self.loss, **patch_metrics(self.confusion.tolist(), classes)}

    def to(self, device: torch.device | str) -> Self:
        """Return the tally on a device."""
        return type(self)(self.confusion.to(device), self.losses.to(device))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a tally like this is made from."""
        return {"confusion": self.confusion, "losses": self.losses}


def patch_metrics(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, float]:
    """Return accuracy, and recall, precision and Dice of each class.

    Parameters
    ----------
    confusion
        Patches, or pixels, by true and by predicted class.
    classes
        Their names, the rest first.

    Returns
    -------
    dict
        ``accuracy``, ``recall.Tumor``, ``precision.Tumor``, ``dice.Tumor`` and so on; ``dice`` is
        the mean over the classes but the rest. What cannot be measured, as the recall of a class
        without a patch, is left out.
    """
    n = range(len(classes))
    hits = [confusion[k][k] for k in n]
    true = [sum(confusion[k]) for k in n]
    predicted = [sum(row[k] for row in confusion) for k in n]
    if not sum(true):
        return {}
    found = {"accuracy": sum(hits) / sum(true)}
    dices = []
    for k, name in enumerate(classes):
        if true[k]:
            found[f"recall.{name}"] = hits[k] / true[k]
        if predicted[k]:
            found[f"precision.{name}"] = hits[k] / predicted[k]
        if true[k] + predicted[k]:
            found[f"dice.{name}"] = 2 * hits[k] / (true[k] + predicted[k])
            if k:
                dices.append(found[f"dice.{name}"])
    return found | ({"dice": sum(dices) / len(dices)} if dices else {})
