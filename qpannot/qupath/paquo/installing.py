"""Fetching a QuPath, by paquo's own downloader, into a folder where it is found again."""

from __future__ import annotations

import contextlib
import io
import lzma
import platform
import re
import socket
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError

from qpannot.errors import QpannotError, UsageError
from qpannot.qupath.paquo.installation import (
    FIRST_SUPPORTED,
    VARIABLE,
    Installation,
    is_installation,
    version_tuple,
)

DEFAULT_VERSION: Final = "0.6.0"
RELEASES: Final = "https://github.com/qupath/qupath/releases"
_CONNECTING_TIMEOUT_S: Final = 15.0
_RELEASE = re.compile(r"v?(\d+\.\d+\.\d+(?:-rc\d+)?)")


def default_folder() -> Path:
    """Return the folder of one's own that is searched for a QuPath."""
    home = Path.home()
    places = {"Darwin": home / "Applications", "Windows": home / "AppData/Local"}
    return places.get(platform.system(), home)


def install(
    version: str, folder: Path, *, each: Callable[[int], None] = lambda n_bytes: None
) -> Installation:
    """Download a QuPath and unpack it; one that is there already is left as it is.

    Parameters
    ----------
    version
        Such as ``"0.6.0"``.
    folder
        Where the folder ``QuPath-<version>`` shall lie.
    each
        Called as the download goes on with how many bytes there are.

    Raises
    ------
    UsageError
        When there can be no such version, or the paquo backend does not work with it.
    QpannotError
        When it cannot be downloaded or unpacked; says how to do it by hand.
    """
    release = _RELEASE.fullmatch(version)
    if not release or version_tuple(release[1]) < FIRST_SUPPORTED:
        raise UsageError(
            f"there is no QuPath {version} that can be used.",
            hint=f"Give a version such as {DEFAULT_VERSION}, 0.4.0 or newer: {RELEASES}",
        )
    name = f"QuPath-{release[1]}"
    place = folder / (f"{name}.app" if platform.system() == "Darwin" else name)
    if not is_installation(place):
        if place.exists():
            raise QpannotError(
                f"{place}: there is something else than a QuPath with its own Java.",
                hint="Move it away, or choose another --folder.",
            )
        _fetch(release[1], folder, place, each)
    return Installation(place, release[1], "its installation")


def _fetch(version: str, folder: Path, place: Path, each: Callable[[int], None]) -> None:
    from paquo._utils import download_qupath, extract_qupath

    asked: list[str] = []

    def counted(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
        asked.append(name)
        n_bytes = 0
        for chunk in chunks:
            n_bytes += len(chunk)
            each(n_bytes)
            yield chunk

    unpacked = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # not to the folder of the next try: what a broken download leaves is taken for whole
        with (
            tempfile.TemporaryDirectory(prefix=".qupath-", dir=folder) as downloads,
            contextlib.redirect_stderr(io.StringIO()),
            _connecting_in(_CONNECTING_TIMEOUT_S),
        ):
            archive = download_qupath(version, downloads, callback=counted)
            unpacked = True
            extract_qupath(archive, str(folder))
    except HTTPError as error:
        raise _by_hand(f"QuPath {version} is not offered ({error})", version, place) from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        what = "unpacked" if unpacked else "downloaded"
        reason = error.reason if isinstance(error, URLError) else error
        raise _by_hand(f"QuPath {version} cannot be {what} ({reason})", version, place) from error
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise _by_hand(f"QuPath {version} cannot be unpacked ({error})", version, place) from error
    if not is_installation(place):
        raise _by_hand(f"QuPath {version} has no Java of its own at {place}", version, place)


def _by_hand(reason: str, version: str, place: Path) -> QpannotError:
    return QpannotError(
        f"{reason}.",
        hint=f"Without a connection: download {RELEASES}/tag/v{version} on another computer, "
        f"unpack it to {place}, or anywhere and set {VARIABLE} to that folder. "
        "Projects are read and written without QuPath all the same.",
    )


@contextlib.contextmanager
def _connecting_in(timeout_s: float) -> Iterator[None]:
    """Let connections that paquo opens without a timeout fail after a while."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
