"""One truth of what several readers say of a slide, by the rule that the recipe names."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from qpannot.bootstrap.readers.apart import Readers
from qpannot.bootstrap.readers.staple import SILENT, staple
from qpannot.bootstrap.readers.votes import (
    NOTHING,
    Votes,
    ignored,
    rest,
    tabulated,
    votes_of,
)
from qpannot.qupath import Annotation, PathClass
from qpannot.recipe import Recipe
from qpannot.recipe.settings import LabelSettings
from qpannot.sampling.areas import IGNORE

LEAST_FOR_STAPLE = 3
"""Of two readers who disagree, no statistics of one slide can tell who errs."""

_EQUAL = 1e-6
"""Probabilities that differ less are a tie."""


def merged(readers: Readers, recipe: Recipe) -> tuple[Annotation, ...]:
    """Return the annotations of a slide's readers as one set.

    Of one reader, and of the one who decides (``second_reader``), that is what this one drew. Else
    it is an area for each class; where the rule finds no answer there is one to be left out,
    ``Ignore*``, so that neither the class nor the rest is learned or judged from what is disputed.

    What a reader did not annotate is the rest by that reader's word, unless ``labels.coverage`` is
    partial: then only those count at a place who say something of it. To have marked it ``Ignore*``
    is a vote as well.
    """
    names, rule = sorted(readers.annotations), recipe.annotators.rule
    if len(names) == 1 or rule == "second_reader":
        return readers.of(readers.last)
    votes = votes_of(readers, names, recipe.labels)
    if not votes:
        return ()
    said, area = tabulated(votes)
    if rule == "staple" and len(names) >= LEAST_FOR_STAPLE:
        decided = _most_probable(votes, said, area, recipe.labels)
    else:
        decided = _of_more_than_half(said, recipe.labels)
    return _annotations(votes, decided, recipe.labels)


def _of_more_than_half(said: NDArray[np.int64], labels: LabelSettings) -> NDArray[np.int64]:
    """Return the label that more than half of those give who say something, else to be ignored."""
    last = rest(labels)
    count = np.stack([(said == label).sum(axis=1) for label in range(last + 1)], axis=1)
    if labels.coverage == "partial":
        count[:, NOTHING] = 0
    is_most = 2 * count > count.sum(axis=1, keepdims=True)
    return np.where(is_most.any(axis=1), is_most.argmax(axis=1), ignored(labels))


def _most_probable(
    votes: Votes, said: NDArray[np.int64], area: NDArray[np.float64], labels: LabelSettings
) -> NDArray[np.int64]:
    """Return the label that STAPLE finds most probable, to be ignored where two are equally so.

    Where coverage is exhaustive, readers agree also on what none of them outlined. How much of it
    there is decides how sure STAPLE is of those who find less; what counts is the rectangle around
    all that anybody outlined.
    """
    n = len(said)
    if labels.coverage == "partial":
        said = np.where(said == NOTHING, SILENT, said)
    else:
        whole = shapely.box(*shapely.total_bounds(list(votes.values())))
        said = np.vstack([said, np.full((1, said.shape[1]), NOTHING)])
        area = np.append(area, max(0.0, whole.area - area.sum()))
    present = np.unique(said[said != SILENT])
    index = np.searchsorted(present, np.where(said == SILENT, present[0], said))
    found = staple(np.where(said == SILENT, SILENT, index), area, len(present))
    probability = found.probability[:n]
    is_best = probability > probability.max(axis=1, keepdims=True) - _EQUAL
    best = present[probability.argmax(axis=1)]
    return np.where(is_best.sum(axis=1) == 1, best, ignored(labels))


def _annotations(
    votes: Votes, decided: NDArray[np.int64], labels: LabelSettings
) -> tuple[Annotation, ...]:
    names = dict(enumerate(labels.classes, 1)) | {ignored(labels): IGNORE}
    if labels.coverage == "partial":
        names[rest(labels)] = labels.rest
    cells = list(votes.values())
    found = []
    for label, name in names.items():
        own = [cell for cell, its in zip(cells, decided.tolist(), strict=True) if its == label]
        if own:
            area = shapely.union_all(own)
            found.append(Annotation(area, path_class=PathClass(name)))
    return tuple(found)
