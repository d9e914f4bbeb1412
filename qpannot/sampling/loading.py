"""Patches as batches of tensors, read from the slides by worker processes.

Imports torch, which `qpannot.sampling` itself does not.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from qpannot.errors import QpannotError
from qpannot.recipe.settings import AugmentationSettings
from qpannot.sampling.augmentation import augmented
from qpannot.sampling.handles import MAX_OPEN, Opener, OpenSlides
from qpannot.sampling.tree import Draws, EpochSampler, PatchTree, Stream, rng_of

logger = logging.getLogger(__name__)

MAX_READS = 100
"""Places tried instead of one that cannot be read, before the run is given up."""

MAX_REDRAWS = 10_000
"""Draws for these places, with those on slides known not to open."""

PREFETCHED = 2
"""Batches that each worker has ready."""


class Batch(NamedTuple):
    """Patches and what they are called.

    Parameters
    ----------
    pixels
        RGB, uint8, shape [batch, 3, size, size], in memory as channels last.
    labels
        Index of the tree's classes, int64, shape [batch].
    rows
        Which patches of the tree they are, int64, shape [batch].
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor


class _Read(NamedTuple):
    """What a worker sends: a batch, None if there is nothing left to read, and what failed."""

    batch: Batch | None
    failures: dict[str, str]


class PatchDataset(Dataset[_Read]):
    """Reads the batches that an `EpochSampler` draws. One copy of it lives in each worker.

    A patch that cannot be read is replaced by another draw from the same tree, which the seed, the
    epoch and its position settle, so that it is the same in whichever worker.
    """

    def __init__(
        self,
        tree: PatchTree,
        openers: Mapping[str, Opener],
        *,
        seed: int,
        augmentation: AugmentationSettings | None,
        max_open: int = MAX_OPEN,
    ) -> None:
        self._tree = tree
        self._slides = OpenSlides({slide: openers[slide] for slide in tree.slides}, max_open)
        self._seed = seed
        self._augmentation = augmentation
        self._epoch = -1
        self._unopened: set[str] = set()

    def __getitem__(self, draws: Draws) -> _Read:
        if draws.epoch != self._epoch:
            # A drive may have been connected again.
            self._epoch, self._unopened = draws.epoch, set()
        size, rows = self._tree.size_px, draws.rows.copy()
        pixels = np.empty((len(rows), size, size, 3), np.uint8)
        failures: dict[str, str] = {}
        for item in np.lexsort((self._tree.x[rows], self._tree.y[rows], self._tree.slide[rows])):
            position = int(draws.positions[item])
            found = self._read_or_replace(int(rows[item]), position, failures)
            if found is None:
                return _Read(None, failures)
            rows[item], patch = found
            if self._augmentation is not None:
                rng = rng_of(self._seed, Stream.AUGMENT, draws.epoch, position)
                patch = augmented(patch, self._augmentation, rng)
            pixels[item] = patch
        batch = Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(self._tree.label[rows].astype(np.int64)),
            torch.from_numpy(rows),
        )
        return _Read(batch, failures)

    def _read_or_replace(
        self, row: int, position: int, failures: dict[str, str]
    ) -> tuple[int, NDArray[np.uint8]] | None:
        patch = self._read(row, failures)
        if patch is not None:
            return row, patch
        rng = rng_of(self._seed, Stream.REPLACE, self._epoch, position)
        n_reads = 0
        for other in self._tree.draw(MAX_REDRAWS, rng).tolist():
            if self._slide_id(other) in self._unopened:
                continue
            if (patch := self._read(other, failures)) is not None:
                return other, patch
            n_reads += 1
            if n_reads == MAX_READS or len(self._unopened) == len(self._tree.slides):
                break
        return None

    def _slide_id(self, row: int) -> str:
        return self._tree.slides[int(self._tree.slide[row])]

    def _read(self, row: int, failures: dict[str, str]) -> NDArray[np.uint8] | None:
        slide_id = self._slide_id(row)
        if slide_id in self._unopened:
            return None
        try:
            slide = self._slides[slide_id]
        except QpannotError as error:
            self._unopened.add(slide_id)
            failures[slide_id] = error.message
            return None
        try:
            return slide.read(self._tree.region(row), self._tree.mpp)
        except QpannotError as error:
            # Opened anew next time, it tells whether this place is bad or the whole slide.
            self._slides.close(slide_id)
            failures[slide_id] = error.message
            return None


class PatchLoader:
    """The batches of an epoch, read ahead by workers; iterate over it once for each epoch.

    Workers are started afresh rather than forked, for a JVM or CUDA may be up in this process;
    they are kept from one epoch to the next and open their slides themselves. Batches are the same
    however many workers there are. A script that uses workers has to guard its main module with
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    sampler
        What is read, in which order.
    openers
        By slide, for each slide of the sampler's tree.
    augmentation
        Changes to be made at random, None for none.
    workers
        Processes that read; 0: this one reads.
    max_open
        Slides that each worker keeps open.

    Attributes
    ----------
    failures
        By slide, why patches of it could not be read. Each slide is also logged once, as a
        warning; its patches were replaced by others.
    """

    def __init__(
        self,
        sampler: EpochSampler,
        openers: Mapping[str, Opener],
        *,
        augmentation: AugmentationSettings | None = None,
        workers: int = 0,
        max_open: int = MAX_OPEN,
    ) -> None:
        self.sampler = sampler
        self.failures: dict[str, str] = {}
        dataset = PatchDataset(
            sampler.tree,
            openers,
            seed=sampler.seed,
            augmentation=augmentation,
            max_open=max_open,
        )
        self._loader = DataLoader(
            dataset,
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

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the sampler's epoch.

        Raises
        ------
        QpannotError
            No slide at all can be read.
        """
        for read in self._loader:
            for slide, reason in read.failures.items():
                if slide not in self.failures:
                    self.failures[slide] = reason
                    logger.warning("%s Other patches are taken instead.", reason)
            if read.batch is None:
                raise QpannotError(
                    "No slide can be read any more."
                    + "".join(f"\n  {reason}" for reason in self.failures.values()),
                    hint="Connect the drive they are on, then run the command again.",
                )
            yield Batch(*read.batch)


def worker_context() -> BaseContext:
    """Return how workers are started: afresh, not forked."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
    return context


def leave_interrupts(worker: int) -> None:
    """Leave it to the process that started this one to answer Ctrl-C, which reaches both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def unchanged(read: Any) -> Any:
    """Return a batch as it is, so that torch does not collate it."""
    return read
