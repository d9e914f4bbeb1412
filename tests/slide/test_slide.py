from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qpannot.errors import MissingMppError, MissingSlideError, SlideError
from qpannot.geometry import Mpp, Region, Size
from qpannot.slide import Level, Slide, open_slide

Image = NDArray[np.uint8]
Noise = Callable[..., Image]
WriteSlide = Callable[..., Path]


def everything(slide: Slide) -> Image:
    return slide.read_downsampled(Region(0, 0, slide.size.width, slide.size.height), 1)


@pytest.fixture
def pixels(noise: Noise) -> Image:
    return noise(700, 500)


@pytest.fixture
def svs(write_svs: WriteSlide, pixels: Image) -> Path:
    return write_svs(pixels)


def test_a_scanner_slide_says_its_size_levels_and_resolution(svs: Path) -> None:
    with open_slide(svs) as slide:
        assert slide.path == svs
        assert slide.size == Size(700, 500)
        assert [level.size for level in slide.levels] == [
            Size(700, 500),
            Size(175, 125),
            Size(43, 31),
        ]
        assert [level.downsample for level in slide.levels] == [1, 4, 16]
        assert slide.mpp == Mpp(0.5, 0.5)
        assert slide.magnification == slide.objective_power == 20
        assert (slide.format, slide.vendor) == ("openslide", "aperio")
        assert slide.tile_size == Size(64, 64)
        assert slide.is_rgb
        assert (slide.n_channels, slide.pixel_type) == (3, "UINT8")
        assert slide.bounds_origin == (0.0, 0.0)


def test_full_resolution_is_returned_pixel_for_pixel(svs: Path, pixels: Image) -> None:
    with open_slide(svs) as slide:
        assert np.array_equal(slide.read(Region(30, 40, 256, 256), 0.5), pixels[40:296, 30:286])


def test_a_coarse_read_comes_from_the_coarsest_level_that_is_fine_enough(
    write_tiff: WriteSlide,
) -> None:
    levels = [np.full((400 // d, 400 // d, 3), value, np.uint8) for d, value in [(1, 10), (4, 40)]]
    with open_slide(write_tiff(*levels)) as slide:
        region = Region(0, 0, 351, 351)
        assert slide.read_downsampled(region, 3.9).max() == 10
        assert slide.read_downsampled(region, 4).min() == 40
        assert slide.read_downsampled(region, 3.9999).min() == 40
        assert slide.read_downsampled(region, 9).min() == 40


@pytest.mark.parametrize(
    ("full", "coarse", "downsample"),
    [
        ((3000, 8230), (750, 2057), 4),
        ((3672, 115), (64, 2), (57.375 + 57.5) / 2),
        ((3672, 3672), (64, 64), 57.375),
        ((918, 918), (16, 16), 57.375),
        ((1000, 800), (300, 240), 10 / 3),
        ((300, 250), (37, 31), 8),
        ((700, 500), (43, 31), 16),
    ],
)
def test_a_levels_downsample_is_what_its_size_says(
    write_tiff: WriteSlide,
    full: tuple[int, int],
    coarse: tuple[int, int],
    downsample: float,
) -> None:
    levels = [np.zeros((h, w, 3), np.uint8) for w, h in (full, coarse)]
    with open_slide(write_tiff(*levels)) as slide:
        assert slide.levels[0] == Level(Size(*full), 1)
        assert slide.levels[1].size == Size(*coarse)
        assert slide.levels[1].downsample == pytest.approx(downsample)


def test_reads_do_not_drift_where_a_level_does_not_divide_the_slide(
    write_tiff: WriteSlide,
) -> None:
    scale, steps = 57.375, 64
    width = round(scale * steps)
    position = np.arange(width) / width * 250
    fine = np.repeat(np.rint(np.tile(position, (115, 1)))[..., None], 3, axis=2).astype(np.uint8)
    centres = (np.arange(steps) + 0.5) / steps * 250
    coarse = np.repeat(np.rint(np.tile(centres, (2, 1)))[..., None], 3, axis=2).astype(np.uint8)
    with open_slide(write_tiff(fine, coarse)) as slide:
        for x in (0.0, 1000.3, width - 350.7):
            read = slide.read_downsampled(Region(x, 0, 345, 69), 69)[0, :, 0]
            expected = (x + (np.arange(5) + 0.5) * 69) / width * 250
            np.testing.assert_allclose(read, expected, atol=1.5)


def test_pixels_are_exactly_a_downsample_apart_however_the_size_is_rounded(svs: Path) -> None:
    with open_slide(svs) as slide:
        whole = slide.read_downsampled(Region(0, 0, 700, 500), 1.37)
        assert whole.shape == (round(500 / 1.37), round(700 / 1.37), 3)
        odd = slide.read_downsampled(Region(137, 137, 100.2, 60.9), 1.37)
        assert odd.shape == (44, 73, 3)
        assert np.array_equal(odd, whole[100:144, 100:173])
        tiny = slide.read_downsampled(Region(137, 137, 0.1, 0.1), 1.37)
        assert np.array_equal(tiny, whole[100:101, 100:101])


def test_a_given_size_settles_the_rounding_but_not_the_scale(svs: Path) -> None:
    with open_slide(svs) as slide:
        region = Region(0, 0, 101, 101)
        assert slide.read_downsampled(region, 2, Size(51, 50)).shape == (50, 51, 3)
        with pytest.raises(ValueError, match="contradict"):
            slide.read_downsampled(region, 2, Size(101, 101))


@pytest.mark.parametrize("mpp", [0.5, 0.685, 2.0, 3.1])
def test_a_slide_read_in_tiles_equals_the_slide_read_whole(svs: Path, mpp: float) -> None:
    with open_slide(svs) as slide:
        side = 32 * mpp / 0.5
        whole = slide.read(Region(-5.5, -3.25, 5 * side, 4 * side), mpp)
        tiles = [
            [
                slide.read(Region(-5.5 + i * side, -3.25 + j * side, side, side), mpp)
                for i in range(5)
            ]
            for j in range(4)
        ]
        np.testing.assert_array_equal(np.block([[[t] for t in row] for row in tiles]), whole)


def test_what_is_outside_the_slide_is_white(svs: Path, pixels: Image) -> None:
    with open_slide(svs) as slide:
        read = slide.read_downsampled(Region(-10, 490, 30, 30), 1)
        expected = np.full((30, 30, 3), 255, np.uint8)
        expected[:10, 10:] = pixels[490:, :20]
        assert np.array_equal(read, expected)
        assert slide.read_downsampled(Region(5000, 5000, 64, 64), 2).min() == 255


def test_anisotropic_pixels_become_square(write_tiff: WriteSlide, noise: Noise) -> None:
    with open_slide(write_tiff(noise(200, 100)), mpp=Mpp(0.25, 0.5)) as slide:
        read = slide.read(Region(0, 0, 200, 100), 0.5)
        assert read.shape == (100, 100, 3)
        assert np.array_equal(
            read, slide.read_downsampled(Region(0, 0, 200, 100), (2, 1), Size(100, 100))
        )
        sideways = slide.rotated(1)
        assert sideways.mpp == Mpp(0.5, 0.25)
        assert np.array_equal(sideways.read(Region(0, 0, 100, 200), 0.5), np.rot90(read, -1))


def test_thumbnails_keep_the_aspect_and_are_never_enlarged(svs: Path, pixels: Image) -> None:
    with open_slide(svs) as slide:
        assert slide.thumbnail(Size(100, 100)).shape == (71, 100, 3)
        assert slide.thumbnail(Size(1000, 50)).shape == (50, 70, 3)
        assert np.array_equal(slide.thumbnail(Size(9000, 9000)), pixels)
        assert slide.thumbnail(Size(1, 1)).shape == (1, 1, 3)


def test_the_frame_begins_at_the_bounds_as_in_qupath(write_scn: WriteSlide, noise: Noise) -> None:
    scanned = noise(202, 150)
    path = write_scn(scanned, origin=(301, 202), full=(1000, 800))
    with open_slide(path) as slide:
        assert slide.size == Size(202, 150)
        assert slide.bounds_origin == (301.0, 202.0)
        assert [level.size for level in slide.levels] == [Size(202, 150), Size(50, 37)]
        assert np.array_equal(everything(slide), scanned)
        assert slide.read_downsampled(Region(-8, -8, 8, 8), 1).min() == 255
    with open_slide(path, crop_to_bounds=False) as slide:
        assert slide.size == Size(1000, 800)
        assert slide.bounds_origin == (0.0, 0.0)
        assert np.array_equal(slide.read_downsampled(Region(301, 202, 202, 150), 1), scanned)
        assert slide.read_downsampled(Region(0, 0, 301, 800), 1).min() == 255


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1, 5])
def test_turning_is_clockwise_as_in_qupath(svs: Path, pixels: Image, turns: int) -> None:
    with open_slide(svs) as slide:
        turned = slide.rotated(turns)
        expected = np.rot90(pixels, -turns)
        assert (turned.size.height, turned.size.width) == expected.shape[:2]
        assert turned.levels[1].size == (Size(125, 175) if turns % 2 else Size(175, 125))
        assert np.array_equal(everything(turned), expected)
        part = turned.read_downsampled(Region(20, 60, 100, 50), 1)
        assert np.array_equal(part, expected[60:110, 20:120])


def test_a_turned_grid_starts_at_its_own_corner(svs: Path) -> None:
    with open_slide(svs) as slide:
        turned = slide.rotated(2)
        whole = turned.read_downsampled(Region(0, 0, 700, 500), 1.37)
        part = turned.read_downsampled(Region(137, 137, 70.3, 42.9), 1.37)
        assert np.array_equal(part, whole[100 : 100 + len(part), 100 : 100 + part.shape[1]])


def test_crops_and_turns_nest(svs: Path, pixels: Image) -> None:
    with open_slide(svs) as slide:
        view = slide.cropped(Region(40, 60, 300, 200)).rotated(1).cropped(Region(10, 20, 90, 80))
        expected = np.rot90(pixels[60:260, 40:340], -1)[20:100, 10:100]
        assert view.size == Size(90, 80)
        assert np.array_equal(everything(view), expected)
        assert np.array_equal(everything(view.rotated(3)), np.rot90(expected, -3))
        assert view.read_downsampled(Region(90, 0, 10, 10), 1).min() == 255
        with pytest.raises(ValueError, match="reaches beyond"):
            view.cropped(Region(0, 0, 91, 80))


def test_a_missing_pixel_size_is_asked_for_by_name(write_tiff: WriteSlide, noise: Noise) -> None:
    path = write_tiff(noise(100, 100))
    with open_slide(path) as slide:
        assert slide.mpp_or_none is None
        assert slide.magnification is None
        with pytest.raises(MissingMppError, match=r"slide\.tif[\s\S]*--mpp"):
            slide.read(Region(0, 0, 10, 10), 0.5)
        assert slide.read_downsampled(Region(0, 0, 10, 10), 1).shape == (10, 10, 3)
    with open_slide(path, mpp=Mpp.square(0.25)) as slide:
        assert slide.magnification == 40
        assert slide.read(Region(0, 0, 10, 10), 0.5).shape == (5, 5, 3)


def test_a_given_pixel_size_overrides_the_files(svs: Path) -> None:
    with open_slide(svs, mpp=Mpp.square(0.4)) as slide:
        assert slide.mpp == Mpp(0.4, 0.4)
        assert slide.rotated(1).cropped(Region(0, 0, 9, 9)).mpp == Mpp(0.4, 0.4)


def test_a_slide_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingSlideError, match=r"gone\.svs"):
        open_slide(tmp_path / "gone.svs")
    with pytest.raises(SlideError, match="no file"):
        open_slide(tmp_path)


def test_a_series_that_is_not_there_is_an_error(svs: Path) -> None:
    with pytest.raises(SlideError, match="series 3"):
        open_slide(svs, series=3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.svs", b""),
        ("text.png", b"this is no image"),
        ("cut.tif", b"II*\0\x08\0\0\0"),
        ("cut.jpg", b"\xff\xd8\xff\xe0"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlideError, match=name) as caught:
        open_slide(tmp_path / name)
    assert caught.value.hint


def test_a_read_that_fails_is_named_and_the_next_one_works(svs: Path, pixels: Image) -> None:
    intact = svs.read_bytes()
    first_tile = intact.index(b"\x78\x9c")
    svs.write_bytes(intact[:first_tile] + b"\0" * 200 + intact[first_tile + 200 :])
    with open_slide(svs) as slide:
        with pytest.raises(SlideError, match=r"slide\.svs: level 0 cannot be read at \(0, 0\)"):
            slide.read_downsampled(Region(0, 0, 32, 32), 1)
        beyond = slide.read_downsampled(Region(128, 128, 32, 32), 1)
        assert np.array_equal(beyond, pixels[128:160, 128:160])


def test_a_closed_slide_says_so(svs: Path) -> None:
    slide = open_slide(svs)
    view = slide.rotated(1)
    slide.close()
    slide.close()
    for closed in (slide, view):
        with pytest.raises(SlideError, match="closed"):
            closed.thumbnail(Size(10, 10))


def test_a_pickled_slide_reads_the_same(svs: Path) -> None:
    with open_slide(svs, mpp=Mpp.square(0.3)) as slide:
        view = slide.cropped(Region(100, 50, 300, 300)).rotated(1)
        copy = pickle.loads(pickle.dumps(view))
        assert copy.mpp == view.mpp
        region = Region(3.3, 5.1, 80, 70)
        assert np.array_equal(copy.read(region, 1.1), view.read(region, 1.1))
        copy.close()
        assert view.read(region, 1.1).size


def _sum_of_read(slide: Slide, region: Region) -> int:
    return int(slide.read_downsampled(region, 1.5).astype(np.int64).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_open_the_file_for_themselves(svs: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    region = Region(10, 20, 300, 300)
    with open_slide(svs) as slide:
        expected = _sum_of_read(slide, region)
        with multiprocessing.get_context(method).Pool(2) as pool:
            jobs = [(slide, region)] * 4
            assert pool.starmap(_sum_of_read, jobs) == [expected] * 4
        assert _sum_of_read(slide, region) == expected


def test_threads_read_at_once(svs: Path, pixels: Image) -> None:
    corners = [(x, y) for x in range(0, 600, 50) for y in range(0, 400, 50)]
    with open_slide(svs) as slide, ThreadPoolExecutor(4) as executor:

        def is_right(corner: tuple[int, int]) -> bool:
            x, y = corner
            read = slide.read_downsampled(Region(x, y, 64, 64), 1)
            return np.array_equal(read, pixels[y : y + 64, x : x + 64])

        assert all(executor.map(is_right, corners))


def test_the_result_is_the_callers_own(write_tiff: WriteSlide) -> None:
    with open_slide(
        write_tiff(np.zeros((64, 64, 3), np.uint8), tile=None, compression=None)
    ) as slide:
        everything(slide)[:] = 7
        assert everything(slide).max() == 0
