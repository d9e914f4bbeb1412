"""A slide as a viewer shows it: levels that never keep the viewer waiting.

A level hands out at once what it has, coarser where the pixels are not read yet, and has threads
read the rest; `Pyramid` tells when to look again. So the first view of a slide of any size is there
in a moment, and moving about does not stutter.

The levels are powers of two of full resolution, whatever the file's are (57.375, 16.0018): a viewer
takes the ratio of two levels' sizes for their downsample, and only so is that exact. The slide is
padded with white at the right and the bottom for that, by less than a pixel of the coarsest level.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qpannot.errors import QpannotError
from qpannot.geometry import Region, Size
from qpannot.review.levels import Level, Span
from qpannot.slide import Slide

TILE_PX = 512
KEPT_TILES = 384
"""Some 300 MB."""

COARSEST_PX = 512
"""The longer side of the coarsest level is no larger, so that it is one tile."""

WORKERS = 2
PAPER = 240
"""The grey of what nothing is known of yet."""

Tile = tuple[int, int, int]
"""Level, row and column."""


class Pyramid:
    """The levels of a slide, and the threads that read them.

    Parameters
    ----------
    slide
        Its files are opened anew, so that it may be closed meanwhile.
    changed
        Called from a thread whenever more pixels are known.
    failed
        Called from a thread with the first error; what cannot be read stays as it was.
    """

    def __init__(
        self,
        slide: Slide,
        *,
        changed: Callable[[], None] = lambda: None,
        failed: Callable[[QpannotError], None] = lambda error: None,
    ) -> None:
        self._slide = copy.deepcopy(slide)
        self._changed, self._failed = changed, failed
        n_levels = 1
        while max(slide.size.width, slide.size.height) > COARSEST_PX << (n_levels - 1):
            n_levels += 1
        step = 1 << (n_levels - 1)
        height = -(-slide.size.height // step) * step
        width = -(-slide.size.width // step) * step
        self.levels = tuple(
            Level(self.assemble, index, (height >> index, width >> index, 3), (TILE_PX, TILE_PX, 3))
            for index in range(n_levels)
        )
        self._coarsest: Tile = (n_levels - 1, 0, 0)
        self._tiles: OrderedDict[Tile, NDArray[np.uint8]] = OrderedDict()
        self._given_up: set[Tile] = set()
        self._wanted: list[Tile] = [self._coarsest]  # the most wanted one last
        self._reading: set[Tile] = set()
        self._is_closed = False
        self._lock = threading.Lock()
        self._work_is_there = threading.Condition(self._lock)
        self._is_idle = threading.Condition(self._lock)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def assemble(self, level: int, rows: Span, columns: Span) -> NDArray[np.uint8]:
        """Return what is known of a part of a level, and have the rest read.

        What was wanted before and is not any more will not be read.

        Parameters
        ----------
        rows, columns
            Within the level.

        Returns
        -------
        ndarray of uint8, shape [height, width, 3]
        """
        (top, bottom), (left, right) = rows, columns
        pixels = np.empty((bottom - top, right - left, 3), np.uint8)
        missing = []
        middle = (top + bottom) / 2 / TILE_PX - 0.5, (left + right) / 2 / TILE_PX - 0.5
        with self._lock:
            for row in range(top // TILE_PX, -(-bottom // TILE_PX)):
                for column in range(left // TILE_PX, -(-right // TILE_PX)):
                    tile = (level, row, column)
                    y, x = row * TILE_PX, column * TILE_PX
                    known = self._tiles.get(tile)
                    if known is None:
                        known = self._coarser(tile)
                        if tile not in self._given_up:
                            missing.append(tile)
                    else:
                        self._tiles.move_to_end(tile)
                    y0, y1 = max(top, y), min(bottom, y + TILE_PX)
                    x0, x1 = max(left, x), min(right, x + TILE_PX)
                    pixels[y0 - top : y1 - top, x0 - left : x1 - left] = known[
                        y0 - y : y1 - y, x0 - x : x1 - x
                    ]
            if level != self._coarsest[0]:  # that is asked for again and again, for the thumbnail
                missing.sort(key=lambda tile: -np.hypot(tile[1] - middle[0], tile[2] - middle[1]))
                known_already = self._coarsest in self._tiles or self._coarsest in self._given_up
                self._wanted = missing if known_already else [*missing, self._coarsest]
                self._work_is_there.notify_all()
        return pixels

    def _coarser(self, tile: Tile) -> NDArray[np.uint8]:
        """Return a tile as the finest coarser level shows it that is known."""
        level, row, column = tile
        for up in range(1, len(self.levels) - level):
            known = self._tiles.get((level + up, row >> up, column >> up))
            if known is None:
                continue
            part = max(1, TILE_PX >> up)
            y, x = (row * part) % TILE_PX, (column * part) % TILE_PX
            block = known[y : y + part, x : x + part]
            return block.repeat(1 << up, axis=0).repeat(1 << up, axis=1)
        return np.full((TILE_PX, TILE_PX, 3), PAPER, np.uint8)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all that is wanted was read; tell whether it was."""
        with self._lock:
            return self._is_idle.wait_for(
                lambda: self._is_closed or not (self._wanted or self._reading), timeout_s
            )

    def close(self) -> None:
        """Read no more. Does not wait for the threads, the last of which closes the files."""
        with self._lock:
            self._is_closed = True
            self._wanted = []
            self._tiles.clear()
            self._work_is_there.notify_all()
            self._is_idle.notify_all()

    def _work(self) -> None:
        while (tile := self._next()) is not None:
            error: QpannotError | None = None
            pixels = None
            try:
                pixels = self._read(tile)
            except QpannotError as failure:
                error = failure
            with self._lock:
                self._reading.discard(tile)
                if self._is_closed:
                    break
                is_first = error is not None and not self._given_up
                if pixels is None:
                    self._given_up.add(tile)
                else:
                    self._keep(tile, pixels)
                if not (self._wanted or self._reading):
                    self._is_idle.notify_all()
            if error is not None and is_first:
                self._failed(error)
            elif pixels is not None:
                self._changed()
        with self._lock:
            self._threads.remove(threading.current_thread())
            is_last = not self._threads
        if is_last:
            self._slide.close()

    def _next(self) -> Tile | None:
        with self._lock:
            while True:
                while self._wanted:
                    tile = self._wanted.pop()
                    if tile not in self._tiles and tile not in self._reading:
                        self._reading.add(tile)
                        return tile
                if self._is_closed:
                    return None
                if not self._reading:
                    self._is_idle.notify_all()
                self._work_is_there.wait()

    def _keep(self, tile: Tile, pixels: NDArray[np.uint8]) -> None:
        self._tiles[tile] = pixels
        if len(self._tiles) > KEPT_TILES:
            oldest = next(each for each in self._tiles if each != self._coarsest)
            del self._tiles[oldest]

    def _read(self, tile: Tile) -> NDArray[np.uint8]:
        level, row, column = tile
        side = TILE_PX << level
        region = Region(column * side, row * side, side, side)
        return self._slide.read_downsampled(region, float(1 << level), Size(TILE_PX, TILE_PX))
