"""What the next step of the loop is.

- A round that was broken off goes on.
- A network is trained when ``round.train_after`` slides were newly reviewed, or corrected again,
  since the last time; or any at all, if none waits for a person and the tissue threshold has
  nothing to outline first. Two reviewed slides are the least: one to learn from, one to choose
  the model by.
- Where there is a network, it proposes for the slides that have no proposal of it.
- Where there is none, the tissue threshold does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.states import REVIEWED, ImageStatus, State, key_of
from qpannot.recipe import Recipe

LEAST_REVIEWED = 2


class Kind(StrEnum):
    """What a run of ``bootstrap`` does."""

    TISSUE = "outline the tissue"
    LEARN = "train, and propose by the network"
    PROPOSE = "propose by the network"


@dataclass(frozen=True)
class Step:
    """A step of the loop.

    Parameters
    ----------
    round
        Its number.
    newly_reviewed
        Slides that no network has learned from as they are now.
    is_broken_off
        Whether it goes on with a round that was begun.
    """

    kind: Kind
    round: int
    newly_reviewed: int
    is_broken_off: bool = False


def next_step(statuses: Sequence[ImageStatus], ledger: Ledger, recipe: Recipe) -> Step:
    """Return what is to be done next.

    Parameters
    ----------
    statuses
        Every image of the project.
    """
    rounds = ledger.rounds()
    last = rounds[-1].number if rounds else 1
    known = ledger.learned(recipe)
    reviewed = [
        each
        for each in statuses
        if each.state in REVIEWED and not each.error and not each.slide_is_missing
    ]
    rule = recipe.annotators.rule
    news = sum(known.get(each.image.id) != key_of(each, ledger, rule) for each in reviewed)
    if rounds and rounds[-1].is_broken_off:
        return Step(Kind.LEARN, last, news, is_broken_off=True)
    otherwise = Kind.PROPOSE if ledger.kept_model() else Kind.TISSUE
    if len(reviewed) >= LEAST_REVIEWED and news:
        waits = any(each.state is State.PROPOSED for each in statuses)
        tissue_first = otherwise is Kind.TISSUE and any(is_open(each) for each in statuses)
        if news >= recipe.round.train_after or not (waits or tissue_first):
            return Step(Kind.LEARN, last + 1, news)
    return Step(otherwise, last, news)


def is_open(status: ImageStatus) -> bool:
    """Tell whether an image has no annotations, and nothing was decided of it."""
    is_settled = status.rejected or status.nothing_found or status.error is not None
    return status.state is State.UNANNOTATED and not is_settled
