"""Folders searched for slides that moved: walked once, and only when that is needed."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

from qpannot.qupath.places import same_name


class Folders:
    """Where to search.

    Parameters
    ----------
    paths
        Folders, searched to their depths, and files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._sizes: dict[str, dict[int, list[Path]]] = {}

    @property
    def roots(self) -> list[Path]:
        """The folders themselves."""
        return [path for path in self._paths if path.is_dir()]

    def named(self, name: str) -> list[Path]:
        """Return the files of a name, as file systems that ignore case and accents' form see it."""
        return list(self._by_name.get(same_name(name), ()))

    def of_size(self, size_bytes: int, suffix: str, without: Collection[Path]) -> list[Path]:
        """Return the files with an ending that are so many bytes large, but for those known."""
        return [path for path in self._by_size(suffix).get(size_bytes, ()) if path not in without]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        by_name: dict[str, list[Path]] = {}
        seen: set[Path] = set()
        for root in self._paths:
            for path in _files_below(root):
                if path not in seen:
                    seen.add(path)
                    by_name.setdefault(same_name(path.name), []).append(path)
        return by_name

    def _by_size(self, suffix: str) -> dict[int, list[Path]]:
        suffix = suffix.lower()
        if suffix not in self._sizes:
            sizes: dict[int, list[Path]] = {}
            self._sizes[suffix] = sizes
            for paths in self._by_name.values():
                for path in paths:
                    if path.suffix.lower() == suffix and (size := _size_of(path)) is not None:
                        sizes.setdefault(size, []).append(path)
        return self._sizes[suffix]


def _files_below(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root]
    found = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        found += [Path(folder, name) for name in sorted(names)]
    return found


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # a link to nowhere
        return None
