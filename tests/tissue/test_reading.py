from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from qpannot.geometry import Size
from qpannot.slide import Slide, open_slide
from qpannot.tissue.reading import (
    preferred_level,
    read_working_image,
    stretch,
)


def flat_slide(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Slide:
    Image.fromarray(pixels).save(path)
    return open_slide(path)


def ramp(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    row = np.arange(width, dtype=np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def test_pixels_are_interpolated_between_neighbours_not_averaged(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[:, 0::8] = 0  # seen by an average over 8 pixels, not by the two in the middle
    with flat_slide(tmp_path / "lines.png", pixels) as slide:
        assert read_working_image(slide, 8).tolist() == [[[255] * 3] * 2] * 2


def test_a_pixel_shows_what_lies_at_its_centre(tmp_path: Path) -> None:
    with flat_slide(tmp_path / "ramp.png", ramp(100, 20)) as slide:
        seen = read_working_image(slide, 10)[0, :, 0]
    # Centres at 5, 15, ...: half-way between the pixels 4 and 5, rounded up.
    assert seen.tolist() == list(range(5, 100, 10))


def test_the_size_is_rounded_to_the_nearest(tmp_path: Path) -> None:
    with flat_slide(tmp_path / "ramp.png", ramp(100, 20)) as slide:
        assert read_working_image(slide, 30).shape == (1, 3, 3)
        assert read_working_image(slide, 8).shape == (3, 13, 3)
        assert read_working_image(slide, 1000).shape == (1, 1, 3)


def test_full_resolution_is_copied_and_finer_than_that_repeated(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 270, 3), dtype=np.uint8)
    with flat_slide(tmp_path / "noise.png", pixels) as slide:
        assert np.array_equal(read_working_image(slide, 1), pixels)
        doubled = read_working_image(slide, 0.5)
    assert np.array_equal(doubled, pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_interpolation_stops_at_the_border_of_a_tile(tmp_path: Path) -> None:
    pixels = np.zeros((4, 512, 3), np.uint8)
    pixels[:, 256:] = 200
    with flat_slide(tmp_path / "edge.png", pixels) as slide:
        seen = read_working_image(slide, 512 / 171)[0, :, 0]
    # The output pixel centred at 256.0 mixes the columns 255 and 256 unless tiles part them.
    assert set(seen.tolist()) == {0, 200}


def test_the_coarsest_level_that_is_fine_enough_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as tiff:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"}
        tiff.write(np.full((512, 512, 3), 10, np.uint8), **options)
        tiff.write(np.full((128, 128, 3), 20, np.uint8), subfiletype=1, **options)
        tiff.write(np.full((32, 32, 3), 30, np.uint8), subfiletype=1, **options)
    with open_slide(path) as slide:
        assert len(slide.levels) == 3
        levels = [read_working_image(slide, d).max() for d in (2, 3.9, 3.97, 4, 15, 16, 40)]
    assert levels == [10, 10, 20, 20, 20, 30, 30]


@pytest.mark.parametrize(
    ("requested", "level"), [(0.5, 0), (1, 0), (3.9, 0), (3.965, 1), (4, 1), (15.8, 1), (99, 2)]
)
def test_a_level_may_be_a_hundredth_coarser_than_asked(requested: float, level: int) -> None:
    assert preferred_level([1, 4, 16], requested) == level


def test_a_missing_last_column_is_made_by_stretching_as_imagej_does() -> None:
    rows = [[135, 99, 27, 209, 139], [247, 221, 148, 14, 104]]
    image = np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)
    # ImageJ 1.54 FloatProcessor.resize(6, ..., true) gives the first row to the last decimal.
    imagej = [135.0, 114.0, 69.0, 72.5, 203.16667, 144.83333]
    stretched = stretch(image, Size(6, 2))[0, :, 0]
    assert np.abs(stretched - np.array(imagej)).max() <= 0.5
    assert stretch(image, Size(5, 2)) is image


def test_a_turned_slide_shows_its_pixels_turned(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 270, 3), dtype=np.uint8)
    with flat_slide(tmp_path / "noise.png", pixels) as slide:
        upright = read_working_image(slide, 7.3)
        turned = read_working_image(slide.rotated(1), 7.3)
    assert np.array_equal(turned, np.rot90(upright, -1))
