"""Demo slides on disk: what OpenSlide reads, what is true of them, and making them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from PIL import Image
from scipy import ndimage

from qpannot.demo import DemoSlide, make_demo_slides
from qpannot.demo.slides import averaged, mask_to_geometry
from qpannot.errors import UsageError

SIZE_PX = 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def slides(folder: Path) -> list[DemoSlide]:
    return make_demo_slides(folder, count=2, size_px=SIZE_PX)


def test_openslide_reads_every_level_and_the_scale(slides: list[DemoSlide]) -> None:
    with openslide.OpenSlide(slides[0].path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.level_dimensions == ((2048, 2048), (512, 512), (128, 128))
        assert float(slide.properties["openslide.mpp-x"]) == slides[0].mpp
        assert float(slide.properties["openslide.mpp-y"]) == slides[0].mpp
        assert float(slide.properties["openslide.objective-power"]) == 20
        assert "thumbnail" in slide.associated_images


def test_smaller_levels_are_averages_of_full_resolution(slides: list[DemoSlide]) -> None:
    with openslide.OpenSlide(slides[0].path) as slide:
        full = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
        for level, downsample in ((1, 4), (2, 16)):
            size = slide.level_dimensions[level]
            # In grey: JPEG halves the resolution of colour, at every level anew.
            there = np.asarray(slide.read_region((0, 0), level, size).convert("L"), float)
            expected = np.asarray(full.reduce(downsample).convert("L"), float)
            assert np.abs(there - expected).mean() < 2.5
            shifted = np.abs(np.roll(there, 1, axis=1) - expected).mean()
            assert shifted > 1.5 * np.abs(there - expected).mean()


def test_averaging_is_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    expected = pixels.reshape(128, 4, 128, 4, 3).mean((1, 3))
    assert np.abs(averaged(pixels, 4) - expected).max() <= 0.5


def test_the_tumour_outline_is_the_masks(slides: list[DemoSlide]) -> None:
    for slide in slides:
        mask = tifffile.imread(slide.mask_path)
        assert mask.shape == (SIZE_PX // 16, SIZE_PX // 16)
        assert set(np.unique(mask)) == {0, 1, 2}
        assert slide.tumour.is_valid
        assert slide.tumour.area == (mask == 2).sum() * 16**2
        assert 0.1 < (mask == 2).sum() / (mask > 0).sum() < 0.65


def test_a_grey_threshold_finds_the_stained_tissue_but_not_the_faint_piece(
    slides: list[DemoSlide],
) -> None:
    for slide in slides:
        mask = tifffile.imread(slide.mask_path)
        with openslide.OpenSlide(slide.path) as opened:
            small = opened.read_region((0, 0), 2, opened.level_dimensions[2]).convert("RGB")
        grey = ndimage.uniform_filter(np.asarray(small, float).mean(2), 3)
        found = ndimage.binary_fill_holes(grey < 200)
        overlap = (found & (mask > 0)).sum() / (found | (mask > 0)).sum()
        assert 0.6 < overlap < 0.98
        pieces, count = ndimage.label(mask > 0)
        missed = [1 - found[pieces == k].mean() for k in range(1, count + 1)]
        assert max(missed) > 0.8


def test_two_slides_are_of_one_patient_and_every_grade_occurs(tmp_path: Path) -> None:
    made = make_demo_slides(tmp_path, count=6, size_px=1024)
    patients = [slide.patient for slide in made]
    assert len(set(patients)) == 5
    assert {slide.grade for slide in made} == {"1", "2", "3"}
    grades = {(slide.patient, slide.grade) for slide in made}
    assert len(grades) == 5, "a patient has one grade"


def test_a_slide_depends_on_its_index_and_seed_alone(
    slides: list[DemoSlide], tmp_path: Path
) -> None:
    alone = make_demo_slides(tmp_path / "one", count=1, size_px=SIZE_PX)[0]
    assert alone.path.read_bytes() == slides[0].path.read_bytes()
    assert alone.mask_path.read_bytes() == slides[0].mask_path.read_bytes()
    other = make_demo_slides(tmp_path / "two", count=1, size_px=SIZE_PX, seed=1)[0]
    assert other.path.read_bytes() != slides[0].path.read_bytes()


def test_slides_made_by_several_processes_are_the_same(
    slides: list[DemoSlide], tmp_path: Path
) -> None:
    shown: list[DemoSlide] = []
    made = make_demo_slides(tmp_path, count=2, size_px=SIZE_PX, processes=2, progress=shown.append)
    assert [slide.name for slide in shown] == ["demo-01", "demo-02"]
    for one, other in zip(made, slides, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
        assert one.tumour.equals(other.tumour) and one.patient == other.patient


def test_an_error_in_another_process_comes_whole(tmp_path: Path) -> None:
    (tmp_path / "demo-02.svs").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is not the demo slide") as caught:
        make_demo_slides(tmp_path, count=3, size_px=1024, processes=2)
    assert caught.value.hint and "another folder" in caught.value.hint


def test_a_rerun_writes_nothing_that_is_there(slides: list[DemoSlide], folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again: list[DemoSlide] = []
    made = make_demo_slides(folder, count=2, size_px=SIZE_PX, progress=again.append)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert made == slides == again


def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    first = make_demo_slides(tmp_path, count=1, size_px=1024)[0]
    whole = first.path.read_bytes()
    first.path.unlink()
    (tmp_path / ".demo-01.svs.123.tmp").write_bytes(whole[:1000])
    again = make_demo_slides(tmp_path, count=1, size_px=1024)[0]
    assert again.path.read_bytes() == whole


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full_disk)
    with pytest.raises(Exception, match="No space left"):
        make_demo_slides(tmp_path, count=1, size_px=1024)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_these_slides_are_left_alone(
    slides: list[DemoSlide], folder: Path, tmp_path: Path
) -> None:
    before = slides[0].path.read_bytes()
    with pytest.raises(UsageError, match="another folder"):
        make_demo_slides(folder, count=1, size_px=SIZE_PX, seed=7)
    assert slides[0].path.read_bytes() == before
    mine = tmp_path / "demo-01.svs"
    mine.write_bytes(b"a slide of my own")
    with pytest.raises(UsageError, match="another folder"):
        make_demo_slides(tmp_path, count=1, size_px=1024)
    assert mine.read_bytes() == b"a slide of my own"


@pytest.mark.parametrize(
    ("count", "seed", "size_px"), [(0, 0, 1024), (1, -1, 1024), (1, 0, 1000), (1, 0, 512)]
)
def test_numbers_that_make_no_sense_are_refused(
    tmp_path: Path, count: int, seed: int, size_px: int
) -> None:
    with pytest.raises(UsageError):
        make_demo_slides(tmp_path / "new", count=count, seed=seed, size_px=size_px)
    assert not (tmp_path / "new").exists()


def test_outlines_keep_holes_and_corners() -> None:
    mask = np.ones((5, 6), bool)
    mask[2, 2:4] = False
    mask[4, 5] = False
    outline = mask_to_geometry(mask, 16)
    assert outline.is_valid
    assert outline.area == mask.sum() * 256
    assert list(outline.bounds) == [0, 0, 96, 80]
    assert not shapely.contains_xy(outline, 48, 40)
    assert mask_to_geometry(np.zeros((3, 3), bool), 16).is_empty


def test_the_thumbnail_shows_tissue_on_white_glass(slides: list[DemoSlide]) -> None:
    with openslide.OpenSlide(slides[0].path) as slide:
        thumbnail = slide.associated_images["thumbnail"].convert("RGB")
    mask = Image.fromarray(tifffile.imread(slides[0].mask_path)).resize(thumbnail.size)
    pixels, truth = np.asarray(thumbnail, float), np.asarray(mask)
    assert pixels[truth == 0].mean() > 232
    red, green, blue = pixels[truth == 2].mean(0)
    assert red > green
    assert blue > green


def test_dice_is_measured_against_the_known_tumour(slides: list[DemoSlide]) -> None:
    slide = slides[0]
    assert slide.dice(slide.tumour) == pytest.approx(1)
    assert slide.dice(shapely.Polygon()) == 0
    whole = shapely.box(0, 0, SIZE_PX, SIZE_PX)
    expected = 2 * slide.tumour.area / (slide.tumour.area + whole.area)
    assert slide.dice(whole) == pytest.approx(expected)
