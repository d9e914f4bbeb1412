"""QuPath projects: images, annotations and classes, read and written safely.

``open_project`` is the way in; what it returns is described by ``Project`` and ``ProjectImage``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qpannot.errors import ProjectError, UsageError
from qpannot.qupath.annotation import Annotation, PathClass, Plane, RoiType
from qpannot.qupath.builtin import BuiltinProject
from qpannot.qupath.protocol import Fingerprint, ImageChanges, Mode, Project, ProjectImage
from qpannot.qupath.qpdata import as_stored
from qpannot.qupath.server import ImageSource

__all__ = [
    "Annotation",
    "Fingerprint",
    "ImageChanges",
    "ImageSource",
    "PathClass",
    "Plane",
    "Project",
    "ProjectImage",
    "RoiType",
    "as_stored",
    "find_project",
    "open_project",
]

Backend = Literal["auto", "builtin", "paquo"]


def find_project(path: Path | str) -> Path:
    """Return the ``.qpproj`` file that ``path`` is or holds.

    Raises
    ------
    ProjectError
        When there is none, or more than one to choose from.
    """
    path = Path(path).expanduser()
    if path.suffix == ".qpproj":
        return path
    found = sorted(path.glob("*.qpproj")) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise ProjectError(path, f"holds several projects ({names}).", hint="Name the file.")
    raise ProjectError(
        path,
        "no QuPath project is there.",
        hint="Give a .qpproj file or the folder it lies in; "
        "'qpannot init SLIDES... -o FOLDER' makes a new project.",
    )


def open_project(path: Path | str, mode: Mode = "r", backend: Backend = "auto") -> Project:
    """Open a QuPath project.

    Parameters
    ----------
    path
        The ``.qpproj`` file or its folder. With ``mode="x"`` a new project is made there
        (``project.qpproj`` in a folder).
    mode
        ``r`` reads and changes no file, ``r+`` reads and writes, ``x`` makes a new project.
    backend
        ``builtin`` needs no Java; ``auto`` chooses.

    Raises
    ------
    ProjectError, FormatError
        When there is no project, or it cannot be understood.

    Examples
    --------
    >>> with open_project("study/project.qpproj") as project:  # doctest: +SKIP
    ...     for image in project.images:
    ...         print(image.name, len(image.annotations()))
    """
    if mode not in ("r", "r+", "x"):
        raise UsageError(f"mode must be 'r', 'r+' or 'x', not {mode!r}.")
    if backend == "paquo":
        raise UsageError(
            "the paquo backend is not part of this version.",
            hint="Use 'auto' or 'builtin': they read and write the same projects without Java.",
        )
    if backend not in ("auto", "builtin"):
        raise UsageError(
            f"there is no backend {backend!r}.", hint="Use 'auto' or 'builtin', which need no Java."
        )
    path = Path(path).expanduser()
    if mode == "x":
        return BuiltinProject(path if path.suffix == ".qpproj" else path / "project.qpproj", mode)
    return BuiltinProject(find_project(path), mode)
