"""What is trained, by which loss and optimiser, and what is counted meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from qpannot.models import PatchNetwork, cluster_weighted_cross_entropy, load_clusters
from qpannot.recipe.settings import TrainingSettings
from qpannot.sampling.loading import Batch
from qpannot.torchvision_import import import_torchvision
from qpannot.training.tallied import TalliedTask

import_torchvision()  # before lightning, which imports it by itself

from lightning.pytorch.utilities.types import OptimizerLRScheduler  # noqa: E402

Loss = Callable[[Tensor, Batch], Tensor]
"""From logits and the batch they are of to a scalar."""


class PatchTask(TalliedTask):
    """The training of a patch network (H2G-Net sec. 2.2): Adam, on cross-entropy or CWCE.

    A template: what another network needs otherwise is one of the ``configure_`` methods.

    Parameters
    ----------
    network
        Trained in place.
    settings
        Learning rate and loss.
    """

    network: PatchNetwork

    def __init__(self, network: PatchNetwork, settings: TrainingSettings) -> None:
        super().__init__(network.architecture.classes)
        self.settings = settings
        self._clusters_file: Path | None = None
        self._make_clusters: Callable[[], None] | None = None
        self.configure_models(network)
        self.configure_metrics()

    def use_clusters(self, file: Path, make: Callable[[], None]) -> None:
        """Say where the clusters of the cluster-weighted loss lie.

        Parameters
        ----------
        file
            Read by each process when training starts.
        make
            Writes the file if it is not there; called in one process of all, before.
        """
        self._clusters_file, self._make_clusters = file, make

    def configure_models(self, network: PatchNetwork) -> None:
        """Set what is trained; channels come last in memory, as in the batches."""
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.train()

    def configure_losses(self) -> None:
        """Set ``self.loss``."""
        self.loss: Loss
        if self.settings.loss == "cluster_weighted":
            assert self._clusters_file is not None
            self.clusters = load_clusters(self._clusters_file).eval()
            self.loss = self._cluster_weighted
        else:
            self.loss = self._cross_entropy

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam (H2G-Net sec. 3.2), and what changes its rate step by step, if anything."""
        rate = self.settings.learning_rate
        optimizer = torch.optim.Adam(self.network.parameters(), rate)
        if self.settings.schedule == "constant":
            return optimizer
        # not the trainer's estimated_stepping_batches: asking would make the loaders before a
        # checkpoint says where in the epoch they go on
        steps = self.settings.epochs * -(-self.settings.train_batches // self.trainer.world_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @staticmethod
    def _cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(logits, batch.labels)

    def _cluster_weighted(self, logits: Tensor, batch: Batch) -> Tensor:
        return cluster_weighted_cross_entropy(logits, batch.labels, self.clusters(batch.pixels))

    def prepare_data(self) -> None:
        """Make the clusters, in one process while the others wait."""
        if self._make_clusters is not None:
            self._make_clusters()

    def setup(self, stage: str) -> None:
        """Set the loss, which needs what `prepare_data` made."""
        self.configure_losses()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of patches."""
        return cast(Tensor, self.network(pixels))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and count it."""
        logits = self(batch.pixels)
        loss = self.loss(logits, batch)
        self.train_tally.add(logits, batch.labels, loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch."""
        logits = self(batch.pixels)
        self.validation_tally.add(logits, batch.labels, self.loss(logits, batch))
