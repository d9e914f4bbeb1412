"""How a refinement network is trained, and the batches it is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from qpannot.models.refinement import RefinementNetwork, refinement_loss
from qpannot.recipe.refining import RefinementSettings
from qpannot.sampling.whole import StoredSlide
from qpannot.sampling.whole_loading import SlideBatch, SlideSampler, slide_loader
from qpannot.torchvision_import import import_torchvision
from qpannot.training.data import ResumableLoader
from qpannot.training.tallied import TalliedTask

import_torchvision()  # before lightning, which imports it by itself

from lightning.pytorch import LightningDataModule  # noqa: E402


class RefinementTask(TalliedTask):
    """The training of a refinement network (H2G-Net sec. 3.2): Adam, on the soft Dice of slides.

    Parameters
    ----------
    network
        Trained in place.
    class_names
        The rest first.
    settings
        Learning rate.
    """

    network: RefinementNetwork

    def __init__(
        self,
        network: RefinementNetwork,
        class_names: tuple[str, ...],
        settings: RefinementSettings,
    ) -> None:
        super().__init__(class_names)
        self.settings = settings
        self.network = network.train()
        self.configure_metrics()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam (H2G-Net sec. 3.2)."""
        return torch.optim.Adam(self.network.parameters(), self.settings.learning_rate)

    def training_step(self, batch: SlideBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and count it; of deep supervision, the finest map."""
        labels = batch.labels.long()
        outputs = cast(tuple[Tensor, ...], self.network(batch.images))
        loss = refinement_loss(outputs, labels)
        self.train_tally.add(outputs[0], labels, loss)
        return loss

    def validation_step(self, batch: SlideBatch, batch_idx: int) -> None:
        """Count a batch."""
        labels = batch.labels.long()
        logits = cast(Tensor, self.network(batch.images))
        self.validation_tally.add(logits, labels, refinement_loss(logits, labels))


class RefinementData(LightningDataModule):
    """Batches of slides that teach, and single slides that choose the best epoch.

    Parameters
    ----------
    slides
        By slide, at least those of ``teach`` and ``choose``.
    workers
        Processes that prepare slides for training, and as many for validation.
    """

    failures: Mapping[str, str] = {}
    """As `PatchData` has them; the slides were all read before."""

    def __init__(
        self,
        slides: Mapping[str, StoredSlide],
        teach: Sequence[str],
        choose: Sequence[str],
        settings: RefinementSettings,
        *,
        workers: int,
    ) -> None:
        super().__init__()
        self._teach = [slides[key] for key in teach]
        self._choose = [slides[key] for key in choose]
        self._settings = settings
        self._workers = workers

    def train_dataloader(self) -> ResumableLoader[SlideBatch]:
        """Return the loader of batches that teach."""
        settings = self._settings
        sampler = SlideSampler(len(self._teach), batch_size=settings.batch_size, seed=settings.seed)
        loader = slide_loader(
            self._teach, sampler, augmentation=settings.augmentation, workers=self._workers
        )
        return ResumableLoader(loader, sampler)

    def val_dataloader(self) -> ResumableLoader[SlideBatch]:
        """Return the loader of slides that choose: one by one, so that all of them weigh alike."""
        seed = self._settings.seed
        sampler = SlideSampler(len(self._choose), batch_size=1, seed=seed, is_fixed=True)
        loader = slide_loader(self._choose, sampler, augmentation=None, workers=self._workers)
        return ResumableLoader(loader, sampler)
