"""What was painted in reviews and is in no project yet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from qpannot.bootstrap.advice import labels
from qpannot.bootstrap.ledger import Ledger
from qpannot.errors import QpannotError
from qpannot.qupath import Project, ProjectImage
from qpannot.review.queue import Reader


@dataclass(frozen=True)
class Unsaved:
    """What a review holds of a slide and has not saved.

    Parameters
    ----------
    path
        Its journal.
    by
        Who painted, as far as that was said.
    when
        Until when: ISO 8601, UTC; empty where the journal cannot be read.
    """

    image: ProjectImage
    path: Path
    by: str = ""
    when: str = ""


def unsaved(project: Project) -> tuple[Unsaved, ...]:
    """Return what reviews hold unsaved, of those open now and of those that ended.

    Changes no file. The slides are in the project's order.
    """
    paths = sorted(Ledger.of(project).journals.glob("*.journal"))
    if not paths:
        return ()
    from qpannot.review.journal import decoded  # takes a while
    from qpannot.review.recovery import is_noted, is_painted

    images = {image.id: image for image in project.images}
    found = []
    for path in paths:
        # named after the image's ID, and after an independent reader too
        image = images.get(unquote(path.stem.rpartition("-")[0]).partition(" ")[0])
        if image is None:
            continue
        try:
            entry = decoded(path.read_bytes(), path)
            reader = Reader(entry.by, independent=" " in path.stem)
            noted = image.metadata.get(reader.note_key, "")
            if is_noted(entry, noted) or is_painted(entry, image.annotations):
                found.append(Unsaved(image, path, entry.by, entry.when))
        except FileNotFoundError:
            continue  # saved meanwhile
        except (OSError, QpannotError):
            found.append(Unsaved(image, path))  # opening the slide says what is wrong
    order = list(images)
    return tuple(sorted(found, key=lambda each: order.index(each.image.id)))


def next_step(project: Project, found: Sequence[Unsaved]) -> tuple[str, ...]:
    """Return what to do about it, as one sentence or none."""
    if not found:
        return ()
    called = labels(project.images)
    slides = list(dict.fromkeys(called[each.image.id] for each in found))
    names = ", ".join(slides[:5]) + (f" and {len(slides) - 5} more" if slides[5:] else "")
    return (
        f"what was painted in a review of {names} is not saved: do so where the review is still "
        f"open, else open it again: qpannot review {shlex.quote(str(project.path))} --image NAME",
    )
