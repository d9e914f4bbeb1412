"""What a person's work on a slide has cost, from opening it to closing it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qpannot.bootstrap.image_record import now
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.readers.effort import Effort, EffortClock, record_effort
from qpannot.review.canvas import Canvas, Labels, draw
from qpannot.review.drawing import Drawing
from qpannot.review.queue import Item, Reader
from qpannot.slide import Slide

PASSING_BY_S = 5.0
"""Who did nothing but look for so long has not worked on a slide."""


class Sitting:
    """The work of a person on a slide that is open.

    Parameters
    ----------
    item, reader
        The slide, and who reads it.
    beginning
        The canvas of the whole slide as it was found; copied.
    tool
        Where it is worked on.
    clock
        Seconds that only ever grow.
    """

    def __init__(
        self,
        item: Item,
        reader: Reader,
        beginning: Labels,
        *,
        tool: str,
        clock: Callable[[], float],
    ) -> None:
        self._item, self._reader, self._tool = item, reader, tool
        self._beginning = beginning.copy()
        self._clock, self._started = EffortClock(clock), now()

    def stroke(self) -> None:
        """Count a stroke."""
        self._clock.stroke()

    def touched(self) -> None:
        """Note that the person did something else, as moving the view."""
        self._clock.touched()

    def record(self, ledger: Ledger, drawing: Drawing, slide: Slide) -> None:
        """Record what it has cost so far; nothing where somebody only passed by."""
        clock = self._clock
        if not clock.strokes and clock.active_seconds < PASSING_BY_S:
            return
        area, mpp = None, slide.mpp_or_none
        if mpp is not None:
            whole = Canvas.of_slide(slide.size)
            shown = drawing.labels
            if drawing.canvas != whole:
                shown = draw(drawing.annotations(), drawing.classes, whole)
            pixel_um2 = whole.downsample**2 * mpp.x * mpp.y
            area = float(np.count_nonzero(shown != self._beginning) * pixel_um2)
        effort = Effort(
            by=self._reader.by,
            tool=self._tool,
            started=self._started,
            active_seconds=clock.active_seconds,
            strokes=clock.strokes,
            area_changed_um2=area,
            round=self._item.round,
            second_reader=self._reader.second_reader,
        )
        record_effort(ledger, drawing.image, effort)
