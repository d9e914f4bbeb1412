"""STAPLE: what is probably true, given what several readers say of it (Warfield et al. 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SILENT = -1
"""The vote of a reader who says nothing of a place."""

_CERTAIN = 0.99999
"""How often a reader is right to begin with; ITK's ``STAPLEImageFilter`` begins so as well."""

_ITERATIONS = 10_000
_ENOUGH = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Staple:
    """What STAPLE found.

    Parameters
    ----------
    probability
        Of each label in each place, float64, shape [places, labels].
    performance
        How often a reader says which label where which is true, float64, shape [readers, labels
        that are said, labels that are true]: of two labels, sensitivity and specificity lie on the
        diagonal.
    """

    probability: Floats
    performance: Floats


def staple(votes: NDArray[np.int64], area: Floats, labels: int) -> Staple:
    """Estimate the true label of each place, and how well each reader tells it.

    Expectation maximisation without a spatial prior (Warfield, Zou and Wells, IEEE TMI 23, 2004),
    for any number of labels. Pixels of which the readers say the same have the same probability, so
    that each such place counts once, by its area, and the result is that for infinitely fine
    pixels.

    Parameters
    ----------
    votes
        The label that each reader gives each place, or `SILENT`; shape [places, readers].
    area
        Of each place, shape [places].
    labels
        How many there are; a label's share of all votes is its prior.
    """
    n_readers = votes.shape[1]
    said = votes[:, :, None] == np.arange(labels)  # [places, readers, labels]
    share = np.einsum("prl,p->l", said, area)
    with np.errstate(divide="ignore"):
        log_prior = np.log(share / share.sum())
    wrong = (1 - _CERTAIN) / max(1, labels - 1)
    performance = np.full((n_readers, labels, labels), wrong)
    performance[:, np.arange(labels), np.arange(labels)] = _CERTAIN
    for _ in range(_ITERATIONS):
        probability = _expected(said, performance, log_prior)
        found = np.einsum("prs,pt,p->rst", said, probability, area)
        heard = found.sum(axis=1, keepdims=True)
        better = np.where(heard > 0, found / np.where(heard > 0, heard, 1), performance)
        moved = np.abs(better - performance).max()
        performance = better
        if moved < _ENOUGH:
            break
    return Staple(_expected(said, performance, log_prior), performance)


def _expected(said: NDArray[np.bool_], performance: Floats, log_prior: Floats) -> Floats:
    """Return the probability of each label in each place, shape [places, labels]."""
    with np.errstate(divide="ignore"):
        log_performance = np.log(performance)
    likelihood = np.zeros((said.shape[0], said.shape[2]))
    for reader in range(said.shape[1]):
        speaks = said[:, reader].any(axis=1)
        likelihood[speaks] += log_performance[reader, said[speaks, reader].argmax(axis=1)]
    score = likelihood + log_prior
    best = score.max(axis=1, keepdims=True)
    odds = np.exp(score - np.where(np.isfinite(best), best, 0))
    total = odds.sum(axis=1, keepdims=True)
    # where every label is impossible, nothing is known but how common each is
    return np.where(total > 0, odds / np.where(total > 0, total, 1), np.exp(log_prior))
