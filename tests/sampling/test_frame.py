from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.affine import Affine
from qpannot.geometry import Mpp, Size
from qpannot.sampling.frame import Fit, Frame, into_frame

LENGTHS = st.integers(1, 200_000)
PITCHES = st.floats(0.1, 4.0)
SIZES = st.sampled_from([16, 33, 256, 1024])
FITS = st.sampled_from(["pad", "stretch"])


@given(LENGTHS, LENGTHS, PITCHES, PITCHES, SIZES, FITS, st.integers(0, 2**32))
def test_from_frame_to_slide_to_frame_is_the_identity(
    width: int, height: int, mpp_x: float, mpp_y: float, size_px: int, fit: Fit, seed: int
) -> None:
    frame = Frame.of(Size(width, height), Mpp(mpp_x, mpp_y), size_px, fit)
    corners = np.random.default_rng(seed).uniform(0, size_px, (20, 2))
    again = frame.affine.from_slide(frame.affine.to_slide(corners))
    assert np.allclose(again, corners, rtol=0, atol=1e-8 * size_px)
    inner = frame.inner_affine.to_slide(corners - (frame.left, frame.top))
    scale = max(width, height, frame.affine.dx * size_px, frame.affine.dy * size_px)
    assert np.allclose(inner, frame.affine.to_slide(corners), rtol=0, atol=1e-10 * scale)


@given(LENGTHS, LENGTHS, PITCHES, PITCHES, SIZES, FITS)
def test_the_slide_fills_its_part_of_the_frame_and_no_more(
    width: int, height: int, mpp_x: float, mpp_y: float, size_px: int, fit: Fit
) -> None:
    frame = Frame.of(Size(width, height), Mpp(mpp_x, mpp_y), size_px, fit)
    rows, columns = frame.inner
    assert 0 <= rows.start < rows.stop <= size_px
    assert 0 <= columns.start < columns.stop <= size_px
    dx, dy = frame.affine.dx, frame.affine.dy
    for count, pitch, length in ((frame.columns, dx, width), (frame.rows, dy, height)):
        assert count * pitch >= length * (1 - 1e-6) - 1e-6 * pitch  # all of the slide
        assert (count - 1) * pitch < length  # and no pixel without any of it
    if fit == "stretch":
        assert frame.inner == (slice(0, size_px), slice(0, size_px))
    else:
        assert dx * mpp_x == pytest.approx(dy * mpp_y)  # its shape is kept
        assert size_px in (frame.columns, frame.rows)
        assert abs(frame.top - (size_px - frame.rows - frame.top)) <= 1
        assert abs(frame.left - (size_px - frame.columns - frame.left)) <= 1


def test_a_wide_slide_lies_in_the_middle_between_two_bands() -> None:
    frame = Frame.of(Size(4000, 1000), Mpp.square(0.25), 64, "pad")
    assert (frame.affine.dx, frame.affine.dy) == (62.5, 62.5)
    assert (frame.left, frame.top, frame.columns, frame.rows) == (0, 24, 64, 16)
    assert frame.affine.y == -1500


def test_a_coarse_heatmap_is_interpolated_between_the_middles_of_its_cells() -> None:
    frame = Frame.of(Size(800, 800), Mpp.square(1), 8, "pad")
    values = np.array([[0, 1], [0, 1]], np.float32)[..., None]
    found = into_frame(values, Affine(400, 400), frame)[..., 0]
    assert found.shape == (8, 8)
    # Middles of the cells are at 200 and 600; of the frame's pixels at 50, 150 and so on.
    expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    assert np.allclose(found, np.tile(expected, (8, 1)), atol=1e-3)


def test_a_fine_heatmap_is_averaged_so_that_nothing_of_it_is_passed_over() -> None:
    frame = Frame.of(Size(640, 640), Mpp.square(1), 4, "pad")
    values = np.random.default_rng(0).random((64, 64, 2)).astype(np.float32)
    found = into_frame(values, Affine(10, 10), frame)
    assert np.allclose(found, values.reshape(4, 16, 4, 16, 2).mean(axis=(1, 3)), atol=1e-5)


def test_a_heatmap_lies_where_its_affine_says() -> None:
    frame = Frame.of(Size(640, 320), Mpp.square(1), 64, "pad")
    values = np.ones((4, 4, 1), np.float32)
    found = into_frame(values, Affine(10, 10, 100, 200), frame, outside=0.25)[..., 0]
    inside = np.zeros((64, 64), bool)
    inside[frame.top + 20 : frame.top + 24, 10:14] = True
    assert np.allclose(found, np.where(inside, 1, 0.25))
