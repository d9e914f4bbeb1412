"""What was painted and is not in the project yet, on disk within seconds.

A journal is one file for each slide that is open, ``qpannot/review/<image>-<n>.journal``: a zip of
arrays as NumPy writes them, after a digest of its bytes. As long as somebody works on the slide, it
is locked; one that nobody holds is that of a session that broke off.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from qpannot.errors import FormatError, LockedError, ProjectError, QpannotError
from qpannot.geometry import Region
from qpannot.qupath.files import write_atomically
from qpannot.qupath.locking import ProjectLock
from qpannot.review.canvas import Canvas
from qpannot.review.painted import Painted
from qpannot.review.writing import Writing

FORMAT = 1

_DIGEST_BYTES = hashlib.sha256().digest_size

EVERY_S = 1.0
"""No sooner is a journal written again: a stroke is on disk about so long after it was made."""

_OTHER = (ValueError, KeyError, TypeError, zipfile.BadZipFile)
"""How a journal that is whole, but not one of ours, cannot be read."""


@dataclass(frozen=True)
class Entry:
    """What a journal holds.

    Parameters
    ----------
    by
        Who painted, as the person wants to be known; may be empty.
    when
        ISO 8601, UTC.
    digest
        Of the annotations that were painted upon.
    saving
        What was about to be written with all that was painted in it, but not the note; ``None``
        before a save.
    note
        What the person noted; ``None`` where the project holds it already.
    classes
        The names of the values, from 1 on.
    layers
        What was painted, in its order.
    """

    by: str
    when: str
    digest: str
    saving: Writing | None
    note: str | None
    classes: tuple[str, ...]
    layers: tuple[Painted, ...]


def encoded(entry: Entry) -> bytes:
    """Return the bytes of a journal."""
    about = {
        "format": FORMAT,
        "by": entry.by,
        "when": entry.when,
        "digest": entry.digest,
        "saving": None if entry.saving is None else asdict(entry.saving),
        "note": entry.note,
        "classes": entry.classes,
        "layers": [
            {
                "region": [
                    layer.canvas.region.x,
                    layer.canvas.region.y,
                    layer.canvas.region.width,
                    layer.canvas.region.height,
                ],
                "downsample": layer.canvas.downsample,
                "shape": layer.canvas.shape,
                "top": layer.top,
                "left": layer.left,
            }
            for layer in entry.layers
        ],
    }
    text = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8)
    arrays = {f"values_{index}": layer.values for index, layer in enumerate(entry.layers)}
    stream = io.BytesIO()
    np.savez_compressed(stream, about=text, **arrays)  # type: ignore[arg-type]  # numpy's stubs
    data = stream.getvalue()
    return hashlib.sha256(data).digest() + data


def decoded(data: bytes, path: Path) -> Entry:
    """Return what the bytes of a journal hold.

    Raises
    ------
    FormatError
        They are damaged, or of another version.
    """
    digest, data = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        raise FormatError(path, "a damaged journal, or none.")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            if about["format"] != FORMAT:
                raise ValueError(f"version {about['format']}")
            layers = []
            for index, each in enumerate(about["layers"]):
                height, width = each["shape"]
                canvas = Canvas(
                    Region(*map(float, each["region"])), float(each["downsample"]), (height, width)
                )
                layer = Painted(canvas, each["top"], each["left"], arrays[f"values_{index}"])
                fits = (
                    layer.values.dtype == np.uint8
                    and layer.values.ndim == 2
                    and 0 <= layer.top <= height - layer.values.shape[0]
                    and 0 <= layer.left <= width - layer.values.shape[1]
                )
                if not fits:
                    raise ValueError("pixels beyond the canvas")
                layers.append(layer)
        texts = {key: str(about[key]) for key in ("by", "when", "digest")}
        note = about["note"] if about["note"] is None else str(about["note"])
        classes = tuple(map(str, about["classes"]))
        saving = _writing(about["saving"])
        return Entry(**texts, saving=saving, note=note, classes=classes, layers=tuple(layers))
    except _OTHER as error:
        raise FormatError(path, f"no journal that can be read ({error}).") from error


def _writing(told: Any) -> Writing | None:
    if not told:
        return None
    if isinstance(told, str):  # as it was kept at first
        return Writing(told)
    return Writing(
        str(told["digest"]),
        tuple(map(str, told["added"])),
        tuple((str(key), str(digest)) for key, digest in told["changed"]),
        tuple(map(str, told["removed"])),
    )


class Journal:
    """The journal of a slide that is open, written by a thread of its own.

    Parameters
    ----------
    path
        The file.
    lock
        Held.
    """

    def __init__(self, path: Path, lock: ProjectLock) -> None:
        self.path = path
        self._lock = lock
        self._make: Callable[[], Entry | None] = lambda: None
        self._writing = threading.Lock()
        self._wanted = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: QpannotError | None = None
        """Why it could not be written the last time."""

    def start(self, make: Callable[[], Entry | None]) -> None:
        """Begin to write what ``make`` returns whenever it is asked for; ``None`` is no file.

        Parameters
        ----------
        make
            Called by the thread; whatever it looks at may be painted on meanwhile.
        """
        self._make = make
        self._thread = threading.Thread(target=self._run, name=f"journal {self.path.name}")
        self._thread.daemon = True
        self._thread.start()

    def ask(self) -> None:
        """Have it written soon. Returns at once."""
        self._wanted.set()

    def write(self) -> None:
        """Write it now; where that is not possible, `problem` says why."""
        self._wanted.clear()
        with self._writing:
            try:
                entry = self._make()
                if entry is not None:
                    write_atomically(self.path, encoded(entry))
                else:
                    with _told_of(self.path):
                        self.path.unlink(missing_ok=True)
            except QpannotError as error:
                self.problem = error
            except MemoryError:
                self.problem = ProjectError(
                    self.path, "cannot be written, the memory is full.", hint="Save the slide."
                )
            else:
                self.problem = None

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wanted.wait()
            if self._ended.is_set():
                return
            self.write()
            self._ended.wait(EVERY_S)

    def close(self) -> None:
        """Write it a last time, and let go of it.

        Raises
        ------
        ProjectError
            It cannot be written; it is let go of all the same.
        """
        self._end()
        self.write()
        self._lock.release()
        if self.problem is not None:
            raise self.problem

    def abandon(self) -> None:
        """Let go of it as it is on disk."""
        self._end()
        self._lock.release()

    def _end(self) -> None:
        self._ended.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()


@dataclass(frozen=True)
class Claimed:
    """A journal of one's own, and what was found beside it.

    Parameters
    ----------
    journal
        Not started yet.
    left
        What sessions that broke off have left, oldest first, and where it lies.
    damaged
        Where journals were put that cannot be read.
    others
        Who has the slide open now.
    """

    journal: Journal
    left: tuple[tuple[Path, Entry], ...]
    damaged: tuple[Path, ...]
    others: tuple[str, ...]


def claim(folder: Path, name: str) -> Claimed:
    """Take a journal for a slide, and find those that are left of it.

    Parameters
    ----------
    folder
        Where journals are; made if need be.
    name
        Of the slide, as its image's ID.

    Raises
    ------
    ProjectError
        The folder cannot be written.
    """
    stem = quote(name, safe=" ")
    left: list[tuple[Path, Entry]] = []
    damaged: list[Path] = []
    others: list[str] = []
    own: Journal | None = None
    with _told_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        last = max((_number(path) for path in folder.glob(f"{stem}-*.journal")), default=-1)
        for number in count():
            if own is not None and number > last:
                break
            path = folder / f"{stem}-{number}.journal"
            lock = ProjectLock(path.with_suffix(".lock"))
            try:
                lock.acquire(0)
            except LockedError:
                others.append(lock.holder())
                continue
            if path.is_file():
                try:
                    left.append((path, decoded(path.read_bytes(), path)))
                except FormatError:
                    damaged.append(_set_aside(path))
            if own is None:
                own = Journal(path, lock)
            else:
                lock.release()
    assert own is not None
    left.sort(key=lambda found: found[1].when)
    return Claimed(own, tuple(left), tuple(damaged), tuple(others))


def forget(paths: Sequence[Path]) -> None:
    """Remove journals of which everything is kept elsewhere by now."""
    for path in paths:
        with _told_of(path):
            path.unlink(missing_ok=True)


def _number(path: Path) -> int:
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _set_aside(path: Path) -> Path:
    for number in count():
        aside = path.with_suffix(f".damaged{number or ''}")
        if not aside.exists():
            break
    os.replace(path, aside)
    return aside


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProjectError(
            path,
            f"what is painted cannot be kept there ({error.strerror or error}).",
            hint="Check free space and permissions of the folder.",
        ) from error
