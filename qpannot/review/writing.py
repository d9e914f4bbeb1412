"""A save that was begun: by what it can be told later whether it was done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qpannot.bootstrap.states import digest_of
from qpannot.qupath import Annotation
from qpannot.review.merging import Edits


@dataclass(frozen=True)
class Writing:
    """What was about to be written of a slide. Either all of it was, or nothing.

    Parameters
    ----------
    digest
        Of all annotations with it (`digest_in_any_order`).
    added, removed
        IDs of annotations.
    changed
        By its ID, the digest of each changed annotation as it was to be.
    """

    digest: str
    added: tuple[str, ...] = ()
    changed: tuple[tuple[str, str], ...] = ()
    removed: tuple[str, ...] = ()

    @classmethod
    def of(cls, edits: Edits, stored: Sequence[Annotation]) -> Writing:
        """Return what tells of edits of what is stored."""
        pairs = [(str(new.id), digest_of([old]), digest_of([new])) for old, new in edits.replace]
        return cls(
            digest_in_any_order(edits.applied_to(stored)),
            tuple(str(each.id) for each in edits.add),
            tuple((key, after) for key, before, after in pairs if before != after),
            tuple(str(each.id) for each in edits.remove),
        )

    def is_done(self, stored: Sequence[Annotation]) -> bool:
        """Tell whether annotations show that it was written, whatever was done to them since.

        One that it added, or one just as it changed it, can have come from nowhere else. Where it
        did nothing but take some away, and they are gone, nothing is left to do. That somebody
        wrote over it, as QuPath does with what it had open before, is as if it was not done.
        """
        if digest_in_any_order(stored) == self.digest:
            return True
        there = {str(each.id): each for each in stored}
        if any(key in there for key in self.added):
            return True
        if any(key in there and digest_of([there[key]]) == after for key, after in self.changed):
            return True
        only_removed = self.removed and not self.added and not self.changed
        return bool(only_removed) and there.keys().isdisjoint(self.removed)


def digest_in_any_order(annotations: Iterable[Annotation]) -> str:
    """Return a digest of what a person may change of annotations, whatever their order."""
    return digest_of(sorted(annotations, key=lambda each: each.id))
