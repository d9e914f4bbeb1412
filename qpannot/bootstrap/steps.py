"""What the next step of the loop is.

- A round that was broken off goes on.
- A network is trained when ``round.train_after`` slides were newly reviewed, or corrected again,
  since the last time; or any at all, if none waits for a person and there is nothing to propose
  without training. Two reviewed slides are the least: one to learn from, one to choose the model
  by.
- Where there is a network, it proposes for the slides that have no proposal of it.
- Where there is none, the tissue threshold does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from qpannot.bootstrap.first_round import FirstRound
from qpannot.bootstrap.states import ImageStatus, State
from qpannot.bootstrap.truth import REVIEWED, key_of
from qpannot.bootstrap.work import Work

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
    """

    kind: Kind
    round: int
    newly_reviewed: int


def next_step(
    statuses: Sequence[ImageStatus], work: Work, asked: Collection[str] | None
) -> Step:
    """Return what is to be done next.

    Parameters
    ----------
    statuses
        Every image of the project.
    asked
        The IDs of images a person asked to propose for, ``None`` for the loop's next step.
    """
    ledger, settings = work.ledger, work.recipe.round
    rounds = ledger.rounds()
    last = rounds[-1].number if rounds else 1
    news = newly_reviewed(statuses, work)
    has_model = ledger.kept_model() is not None
    if asked is not None:
        return Step(Kind.PROPOSE if has_model else Kind.TISSUE, last, news)
    if rounds and rounds[-1].is_broken_off:
        return Step(Kind.LEARN, last, news)
    reviewed = sum(status.state in REVIEWED and not status.error for status in statuses)
    waits = any(status.state is State.PROPOSED for status in statuses)
    if reviewed >= LEAST_REVIEWED and news:
        first = FirstRound(work.project, ledger, work.recipe, work.mpp)
        nothing_else = not waits and (has_model or not first.targets(statuses, None))
        if news >= settings.train_after or nothing_else:
            return Step(Kind.LEARN, last + 1, news)
    return Step(Kind.PROPOSE if has_model else Kind.TISSUE, last, news)


def newly_reviewed(statuses: Sequence[ImageStatus], work: Work) -> int:
    """Return how many reviewed slides no network has learned from as they are now."""
    known = work.ledger.learned()
    return sum(
        known.get(status.image.id) != key_of(status, work.ledger)
        for status in statuses
        if status.state in REVIEWED and not status.error
    )
