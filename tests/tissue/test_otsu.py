from __future__ import annotations

import numpy as np

from qpannot.tissue.otsu import saturation, tissue_threshold


def test_saturation_is_that_of_the_hsv_model() -> None:
    colours = np.array([[(255, 0, 0), (200, 100, 200), (90, 90, 90), (0, 0, 0)]], np.uint8)
    assert saturation(colours).tolist() == [[255, 128, 0, 0]]


def test_the_threshold_lies_between_two_groups() -> None:
    image = np.array([[10, 11, 12, 180, 181, 182]], np.uint8)
    assert (image > tissue_threshold(image)).tolist() == [[False] * 3 + [True] * 3]


def test_an_image_of_one_level_has_no_foreground() -> None:
    image = np.full((4, 4), 7, np.uint8)
    assert not (image > tissue_threshold(image)).any()
