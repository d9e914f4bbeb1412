"""A person's way through the queue that the loop decided. Knows nothing of windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpannot.bootstrap.states import ImageStatus
from qpannot.errors import QpannotError
from qpannot.geometry import Region
from qpannot.qupath import Annotation, PathClass, Project, ProjectImage
from qpannot.review.canvas import Canvas
from qpannot.slide import Slide


@dataclass(frozen=True)
class Item:
    """One slide of the queue (skeleton)."""

    image: ProjectImage
    status: ImageStatus
    round: int | None
    score: float | None
    reason: str
    note: str
    done: bool


@dataclass(frozen=True)
class Saved:
    """What a save changed in the project (skeleton).

    ``conflicts``: annotations somebody else (QuPath) changed since the slide was opened; the
    painted changes were applied upon those. ``is_redrawn``: ``labels`` was redrawn in place.
    ``message``: in a sentence, for the person.
    """

    added: int
    changed: int
    removed: int
    conflicts: int
    status: ImageStatus
    is_redrawn: bool = False

    @property
    def message(self) -> str:
        """What happened, in a sentence."""
        raise NotImplementedError


class Opened:
    """One slide on the table (skeleton)."""

    item: Item
    image: ProjectImage
    slide: Slide
    heatmap: Path | None
    classes: tuple[PathClass, ...]
    canvas: Canvas
    labels: NDArray[np.uint8]
    context: tuple[Annotation, ...]
    recovered: bool
    messages: tuple[str, ...]  # to show once: recovered, open elsewhere, journal set aside ...
    note: str  # a property; setting it is kept by the journal and written by save

    @property
    def is_changed(self) -> bool:
        """Whether something was painted or noted that the project does not hold yet."""
        raise NotImplementedError

    @property
    def problem(self) -> QpannotError | None:
        """Why the journal cannot be written (disk full ...), to be shown; else None."""
        raise NotImplementedError

    def finer(self, region: Region) -> None:
        """Replace `canvas` and `labels` (a new array) by those of a part of the slide."""
        raise NotImplementedError

    def whole(self) -> None:
        """Replace `canvas` and `labels` by those of the whole slide."""
        raise NotImplementedError

    def changed(self) -> None:
        """After each stroke (painted in place into `labels`); returns at once."""
        raise NotImplementedError

    def touched(self) -> None:
        """After any other event that shows that the person is at work (pan, zoom, key)."""
        raise NotImplementedError

    def save(self) -> Saved:
        """Write to the project."""
        raise NotImplementedError

    def accept(self, *, allow_empty: bool = False) -> Saved:
        """Save and say REVIEWED; APPROVED for a second reader."""
        raise NotImplementedError

    def approve(self, *, allow_empty: bool = False) -> Saved:
        """Save and say APPROVED, whoever reads."""
        raise NotImplementedError

    def reject(self) -> Saved:
        """Save, and take away the proposals nobody touched."""
        raise NotImplementedError

    def send_back(self) -> Saved:
        """Save, and take back the last word: the slide waits again."""
        raise NotImplementedError

    def discard(self) -> None:
        """Forget what was painted since the last save; `labels` is redrawn in place."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the slide; what is not saved stays in the journal."""
        raise NotImplementedError


class Session:
    """A person's way through the queue (skeleton).

    ``queue`` is told anew after every save; ``left_out`` names slides that cannot be opened.
    """

    queue: tuple[Item, ...]
    left_out: tuple[tuple[ProjectImage, str], ...]
    opened: Opened | None

    def __init__(
        self,
        project: Project,
        *,
        by: str = "",
        second_reader: bool = False,
        images: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        raise NotImplementedError

    def open(self, image_id: str | None = None) -> Opened:
        """Open an image, by default the next that waits; the one open before is closed."""
        raise NotImplementedError

    def next(self) -> Opened | None:
        """Open the next that waits, after the current one in the queue and then from its start."""
        raise NotImplementedError

    def previous(self) -> Opened | None:
        """Open the one before the current one in the queue, whether it waits or not."""
        raise NotImplementedError

    def skip(self) -> Opened | None:
        """Put the current one to the end of this session's queue, and open the next."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open."""
        raise NotImplementedError
