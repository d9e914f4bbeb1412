"""What tells one slide's file from all others, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qpannot.errors import SlideError

_WHOLE_BYTES: Final = 4 << 20
"""A file no larger than this is read whole."""

_BLOCK_BYTES: Final = 16 << 10
_BLOCKS: Final = 32
"""Blocks read of larger files: half a megabyte of a slide of 3 GB."""


@dataclass(frozen=True)
class SlideFingerprint:
    """Tells whether a file is the slide that was seen before.

    Parameters
    ----------
    size_bytes
        Of the slide's own file.
    digest
        Of blocks sampled all over its files, and of their sizes. Names and places do not count.
    """

    size_bytes: int
    digest: str


def fingerprint_slide(path: Path) -> SlideFingerprint:
    """Return the fingerprint of a slide, which stays when it is moved, renamed or copied.

    At most half a megabyte is read of a large file. Of formats of several files (MRXS, VMS) the
    others count too; of DICOM the one file does, which holds IDs of its own.

    Raises
    ------
    SlideError
        When a file cannot be read.
    """
    try:
        real = path.resolve()
        files = [real, *_companions(real)]
        digest = hashlib.blake2b(digest_size=16)
        for file in files:
            _sample(file, max(2, _BLOCKS // len(files)), digest)
        return SlideFingerprint(real.stat().st_size, digest.hexdigest())
    except OSError as error:
        raise SlideError(
            path,
            f"cannot be read ({error.strerror or error}).",
            hint="Connect the drive it is on, or check who may read it.",
        ) from error


def _companions(path: Path) -> Sequence[Path]:
    """Return the other files of a slide, in an order that renaming the slide keeps."""
    suffix = path.suffix.lower()
    if suffix == ".mrxs" and (folder := path.with_suffix("")).is_dir():
        found = folder.iterdir()
    elif suffix in (".vms", ".vmu"):
        found = (each for each in path.parent.iterdir() if each.name.startswith(path.stem))
    else:
        return ()
    return sorted(each for each in found if each.is_file() and each != path)


def _sample(path: Path, blocks: int, digest: hashlib.blake2b) -> None:
    size = path.stat().st_size
    digest.update(size.to_bytes(8, "big"))
    with path.open("rb", buffering=0) as file:
        if size <= _WHOLE_BYTES:
            digest.update(file.readall())
            return
        for index in range(blocks):
            file.seek((size - _BLOCK_BYTES) * index // (blocks - 1))
            digest.update(file.read(_BLOCK_BYTES))
