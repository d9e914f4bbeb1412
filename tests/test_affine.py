from __future__ import annotations

import math

import numpy as np
import pytest

from qpannot.affine import Affine
from qpannot.geometry import Mpp, Region


def test_the_corner_of_the_first_pixel_is_the_origin() -> None:
    affine = Affine(57.375, 57.25, x=3, y=-4.5)
    corners = np.array([[0, 0], [1, 0], [2, 10]])
    assert affine.to_slide(corners).tolist() == [[3, -4.5], [60.375, -4.5], [117.75, 568]]


def test_there_and_back_is_the_same_place() -> None:
    affine = Affine(16.0018, 4.4055, x=1.25, y=7)
    points = np.random.default_rng(0).uniform(-1e5, 1e5, (100, 2))
    assert np.allclose(affine.to_slide(affine.from_slide(points)), points, atol=1e-9)


def test_a_mask_covers_a_region_of_the_slide() -> None:
    assert Affine(2, 4, x=10, y=20).region((3, 5)) == Region(10, 20, 10, 12)


def test_pixels_have_a_size_in_micrometres() -> None:
    assert Affine(1024, 512).pixel_um(Mpp(0.25, 0.5)) == (256, 256)


@pytest.mark.parametrize("numbers", [(0, 1), (1, -1), (math.nan, 1), (1, 1, math.inf)])
def test_what_is_no_affine_is_refused(numbers: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="positive pixel size"):
        Affine(*numbers)
