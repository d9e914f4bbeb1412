"""The slides a worker has open: few at a time, each opened by the worker itself."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from qpannot.slide import Slide

Opener = Callable[[], Slide]
"""Opens a slide. It is pickled to the workers: ``functools.partial(open_slide, path)``, or what
`opener_of` returns; no lambda and no function inside another."""

MAX_OPEN = 16
"""Slides a worker keeps open. OpenSlide caches up to 32 MiB of tiles for each."""


def opener_of(slide: Slide) -> Opener:
    """Return what opens an independent copy of a slide, turned, cropped and scaled as it is.

    The slide itself may be closed meanwhile.
    """
    return partial(copy.deepcopy, copy.deepcopy(slide))


class OpenSlides:
    """The slides of one process, opened when they are first asked for.

    Parameters
    ----------
    openers
        By slide.
    limit
        How many are open at most; the one not used for longest is closed first.
    """

    def __init__(self, openers: Mapping[str, Opener], limit: int = MAX_OPEN) -> None:
        if limit < 1:
            raise ValueError("at least one slide has to be open")
        self._openers = dict(openers)
        self._limit = limit
        self._open: OrderedDict[str, Slide] = OrderedDict()

    def __getitem__(self, slide_id: str) -> Slide:
        """Return a slide, open.

        Raises
        ------
        QpannotError
            It cannot be opened.
        """
        if slide_id in self._open:
            self._open.move_to_end(slide_id)
        else:
            while len(self._open) >= self._limit:
                _, oldest = self._open.popitem(last=False)
                oldest.close()
            self._open[slide_id] = self._openers[slide_id]()
        return self._open[slide_id]

    def __len__(self) -> int:
        return len(self._open)

    def close(self, slide_id: str) -> None:
        """Close a slide; asked for again, it is opened anew."""
        if slide := self._open.pop(slide_id, None):
            slide.close()

    def __getstate__(self) -> dict[str, object]:
        return {"openers": self._openers, "limit": self._limit}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]
