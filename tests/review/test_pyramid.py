from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from qpannot.errors import QpannotError
from qpannot.geometry import Region, Size
from qpannot.review.pyramid import PAPER, TILE_PX, Pyramid
from qpannot.slide import Slide, open_slide

WIDTH, HEIGHT = 2202, 1602


@pytest.fixture
def slide(tmp_path: Path) -> Iterator[Slide]:
    """A slide of noise whose size no power of two divides; its levels are 1 and 3 apart."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = tmp_path / "noise.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 3):
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                tile=(256, 256),
                photometric="rgb",
                subfiletype=int(step > 1),
                metadata=None,
            )
    with open_slide(path) as opened:
        yield opened


def test_levels_are_exact_halves_however_the_file_is_made(slide: Slide) -> None:
    pyramid = Pyramid(slide)
    shapes = np.array([level.shape[:2] for level in pyramid.levels])
    assert np.array_equal(shapes[0] // shapes, shapes[0] / shapes)
    assert 0 <= shapes[0][1] - WIDTH < 1 << (len(shapes) - 1)
    assert max(shapes[-1]) <= TILE_PX
    pyramid.close()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_was_waited_for_is_the_slide(slide: Slide, index: int) -> None:
    pyramid = Pyramid(slide)
    level = pyramid.levels[index]
    view = (slice(37, level.shape[0] - 5), slice(101, level.shape[1]))
    _ = level[view]
    assert pyramid.wait(30)
    pitch = float(1 << index)
    height, width, _ = level.shape
    whole = Region(0, 0, width * pitch, height * pitch)
    expected = slide.read_downsampled(whole, pitch, Size(width, height))
    assert np.array_equal(level[view], expected[view])
    pyramid.close()


def test_nothing_is_waited_for_and_what_is_not_read_yet_is_shown_coarser(slide: Slide) -> None:
    pyramid = Pyramid(slide)
    assert pyramid.wait(30)  # the coarsest level, which is always wanted
    coarse = pyramid.levels[-1][:]
    step = 1 << (len(pyramid.levels) - 1)
    at_once = pyramid.levels[0][0:TILE_PX, 0:TILE_PX]
    assert np.array_equal(at_once[::step, ::step], coarse[: TILE_PX // step, : TILE_PX // step])
    assert pyramid.wait(30)
    assert not np.array_equal(pyramid.levels[0][0:TILE_PX, 0:TILE_PX], at_once)
    pyramid.close()


def test_each_tile_that_came_is_told_of(slide: Slide) -> None:
    news: list[int] = []
    pyramid = Pyramid(slide, changed=lambda: news.append(1))
    assert pyramid.wait(30)
    before = len(news)
    _ = pyramid.levels[0][: 2 * TILE_PX, :TILE_PX]
    assert pyramid.wait(30)
    pyramid.close()
    assert before <= 1
    assert len(news) >= before + 1


def test_only_the_last_view_is_read(slide: Slide) -> None:
    pyramid = Pyramid(slide)
    assert pyramid.wait(30)
    for top in range(0, HEIGHT, 50):  # far quicker than anything can be read
        _ = pyramid.levels[0][top : top + 10, :10]
    _ = pyramid.levels[0][:10, :10]
    assert len(pyramid._wanted) <= 1
    assert pyramid.wait(30)
    pyramid.close()


def test_a_slide_that_cannot_be_read_is_told_of_once_and_shown_as_paper(tmp_path: Path) -> None:
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, np.zeros((700, 900), np.uint16), tile=(256, 256))
    failures: list[QpannotError] = []
    with open_slide(path) as slide:
        pyramid = Pyramid(slide, failed=failures.append)
        for _ in range(2):
            assert (pyramid.levels[0][:] == PAPER).all()
            assert pyramid.wait(30)
        pyramid.close()
    assert len(failures) == 1
    assert "RGB" in str(failures[0])


def test_the_slide_may_be_closed_meanwhile(tmp_path: Path, make_slide: Callable[..., Path]) -> None:
    with open_slide(make_slide(tmp_path / "one.svs")) as slide:
        pyramid = Pyramid(slide)
    _ = pyramid.levels[0][:]
    assert pyramid.wait(30)
    assert (pyramid.levels[0][700:710, 1000:1010].mean(axis=(0, 1)) < 200).any()
    pyramid.close()


def test_after_closing_nothing_is_read(slide: Slide) -> None:
    pyramid = Pyramid(slide)
    pyramid.close()
    assert pyramid.levels[0][:10, :10].shape == (10, 10, 3)
    for thread in list(pyramid._threads):
        thread.join(30)
    assert not pyramid._threads
