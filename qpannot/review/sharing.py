"""Whose a painted pixel is: that of an annotation that is there, or of a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.review.canvas import Footprint, Labels

AROUND = np.ones((3, 3), bool)
"""Pixels that meet at a corner touch, so that a thin oblique stroke is one area."""

Mask = NDArray[np.bool_]
Place = tuple[slice, slice]
Spot = tuple[Place, Mask]
"""A part of a mask: where it lies, and which of the pixels there are meant."""


@dataclass(frozen=True)
class Share:
    """Which of the painted pixels are an annotation's now.

    Parameters
    ----------
    owner
        The annotation, by its number; ``None`` for a new one.
    value
        Of its class.
    spots
        The pixels; none where all were taken from it.
    """

    owner: int | None
    value: int
    spots: tuple[Spot, ...]


def shares_of(
    drawn: Mapping[int, tuple[int, Footprint]], changed: Mask, after: Labels
) -> list[Share]:
    """Return the shares of those that gained or lost pixels, by number, and of new annotations.

    Parameters
    ----------
    drawn
        Of each annotation, by its number, the value of its class and the pixels it covers.
    changed
        The painted pixels, shape [height, width].
    after
        Class of each pixel as painted.
    """
    is_new = changed & (after > 0)
    kept: dict[int, Spot] = {}
    losers = set()
    for owner, (value, found) in drawn.items():
        painted = found.inside & changed[found.place]
        own = painted & (after[found.place] == value)
        is_new[found.place] &= ~own
        kept[owner] = (found.place, own)
        if not np.array_equal(own, painted):
            losers.add(owner)
    gained: dict[int, list[Spot]] = {}
    shares: list[Share] = []
    for value in np.unique(after[is_new]).tolist():
        areas, n = ndimage.label(is_new & (after == value), AROUND)
        best = _touched_longest(
            {
                owner: (found.place, found.inside & ~changed[found.place] | kept[owner][1])
                for owner, (own_value, found) in drawn.items()
                if own_value == value
            },
            areas,
            n,
        )
        for number, (rows, columns) in enumerate(ndimage.find_objects(areas), 1):
            spot = ((rows, columns), areas[rows, columns] == number)
            if number in best:
                gained.setdefault(best[number], []).append(spot)
            else:
                shares.append(Share(None, value, (spot,)))
    for owner in sorted(losers | gained.keys()):
        spots = [kept[owner]] if kept[owner][1].any() else []
        shares.append(Share(owner, drawn[owner][0], (*spots, *gained.get(owner, ()))))
    return shares


def _touched_longest(
    owners: Mapping[int, Spot], areas: NDArray[np.integer], n: int
) -> dict[int, int]:
    """Return by the number of an area the one of the owners that the most of its pixels touch."""
    most = np.zeros(n + 1, np.int64)
    best: dict[int, int] = {}
    for owner, ((rows, columns), own) in owners.items():
        wide = slice(rows.start - 1, rows.stop + 1), slice(columns.start - 1, columns.stop + 1)
        inner = tuple(slice(max(0, each.start), each.stop) for each in wide)
        grown = ndimage.binary_dilation(np.pad(own, 1), AROUND)
        beside = areas[inner]
        skipped = inner[0].start - wide[0].start, inner[1].start - wide[1].start
        grown = grown[skipped[0] :, skipped[1] :][: beside.shape[0], : beside.shape[1]]
        touching = np.bincount(beside[grown], minlength=n + 1)
        touching[0] = 0
        for number in np.flatnonzero(touching > most).tolist():
            best[number] = owner
        most = np.maximum(most, touching)
    return best
