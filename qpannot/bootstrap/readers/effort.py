"""What a correction cost a person: active time, strokes, and the area that changed.

QuPath does not tell how long a person worked, only what changed: where a slide was corrected
there, the area is known (`qpannot.bootstrap.corrections`), and time and strokes are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from qpannot.bootstrap.image_record import ImageRecord
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.qupath import ProjectImage

IDLE_S = 30.0
"""Of a longer time without an event nothing counts: the person was elsewhere."""


class EffortClock:
    """Measures how long a person is active on a slide.

    The time from one event to the next counts, unless it is longer than 30 s: then none of it does,
    for nobody knows where in it the person left.

    Parameters
    ----------
    clock
        Seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._active = 0.0
        self._strokes = 0

    @property
    def active_seconds(self) -> float:
        """Active time until the last event."""
        return self._active

    @property
    def strokes(self) -> int:
        """Changes of the annotations: strokes of a brush, fills, polygons, undone ones too."""
        return self._strokes

    def touched(self) -> float:
        """Note that the person did something, if only to move the view; return the active time."""
        now = self._clock()
        if self._last is not None and now - self._last <= IDLE_S:
            self._active += now - self._last
        self._last = now
        return self._active

    def stroke(self) -> float:
        """Note that the person changed the annotations; return the active time."""
        self._strokes += 1
        return self.touched()


class Effort(BaseModel):
    """What one sitting at one slide cost a person.

    Parameters
    ----------
    by
        Whatever the person wants to be known as; may be empty.
    tool
        Where it was measured: ``napari``.
    started
        When the sitting began (`image_record.now`): with ``by`` and ``tool``, what tells it from
        others.
    active_seconds, strokes
        As `EffortClock` measures them.
    area_changed_um2
        Area whose class is another than at the beginning; ``None`` where the slide's pixel size is
        unknown.
    round
        Whose proposal was corrected; ``None`` where there was none.
    second_reader
        Whether the slide was read after another person.
    """

    model_config = ConfigDict(frozen=True)

    by: str = ""
    tool: str
    started: str
    active_seconds: float = Field(ge=0)
    strokes: int = Field(ge=0)
    area_changed_um2: float | None = Field(default=None, ge=0)
    round: int | None = None
    second_reader: bool = False

    def is_same_sitting(self, other: Effort) -> bool:
        """Tell whether another record is of the same sitting, earlier or later in it."""
        return (self.by, self.tool, self.started) == (other.by, other.tool, other.started)


def record_effort(ledger: Ledger, image: ProjectImage, effort: Effort) -> None:
    """Record what a sitting at an image cost.

    Of a sitting that is recorded already, the new figures take the place of the old, so that it can
    be recorded at each save with all of it so far, and nothing counts twice.
    """

    def change(record: ImageRecord) -> None:
        others = [each for each in record.effort if not each.is_same_sitting(effort)]
        record.effort = [*others, effort]

    ledger.edit_image(image.id, image.name, change)
