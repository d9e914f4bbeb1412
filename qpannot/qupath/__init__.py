"""QuPath projects: images, annotations and classes, read and written safely.

``open_project`` is the way in; what it returns is described by ``Project`` and ``ProjectImage``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qpannot.errors import ProjectError, UsageError
from qpannot.qupath.annotation import (
    Annotation,
    Detection,
    ObjectKind,
    PathClass,
    PathObject,
    Plane,
    RoiType,
    TMACore,
)
from qpannot.qupath.builtin import BuiltinBackend
from qpannot.qupath.paquo import jvm
from qpannot.qupath.project import ProjectBackend, StoredProject
from qpannot.qupath.protocol import Fingerprint, ImageChanges, Mode, Project, ProjectImage
from qpannot.qupath.qpdata.datafile import as_stored
from qpannot.qupath.server import ImageSource

__all__ = [
    "Annotation",
    "Detection",
    "Fingerprint",
    "ImageChanges",
    "ImageSource",
    "ObjectKind",
    "PathClass",
    "PathObject",
    "Plane",
    "Project",
    "ProjectImage",
    "RoiType",
    "TMACore",
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
    if not found and path.is_dir() and (left := sorted(path.glob("*.qpproj.backup"))):
        return left[0].with_suffix("")  # gone; who reads it says how to get it back
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
        ``builtin`` needs no Java; ``paquo`` reads and writes with an installed QuPath (0.4 to
        0.7), which is started in this process; ``auto`` takes it where one is found and works,
        and ``builtin`` otherwise and in worker processes. It chooses when the first annotations
        are read or written: listing images needs neither.

    Raises
    ------
    ProjectError, FormatError
        When there is no project, or it cannot be understood.
    QpannotError
        When ``paquo`` is asked for and no QuPath works here.

    Examples
    --------
    >>> with open_project("study/project.qpproj") as project:  # doctest: +SKIP
    ...     for image in project.images:
    ...         print(image.name, len(image.annotations()))
    """
    if mode not in ("r", "r+", "x"):
        raise UsageError(f"mode must be 'r', 'r+' or 'x', not {mode!r}.")
    if backend not in ("auto", "builtin", "paquo"):
        raise UsageError(
            f"there is no backend {backend!r}.",
            hint="Use 'auto', 'builtin' (which needs no Java) or 'paquo'.",
        )
    path = Path(path).expanduser()
    if mode == "x":
        path = path if path.suffix == ".qpproj" else path / "project.qpproj"
    else:
        path = find_project(path)
    if backend == "paquo":
        jvm.start()
    choices = {"builtin": BuiltinBackend, "paquo": _qupath, "auto": _qupath_if_it_works}
    return StoredProject(path, mode, choices[backend])


def _qupath() -> ProjectBackend:
    from qpannot.qupath.paquo.project import QuPathBackend

    return QuPathBackend()


def _qupath_if_it_works() -> ProjectBackend:
    return _qupath() if jvm.is_wanted_by_auto() else BuiltinBackend()
