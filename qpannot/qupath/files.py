"""Writes that leave the old file or the new one, never half of either.

Every change of a project goes through ``ProjectFiles``: under the project's lock, with a snapshot
of what was there, through a temporary file that is read back, synced and renamed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from qpannot.errors import ConcurrentChangeError, LockedError, ProjectError

HOUSE = "qpannot"
"""The folder inside a QuPath project that holds what is ours: ledger, snapshots, lock."""

KEPT_SNAPSHOTS = 20
"""Snapshots kept of one file: the oldest, and the newest of the others."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at ``path`` by ``data``, or leave it as it is.

    The bytes go to a temporary file beside it, are synced, read back and compared, and the file
    is renamed over the old one; the folder is synced as well where the system allows it.

    Raises
    ------
    ProjectError
        When the disk is full, the folder cannot be written, or the bytes read back differ. The
        old file is untouched then.
    """
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
        before_replace: Callable[[], None] | None = None,
    ) -> bytes | None:
        """Change one file of the project safely.

        Parameters
        ----------
        path
            A file inside the project folder; need not exist yet.
        change
            Gets the bytes on disk (``None`` where there is no file) and returns the new ones, or
            ``None`` to leave the file alone. Called again when the file changed meanwhile.
        before_replace
            Called just before the new file takes its place, when all else has succeeded.

        Returns
        -------
        bytes or None
            What was written, ``None`` when nothing was.

        Raises
        ------
        ConcurrentChangeError
            When another program keeps changing the file between our read and our write.
        """
        with self.locked():
            for _ in range(3):
                stamp = _stamp(path)
                old = path.read_bytes() if stamp else None
                new = change(old)
                if new is None or new == old:
                    return None
                path.parent.mkdir(parents=True, exist_ok=True)
                if old is not None:
                    self._snapshot(path, old)
                if before_replace:
                    before_replace()
                if _stamp(path) != stamp:
                    continue
                write_atomically(path, new)
                return new
        raise ConcurrentChangeError(
            path,
            "another program keeps saving this file while we try to change it.",
            hint="Save and close the image in QuPath, then run the command again.",
        )

    def snapshots(self, path: Path) -> list[Path]:
        """Return the snapshots of a file of the project, oldest first."""
        return sorted(self._snapshot_folder(path).glob(f"*-{path.name}"))

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
        taken = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        write_atomically(folder / f"{taken}-{path.name}", data)
        kept = self.snapshots(path)
        excess = max(0, len(kept) - KEPT_SNAPSHOTS)
        for outdated in kept[1 : 1 + excess]:
            outdated.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def now_ms() -> int:
    """Return the time as QuPath's timestamps count it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
