"""What a machine has of what qpannot can use."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from qpannot.errors import QpannotError
from qpannot.qupath.paquo import jvm
from qpannot.qupath.paquo.installation import find_installation

LITTLE_DISK_GIB = 5
Verdict = Literal["ok", "absent", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Parameters
    ----------
    verdict
        ``ok``; ``absent``: something optional is missing; ``bad``: nothing works without it.
    found
        What is there, with its version.
    meaning
        What an absence means and what to do about it; empty where all is well.
    """

    what: str
    verdict: Verdict
    found: str
    meaning: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """Look at the machine, one thing after the other.

    Parameters
    ----------
    folder
        Where projects are kept, for the free space.
    """
    checks: list[Callable[[], Finding]] = [
        _python,
        _qupath,
        _backend,
        _openslide,
        _torch,
        _torchvision,
        _gpu,
        _openvino,
        _napari,
        lambda: _disk(folder),
    ]
    for check in checks:
        yield check()


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def _qupath() -> Finding:
    found_without = "Projects are read and written all the same. To correct annotations a person "
    found_without += "needs QuPath, here or elsewhere: https://qupath.github.io"
    try:
        found = find_installation()
    except QpannotError as error:
        return Finding("QuPath", "absent", error.message, found_without)
    if found is None:
        return Finding("QuPath", "absent", "not found here", found_without)
    version = found.version or "of an unknown version"
    return Finding("QuPath", "ok", f"{version} at {found.folder} ({found.found_by})")


def _backend() -> Finding:
    builtin = "builtin (pure Python, no Java; QuPath 0.2 to 0.7)"
    try:
        if find_installation() is None:
            return Finding("project backend", "ok", builtin)
        qupath = jvm.start()
    except QpannotError as error:
        return Finding("project backend", "absent", builtin, f"Not paquo: {error}")
    return Finding("project backend", "ok", f"paquo (QuPath {qupath.version}, started and works)")


def _openslide() -> Finding:
    try:
        import openslide
    except (ImportError, OSError) as error:
        return Finding(
            "OpenSlide", "bad", str(error), "No slide can be read. pip install openslide-bin"
        )
    return Finding("OpenSlide", "ok", f"{openslide.__library_version__}")


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "torch", "absent", str(error), "Round 1 works; no network can be trained or run."
        )
    return Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _torchvision() -> Finding:
    from qpannot.torchvision_import import import_torchvision

    try:
        found = import_torchvision()
    except (ImportError, RuntimeError, OSError) as error:
        return Finding(
            "torchvision",
            "absent",
            str(error).splitlines()[0],
            "Round 1 works; no network can be trained or run. Install the torchvision that "
            "matches torch: pip install --upgrade torch torchvision",
        )
    return Finding("torchvision", "ok", str(found.__version__))


def _gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError):
        return Finding("GPU", "absent", "not looked for without torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", ", ".join(names))
    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "Apple Metal")
    return Finding(
        "GPU", "absent", "none that torch can use", "Networks train on the CPU, many times slower."
    )


def _openvino() -> Finding:
    if importlib.util.find_spec("openvino") is None:
        return Finding(
            "OpenVINO",
            "absent",
            "not installed",
            "Networks run with torch, several times slower on a CPU. pip install openvino",
        )
    try:
        return Finding("OpenVINO", "ok", version("openvino"))
    except PackageNotFoundError:
        return Finding("OpenVINO", "ok", "installed")


def _napari() -> Finding:
    try:
        return Finding("napari", "ok", version("napari"))
    except PackageNotFoundError:
        return Finding(
            "napari",
            "absent",
            "not installed",
            "'qpannot review' does not work; correct proposals in QuPath, or "
            'pip install "qpannot[review]"',
        )


def _disk(folder: Path) -> Finding:
    try:
        free_gib = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        return Finding("disk", "bad", f"{folder}: {error.strerror or error}")
    found = f"{free_gib:,.1f} GiB free at {folder.resolve()}"
    if free_gib < LITTLE_DISK_GIB:
        return Finding(
            "disk",
            "absent",
            found,
            "Little space: snapshots, heatmaps and models of a large project may not fit.",
        )
    return Finding("disk", "ok", found)
