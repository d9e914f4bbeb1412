from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qpannot.slide import resample as resampling
from qpannot.slide.resample import Axis, resample

Image = NDArray[np.uint8]


def read_from(pixels: Image, log: list[int] | None = None) -> Callable[[int, int, int, int], Image]:
    def read(x: int, y: int, width: int, height: int) -> Image:
        assert 0 <= x and 0 <= y
        assert x + width <= pixels.shape[1] and y + height <= pixels.shape[0]
        if log is not None:
            log.append(width * height)
        return pixels[y : y + height, x : x + width]

    return read


def resampled(
    pixels: Image, start: tuple[float, float], pitch: tuple[float, float], size: tuple[int, int]
) -> Image:
    height, width = pixels.shape[:2]
    return resample(
        read_from(pixels),
        Axis(start[0], pitch[0], size[0], 0, width, width),
        Axis(start[1], pitch[1], size[1], 0, height, height),
    )


def cover(start: float, pitch: float, count: int, n_source: int) -> NDArray[np.float64]:
    """Return the part of every output pixel that lies in every source pixel, in exact fractions."""
    weights = np.zeros((count, n_source))
    for i in range(count):
        low = Fraction(start) + i * Fraction(pitch)
        high = low + Fraction(pitch)
        for k in range(n_source):
            overlap: Fraction = min(high, Fraction(k + 1)) - max(low, Fraction(k))
            weights[i, k] = max(overlap, Fraction(0)) / (high - low)
    return weights


def brute_force(
    pixels: Image, start: tuple[float, float], pitch: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.float64]:
    across = cover(start[0], pitch[0], size[0], pixels.shape[1])
    down = cover(start[1], pitch[1], size[1], pixels.shape[0])
    inside = np.outer(down.sum(axis=1), across.sum(axis=1))[..., None]
    mean = np.einsum("yk,klc,xl->yxc", down, pixels.astype(float), across)
    return np.asarray(mean + 255 * (1 - inside))


offsets = st.floats(-7, 30, allow_nan=False)
pitches = st.floats(1, 9, allow_nan=False)


@given(
    seed=st.integers(0, 1000),
    start=st.tuples(offsets, offsets),
    pitch=st.tuples(pitches, pitches),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_every_pixel_is_the_mean_over_the_area_it_covers(
    seed: int, start: tuple[float, float], pitch: tuple[float, float], size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    exact = brute_force(pixels, start, pitch, size)
    # Half a grey level of rounding, and ends of intervals rounded to 1/8192 of a source pixel.
    assert np.abs(resampled(pixels, start, pitch, size) - exact).max() <= 0.5 + 0.2


@given(
    pitch=st.floats(0.3, 7, allow_nan=False),
    start=st.floats(-20, 20, allow_nan=False),
    cut=st.integers(1, 39),
)
def test_tiles_of_a_grid_equal_the_whole(pitch: float, start: float, cut: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    whole = resampled(pixels, (start, start), (pitch, pitch), (40, 40))
    beyond = start + cut * pitch
    for (x0, n_x), (y0, n_y) in [
        ((0, cut), (0, cut)),
        ((cut, 40 - cut), (0, cut)),
        ((cut, 40 - cut), (cut, 40 - cut)),
    ]:
        corner = (beyond if x0 else start, beyond if y0 else start)
        tile = resampled(pixels, corner, (pitch, pitch), (n_x, n_y))
        np.testing.assert_array_equal(tile, whole[y0 : y0 + n_y, x0 : x0 + n_x])


@pytest.mark.parametrize("pitch", [1.0, 1.7, 23.3, 80.0])
def test_memory_stays_that_of_a_block_and_the_result_the_same(
    pitch: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    count = int(170 / pitch) + 1
    whole = resampled(pixels, (0.3, -1.2), (pitch, pitch), (count, count))

    monkeypatch.setattr(resampling, "BLOCK_PX", 20)
    log: list[int] = []
    blocked = resample(
        read_from(pixels, log),
        Axis(0.3, pitch, count, 0, 170, 170),
        Axis(-1.2, pitch, count, 0, 150, 150),
    )
    assert max(log) <= 20 * 20
    assert np.abs(blocked.astype(int) - whole).max() <= (1 if pitch > 20 else 0)


def test_white_around_the_image_weighs_as_much_as_the_geometry_says() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    across = resampled(black, (-0.5, 0), (1, 1), (5, 4))[0, :, 0]
    np.testing.assert_array_equal(across, [128, 0, 0, 0, 128])
    assert resampled(black, (-3, -3), (4, 4), (1, 1))[0, 0, 0] == round(255 * 15 / 16)


def test_a_crop_that_ends_within_a_source_pixel_is_white_from_there_on() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    out = resample(read_from(black), Axis(0, 1, 4, 0.75, 2.5, 4), Axis(0, 1, 4, 0, 4, 4))
    np.testing.assert_array_equal(out[0, :, 0], [191, 0, 128, 255])


def test_the_last_pixel_of_a_level_stands_for_what_rounding_down_lost() -> None:
    ramp = np.repeat(np.array([[10, 20, 30]], np.uint8)[..., None], 3, axis=2)
    out = resample(read_from(ramp), Axis(0, 1, 4, 0, 3.5, 3), Axis(0, 1, 1, 0, 1, 1))
    np.testing.assert_array_equal(out[0, :, 0], [10, 20, 30, (30 + 255) / 2 + 0.5])


def test_pixels_on_the_source_grid_are_copied() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resampled(pixels, (2, 3), (1, 1), (5, 4)), pixels[3:7, 2:7])


def test_upsampling_interpolates_between_pixel_centres_and_holds_the_edge() -> None:
    ramp = np.repeat(np.array([[0, 100]], np.uint8)[..., None], 3, axis=2)
    out = resampled(ramp, (-0.5, 0), (0.25, 1), (12, 1))[0, :, 0]
    expected = [255, 255, 0, 0, 13, 38, 63, 88, 100, 100, 255, 255]
    np.testing.assert_allclose(out, expected, atol=1)


def test_white_stays_white() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    assert resampled(white, (-3.3, 1.7), (1.37, 2.91), (40, 20)).min() == 255
