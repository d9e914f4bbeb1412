"""Places of slides as text, of whichever system: what a share or drive that was renamed changes.

A place is spelt with forward slashes and nothing encoded: ``/mnt/a/1.svs``, ``C:/a/1.svs``,
``//server/share/1.svs``. The other system need not be reachable, or be the one this runs on.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from qpannot.errors import UsageError

_DRIVE = re.compile(r"/*([A-Za-z]:)(?=/|$)")
# RFC 2396's host, which Java's URIs keep to: others it writes into the path
_HOST = re.compile(r"([A-Za-z0-9-]+\.)*[A-Za-z][A-Za-z0-9-]*|\d+(\.\d+){3}")


def place_from_uri(uri: str) -> str | None:
    r"""Return the place that a URI or path means; ``None`` for anything but files.

    ``file:/a``, ``file:///C:/a``, ``file://server/share``, ``file:////server/share``, ``C:\a``
    and ``\\server\share`` are understood.
    """
    if "\\" in uri and (uri.startswith("\\\\") or uri[1:2] == ":"):
        text = uri.replace("\\", "/")
    elif uri.lower().startswith("file:"):
        try:
            parts = urlsplit(uri)
        except ValueError:
            return None
        path = unquote(parts.path, errors="surrogateescape")
        text = f"//{parts.netloc}/{path.lstrip('/')}" if parts.netloc else path
    elif "://" in uri or not uri:
        return None
    else:
        text = uri
    if drive := _DRIVE.match(text):
        text = drive[1] + text[drive.end() :]
    root = "//" if text.startswith("//") else "/" if text.startswith("/") else ""
    return root + "/".join(part for part in text.split("/") if part)


def uri_from_place(place: str) -> str:
    """Return the URI of a place, as Java's ``Path.toUri`` spells it on its own system."""
    if _DRIVE.match(place):
        return f"file:///{place[:2]}{_quoted(place[2:])}"
    if not place.startswith("//"):
        return f"file://{_quoted(place)}"
    host, _, rest = place[2:].partition("/")
    if _HOST.fullmatch(host):
        return f"file://{host}/{_quoted(rest)}"
    return f"file:////{_quoted(host)}/{_quoted(rest)}"


def _quoted(text: str) -> str:
    return quote(text, errors="surrogateescape")


def path_of_place(place: str) -> PurePath:
    """Return a place as a path: of this machine, or of Windows where only Windows has such."""
    is_windows = place.startswith("//") or _DRIVE.match(place)
    return PureWindowsPath(place) if is_windows else Path(place)


def same_name(name: str) -> str:
    """Return what names have in common that some file systems take for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _root_and_parts(place: str) -> tuple[str, list[str]]:
    """Return where a place begins, which is never renamed by halves, and its parts."""
    if place.startswith("//"):
        return "//", place[2:].split("/")
    if place.startswith("/"):
        return "/", [part for part in place[1:].split("/") if part]
    return "", place.split("/")


def parts_of(place: str) -> list[str]:
    """Return the names a place is made of, the file's last."""
    return _root_and_parts(place)[1]


@dataclass(frozen=True)
class PlaceChange:
    """Everything below one place is below another now.

    Parameters
    ----------
    old, new
        Places: of a share, a drive, a folder, or of one file.
    """

    old: str
    new: str

    @classmethod
    def of(cls, old: str, new: str) -> Self:
        """Return the change between two folders as people write them: paths, shares or URIs.

        Raises
        ------
        UsageError
            When one is no absolute path.
        """
        places = []
        for text in (old, new):
            place = place_from_uri(text)
            if place is None or not (place.startswith("/") or _DRIVE.match(place)):
                raise UsageError(
                    f"{text!r} is no absolute path.",
                    hint=r"Give both as paths or URIs: /mnt/a, C:\slides, //server/share.",
                )
            places.append(place)
        return cls(*places)

    @classmethod
    def between(cls, old: str, new: str) -> Self | None:
        """Return the most general change that takes one file's place to the other.

        ``None`` when not even the file names agree.
        """
        old_root, old_parts = _root_and_parts(old)
        new_root, new_parts = _root_and_parts(new)
        same = 0
        while same < min(len(old_parts), len(new_parts)) - 1 and same_name(
            old_parts[-1 - same]
        ) == same_name(new_parts[-1 - same]):
            same += 1
        if not same:
            return None
        return cls(old_root + "/".join(old_parts[:-same]), new_root + "/".join(new_parts[:-same]))

    def apply(self, place: str) -> str | None:
        """Return where a place is now; ``None`` when it is not below the old one.

        Names count as Windows compares them on its drives and shares, else letter by letter.
        """
        root, parts = _root_and_parts(place)
        old_root, old_parts = _root_and_parts(self.old)
        loose = old_root == "//" or bool(_DRIVE.match(self.old))
        head = parts[: len(old_parts)]
        if root != old_root or _compared(head, loose) != _compared(old_parts, loose):
            return None
        return "/".join([self.new.rstrip("/"), *parts[len(old_parts) :]])


def _compared(parts: list[str], loose: bool) -> list[str]:
    normal = [unicodedata.normalize("NFC", part) for part in parts]
    return [part.casefold() for part in normal] if loose else normal
