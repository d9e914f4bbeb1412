"""Real things to test on: slides and projects on disk, made here or found where present."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import tifffile

from qpannot.linking import describe_slide
from qpannot.qupath import open_project

# No test is timed: machines are noisy, and speed is for benchmarks. The same examples each time, so
# that a run says something of the change; to hunt for others: pytest --hypothesis-profile=hunt
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.register_profile("hunt", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile("suite")

SHARED_DATA = Path(
    os.environ.get("QPANNOT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides and QuPath projects, which is no part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no test data at {SHARED_DATA}; set QPANNOT_TEST_DATA to a folder that has it")
    return SHARED_DATA


def write_slide(
    path: Path,
    *,
    size: tuple[int, int] = (2048, 1536),
    mpp: float | None = 0.5,
    tissue: bool = True,
) -> Path:
    """Write a small pyramidal slide that OpenSlide and QuPath open, with one piece of tissue.

    The tissue is an ellipse around the middle, half as wide and high as the slide.
    """
    width, height = size
    y, x = np.mgrid[:height, :width]
    level = np.full((height, width, 3), 244, np.uint8)
    if tissue:
        inside = (4 * x / width - 2) ** 2 + (4 * y / height - 2) ** 2 < 1
        level[inside] = (170, 90, 160)
    magnification = "" if mpp is None else f"|AppMag = {10 / mpp:g}|MPP = {mpp:g}"
    description = f"Aperio Image Library v12\r\n{width}x{height}{magnification}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for downsample in (1, 4):
            pixels = level[::downsample, ::downsample]
            tiff.write(
                np.ascontiguousarray(pixels),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90},
                description=description,
                metadata=None,
                subfiletype=0,
            )
    return path


@pytest.fixture
def make_slide() -> Callable[..., Path]:
    """Write a small pyramidal slide; see ``write_slide``."""
    return write_slide


@pytest.fixture
def slide_file(tmp_path: Path) -> Path:
    """A small slide with one piece of tissue, at 0.5 mpp."""
    return write_slide(tmp_path / "slides" / "one.svs")


@pytest.fixture
def project_folder(tmp_path: Path, slide_file: Path) -> Path:
    """The folder of a project of three slides: two with tissue, one without any."""
    write_slide(slide_file.with_name("two.svs"), size=(1536, 2048))
    write_slide(slide_file.with_name("glass.svs"), tissue=False)
    with open_project(tmp_path / "study", "x") as project:
        names = ("one.svs", "two.svs", "glass.svs")
        project.add_images([describe_slide(slide_file.with_name(name)) for name in names])
    return tmp_path / "study"


def _files_below(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file of a folder with its time and bytes, to see whether anything changed."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def files_below() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """What lies in a folder, byte for byte and to the nanosecond."""
    return _files_below
