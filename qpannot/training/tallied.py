"""What the trainings of all networks share: what is counted, and what is kept of a task."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from qpannot.torchvision_import import import_torchvision
from qpannot.training.metrics import Tally

import_torchvision()  # before lightning, which imports it by itself

from lightning.pytorch import LightningModule  # noqa: E402


class TalliedTask(LightningModule):
    """A training whose steps add to ``train_tally`` and ``validation_tally``.

    Attributes
    ----------
    network
        What is trained; set by the task itself.
    class_names
        The rest first.
    """

    network: nn.Module

    def __init__(self, class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.class_names = class_names

    def configure_metrics(self) -> None:
        """Set what counts the batches of the epoch."""
        self.train_tally = self.empty_tally()
        self.validation_tally = self.empty_tally()

    def empty_tally(self) -> Tally:
        """Return a tally of nothing, where the batches are."""
        return Tally.empty(len(self.class_names), self.device)

    def on_fit_start(self) -> None:
        """Count where the batches are."""
        self.train_tally = self.train_tally.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Begin to count; not called where a run goes on in the middle of an epoch."""
        self.train_tally = self.empty_tally()

    def on_validation_epoch_start(self) -> None:
        """Begin to count; by the statistics of the first process, as they are what is saved."""
        self.validation_tally = self.empty_tally()
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out all but the network; keep the epoch's tally."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: state[key] for key in state if _is_network(key)}
        tally = self.train_tally.reduced(self.sum_of_processes)
        checkpoint["train_tally"] = tally.to("cpu").state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what `on_save_checkpoint` left."""
        own = self.state_dict()
        checkpoint["state_dict"] |= {key: own[key] for key in own if not _is_network(key)}
        if self.trainer.is_global_zero:  # what all had together
            self.train_tally = Tally(**checkpoint["train_tally"])

    def sum_of_processes(self, tensor: Tensor) -> Tensor:
        """Return a tensor added up over all processes; every one of them has to ask."""
        return cast(Tensor, self.trainer.strategy.reduce(tensor, reduce_op="sum"))


def _is_network(key: str) -> bool:
    return key.startswith("network.")
