"""Real things to test on: slides and projects on disk, made here or found where present."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
import shapely
import tifffile

from qpannot.linking import describe_slide
from qpannot.qupath import Project, open_project
from qpannot.qupath.proposals import is_untouched
from qpannot.qupath.protocol import Mode

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process for each core is enough

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


@pytest.fixture(scope="session")
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


TINY = """\
name: tiny
extends: quick
tissue: {requested_pixel_size_um: 8, min_area_um2: 10000}
round: {slides: null, train_after: 2}
patches: {size_px: 32, mpp: 1}
network: {encoder: test_resnet, weights: null, hidden_units: 16, dropout: 0}
augmentation: {brightness: [0.95, 1.05]}
training:
  learning_rate: 0.01
  batch_size: 16
  train_batches: 12
  validation_batches: 2
  epochs: 3
  workers: 0
outlines: {min_area_um2: 3000, min_hole_area_um2: 3000, simplify_um: 2}
"""
"""A recipe that learns to tell two textures in a second."""

TISSUE = (64, 64, 704, 448)
"""Of every textured slide: left, top, right and bottom in pixels."""


def write_textures(path: Path, tumor_from: int, seed: int) -> Path:
    """Write a slide at 1 mpp: a piece of tissue on glass, of noise, and of stripes further right.

    Parameters
    ----------
    tumor_from
        The column where the stripes begin, which are its tumour.
    """
    rng = np.random.default_rng(seed)
    level = np.full((512, 768), 244, np.uint8)
    left, top, right, bottom = TISSUE
    level[top:bottom, left:right] = rng.integers(70, 170, (bottom - top, right - left))
    stripes = 90 + 60 * (np.arange(tumor_from, right) // 4 % 2)
    level[top:bottom, tumor_from:right] = stripes + level[top:bottom, tumor_from:right] // 8
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            np.stack([level] * 3, axis=2),
            tile=(128, 128),
            photometric="rgb",
            resolution=(10_000, 10_000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    return path


@dataclass(frozen=True)
class Study:
    """A project of textured slides, and what is tumour on them.

    Parameters
    ----------
    recipe
        A recipe file that suits them.
    truth
        By the name of the image.
    """

    project: Path
    recipe: Path
    truth: Mapping[str, shapely.Polygon]

    def correct(self, names: Collection[str], *, lose: float = 0) -> None:
        """Give proposals the true outline, as a person does in QuPath, and delete what is too much.

        Parameters
        ----------
        lose
            So many pixels are lost along the outline.
        """
        with open_project(self.project, "r+") as project:
            for image in project.images:
                if image.name not in names:
                    continue
                first, *others = (each for each in image.annotations() if is_untouched(each))
                drawn = first.with_changes(geometry=self.truth[image.name].buffer(-lose))
                image.write_annotations(replace=[(first, drawn)], remove=others)

    @property
    def slides(self) -> Path:
        return self.recipe.parent

    def copied(self, folder: Path, *, with_slides: bool = False) -> Study:
        """Return the same project in another folder.

        Parameters
        ----------
        with_slides
            Whether it gets slides of its own, beside it, that can be spoilt.
        """
        shutil.copytree(self.project, folder)
        if not with_slides:
            return Study(folder, self.recipe, self.truth)
        for path in self.slides.glob("*.*"):
            shutil.copy(path, folder.parent / path.name)
        for path in [*folder.glob("*.qpproj"), *folder.glob("data/*/*.json")]:
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(self.slides.as_uri(), folder.parent.as_uri()))
        return Study(folder, folder.parent / self.recipe.name, self.truth)

    def open(self, mode: Mode = "r") -> Project:
        return open_project(self.project, mode)

    def data(self) -> dict[str, bytes]:
        """Return the annotations of each image, as they lie on disk, by its name."""
        with self.open() as project:
            files = {image.name: self.project / "data" / image.id for image in project.images}
        return {name: (folder / "data.qpdata").read_bytes() for name, folder in files.items()}

    def add_slides(self, tumor_from: Mapping[str, int], folder: Path) -> None:
        """Add new slides, their tumours beginning at these columns."""
        made = [
            write_textures(folder / name, column, seed=100 + column)
            for name, column in tumor_from.items()
        ]
        with self.open("r+") as project:
            project.add_images([describe_slide(path) for path in made])


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


def run_here(*arguments: object) -> Said:
    """Run ``qpannot`` in this process, which has torch loaded, as ``python -m qpannot`` runs it."""
    from qpannot.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["qpannot", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"NO_COLOR": "1", "COLUMNS": "200"}),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
        raise SystemExit(0)
    code = ended.value.code
    return Said(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def here() -> Callable[..., Said]:
    """Run the command line in this process."""
    return run_here


@pytest.fixture(scope="session")
def proposed_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Eight textured slides, a to h, after the first round. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("study")
    truth = {}
    for seed, name in enumerate("abcdefgh"):
        tumor_from = 288 + 32 * (seed % 4)
        write_textures(folder / f"{name}.tif", tumor_from, seed)
        truth[f"{name}.tif"] = shapely.box(tumor_from, *TISSUE[1:])
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    study = Study(folder / "study", folder / "tiny.yaml", truth)
    with study.open("x") as project:
        project.add_images([describe_slide(folder / name) for name in truth])
    ended = run_here("bootstrap", study.project, "--recipe", study.recipe)
    assert ended.code == 0, ended.err
    return study


@pytest.fixture(scope="session")
def reviewed_study(proposed_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same after a person corrected a to e. To be copied, not changed."""
    study = proposed_study.copied(tmp_path_factory.mktemp("reviewed") / "study")
    study.correct([f"{name}.tif" for name in "abcde"])
    return study


@pytest.fixture(scope="session")
def trained_study(reviewed_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same after the second round. To be copied, not changed."""
    study = reviewed_study.copied(tmp_path_factory.mktemp("trained") / "study")
    ended = run_here("bootstrap", study.project)
    assert ended.code == 0, ended.err
    return study
