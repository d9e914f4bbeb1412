"""What the ledger keeps of an image: its proposals, what was said of it, what was seen in it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import shapely
from pydantic import BaseModel, ConfigDict, Field
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.corrections import Correction
from qpannot.bootstrap.readers.effort import Effort
from qpannot.qupath.protocol import Fingerprint

FORMAT = 1
REVIEWED, APPROVED = "reviewed", "approved"
TAKEN_BACK = "taken back"
SENT_BACK = "sent back"


def now() -> str:
    """Return the time as the ledger writes it: ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class KeptProposal(BaseModel):
    """A proposal as it was made, so that its correction can be measured.

    ``geometry`` is GeoJSON in full-resolution pixels, exactly as stored in the project.
    ``written`` is set once the project holds it; until then a rerun writes it. ``replaced`` is set
    when another proposal took its place before a person had touched it.
    """

    id: UUID
    round: int
    method: str
    model: str | None = None
    score: float | None = None
    class_name: str | None = None
    made: str
    written: bool = False
    replaced: bool = False
    geometry: dict[str, Any]

    @property
    def shape(self) -> BaseGeometry:
        """The geometry as shapely's, in full-resolution pixels."""
        return shape(self.geometry)


def geojson_of(geometry: BaseGeometry) -> dict[str, Any]:
    """Return the GeoJSON object of a geometry, every digit kept."""
    return dict(mapping(shapely.force_2d(geometry)))


class SecondReading(BaseModel):
    """What a second reader changed of what the reader before had left.

    Parameters
    ----------
    first, second
        Who they are, as far as they said.
    change
        ``proposal`` is what the first left, the correction what the second did.
    """

    first: str = ""
    second: str = ""
    change: Correction


class Word(BaseModel):
    """What a person said of a slide, and when.

    ``reviewed``, ``approved``, ``taken back``, which undoes one word, or ``sent back``, which
    undoes all of them.
    """

    state: str
    by: str = ""
    where: str = ""
    when: str
    digest: str | None = None
    """Of the annotations it was said of (``states.digest_of``)."""
    said: str | None = None
    """The moment as a script inside QuPath wrote it: what tells this word from another."""
    independent: bool = False
    """Whether it is of this person's own annotations alone (`qpannot.qupath.annotators`)."""
    of_others: bool = False
    """Whether everything was somebody's own: the word is then of that, and not of its absence."""
    second_reading: SecondReading | None = None
    """Of an approval: what was changed, if what the first reader had left is known."""


class Seen(BaseModel):
    """What was found when the image's data file was last read, and of which file that holds.

    ``drawn`` counts the areas a person outlined, lines, points and classes that QuPath marks as
    not to be measured (``Region*``, ``Ignore*``) left out.
    """

    size: int
    mtime_ns: int
    touched: bool
    annotations: int
    proposals: int
    drawn: int
    digest: str | None = None
    """Of the annotations (``states.digest_of``); ``None`` where not all were read."""
    annotators: tuple[str, ...] = ()
    """Who drew annotations of their own, by name."""
    shared: str | None = None
    """The digest of the others, where there are such."""

    @property
    def shared_digest(self) -> str | None:
        """The digest of what is nobody's own: where everything is, of all."""
        return self.shared or self.digest

    def holds_for(self, fingerprint: Fingerprint) -> bool:
        """Tell whether all was read, and the file is still the one that was."""
        is_same = (self.size, self.mtime_ns) == (fingerprint.size, fingerprint.mtime_ns)
        return is_same and self.digest is not None


class Reading(BaseModel):
    """Outlines as a reader left them, so that what the next changed can be measured.

    Parameters
    ----------
    digest
        Of the annotations (``states.digest_of``); the outlines lie in a file named after it.
    state
        What was said of them: ``reviewed``, ``approved``; ``corrected`` where nothing was said.
    by
        Who said it.
    handed_over
        Whether a second reader has begun: what changes from then on is the second reader's.
    """

    digest: str
    state: str
    by: str = ""
    when: str
    handed_over: bool = False


class ImageRecord(BaseModel):
    """All the ledger knows of one image."""

    model_config = ConfigDict(extra="allow")

    format: int = FORMAT
    id: str
    name: str
    proposals: list[KeptProposal] = Field(default_factory=list)
    nothing_found: dict[str, Any] | None = None
    """The method, settings and time of the last proposal that came out empty."""
    words: list[Word] = Field(default_factory=list)
    seen: Seen | None = None
    effort: list[Effort] = Field(default_factory=list)
    """What correcting it cost people, sitting by sitting."""
    readings: list[Reading] = Field(default_factory=list)
    mirrored: str | None = Field(default=None, exclude=True)
    """The state we last wrote into the image's metadata: our own echo, and nobody's word."""
    mirrored_before: str | None = Field(default=None, exclude=True)
    """The one shown before, while ``mirrored`` is being written: an echo as well."""

    def is_echo(self, shown: str | None) -> bool:
        """Tell whether a state in the image's metadata is one that we wrote there."""
        return shown in (self.mirrored, self.mirrored_before)

    @property
    def standing(self) -> list[KeptProposal]:
        """The proposals that were written and not replaced by later ones."""
        return [kept for kept in self.proposals if kept.written and not kept.replaced]

    def is_idle(self, word: Word) -> bool:
        """Tell whether a word says nothing new: a review undoes no approval that stands."""
        return _is_idle(word, self.standing_words)

    @property
    def standing_words(self) -> list[Word]:
        """What people said and did not take back; each taking back undoes one word.

        That of an independent reader undoes that reader's word. Sending back undoes all of them.
        """
        stack: list[Word] = []
        for word in self.words:
            if word.state == SENT_BACK:
                stack.clear()
                continue
            if _is_idle(word, stack):
                continue
            same = [
                each
                for each in stack
                if each.independent == word.independent
                and (each.by == word.by or not word.independent)
            ]
            if word.state != TAKEN_BACK:
                if word.independent:
                    stack = [each for each in stack if each not in same]
                stack.append(word)
            elif undone := same or ([] if word.independent else stack):
                stack.remove(undone[-1])
        return stack

    @property
    def word(self) -> Word | None:
        """The last word that stands, what independent readers said of their own last."""
        standing = self.standing_words
        plain = [word for word in standing if not word.independent]
        last = plain or standing
        return last[-1] if last else None

    @property
    def independent_readers(self) -> tuple[str, ...]:
        """Who read the slide by themselves, and said that they are done."""
        return tuple(sorted(word.by for word in self.standing_words if word.independent))

    @property
    def second_reading(self) -> SecondReading | None:
        """What the second reader changed, while that word stands.

        ``None`` also where nobody knows what the first reader left.
        """
        return self.word.second_reading if self.word else None

    @property
    def taken_back(self) -> Word | None:
        """The last word, if it took or sent back what was said before and nothing stands since."""
        return self.called_back if self.word is None else None

    @property
    def called_back(self) -> Word | None:
        """The same, whatever independent readers have said of their own."""
        plain = [word for word in self.words if not word.independent]
        is_standing = any(not word.independent for word in self.standing_words)
        return plain[-1] if plain and not is_standing else None


def _is_idle(word: Word, standing: Iterable[Word]) -> bool:
    is_review = word.state == REVIEWED and not word.independent
    return is_review and any(each.state == APPROVED for each in standing if not each.independent)
