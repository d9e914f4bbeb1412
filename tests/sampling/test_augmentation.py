from __future__ import annotations

import colorsys

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb_from_hed

from qpannot.recipe.settings import AugmentationSettings
from qpannot.sampling.augmentation import augmented, brightened, restained, shifted_in_hsv

NOTHING = AugmentationSettings(
    probability=1, flip=False, rotate=False, hsv_shift=0, brightness=(1, 1)
)


def random_patch(size: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def in_hsv(color: NDArray[np.uint8], hue: float, saturation: float) -> list[float]:
    """The shift by the standard library's HSV, colour by colour."""
    h, s, v = colorsys.rgb_to_hsv(*(color / 255))
    shifted = min(1.0, max(0.0, s + saturation / 255))
    return [value * 255 for value in colorsys.hsv_to_rgb((h + hue / 255) % 1, shifted, v)]


@pytest.mark.parametrize(("hue", "saturation"), [(20, 0), (-20, 0), (0, 20), (0, -20), (13, -7)])
def test_hue_and_saturation_shift_as_hsv_says(hue: float, saturation: float) -> None:
    patch = random_patch()
    patch[0, :6] = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (9, 9, 9), (80, 80, 20), (20, 80, 80)]
    wanted = [in_hsv(color, hue, saturation) for color in patch.reshape(-1, 3)]
    shifted = shifted_in_hsv(patch, hue, saturation).reshape(-1, 3)
    assert np.abs(shifted - np.array(wanted)).max() <= 0.51


def test_a_shift_by_nothing_changes_nothing() -> None:
    assert np.array_equal(shifted_in_hsv(random_patch(64), 0, 0), random_patch(64))


def test_brightness_is_a_factor_that_stops_at_white() -> None:
    patch = np.array([[[0, 100, 250]]], np.uint8)
    assert brightened(patch, 1.2).tolist() == [[[0, 120, 255]]]
    assert brightened(patch, 0.8).tolist() == [[[0, 80, 200]]]


def test_flips_and_turns_only_move_pixels_and_all_eight_ways_occur() -> None:
    patch = random_patch(4)
    settings = AugmentationSettings(hsv_shift=0, brightness=(1, 1))
    rng = np.random.default_rng(0)
    seen = {augmented(patch, settings, rng).tobytes() for _ in range(300)}
    ways = [np.rot90(each, turns) for each in (patch, patch[:, ::-1]) for turns in range(4)]
    assert seen == {way.tobytes() for way in ways}


@pytest.mark.parametrize(
    ("changes", "unchanged"),
    [
        ({"flip": True}, 0.25),  # neither left-right nor upside down
        ({"rotate": True}, 0.5),
        ({"hsv_shift": 20.0}, 0.5),
        ({"brightness": (1.1, 1.2)}, 0.5),
    ],
)
def test_each_change_is_made_half_of_the_time(changes: dict[str, object], unchanged: float) -> None:
    settings = NOTHING.model_copy(update={"probability": 0.5, **changes})
    patch, rng = random_patch(8), np.random.default_rng(1)
    same = [np.array_equal(augmented(patch, settings, rng), patch) for _ in range(2000)]
    assert np.mean(same) == pytest.approx(unchanged, abs=0.04)


def test_the_changes_are_independent_of_each_other() -> None:
    settings = NOTHING.model_copy(update={"probability": 0.5, "rotate": True, "hsv_shift": 20.0})
    patch, rng = random_patch(8), np.random.default_rng(2)
    both = [
        (
            np.array_equal(np.sort(changed.max(-1), None), np.sort(patch.max(-1), None))
            and not np.array_equal(changed.max(-1), patch.max(-1)),
            not np.array_equal(np.sort(changed, None), np.sort(patch, None)),
        )
        for changed in (augmented(patch, settings, rng) for _ in range(2000))
    ]
    turned, shifted = np.array(both).T
    assert np.mean(turned & shifted) == pytest.approx(0.25, abs=0.04)


def test_probability_nought_changes_nothing_and_one_everything() -> None:
    patch = random_patch(8)
    never = AugmentationSettings(probability=0)
    assert np.array_equal(augmented(patch, never, np.random.default_rng(0)), patch)
    always = AugmentationSettings(probability=1, flip=False)
    rng = np.random.default_rng(0)
    assert not any(np.array_equal(augmented(patch, always, rng), patch) for _ in range(50))


def test_the_same_numbers_change_a_patch_the_same_way_and_leave_the_original() -> None:
    patch = random_patch(32)
    one = augmented(patch, AugmentationSettings(), np.random.default_rng(7))
    other = augmented(patch, AugmentationSettings(), np.random.default_rng(7))
    assert np.array_equal(one, other)
    assert np.array_equal(patch, random_patch(32))


def hed(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The amounts of the three stains, by scikit-image."""
    density = -np.log((patch + 1.0) / 256)
    stains = rgb_from_hed / np.linalg.norm(rgb_from_hed, axis=1, keepdims=True)
    amounts: NDArray[np.float64] = density @ np.linalg.inv(stains)
    return amounts


def test_stains_are_multiplied_and_moved_each_by_its_own_number() -> None:
    stains = rgb_from_hed / np.linalg.norm(rgb_from_hed, axis=1, keepdims=True)
    amounts = np.random.default_rng(0).uniform(0.1, 0.6, (16, 16, 3))
    patch = (256 * np.exp(-amounts @ stains) - 1).round().astype(np.uint8)
    factors, offsets = np.array([1.3, 0.8, 1.1]), np.array([0.05, 0.0, -0.02])
    changed = hed(restained(patch, factors, offsets))
    assert np.abs(changed - (hed(patch) * factors + offsets)).max() < 0.05
    assert np.array_equal(restained(patch, np.ones(3), np.zeros(3)), patch)


def test_every_patch_is_stained_otherwise_as_far_as_the_recipe_says() -> None:
    patch, rng = random_patch(16), np.random.default_rng(3)
    settings = AugmentationSettings(probability=0, stain_sigma=0.3)
    seen = [augmented(patch, settings, rng) for _ in range(50)]
    assert not any(np.array_equal(each, patch) for each in seen)
    assert len({each.tobytes() for each in seen}) == 50
    plain = AugmentationSettings(probability=0)
    assert np.array_equal(augmented(patch, plain, rng), patch)
