"""Writes that leave the old file or the new one, never half of either.

Every change of a project goes through ``ProjectFiles``: under the project's lock, with a snapshot
of what was there, through a temporary file that is read back, synced and renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qpannot.errors import ConcurrentChangeError, ProjectError
from qpannot.qupath.locking import ProjectLock
from qpannot.qupath.snapshots import (
    Snapshot,
    digest_of,
    files_with_snapshots,
    snapshot_name,
    snapshots_in,
    superfluous,
    superfluous_together,
)

HOUSE = "qpannot"
"""The folder inside a QuPath project that holds what is ours: ledger, snapshots, lock."""

ATTEMPTS = 4
"""How often a change is made anew because another program saved the file meanwhile."""

PAUSE_S = 0.25
QUIET_S = 1.5
PATIENCE_S = 120.0
"""A save of QuPath's that is under way is looked at this often, taken for broken off when nothing
has moved for so long, and waited for no longer than that."""

KEPT_SNAPSHOTS = 20
"""Snapshots kept of one file: the first, the newest, and some in between."""

SNAPSHOT_BYTES = 10 * 2**30
"""Snapshots of a project are thinned beyond this, to the first and the newest of each file."""

_CHUNK = 2**20
_LITTER = re.compile(r"\..+\.\d+\.tmp")
_CLOSE_HINT = "Save and close the image in QuPath, then run the command again."
_HINT = "Check free space and permissions of the folder, then run the command again."


def write_atomically(
    path: Path, data: bytes, *, if_still: Callable[[], bool] = lambda: True
) -> bool:
    """Replace the file at ``path`` by ``data``, or leave it as it is.

    The bytes go to a temporary file beside it, are synced, read back and compared, and the file
    is renamed over the old one; the folder is synced as well where the system allows it. Folders
    that are missing are made. A link is followed, and stays.

    Parameters
    ----------
    if_still
        Asked at the last moment, when all the slow work is done, whether to go through with it.

    Returns
    -------
    bool
        Whether the file was replaced.

    Raises
    ------
    ProjectError
        When the disk is full, the folder cannot be written, or the bytes read back differ. The
        old file is untouched then.
    """
    if path.is_symlink():
        path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _make_folder(path.parent)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        if not _holds(temporary, data):
            raise ProjectError(
                path,
                "what was written reads back differently; the old file was kept.",
                hint="Check the disk or network share, then run the command again.",
            )
        if not if_still():
            return False
        os.replace(temporary, path)
    except OSError as error:
        raise ProjectError(
            path,
            f"cannot be written ({error.strerror or error}); nothing was changed.",
            hint=_HINT,
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def _holds(path: Path, data: bytes) -> bool:
    """Tell whether a file that was synced holds these bytes, on the disk if that can be asked."""
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # else it is read from memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        position = 0
        while chunk := file.read(_CHUNK):
            if not data.startswith(chunk, position):
                return False
            position += len(chunk)
    return position == len(data)


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProjectError(
            path,
            f"cannot be read ({error.strerror or error}); nothing was changed.",
            hint="Check its permissions, then run the command again.",
        ) from error


def _make_folder(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power failure, where the system allows it."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class ProjectFiles:
    """The lock, the snapshots and the safe writes of one project folder.

    Parameters
    ----------
    folder
        The folder the ``.qpproj`` file lies in.
    timeout_s
        How long to wait for another process that is writing, in seconds.
    """

    def __init__(self, folder: Path, *, timeout_s: float = 30.0) -> None:
        self.folder = folder
        self.house = folder / HOUSE
        self.timeout_s = timeout_s
        self._lock = ProjectLock(self.house / "lock")
        self._snapshot_room: int | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the project's write lock; may be entered again by the one who holds it.

        Raises
        ------
        LockedError
            When another process holds it for longer than ``timeout_s``.
        ProjectError
            When the folder cannot be written.
        """
        try:
            self.house.mkdir(exist_ok=True)
            was_killed = self._lock.acquire(self.timeout_s)
        except OSError as error:
            raise ProjectError(
                self.folder,
                f"the project folder cannot be written ({error.strerror or error}).",
                hint="Check its permissions and free space, or copy the project to a folder of "
                "your own.",
            ) from error
        try:
            if was_killed:
                self._sweep()
            yield
        finally:
            self._lock.release()

    def tidy(self) -> None:
        """Clear away what a killed process left half-written, if nobody is writing now."""
        if self._lock.was_left:
            waiting, self.timeout_s = self.timeout_s, 0.0
            with contextlib.suppress(ProjectError), self.locked():
                pass
            self.timeout_s = waiting

    def _sweep(self) -> None:
        """Remove the half-written files of a process that was killed."""
        places = [self.folder.glob(".*"), self.folder.glob("*/.*"), self.folder.glob("data/*/.*")]
        for path in (*(each for place in places for each in place), *self.house.rglob(".*")):
            if _LITTER.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def edit(
        self,
        path: Path,
        change: Callable[[bytes | None], bytes | None],
        *,
        backup: Path | None = None,
        is_whole: Callable[[bytes], bool] = lambda data: True,
        keeps_snapshot: bool = True,
    ) -> bytes | None:
        """Change one file of the project safely.

        Parameters
        ----------
        path
            A file inside the project folder; need not exist yet.
        change
            Gets the bytes on disk (``None`` where there is no file) and returns the new ones, or
            ``None`` to leave the file alone. Called again when the file changed meanwhile.
        backup
            Where QuPath moves the file while it saves a new one. If that lies there and ``path``
            does not, or not whole, QuPath is given time to finish; if it never does, the save
            broke off, and the backup is what is changed.
        is_whole
            Tells whether bytes are a whole file, and not one that QuPath is writing.
        keeps_snapshot
            Whether what was there is worth keeping. What can be made again at any time is not.

        Returns
        -------
        bytes or None
            What was written, ``None`` when nothing was.

        Raises
        ------
        ConcurrentChangeError
            When another program keeps changing the file between our read and our write.
        ProjectError
            When a file cannot be read or written. Nothing is changed then.
        """

        def is_still(known: list[_Stamp]) -> bool:
            return [_stamp(each) for each in (path, backup) if each] == known

        with self.locked(), _told_of(path):
            for _ in range(ATTEMPTS):
                before, found = _find_settled(path, backup, is_whole)
                old = found[-1].data if found else None
                new = change(old)
                if new is None or new == old:
                    return None
                if keeps_snapshot:
                    for each in found:
                        self._keep(path, each)
                if not write_atomically(path, new, if_still=partial(is_still, before)):
                    continue
                if backup is None or _stamp(backup) == before[1]:
                    return new
                # QuPath began to save between our last look and the rename
                _, found = _find_settled(path, backup, lambda _: not backup.exists())
                if found and found[-1].data == new:
                    raise ConcurrentChangeError(
                        path,
                        "QuPath saved this file at the very moment we did, and its save was lost.",
                        hint="Change something in QuPath and save the image once more, then run "
                        "the command again.",
                    )
        raise ConcurrentChangeError(
            path,
            "another program keeps saving this file while we try to change it.",
            hint=_CLOSE_HINT,
        )

    def restore(
        self,
        snapshot: Snapshot,
        *,
        backup: Path | None = None,
        is_whole: Callable[[bytes], bool] = lambda data: True,
    ) -> bytes | None:
        """Put a file back as it was; what is there now, damaged or not, becomes a snapshot.

        Parameters
        ----------
        backup, is_whole
            As for ``edit``: a save of QuPath's that is under way is waited for, and kept.

        Returns
        -------
        bytes or None
            What was written, ``None`` when that is there already.

        Raises
        ------
        FormatError
            When the snapshot was damaged after it was taken.
        """
        data = snapshot.read()
        return self.edit(snapshot.of, lambda _: data, backup=backup, is_whole=is_whole)

    def snapshots(self, path: Path) -> list[Snapshot]:
        """Return the snapshots of a file of the project, oldest first."""
        return snapshots_in(self._snapshot_folder(path), path)

    def files_with_snapshots(self) -> list[Path]:
        """Return every file of the project that has snapshots, by path."""
        return files_with_snapshots(self.house / "snapshots", self.folder)

    def _snapshot_folder(self, path: Path) -> Path:
        return self.house / "snapshots" / path.relative_to(self.folder).parent

    def _keep(self, path: Path, found: _Found) -> None:
        """Keep a snapshot of what ``path`` held, unless the newest one is just that."""
        kept, digest = self.snapshots(path), digest_of(found.data)
        if kept and (kept[-1].digest, kept[-1].size) == (digest, len(found.data)):
            return
        # numbered, because clocks are set back
        name = snapshot_name(kept[-1].number + 1 if kept else 1, digest, path.name)
        copy = self._snapshot_folder(path) / name
        write_atomically(copy, found.data)
        with contextlib.suppress(OSError):
            os.utime(copy, ns=(found.saved_ns, found.saved_ns))
            self._thin(path, len(found.data))

    def _thin(self, path: Path, added: int) -> None:
        for outdated in superfluous(self.snapshots(path), KEPT_SNAPSHOTS):
            outdated.path.unlink(missing_ok=True)
        if self._snapshot_room is not None:
            self._snapshot_room -= added
            if self._snapshot_room >= 0:
                return
        files = [self.snapshots(each) for each in self.files_with_snapshots()]
        total = sum(each.size for snapshots in files for each in snapshots)
        for outdated in superfluous_together(files, SNAPSHOT_BYTES):
            outdated.path.unlink(missing_ok=True)
            total -= outdated.size
        # looking at thousands of folders takes its time: not again for every write
        self._snapshot_room = max(SNAPSHOT_BYTES - total, SNAPSHOT_BYTES // 20)


_Stamp = tuple[int, int, int] | None


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class _Found:
    """The bytes of a file, and when they were saved, in ns since 1970."""

    data: bytes
    saved_ns: int


def _find(path: Path) -> _Found | None:
    try:
        with path.open("rb", buffering=0) as file:
            return _Found(file.readall(), os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None


def _find_settled(
    path: Path, backup: Path | None, is_whole: Callable[[bytes], bool]
) -> tuple[list[_Stamp], list[_Found]]:
    """Read a file once nobody is writing it, or QuPath's backup of it where a save broke off.

    Returns
    -------
    list, list
        The stamps of ``path`` and ``backup``, taken before reading, and what was found: last what
        holds, before it what a save left half-way.
    """
    started = quiet_since = time.monotonic()
    seen: list[_Stamp] = []
    while True:
        stamps = [_stamp(each) for each in (path, backup) if each]
        found = _find(path)
        if found is None and not any(stamps[1:]):
            return stamps, []
        if found is not None and is_whole(found.data):
            return stamps, [found]
        now = time.monotonic()
        if stamps != seen:
            seen, quiet_since = stamps, now
        if now - quiet_since > QUIET_S:
            break
        if now - started > PATIENCE_S:
            raise ConcurrentChangeError(path, "QuPath does not finish saving it.", hint=_CLOSE_HINT)
        time.sleep(PAUSE_S)
    saved_before = _find(backup) if backup else None
    if saved_before is not None and (found is None or is_whole(saved_before.data)):
        return stamps, [each for each in (found, saved_before) if each]
    return stamps, [found] if found else []


def now_ms() -> int:
    """Return the time as QuPath's timestamps count it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
