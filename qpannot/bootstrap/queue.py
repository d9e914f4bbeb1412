"""The queue: in which order the slides that wait should be looked at."""

from __future__ import annotations

from collections.abc import Iterable

from qpannot.bootstrap.ledger import Ledger
from qpannot.qupath import ProjectImage

QUEUE_KEY = "qpannot.queue"
"""Image metadata: the place of a slide that waits, by which QuPath's project pane can sort."""


def places(images: Iterable[ProjectImage], ledger: Ledger) -> dict[str, int]:
    """Return the place of every image in the order of the loop, from 1, by image ID.

    Those of the newest round first, in the order in which it chose them, then those of the rounds
    before; within a round that chose none, and where no round knows an image, the project's order
    holds. A place does not change while others are reviewed.

    Parameters
    ----------
    images
        Every image of the project.
    """
    order: dict[str, None] = {}
    for record in reversed(ledger.rounds()):
        order.update(dict.fromkeys(choice.image_id for choice in record.chosen))
        order.update(dict.fromkeys(record.proposed))
    known = [image.id for image in images]
    order.update(dict.fromkeys(known))
    there = set(known)
    return {key: place for place, key in enumerate((k for k in order if k in there), 1)}


def shown_places(images: Iterable[ProjectImage], ledger: Ledger) -> dict[str, str]:
    """Return places as text that sorts as numbers do, such as ``007``."""
    found = places(images, ledger)
    width = max(2, len(str(len(found))))
    return {key: f"{place:0{width}}" for key, place in found.items()}
