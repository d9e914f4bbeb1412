"""Writes that leave the old file or the new one, never half of either.

Every change of a project goes through ``ProjectFiles``: under the project's lock, with a snapshot
of what was there, through a temporary file that is read back, synced and renamed.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from qpannot.errors import ConcurrentChangeError, LockedError, ProjectError

HOUSE = "qpannot"
"""The folder inside a QuPath project that holds what is ours: ledger, snapshots, lock."""

ATTEMPTS = 4
PAUSE_S = 0.5
"""How often a file that another program is saving is tried, and how long is waited in between."""

KEPT_SNAPSHOTS = 20
"""Snapshots kept of one file: the oldest, and the newest of the others."""


def write_atomically(
    path: Path, data: bytes, *, if_still: Callable[[], bool] = lambda: True
) -> bool:
    """Replace the file at ``path`` by ``data``, or leave it as it is.

    The bytes go to a temporary file beside it, are synced, read back and compared, and the file
    is renamed over the old one; the folder is synced as well where the system allows it. A link
    is followed, and stays.

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
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        if temporary.read_bytes() != data:
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
            hint="Check free space and permissions of the folder, then run the command again.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
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
        self._lock = FileLock(self.house / "lock")

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
            self._lock.acquire(timeout=self.timeout_s)
        except Timeout:
            raise LockedError(
                self.folder,
                f"another process has been writing to the project for {self.timeout_s:.0f} s.",
                hint="Wait for it to finish, then run the command again; it goes on where it was.",
            ) from None
        except OSError as error:
            raise ProjectError(
                self.folder,
                f"the project folder cannot be written ({error.strerror or error}).",
                hint="Check its permissions, or copy the project to a folder of your own.",
            ) from error
        try:
            yield
        finally:
            self._lock.release()

    def edit(
        self,
        path: Path,
        change: Callable[[bytes | None], bytes | None],
        *,
        backup: Path | None = None,
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
            does not, QuPath is given time to finish; if it never does, the save broke off, and
            the backup is what is changed.
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
        """
        watched = [path] if backup is None else [path, backup]

        def is_still(known: list[_Stamp]) -> bool:
            return [_stamp(each) for each in watched] == known

        with self.locked():
            self._remove_litter(path)
            for attempt in range(ATTEMPTS):
                before = [_stamp(each) for each in watched]
                found = [each for each, stamp in zip(watched, before, strict=True) if stamp]
                if found == [backup] and attempt < ATTEMPTS - 1:
                    time.sleep(PAUSE_S)
                    continue
                try:
                    old = found[0].read_bytes() if found else None
                except FileNotFoundError:
                    continue
                new = change(old)
                if new is None or new == old:
                    return None
                path.parent.mkdir(parents=True, exist_ok=True)
                if old is not None and keeps_snapshot:
                    self._snapshot(path, old)
                if write_atomically(path, new, if_still=partial(is_still, before)):
                    return new
        raise ConcurrentChangeError(
            path,
            "another program keeps saving this file while we try to change it.",
            hint="Save and close the image in QuPath, then run the command again.",
        )

    def _remove_litter(self, path: Path) -> None:
        for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            temporary.unlink(missing_ok=True)  # of a process that was killed: we hold the lock

    def snapshots(self, path: Path) -> list[Path]:
        """Return the snapshots of a file of the project, oldest first."""
        return sorted(self._snapshot_folder(path).glob(f"*-{glob.escape(path.name)}"))

    def _snapshot_folder(self, path: Path) -> Path:
        return self.house / "snapshots" / path.relative_to(self.folder).parent

    def _snapshot(self, path: Path, data: bytes) -> None:
        folder = self._snapshot_folder(path)
        earlier = self.snapshots(path)
        if earlier and earlier[-1].read_bytes() == data:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProjectError(
                folder, f"no snapshot can be kept ({error.strerror or error}); nothing was changed."
            ) from error
        # numbered, because clocks are set back
        number = int(earlier[-1].name.split("-")[0]) + 1 if earlier else 1
        taken = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        write_atomically(folder / f"{number:06d}-{taken}-{path.name}", data)
        kept = self.snapshots(path)
        excess = max(0, len(kept) - KEPT_SNAPSHOTS)
        for outdated in kept[1 : 1 + excess]:
            outdated.unlink(missing_ok=True)


_Stamp = tuple[int, int, int] | None


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def now_ms() -> int:
    """Return the time as QuPath's timestamps count it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
