"""What a person says of a slide inside QuPath, by a project script or by hand.

It is said in the metadata of the image: ``qpannot.state`` holds the newest word, and where a script
said it, ``qpannot.said`` every one that the ledger has not heard yet, each with its moment:

    reviewed 2026-02-03T10:20:30.123Z by AB; sent back 2026-02-03T11:00:00.456Z

A word is known by its moment. QuPath keeps a project in memory and may write an old one back over
what was written since: a word that was heard is never heard again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from qpannot.bootstrap.image_record import APPROVED, REVIEWED, SENT_BACK, ImageRecord, Word, now
from qpannot.qupath import ProjectImage

STATE_KEY = "qpannot.state"
"""Image metadata: the state, where QuPath's project pane shows and sorts by it."""

SAID_KEY = "qpannot.said"
"""Image metadata: what scripts said and the ledger has not heard yet."""

WRITTEN_KEY = "qpannot.written"
"""Image metadata: the state as we wrote it, where QuPath knows no tags that would repeat it."""

SAYABLE = (REVIEWED, APPROVED, SENT_BACK)
"""What can be said of a slide inside QuPath."""

TAG_PREFIX = "qpannot: "
"""Of the tags that show the state, from QuPath 0.6 on."""

IN_QUPATH = "in QuPath"

_WORD = re.compile(rf"\s*({'|'.join(SAYABLE)}) (\S+Z)(?: by ([^;]*))?\s*")


def unheard(image: ProjectImage, record: ImageRecord) -> list[Word]:
    """Return what was said of an image inside QuPath since the ledger last heard of it.

    A state that its tag repeats, or before QuPath 0.6 ``qpannot.written``, is no word: a person who
    sets the state by hand leaves that, whereas an old project that QuPath writes back has both as
    we had written them.
    """
    shown = image.metadata.get(STATE_KEY)
    marks = marks_in(image.metadata.get(SAID_KEY, ""))
    heard = {word.said for word in record.words}
    words = [word for word in marks if word.said not in heard]
    is_by_script = bool(marks) and marks[-1].state == shown
    is_as_written = f"{TAG_PREFIX}{shown}" in image.tags or image.metadata.get(WRITTEN_KEY) == shown
    is_old = record.mirrored is not None and is_as_written
    if shown in SAYABLE and not (is_by_script or is_old or record.is_echo(shown)):
        words.append(Word(state=shown, where=IN_QUPATH, when=now()))  # set by hand
    return words


def marks_in(text: str) -> list[Word]:
    """Return the words in an image's ``qpannot.said``; what is none is left out."""
    words = []
    for part in text.split(";"):
        if not (found := _WORD.fullmatch(part)):
            continue
        state, said, by = found.groups(default="")
        try:
            when = datetime.fromisoformat(said).astimezone(UTC).isoformat(timespec="seconds")
        except ValueError:
            continue
        words.append(Word(state=state, by=by.strip(), where=IN_QUPATH, when=when, said=said))
    return words


def hear(record: ImageRecord, new: Iterable[Word]) -> ImageRecord:
    """Return the record with new words.

    A review undoes no approval. It is kept where it has a moment by which it is known, so that it
    is not heard later, when the approval is gone.
    """
    for word in new:
        if word.said or not record.is_idle(word):
            record = record.model_copy(update={"words": [*record.words, word]})
    return record
