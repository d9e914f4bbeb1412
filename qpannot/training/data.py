"""The batches of training and validation, for each process its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from qpannot.recipe import Recipe
from qpannot.recipe.settings import AugmentationSettings
from qpannot.sampling import EpochSampler, Opener, PatchTree
from qpannot.sampling.loading import Batch, PatchLoader
from qpannot.sampling.tree import Draws
from qpannot.torchvision_import import import_torchvision

import_torchvision()  # before lightning, which imports it by itself

from lightning.pytorch import LightningDataModule  # noqa: E402


class SkippingSampler(EpochSampler):
    """An `EpochSampler` whose next epoch begins in the middle, at batch ``skipped``."""

    skipped = 0

    def __iter__(self) -> Iterator[Draws]:
        first, self.skipped = self.skipped, 0
        yield from itertools.islice(super().__iter__(), first, None)


BatchType = TypeVar("BatchType")


class Skipping(Protocol):
    """A sampler whose next epoch can begin at a batch."""

    skipped: int

    def __len__(self) -> int: ...


class ResumableLoader(Generic[BatchType]):
    """A loader that goes on in the middle of an epoch; Lightning keeps its state.

    Parameters
    ----------
    batches
        Gives those of an epoch each time it is iterated over.
    sampler
        What settles them.
    """

    batch_sampler = None  # Lightning asks any loader that has a sampler

    def __init__(self, batches: Iterable[BatchType], sampler: Skipping) -> None:
        self._batches = batches
        self.sampler = sampler
        self._given = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[BatchType]:
        self._given = self.sampler.skipped
        for batch in self._batches:
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how much of the epoch was given; nothing at its end."""
        return {"batches": self._given % len(self)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next epoch begin where another loader was."""
        self.sampler.skipped = state["batches"]


class PatchData(LightningDataModule):
    """Batches drawn from two trees: of slides that teach, and of those that choose the model.

    The validation's are the same in each epoch. The processes of a distributed training take
    turns, batch by batch (see `EpochSampler`).

    Parameters
    ----------
    workers
        Processes that read for training, and as many for validation, which rest meanwhile.
    """

    def __init__(
        self,
        train: PatchTree,
        validation: PatchTree,
        openers: Mapping[str, Opener],
        recipe: Recipe,
        *,
        workers: int,
    ) -> None:
        super().__init__()
        self.trees = {"train": train, "validation": validation}
        self.openers = openers
        self.recipe = recipe
        self.workers = workers
        self._loaders: list[PatchLoader] = []

    def train_dataloader(self) -> ResumableLoader[Batch]:
        """Return the loader of this process's training batches."""
        batches = self.recipe.training.train_batches
        return self._loader("train", batches, augmentation=self.recipe.augmentation)

    def val_dataloader(self) -> ResumableLoader[Batch]:
        """Return the loader of this process's validation batches."""
        return self._loader("validation", self.recipe.training.validation_batches)

    def _loader(
        self, part: str, batches: int, augmentation: AugmentationSettings | None = None
    ) -> ResumableLoader[Batch]:
        assert self.trainer is not None
        sampler = SkippingSampler(
            self.trees[part],
            batch_size=self.recipe.training.batch_size,
            batches=batches,
            seed=self.recipe.training.seed,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
            is_fixed=part == "validation",
        )
        loader = PatchLoader(sampler, self.openers, augmentation=augmentation, workers=self.workers)
        self._loaders.append(loader)
        return ResumableLoader(loader, sampler)

    @property
    def failures(self) -> dict[str, str]:
        """By slide, why patches of it could not be read by this process."""
        return {slide: why for loader in self._loaders for slide, why in loader.failures.items()}
