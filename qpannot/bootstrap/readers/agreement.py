"""How far those who read one slide agree, two at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from qpannot.bootstrap.readers.apart import Readers
from qpannot.bootstrap.readers.votes import tabulated, votes_of
from qpannot.evaluation import Overlap
from qpannot.recipe.settings import LabelSettings


@dataclass(frozen=True)
class Agreement:
    """How far two readers of a slide agree.

    Parameters
    ----------
    one, other
        Their names; empty for whoever corrected the proposals themselves.
    dice
        Of each class that either found. A kappa would also need to know how much tissue there was
        on which both say nothing, and changes with it.
    """

    one: str
    other: str
    dice: dict[str, float]


def agreement_of(readers: Readers, labels: LabelSettings) -> list[Agreement]:
    """Compare those who read a slide, each with each.

    Overlaps of different classes count as they do in training (`qpannot.sampling.areas`).
    """
    names = sorted(readers.annotations)
    if len(names) < 2:
        return []
    said, area = tabulated(votes_of(readers, names, labels))
    found = []
    for one, other in combinations(range(len(names)), 2):
        dice = {}
        for label, name in enumerate(labels.classes, 1):
            its, others = said[:, one] == label, said[:, other] == label
            overlap = Overlap(
                float(area[its].sum()), float(area[others].sum()), float(area[its & others].sum())
            )
            if overlap.true_area or overlap.predicted_area:
                dice[name] = overlap.dice
        found.append(Agreement(names[one], names[other], dice))
    return found
