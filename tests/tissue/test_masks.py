from __future__ import annotations

import numpy as np
import pytest

from qpannot.tissue import masks


@pytest.mark.parametrize(
    ("rgb", "expected"), [((0, 0, 1), 0), ((0, 1, 1), 1), ((200, 200, 201), 200), ((255,) * 3, 255)]
)
def test_grey_is_the_unweighted_mean_rounded_to_the_nearest(
    rgb: tuple[int, int, int], expected: int
) -> None:
    assert masks.grey(np.array([[rgb]], np.uint8)).item() == expected


def test_smoothing_rounds_to_the_nearest_and_repeats_the_border() -> None:
    image = np.zeros((3, 3), np.uint8)
    image[0, 0] = 40
    # The corner counts four times in its own window, twice beside it, once in the middle.
    assert masks.smooth(image).tolist() == [[18, 9, 0], [9, 4, 0], [0, 0, 0]]


def test_the_median_needs_five_of_nine_pixels() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, :] = True
    assert not masks.median(mask).any()
    mask[3, 1:4] = True
    assert masks.median(mask)[2, 2]


def test_dilating_grows_by_one_pixel_in_every_direction() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert masks.dilate(mask).sum() == 9


def test_parts_at_the_border_go_with_all_that_is_4_connected_to_them() -> None:
    mask = np.array(
        [
            [0, 1, 0, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0],
        ],
        bool,
    )
    assert np.argwhere(masks.without_boundary(mask)).tolist() == [[2, 3]]


def test_an_image_full_of_tissue_has_nothing_inside_its_boundary() -> None:
    assert not masks.without_boundary(np.ones((4, 4), bool)).any()
