"""What sessions that broke off have left, taken over by the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qpannot.qupath import Annotation, PathClass
from qpannot.review.drawing import Drawing
from qpannot.review.journal import Claimed, Entry
from qpannot.review.painted import Painted


@dataclass(frozen=True)
class Recovered:
    """What was taken over.

    Parameters
    ----------
    is_painted
        Whether anything was painted.
    note
        What was noted of the slide; ``None`` where nothing was.
    messages
        What to tell the person of it, and of others who have the slide open, in sentences.
    """

    is_painted: bool
    note: str | None
    messages: tuple[str, ...]


def recover(claimed: Claimed, drawing: Drawing, noted: str) -> Recovered:
    """Paint once more what sessions that broke off have painted and not saved.

    What was saved just before such a session ended is not painted again, though somebody else has
    saved the slide since: that would undo what was corrected there.

    Parameters
    ----------
    drawing
        Nothing is painted on it yet; it has the classes of all that was left.
    noted
        The note that the project holds.
    """
    painted: list[Painted] = []
    note: str | None = None
    messages = []
    for _, entry in claimed.left:
        by = f" by {entry.by}" if entry.by else ""
        until = f"{by} until {entry.when[:16].replace('T', ' ')} UTC"
        if is_noted(entry, noted):
            note = entry.note
            messages.append(f"What was noted{until} and not saved is here again.")
        if not is_painted(entry, lambda: drawing.stored):
            continue
        painted += [_in_classes(layer, entry.classes, drawing.classes) for layer in entry.layers]
        lost = "not saved"
        if entry.saving:
            lost = "not in the project, though it was just being saved,"
        text = f"What was painted{until} and {lost} is here again: save or discard it below."
        if entry.digest != drawing.digest:
            text += " The annotations were changed since, so it was painted upon the new ones."
        messages.append(text)
    if painted:
        drawing.take_over(painted)
    messages += [
        f"A journal of this slide could not be read and was set aside: {path}"
        for path in claimed.damaged
    ]
    messages += [
        f"This slide is open in {other}: what is saved there and here is brought together, but "
        "agree on who paints."
        for other in claimed.others
    ]
    return Recovered(bool(painted), note, tuple(messages))


def is_noted(entry: Entry, noted: str) -> bool:
    """Tell whether a journal holds a note that is another than the project's."""
    return entry.note is not None and entry.note != noted


def is_painted(entry: Entry, stored: Callable[[], Sequence[Annotation]]) -> bool:
    """Tell whether a journal holds what was painted and is not in the project.

    Parameters
    ----------
    stored
        Returns the image's annotations; asked where the review ended in the midst of a save.
    """
    return bool(entry.layers) and not (entry.saving and entry.saving.is_done(stored()))


def _in_classes(layer: Painted, names: Sequence[str], classes: Sequence[PathClass]) -> Painted:
    """Return what was painted in the values that classes have now."""
    known = [each.name for each in classes]
    values = np.arange(256, dtype=np.uint8)
    values[1 : len(names) + 1] = [known.index(name) + 1 for name in names]
    return replace(layer, values=values[layer.values])
