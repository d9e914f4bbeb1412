"""The sampling tree (H2G-Net sec. 2.3): each level is drawn uniformly, one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from qpannot.errors import QpannotError
from qpannot.geometry import Region
from qpannot.sampling.index import PatchTable, describe_patches
from qpannot.sampling.split import value_of

Branch = tuple[str | None, ...]
"""The value of each level down to a leaf; None where a slide lacks the key."""


class Stream(IntEnum):
    """What random numbers of one seed are for, so that no two uses share them."""

    DRAW = 0
    AUGMENT = 1
    REPLACE = 2


def rng_of(seed: int, *numbers: int) -> np.random.Generator:
    """Return a random generator that depends on these numbers alone."""
    return np.random.default_rng([seed % 2**64, *numbers])


class PatchTree:
    """The patches of many slides, to be drawn from as a uniform tree.

    A leaf is a way down the levels, such as grade "2", slide "7", class "Tumor"; its probability
    is the product of one by the number of branches at each level, and all patches of a leaf are
    equally probable.

    Parameters
    ----------
    tables
        Patches by slide, all made with one recipe; slides without patches are never drawn.
    metadata
        Image metadata by slide.
    levels
        ``slide``, ``class`` and keys of image metadata, drawn in this order. A slide without the
        key, or with a blank one, is a branch of its own level with the others like it.

    Raises
    ------
    QpannotError
        There is no patch at all.
    """

    def __init__(
        self,
        tables: Mapping[str, PatchTable],
        metadata: Mapping[str, Mapping[str, str]],
        levels: Sequence[str],
    ) -> None:
        if not any(len(table) for table in tables.values()):
            found = f":\n{describe_patches(tables)}" if tables else ", for there are no slides."
            raise QpannotError(
                f"There are no patches to draw{found}",
                hint=None if tables else "Review some slides first.",
            )
        kinds = {
            (table.classes, table.size_px, table.mpp) for table in tables.values() if len(table)
        }
        if len(kinds) > 1:
            raise ValueError(f"tables of different recipes cannot be mixed: {kinds}")
        ((self.classes, self.size_px, self.mpp),) = kinds
        self.levels = tuple(levels)
        self.slides = tuple(slide for slide, table in tables.items() if len(table))
        self.extents = tuple((tables[s].width, tables[s].height) for s in self.slides)
        leaves: dict[Branch, list[tuple[int, NDArray[np.int64]]]] = defaultdict(list)
        for number, slide in enumerate(self.slides):
            for label in np.unique(tables[slide].label):
                rows = np.flatnonzero(tables[slide].label == label)
                values = {"slide": slide, "class": self.classes[label]}
                own = metadata.get(slide, {})
                branch = tuple(
                    values[level] if level in values else value_of(own, level) or None
                    for level in self.levels
                )
                leaves[branch].append((number, rows))
        chunks = [chunk for leaf in leaves.values() for chunk in leaf]
        used = [(tables[self.slides[number]], rows) for number, rows in chunks]
        self.x = np.concatenate([table.x[rows] for table, rows in used])
        """In full-resolution pixels, float64, shape [patches]."""
        self.y = np.concatenate([table.y[rows] for table, rows in used])
        self.label = np.concatenate([table.label[rows] for table, rows in used])
        """Index of ``classes``, int16, shape [patches]."""
        self.slide = np.repeat(
            np.array([number for number, _ in chunks], np.int32),
            [len(rows) for _, rows in chunks],
        )
        """Index of ``slides``, int32, shape [patches]."""
        self.branches = tuple(leaves)
        self.counts = np.array([sum(len(rows) for _, rows in leaf) for leaf in leaves.values()])
        """Patches of each leaf, int64, shape [leaves]."""
        self.probabilities = _probabilities(self.branches)
        """Of each leaf, float64, shape [leaves]."""
        self._starts = np.cumsum(self.counts) - self.counts
        self._cumulated = np.cumsum(self.probabilities)

    def __len__(self) -> int:
        return len(self.x)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the rows of ``count`` patches, drawn independently, shape [count]."""
        leaves = np.searchsorted(
            self._cumulated, rng.random(count) * self._cumulated[-1], side="right"
        )
        rows: NDArray[np.int64] = self._starts[leaves] + rng.integers(self.counts[leaves])
        return rows

    def region(self, row: int) -> Region:
        """Return where a patch lies on its slide."""
        return Region(float(self.x[row]), float(self.y[row]), *self.extents[self.slide[row]])


def _probabilities(branches: Sequence[Branch]) -> NDArray[np.float64]:
    children: dict[Branch, set[str | None]] = defaultdict(set)
    for branch in branches:
        for depth, value in enumerate(branch):
            children[branch[:depth]].add(value)
    return np.array(
        [
            np.prod([1 / len(children[branch[:depth]]) for depth in range(len(branch))])
            for branch in branches
        ]
    )


@dataclass(frozen=True, eq=False)
class Draws:
    """The patches of one batch: where they are, no pixels.

    Parameters
    ----------
    epoch
        The epoch they were drawn for.
    positions
        Which draws of the epoch they are, int64, shape [batch]. With the seed and the epoch they
        settle everything random about a patch.
    rows
        Patches of the tree, which knows their slides and coordinates, int64, shape [batch].
    """

    epoch: int
    positions: NDArray[np.int64]
    rows: NDArray[np.int64]


class EpochSampler:
    """The batches of an epoch, settled by the seed and the number of the epoch alone.

    Every rank draws the whole epoch and takes its own part of the batches: the first of ``ranks``
    the batches 0, ranks, 2 ranks and so on. All have equally many, so an epoch has a few batches
    more where the ranks do not divide it. As nothing is carried from one epoch to the next, a
    run resumes with ``set_epoch``, which Lightning calls by itself.

    Parameters
    ----------
    tree
        What is drawn from.
    batch_size
        Of each rank.
    batches
        In an epoch, of all ranks together.
    is_fixed
        Whether every epoch is the first one again, so that a validation loss means the same.
    """

    def __init__(
        self,
        tree: PatchTree,
        *,
        batch_size: int,
        batches: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        is_fixed: bool = False,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"there is no rank {rank} of {ranks}")
        self.tree = tree
        self.batch_size = batch_size
        self.seed = seed
        self.is_fixed = is_fixed
        self._rank, self._ranks = rank, ranks
        self._batches = -(-batches // ranks)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next."""
        self._epoch = 0 if self.is_fixed else epoch

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Draws]:
        epoch = self._epoch
        count = self._batches * self._ranks * self.batch_size
        rows = self.tree.draw(count, rng_of(self.seed, Stream.DRAW, epoch))
        for batch in range(self._rank, self._batches * self._ranks, self._ranks):
            positions = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
            yield Draws(epoch, positions, rows[positions])
