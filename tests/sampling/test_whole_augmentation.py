from __future__ import annotations

import numpy as np
import pytest

from qpannot.recipe.refining import RefinementAugmentationSettings
from qpannot.sampling.stains import find_stains
from qpannot.sampling.whole import UNKNOWN, WholeSlide
from qpannot.sampling.whole_augmentation import augmented_whole, zoomed

NONE = RefinementAugmentationSettings(
    probability=1, flip=False, rotate=False, zoom=(1, 1), stain_sigma=0
)


def whole_of(side: int = 32, seed: int = 0) -> WholeSlide:
    """Tissue with a class in a corner; the heatmap is 255 where the class is."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int8)
    labels[: side // 4, : side // 3] = 1
    image = rng.integers(60, 200, (side, side, 4), np.uint8)
    image[..., 1] //= 2
    image[..., 3] = np.where(labels == 1, 255, 0)
    return WholeSlide(image, labels)


def many(whole: WholeSlide, settings: RefinementAugmentationSettings) -> list[WholeSlide]:
    stains = find_stains(whole.image[..., :3])
    return [
        augmented_whole(whole, stains, settings, np.random.default_rng(seed)) for seed in range(64)
    ]


def test_flips_and_turns_move_image_and_truth_alike() -> None:
    whole = whole_of()
    settings = NONE.model_copy(update={"flip": True, "rotate": True, "probability": 0.5})
    seen = {each.image.tobytes() for each in many(whole, settings)}
    assert len(seen) == 8  # every symmetry of the square
    for each in many(whole, settings):
        assert np.array_equal(each.image[..., 3] == 255, each.labels == 1)
        assert sorted(each.image.ravel()) == sorted(whole.image.ravel())


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_a_zoom_moves_image_and_truth_alike_and_knows_nothing_of_what_is_around(
    factor: float,
) -> None:
    whole = whole_of(side=100)
    settings = NONE.model_copy(update={"zoom": (factor, factor)})
    found = augmented_whole(whole, None, settings, np.random.default_rng(0))
    assert found.image.shape == whole.image.shape
    assert found.image.dtype == np.uint8
    differs = (found.image[..., 3] > 127) != (found.labels == 1)
    assert differs.mean() < 0.01  # pixels at the edge
    unknown = found.labels == UNKNOWN
    if factor < 1:
        side = round(100 * factor)
        assert unknown.sum() == pytest.approx(100**2 - side**2, abs=4 * side)
        assert (found.image[0, :, :3] == 255).all()
        assert (found.image[0, :, 3] == 0).all()
        middle = slice(20, 80)
        assert found.image[middle, middle, 0].mean() == pytest.approx(
            whole.image[..., 0].mean(), abs=5
        )
    else:
        assert not unknown.any()


def test_a_zoom_by_one_is_none() -> None:
    image = whole_of().image
    assert np.array_equal(zoomed(image, 1.0), image)


def test_stains_change_the_colours_alone() -> None:
    whole = whole_of()
    assert find_stains(whole.image[..., :3]) is not None
    settings = NONE.model_copy(update={"stain_sigma": 0.1})
    for each in many(whole, settings):
        assert np.array_equal(each.labels, whole.labels)
        assert np.array_equal(each.image[..., 3], whole.image[..., 3])
        assert not np.array_equal(each.image[..., :3], whole.image[..., :3])
    unknown = augmented_whole(whole, None, settings, np.random.default_rng(0))
    assert np.array_equal(unknown.image, whole.image)


def test_each_change_is_made_with_the_probability_and_the_slide_itself_never_changes() -> None:
    whole = whole_of()
    before = whole.image.copy()
    never = RefinementAugmentationSettings(probability=0)
    assert all(np.array_equal(each.image, whole.image) for each in many(whole, never))
    default = RefinementAugmentationSettings()
    assert len({each.image.tobytes() for each in many(whole, default)}) > 50
    assert np.array_equal(whole.image, before)
    same = [augmented_whole(whole, None, default, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(same[0].image, same[1].image)
