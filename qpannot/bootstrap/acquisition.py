"""Which slides a person should be shown next: those that will teach the network most."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import entr

from qpannot.errors import QpannotError
from qpannot.heatmap import Heatmap

Method = Literal["random", "entropy"]

_CELLS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class Candidate:
    """A slide that could be next.

    Parameters
    ----------
    id, name
        Of its image in the project.
    metadata
        The image's own.
    heatmap
        Gives what the network predicts for the slide, ``None`` where there is no prediction.
    """

    id: str
    name: str
    metadata: Mapping[str, str]
    heatmap: Callable[[], Heatmap | None]


@dataclass(frozen=True)
class Ranked:
    """A slide in its place.

    Parameters
    ----------
    score
        What it was ranked by, higher first; ``None`` where nothing was measured.
    reason
        Why it is there, in a sentence.
    """

    id: str
    name: str
    score: float | None
    reason: str


def rank(
    candidates: Sequence[Candidate],
    method: Method,
    seed: int,
    each: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[Ranked]:
    """Return slides in the order in which a person should see them.

    The same slides, heatmaps and seed give the same order, however the slides were sorted before;
    drawn at random, it stays when some of them are taken away.

    Parameters
    ----------
    method
        ``random``: drawn by lot, the strategy that every other has to beat. ``entropy``: where the
        network is least sure first, by `mean_entropy`; slides without a usable heatmap last.
        Heatmaps are opened one at a time, and only where they are needed.
    seed
        Decides the lots, and who goes first where scores are equal.
    each
        Called before each slide that is measured with its name, how many are done, and how many
        there are.
    """
    drawn = sorted(candidates, key=lambda candidate: _lot(candidate.id, seed))
    if method == "random":
        return [Ranked(each.id, each.name, None, "drawn at random") for each in drawn]
    measured: list[tuple[float, Candidate]] = []
    last: list[Ranked] = []
    for done, candidate in enumerate(drawn):
        each(candidate.name, done, len(drawn))
        score, why_not = _measured(candidate)
        if score is None:
            last.append(Ranked(candidate.id, candidate.name, None, f"last, because {why_not}"))
        else:
            measured.append((score, candidate))
    measured.sort(key=lambda pair: -pair[0])
    return [
        Ranked(candidate.id, candidate.name, score, _reason(score, place, len(measured)))
        for place, (score, candidate) in enumerate(measured, 1)
    ] + last


def mean_entropy(heatmap: Heatmap) -> float | None:
    """Return how unsure a heatmap is: the mean over what was predicted of the classes' entropy.

    Returns
    -------
    float or None
        0 where every place is surely one class, 1 where all classes are equally probable
        everywhere; ``None`` where nothing was predicted.

    Notes
    -----
    Entropy over its maximum, the logarithm of the number of classes. A heatmap of one class is
    that class against the rest.
    """
    height, width, channels = heatmap.probabilities.shape
    rows = max(1, _CELLS_AT_A_TIME // width)
    total, cells = 0.0, 0
    for top in range(0, height, rows):
        block = np.asarray(heatmap.probabilities[top : top + rows], np.float64)
        block = block[~np.isnan(block).any(axis=2)].clip(0, 1)
        if channels == 1:
            block = np.concatenate([block, 1 - block], axis=1)
        total += float(entr(block).sum())
        cells += len(block)
    return total / cells / math.log(max(channels, 2)) if cells else None


def _measured(candidate: Candidate) -> tuple[float | None, str]:
    """Return the mean entropy, or why there is none."""
    try:
        heatmap = candidate.heatmap()
    except QpannotError as error:
        return None, f"its heatmap cannot be read: {error.message}"
    if heatmap is None:
        return None, "the network has not looked at it"
    return mean_entropy(heatmap), "the network found no tissue on it to judge"


def _reason(score: float, place: int, of: int) -> str:
    doubt = f"mean entropy {score:.2f} (0: sure everywhere, 1: guessing)"
    if place == 1:
        return f"the network is least sure here: {doubt}"
    return f"number {place} of {of} by how unsure the network is: {doubt}"


def _lot(image_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()
