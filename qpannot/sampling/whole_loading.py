"""Batches of whole slides, read from their files by worker processes. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qpannot.recipe.refining import RefinementAugmentationSettings
from qpannot.sampling.loading import PREFETCHED, leave_interrupts, unchanged, worker_context
from qpannot.sampling.stains import Stains, find_stains
from qpannot.sampling.tree import Stream, rng_of
from qpannot.sampling.whole import StoredSlide, WholeSlide, load_whole
from qpannot.sampling.whole_augmentation import augmented_whole


class SlideBatch(NamedTuple):
    """Whole slides.

    Parameters
    ----------
    images
        uint8, shape [batch, channels, size, size].
    labels
        int8, shape [batch, size, size]; see `qpannot.sampling.whole`.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class SlideDraws:
    """The slides of one batch.

    Parameters
    ----------
    epoch
        The epoch they were drawn for.
    positions
        Which draws of the epoch they are; with seed and epoch they settle all that is random.
    slides
        Which slides.
    """

    epoch: int
    positions: range
    slides: tuple[int, ...]


class SlideSampler:
    """Every slide once in an epoch, in an order that the seed and the epoch settle.

    Parameters
    ----------
    is_fixed
        Whether they always come in their own order.

    Attributes
    ----------
    skipped
        Batches left out of the next epoch.
    """

    def __init__(self, slides: int, *, batch_size: int, seed: int, is_fixed: bool = False) -> None:
        self.slides = slides
        self.batch_size = batch_size
        self.seed = seed
        self.is_fixed = is_fixed
        self.skipped = 0
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next; Lightning calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self.slides // self.batch_size)

    def __iter__(self) -> Iterator[SlideDraws]:
        first, self.skipped = self.skipped, 0
        order = np.arange(self.slides)
        if not self.is_fixed:
            order = rng_of(self.seed, Stream.DRAW, self._epoch).permutation(self.slides)
        for batch in range(first, len(self)):
            own = range(self.slides)[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield SlideDraws(self._epoch, own, tuple(order[own.start : own.stop].tolist()))


class SlideDataset(Dataset[SlideBatch]):
    """Reads the batches that a `SlideSampler` draws. One copy of it lives in each worker."""

    def __init__(
        self,
        slides: Sequence[StoredSlide],
        *,
        seed: int,
        augmentation: RefinementAugmentationSettings | None,
    ) -> None:
        self._slides = list(slides)
        self._seed = seed
        self._augmentation = augmentation
        self._stains: dict[int, Stains | None] = {}

    def __getitem__(self, draws: SlideDraws) -> SlideBatch:
        wholes = [
            self._drawn(index, draws.epoch, position)
            for index, position in zip(draws.slides, draws.positions, strict=True)
        ]
        return SlideBatch(
            torch.from_numpy(np.stack([whole.image.transpose(2, 0, 1) for whole in wholes])),
            torch.from_numpy(np.stack([whole.labels for whole in wholes])),
        )

    def _drawn(self, index: int, epoch: int, position: int) -> WholeSlide:
        whole = load_whole(self._slides[index])
        if self._augmentation is None:
            return whole
        if index not in self._stains:
            self._stains[index] = find_stains(whole.image[..., :3])
        rng = rng_of(self._seed, Stream.AUGMENT, epoch, position)
        return augmented_whole(whole, self._stains[index], self._augmentation, rng)


def slide_loader(
    slides: Sequence[StoredSlide],
    sampler: SlideSampler,
    *,
    augmentation: RefinementAugmentationSettings | None,
    workers: int,
) -> DataLoader[Any]:
    """Return what gives the batches of an epoch, prepared ahead by workers as `PatchLoader`'s."""
    workers = min(workers, len(sampler))
    return DataLoader(
        SlideDataset(slides, seed=sampler.seed, augmentation=augmentation),
        sampler=sampler,
        batch_size=None,
        collate_fn=unchanged,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=worker_context() if workers else None,
        worker_init_fn=leave_interrupts,
    )
