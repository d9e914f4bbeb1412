from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.geometry import (
    Mpp,
    Region,
    Size,
    estimate_downsample,
    magnification_from_mpp,
)


@pytest.mark.parametrize(("magnification", "mpp"), [(40, 0.25), (20, 0.5), (10, 1.0), (5, 2.0)])
def test_a_resolution_is_called_by_its_magnification(magnification: float, mpp: float) -> None:
    assert magnification_from_mpp(mpp) == magnification
    assert Mpp.square(mpp).magnification == magnification


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf])
def test_a_resolution_is_positive(value: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Mpp(0.5, value)


def test_pixels_need_not_be_square() -> None:
    assert Mpp(0.2, 0.4).mean == pytest.approx(0.3)


@pytest.mark.parametrize("bad", [(0, 0, 0, 1), (0, 0, 1, -1), (math.nan, 0, 1, 1)])
def test_a_region_has_a_positive_extent(bad: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="region"):
        Region(*bad)


@pytest.mark.parametrize(
    ("full", "level", "expected"),
    [
        (Size(46000, 32914), Size(2875, 2057), 16),
        (Size(300, 250), Size(75, 62), 4),
        (Size(30000, 24000), Size(10000, 8000), 3),
        (Size(97792, 219648), Size(1704, 3828), (97792 / 1704 + 219648 / 3828) / 2),
    ],
)
def test_downsamples_are_powers_of_two_or_whole_where_two_pixels_allow(
    full: Size, level: Size, expected: float
) -> None:
    assert estimate_downsample(full, level) == expected


@given(
    st.integers(2_000, 200_000), st.integers(2_000, 200_000), st.sampled_from([2, 3, 4, 8, 16, 32])
)
def test_whole_downsamples_are_found_whichever_way_sizes_were_rounded(
    width: int, height: int, downsample: int
) -> None:
    for rounded in (math.floor, math.ceil):
        level = Size(rounded(width / downsample), rounded(height / downsample))
        assert estimate_downsample(Size(width, height), level) == downsample
