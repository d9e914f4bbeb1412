"""Open files, one per thread, reopened in a new process."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

from qpannot.errors import MissingSlideError, QpannotError, SlideError
from qpannot.slide.image import Pixels, Reader

MISSING_HINT = "Connect the drive it was on, or tell the project where the slide is now."
READ_HINT = "Try to open the slide in QuPath; if it cannot be shown there, copy the file again."

_INHERITED: list[Any] = []
"""A parent process's handles, kept alive so that a forked child does not close them."""


class Handles:
    """The open files of one slide.

    Every thread has its own, opened when it first reads: libraries decode in parallel that way
    and one thread's error state is not another's (an image that is decoded whole is shared). A
    forked or unpickled copy starts with none.

    Parameters
    ----------
    path, series
        What to open.
    reader
        What opens it.
    """

    def __init__(self, path: Path, series: int, reader: type[Reader]) -> None:
        self._path = path
        self._series = series
        self._reader = reader
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._local: Any = SimpleNamespace() if self._reader.is_shareable else threading.local()
        self._lock = threading.Lock()
        self._open: WeakSet[Reader] = WeakSet()
        self._pid = os.getpid()  # last: another thread must not see it beside the parent's handles

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path, "series": self._series, "reader": self._reader}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def adopt(self, reader: Reader) -> None:
        """Use ``reader``, just opened, as this thread's."""
        self._local.reader = reader
        with self._lock:
            self._open.add(reader)

    def _current(self) -> Reader:
        if self._closed:
            raise SlideError(self._path, "the slide is closed.", hint="Open it again to read it.")
        if self._pid != os.getpid():
            # The parent's handles share file positions and locks with it: neither used nor closed.
            _INHERITED.append((self._local, self._open))
            self._forget()
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._reader.open(self._path, self._series)
            self.adopt(reader)
        return reader

    def _discard(self) -> None:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is not None:
            self._local.reader = None
            with self._lock:
                self._open.discard(reader)
            reader.close()

    def read(self, level: int, x: float, y: float, width: int, height: int) -> Pixels:
        """Return pixels of a level.

        Raises
        ------
        SlideError
            They cannot be read. The thread's file is closed and will be opened anew: OpenSlide's
            handles stay broken after an error.
        """
        try:
            return self._current().read(level, x, y, width, height)
        except QpannotError:
            raise
        except Exception as error:
            self._discard()
            if not self._path.exists():
                raise MissingSlideError(
                    self._path, "the file is gone.", hint=MISSING_HINT
                ) from error
            cause = str(error) or type(error).__name__
            reason = f"level {level} cannot be read at ({x}, {y}): {cause}"
            raise SlideError(self._path, reason, hint=READ_HINT) from error

    def close(self) -> None:
        """Close the files of all threads, none of which may be reading; later reads fail."""
        self._closed = True
        if self._pid == os.getpid():
            with self._lock:
                for reader in list(self._open):
                    reader.close()
                self._open.clear()
