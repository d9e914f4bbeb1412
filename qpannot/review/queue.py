"""The queue: which slides wait for this person, in the order in which the loop asked for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.queue import places
from qpannot.bootstrap.states import ImageStatus, State
from qpannot.qupath import Project, ProjectImage

NOTE = "qpannot.note"
"""Image metadata: what a person noted of a slide, where QuPath's project pane shows it."""


@dataclass(frozen=True)
class Reader:
    """Who reviews, and how.

    Parameters
    ----------
    by
        Whatever the person wants to be known as; may be empty.
    second_reader
        Confirms what others have reviewed.
    independent
        Draws alone: sees and changes no other named person's annotations.
    """

    by: str = ""
    second_reader: bool = False
    independent: bool = False

    @property
    def note_key(self) -> str:
        """Where this reader's notes are in an image's metadata: who draws alone has own ones."""
        return f"{NOTE} {self.by}" if self.independent else NOTE


@dataclass(frozen=True)
class Item:
    """One slide of the queue.

    Parameters
    ----------
    round
        In which it was proposed for; ``None`` where it never was.
    score
        By how much it was to teach the network; ``None`` where that was not measured.
    reason
        Why it is in its place, in a sentence.
    note
        What a person noted of it.
    done
        Whether it waits for this reader no more.
    """

    image: ProjectImage
    status: ImageStatus
    round: int | None
    score: float | None
    reason: str
    note: str
    done: bool


def queue_of(
    project: Project, statuses: Sequence[ImageStatus], reader: Reader, asked: Sequence[str] | None
) -> list[Item]:
    """Return the queue of a reader: what waits first, what is done last.

    Both parts are in the order of the loop (`qpannot.bootstrap.queue.places`).

    Parameters
    ----------
    statuses
        Every image of the project.
    asked
        IDs of images: these and no others. By default those that wait for the reader or are done:
        for a first reader what was proposed for, for a second one what is reviewed.
    """
    ledger = Ledger.of(project)
    why: dict[str, tuple[float | None, str]] = {}
    for record in reversed(ledger.rounds()):
        for choice in record.chosen:
            why.setdefault(choice.image_id, (choice.score, choice.reason))
        for image_id in record.proposed:
            why.setdefault(image_id, (None, f"proposal of round {record.number}"))
    place = places(project.images, ledger)
    items = []
    for status in statuses:
        item = _item(status, ledger, reader, *why.get(status.image.id, (None, status.reason)))
        is_asked = status.image.id in asked if asked is not None else _belongs(item, reader)
        if is_asked:
            items.append(item)
    return sorted(items, key=lambda item: (item.done, place[item.image.id]))


def refreshed(item: Item, status: ImageStatus, ledger: Ledger, reader: Reader) -> Item:
    """Return an item after something was done to its slide."""
    return _item(status, ledger, reader, item.score, item.reason)


def _item(
    status: ImageStatus, ledger: Ledger, reader: Reader, score: float | None, reason: str
) -> Item:
    image = status.image
    if reader.independent:
        record = ledger.image(image.id, image.name)
        done = reader.by in record.independent_readers
        reason = f"independent reading by {reader.by}"  # what others said is not for this reader
    elif reader.second_reader:
        done = status.state is not State.REVIEWED  # what was sent back waits for the first
        reason = status.reason  # who read it first, and when
    else:
        done = status.state in (State.REVIEWED, State.APPROVED) or status.rejected
    note = image.metadata.get(reader.note_key, "")
    return Item(image, status, status.round, score, reason, note, done)


def _belongs(item: Item, reader: Reader) -> bool:
    """Tell whether a slide is in the queue of a reader who asked for none."""
    state = item.status.state
    if reader.second_reader:
        return state in (State.REVIEWED, State.APPROVED)
    return state is not State.UNANNOTATED or item.status.nothing_found or item.status.rejected
