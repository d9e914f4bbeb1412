"""Snapshots: files of a project as they were before a write.

    qpannot/snapshots/data/3/000002-20260131T094512Z.5f0c2a9be1d47703-data.qpdata

is the second of image 3's data, put there when the file was replaced, with the digest of its
bytes. Its modification time is that of the file it is a copy of.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from qpannot.errors import FormatError, ProjectError

_NAME = re.compile(r"(\d{6,})-(\d{8}T\d{6}Z)(?:\.([0-9a-f]{16}))?-(.+)")
_TIME = "%Y%m%dT%H%M%SZ"

NEWEST = 10
"""How many of a file's newest snapshots are kept before any older one."""


@dataclass(frozen=True)
class Snapshot:
    """A file of the project as it was.

    Parameters
    ----------
    number
        Counts the snapshots of one file, from 1. Numbers are not used again.
    of
        The file it is a snapshot of.
    path
        Where it lies.
    taken
        When the file was replaced, UTC.
    saved
        When the file had been written, UTC.
    size
        Bytes.
    digest
        Of its bytes; ``None`` where none was kept.
    """

    number: int
    of: Path
    path: Path
    taken: datetime
    saved: datetime
    size: int
    digest: str | None

    def read(self) -> bytes:
        """Return the bytes of the file as it was.

        Raises
        ------
        ProjectError
            When the snapshot cannot be read.
        FormatError
            When its bytes are no longer those that were kept.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ProjectError(
                self.path,
                f"the snapshot cannot be read ({error.strerror or error}).",
                hint="Choose another one; 'qpannot snapshots' lists them.",
            ) from error
        if self.digest not in (None, digest_of(data)):
            raise FormatError(
                self.path,
                "the snapshot was damaged after it was taken.",
                hint="Choose another one; 'qpannot snapshots' lists them.",
            )
        return data


def digest_of(data: bytes) -> str:
    """Return the digest by which snapshots are told apart."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def snapshot_name(number: int, digest: str, name: str) -> str:
    """Return what the snapshot of a file of this name, taken now, is called."""
    return f"{number:06d}-{datetime.now(UTC).strftime(_TIME)}.{digest}-{name}"


def snapshots_in(folder: Path, of: Path) -> list[Snapshot]:
    """Return the snapshots of a file that lie in a folder, oldest first."""
    found = (_snapshot(path, of) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted((each for each in found if each), key=lambda each: each.number)


def _snapshot(path: Path, of: Path) -> Snapshot | None:
    parts = _NAME.fullmatch(path.name)
    if parts is None or parts[4] != of.name:
        return None
    try:
        status = path.stat()
        taken = datetime.fromisoformat(parts[2])
    except (FileNotFoundError, ValueError):  # another process dropped it; no time at all
        return None
    saved = datetime.fromtimestamp(status.st_mtime, UTC)
    return Snapshot(int(parts[1]), of, path, taken, saved, status.st_size, parts[3])


def files_with_snapshots(folder: Path, project_folder: Path) -> list[Path]:
    """Return every file of a project that has snapshots below ``folder``."""
    files = {
        project_folder / path.parent.relative_to(folder) / parts[4]
        for path in folder.rglob("*")
        if (parts := _NAME.fullmatch(path.name))
    }
    return sorted(files)


def superfluous(snapshots: Sequence[Snapshot], kept: int) -> list[Snapshot]:
    """Return which of a file's snapshots may go, so that no more than ``kept`` are left.

    The first and the newest stay. Of those in between the closest in time to their neighbours go,
    so that the many writes of one run do not crowd out what was there last week.
    """
    left = list(snapshots)
    gone = []
    newest = min(NEWEST, kept - 1)
    while len(left) > kept:
        between = range(1, max(2, len(left) - newest))
        closest = min(between, key=lambda i: left[i + 1].taken - left[i - 1].taken)
        gone.append(left.pop(closest))
    return gone


def superfluous_together(files: Sequence[Sequence[Snapshot]], limit_bytes: int) -> list[Snapshot]:
    """Return which snapshots of all files may go, so that they fit into ``limit_bytes`` together.

    The first and the newest of each file stay, even where these alone are more. Of the others the
    oldest go.
    """
    excess = sum(each.size for snapshots in files for each in snapshots) - limit_bytes
    between = [each for snapshots in files for each in snapshots[1:-1]]
    gone = []
    for each in sorted(between, key=lambda each: each.taken):
        if excess <= 0:
            break
        gone.append(each)
        excess -= each.size
    return gone
