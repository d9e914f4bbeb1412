"""Which QuPath is installed here: looked for where paquo looks, without importing it.

Source: paquo 0.9 ``jpype_backend.find_qupath`` and its ``.paquo.defaults.toml``.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qpannot.errors import QpannotError

VARIABLE: Final = "PAQUO_QUPATH_DIR"
SETTINGS_FILE: Final = ".paquo.toml"
FIRST_SUPPORTED: Final = (0, 4)
"""QuPath 0.4 brought object IDs and today's ``PathClass``."""

_DEFAULTS: Final[Mapping[str, Any]] = {
    "qupath_dir": "",
    "qupath_search_dirs": [
        "/opt",
        "/Applications",
        "c:/Program Files",
        "/usr/local",
        "~/Applications",
        "~/AppData/Local",
        "~",
    ],
    "qupath_search_dir_regex": "(?i)qupath.*",
    "qupath_search_conda": True,
    "qupath_prefer_conda": True,
}
_VERSION = re.compile(r"qupath(?:-core)?-v?(\d+\.\d+[\w.-]*?)\.jar", re.IGNORECASE)
# the program's folder of jars, and its Java, below a QuPath; as QuPath's installers lay it out
_LAYOUTS: Final = {
    "Darwin": ("Contents/app", "Contents/runtime/Contents/Home/lib/libjli.dylib"),
    "Windows": ("app", "runtime/bin/server/jvm.dll"),
}
_LINUX_LAYOUT: Final = ("lib/app", "lib/runtime/lib/server/libjvm.so")
_CONDA: Final = {"Darwin": "bin/QuPath.app", "Windows": "Library/QuPath"}


@dataclass(frozen=True)
class Installation:
    """A QuPath on this machine.

    Parameters
    ----------
    folder
        What ``PAQUO_QUPATH_DIR`` would name.
    version
        As its files are named; ``None`` where they do not tell.
    found_by
        What led to it: the variable, paquo's settings, or a search.
    """

    folder: Path
    version: str | None
    found_by: str

    @property
    def is_supported(self) -> bool:
        """Whether the paquo backend works with it, as far as its name tells."""
        return self.version is None or version_tuple(self.version) >= FIRST_SUPPORTED


def find_installation() -> Installation | None:
    """Return the QuPath that the paquo backend would use, ``None`` where none is found.

    ``PAQUO_QUPATH_DIR`` goes first, then ``qupath_dir`` of a ``.paquo.toml``, then a search of
    conda's environment and the folders QuPath is installed in; the newest by name in each.

    Raises
    ------
    QpannotError
        When the place that was named holds no QuPath.
    """
    if named := os.environ.get(VARIABLE):
        return _named(named, VARIABLE)
    settings = _settings()
    if settings["qupath_dir"]:
        return _named(str(settings["qupath_dir"]), f"qupath_dir in {SETTINGS_FILE}")
    for folder in _candidates(settings):
        if is_installation(folder):
            return Installation(folder, _version_of(folder), f"a search of {folder.parent}")
    return None


def is_installation(folder: Path) -> bool:
    """Tell whether a QuPath with its own Java lies in a folder."""
    jars, java = _LAYOUTS.get(platform.system(), _LINUX_LAYOUT)
    try:
        return (folder / jars).is_dir() and (folder / java).is_file()
    except OSError:
        return False


def _named(folder: str, by: str) -> Installation:
    path = Path(folder).expanduser()
    if not is_installation(path):
        jars, _ = _LAYOUTS.get(platform.system(), _LINUX_LAYOUT)
        raise QpannotError(
            f"{by} is {folder}, where no QuPath with its own Java is installed.",
            hint=f"Name the folder that holds {jars} and QuPath's runtime, or unset it; "
            "'qpannot qupath find' shows what is found then.",
        )
    return Installation(path, _version_of(path), by)


def _settings() -> Mapping[str, Any]:
    here = Path.cwd()
    asked = any(f"PAQUO_{key.upper()}" in os.environ for key in _DEFAULTS)
    if asked or any((folder / SETTINGS_FILE).is_file() for folder in (here, *here.parents)):
        return {**_DEFAULTS, **paquo_settings()}
    return _DEFAULTS


def paquo_settings() -> dict[str, Any]:
    """Return paquo's own settings, from its files and variables; starts no Java.

    Raises
    ------
    QpannotError
        When paquo is not installed, or a setting cannot be read.
    """
    try:
        from paquo._config import settings, to_kwargs

        return dict(to_kwargs(settings))
    except ImportError as error:
        raise QpannotError(
            f"paquo cannot be imported ({error}).", hint="pip install paquo"
        ) from error
    except (OSError, ValueError) as error:
        raise QpannotError(
            f"paquo's settings cannot be read ({error}).",
            hint=f"Mend {SETTINGS_FILE} and the variables that begin with PAQUO_.",
        ) from error


def _candidates(settings: Mapping[str, Any]) -> Iterator[Path]:
    searched = list(_searched(settings))
    prefix = os.environ.get("CONDA_PREFIX")
    if prefix and settings["qupath_search_conda"]:
        conda = Path(prefix) / _CONDA.get(platform.system(), "opt/QuPath")
        searched.insert(0 if settings["qupath_prefer_conda"] else len(searched), conda)
    yield from searched


def _searched(settings: Mapping[str, Any]) -> Iterator[Path]:
    wanted = re.compile(settings["qupath_search_dir_regex"] or "")
    roots = settings["qupath_search_dirs"]
    for root in [roots] if isinstance(roots, str) else roots:
        try:
            folders = [each for each in Path(root).expanduser().iterdir() if each.is_dir()]
        except (OSError, RuntimeError):  # not there, not ours to see, or nobody's home
            continue
        for folder in sorted(folders, key=lambda each: each.name.lower(), reverse=True):
            if wanted.match(folder.name):
                yield folder


def _version_of(folder: Path) -> str | None:
    jars, _ = _LAYOUTS.get(platform.system(), _LINUX_LAYOUT)
    found = (_VERSION.fullmatch(path.name) for path in sorted((folder / jars).glob("*.jar")))
    return next((match[1] for match in found if match), None)


def version_tuple(version: object) -> tuple[int, ...]:
    """Return the numbers of a version such as ``v0.6.0-rc1``, to compare by."""
    parts = str(version or "0").lstrip("v").split("-")[0].split(".")
    return tuple(int(part) for part in parts if part.isdecimal())
