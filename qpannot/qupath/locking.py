"""Who may write to a project now, and who it is that does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import socket
import sys
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from qpannot.errors import LockedError

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""How shares say that they cannot lock files (some FUSE and SMB mounts, NFS without lockd)."""


class ProjectLock:
    """The write lock of a project; may be taken again by the thread that holds it.

    The operating system lets go of it when its holder dies. On shares that cannot lock files the
    existence of ``<path>.held`` is the lock: one that a dead process of this computer left is
    taken over, one of another computer's has to be deleted by hand.

    While it is held, ``<path>.owner`` says by whom. It is found there by the next holder only
    where the last one was killed.

    Parameters
    ----------
    path
        The file that is locked; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marker = path.with_name(f"{path.name}.held")
        self._owner = path.with_name(f"{path.name}.owner")
        self._lock: BaseFileLock = FileLock(path, fallback_to_soft=False)

    @property
    def was_left(self) -> bool:
        """Whether its last holder was killed, unless it is held now."""
        return self._owner.exists()

    def acquire(self, timeout_s: float) -> bool:
        """Take the lock, waiting for another process if need be.

        Returns
        -------
        bool
            Whether the one who held it before was killed while it did.

        Raises
        ------
        LockedError
            When another process holds it for longer than ``timeout_s``; says which.
        OSError
            When the lock's folder cannot be written.
        """
        try:
            self._acquire(timeout_s)
        except Timeout:
            raise self._locked_error(timeout_s) from None
        if self._lock.lock_counter > 1:
            return False
        was_killed = self._owner.exists()
        with contextlib.suppress(OSError):  # it only informs, and the disk may be full
            self._owner.write_text(_this_process(), encoding="utf-8")
        return was_killed

    def _acquire(self, timeout_s: float) -> None:
        try:
            self._lock.acquire(timeout=timeout_s)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._lock = SoftFileLock(self._marker)
            self._lock.acquire(timeout=timeout_s)

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock.lock_counter == 1:
            with contextlib.suppress(OSError):
                self._owner.unlink(missing_ok=True)
        self._lock.release()

    def _locked_error(self, timeout_s: float) -> LockedError:
        hint = "Wait for it to finish, then run the command again; it goes on where it was."
        if isinstance(self._lock, SoftFileLock):
            hint += f" If it does not run any more, delete {self._marker}."
        return LockedError(
            self._path.parent.parent,
            f"{self.holder()} has been writing to the project for {timeout_s:.0f} s.",
            hint=hint,
        )

    def holder(self) -> str:
        """Return who holds it, in words, where somebody does."""
        try:
            owner = json.loads(self._owner.read_text(encoding="utf-8"))
            return (
                f"another process ('{owner['command']}', process {owner['pid']} on "
                f"{owner['host']}, since {owner['since']})"
            )
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


def _this_process() -> str:
    program = Path(sys.argv[0] if sys.argv else "")
    name = "qpannot" if program.name == "__main__.py" else program.name
    return json.dumps(
        {
            "command": shlex.join([name, *sys.argv[1:]]),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(" ", timespec="seconds"),
        }
    )
