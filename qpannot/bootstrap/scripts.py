"""The scripts for reviewing inside QuPath: what ships with qpannot, put into a project.

QuPath lists those in the project's ``scripts`` folder under *Automate > Project scripts*; what they
share lies in ``qpannot/scripts``. The last line of each is a digest of the others, so that a script
which a person changed is known, and stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from qpannot.bootstrap.ledger import Ledger
from qpannot.errors import ProjectError, QpannotError
from qpannot.qupath import Project
from qpannot.qupath.files import HOUSE, ProjectFiles, write_atomically
from qpannot.recipe import Recipe, workflows_folder

MENU = Path("scripts", "qpannot")
"""In a project: a folder here is a menu of its own in QuPath."""

SHARED = Path(HOUSE, "scripts")

HEATMAPS = "heatmaps.json"
"""In the ledger's folder: which heatmaps the scripts show."""

_LAST_LINE = (
    "// As it came with qpannot, digest {}. A script that was changed is never overwritten.\n"
)
_DIGEST = re.compile(re.escape(_LAST_LINE.strip()).replace(r"\{\}", "([0-9a-f]{16})"))


@dataclass(frozen=True)
class Script:
    """A script as it ships.

    Parameters
    ----------
    path
        Where it belongs, from the project's folder.
    text
        With the digest.
    """

    path: Path
    text: str

    @property
    def title(self) -> str:
        """What QuPath's menu calls it."""
        return self.path.stem.replace("_", " ")

    @property
    def about(self) -> str:
        """What it does, in a sentence: its first line."""
        return self.text.splitlines()[0].removeprefix("//").strip()


@dataclass(frozen=True)
class Installed:
    """What came of putting scripts into a project.

    Parameters
    ----------
    written
        Those that were written: new ones, and newer ones in place of older ones.
    left
        Those that a person changed, and that stay as they are.
    outdated
        Those of ``left`` that came with another version of qpannot.
    error
        Why the rest could not be written.
    """

    written: tuple[Path, ...] = ()
    left: tuple[Path, ...] = ()
    outdated: tuple[Path, ...] = ()
    error: QpannotError | None = None


def shipped_scripts() -> list[Script]:
    """Return every script that ships with qpannot, those of the menu first, in its order."""
    source = workflows_folder() / "qupath"
    places = ((source / "menu", MENU), (source / "shared", SHARED))
    return [
        Script(folder / path.name, _sealed(path.read_text(encoding="utf-8")))
        for kind, folder in places
        for path in sorted(kind.glob("*.groovy"))
    ]


def install_scripts(project: Project) -> Installed:
    """Put the scripts into a project; those a person changed stay as they are.

    Raises
    ------
    ProjectError
        When a file cannot be written.
    """
    return _install(project, shipped_scripts())


def keep_scripts(project: Project) -> Installed:
    """Put the scripts into a project that never had them, else bring those it has up to date.

    What a person deleted stays deleted. What cannot be written is told, not raised.
    """
    scripts = shipped_scripts()
    if (project.folder / SHARED).is_dir():
        scripts = [
            script
            for script in scripts
            if script.path.parent == SHARED or (project.folder / script.path).exists()
        ]
    try:
        return _install(project, scripts)
    except QpannotError as error:
        return Installed(error=error)


def show_heatmaps_of(ledger: Ledger, recipe: Recipe) -> None:
    """Tell the scripts which heatmaps to show: the kept model's, refined where something refines.

    Raises
    ------
    ProjectError
        When that cannot be written.
    """
    kept = (ledger.kept_refinement(), ledger.kept_model())
    folders = [name for name in kept if name]
    about = {"format": 1, "folders": folders, "rest": recipe.labels.rest}
    _write_new(ledger.house / HEATMAPS, json.dumps(about, ensure_ascii=False, indent=1) + "\n")


def _install(project: Project, scripts: list[Script]) -> Installed:
    written, left, outdated = [], [], []
    with ProjectFiles(project.folder).locked():
        for script in scripts:
            path = project.folder / script.path
            there = _read(path)
            if there is None or _is_as_shipped(there):
                if _write_new(path, script.text):
                    written.append(script.path)
                continue
            left.append(script.path)
            if _digest_in(there) != _digest_in(script.text):
                outdated.append(script.path)
    return Installed(tuple(written), tuple(left), tuple(outdated))


def _write_new(path: Path, text: str) -> bool:
    data = text.encode()
    is_new = not (path.is_file() and path.read_bytes() == data)
    return is_new and write_atomically(path, data)


def _read(path: Path) -> str | None:
    """Return what is there, with the ends of lines as they ship."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProjectError(path, f"cannot be read ({error.strerror or error}).") from error


def _sealed(text: str) -> str:
    return f"{text}\n{_LAST_LINE.format(_digest_of(text))}"


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def _digest_in(text: str) -> str | None:
    found = _DIGEST.search(text)
    return found[1] if found else None


def _is_as_shipped(text: str) -> bool:
    """Tell whether nobody changed a script since it came with this or another version."""
    if not (found := _DIGEST.search(text)):
        return False
    return not text[found.end() :].strip() and found[1] == _digest_of(text[: found.start()])
