from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qpannot.sampling.stains import find_stains, restained

HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
"""Optical densities of red, green and blue (Ruifrok and Johnston 2001)."""


def unit(*vectors: tuple[float, float, float]) -> NDArray[np.float64]:
    stains = np.array(vectors)
    scaled: NDArray[np.float64] = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    return scaled


def stained(amounts: NDArray[np.float64], stains: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Pixels of amounts of stains, shape [height, width, stains]."""
    light = 255 * np.exp(-(amounts @ stains))
    pixels: NDArray[np.uint8] = np.rint(light).astype(np.uint8)
    return pixels


def amounts_of(seed: int = 0, shape: tuple[int, int] = (120, 100)) -> NDArray[np.float64]:
    """Amounts of two stains; a tenth of the pixels have one of them only, a quarter is glass."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.3, 1.3, (*shape, 2))
    kind = rng.random(shape)
    amounts[kind < 0.05, 0] = 0
    amounts[(kind >= 0.05) & (kind < 0.1), 1] = 0
    amounts[kind > 0.75] = 0
    return amounts


def degrees_between(found: NDArray[np.float32], true: NDArray[np.float64]) -> float:
    return float(np.degrees(np.arccos((found * true).sum(axis=1).clip(-1, 1))).max())


@pytest.mark.parametrize("turned", [False, True])
def test_known_stains_are_found_haematoxylin_first(turned: bool) -> None:
    true = unit(HAEMATOXYLIN, EOSIN)
    given = true[::-1] if turned else true
    found = find_stains(stained(amounts_of(), given))
    assert found is not None
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert degrees_between(found, true) < 3


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((50, 50, 3), 244, np.uint8),
        np.full((50, 50, 3), (170, 90, 160), np.uint8),
        stained(amounts_of() * (0, 1), unit(HAEMATOXYLIN, EOSIN)),
        np.repeat(np.random.default_rng(0).integers(0, 200, (50, 50, 1), np.uint8), 3, axis=2),
    ],
    ids=["glass", "one colour", "one stain", "grey"],
)
def test_where_there_are_no_two_stains_none_are_made_up(pixels: NDArray[np.uint8]) -> None:
    assert find_stains(pixels) is None


def test_nothing_changes_where_nothing_is_asked_for() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    stains = unit(HAEMATOXYLIN, EOSIN).astype(np.float32)
    changed = restained(pixels, stains, np.ones(2), np.zeros(2)).astype(int)
    assert np.abs(changed - np.maximum(pixels, 1)).max() <= 1


def test_there_is_as_much_more_of_a_stain_as_was_asked_for() -> None:
    stains = unit(HAEMATOXYLIN, EOSIN)
    amounts = amounts_of()
    factors, added = np.array([1.1, 0.9]), np.array([0.05, -0.08])
    changed = restained(stained(amounts, stains), stains.astype(np.float32), factors, added)
    expected = stained(amounts * factors + added, stains)
    is_tissue = amounts.min(axis=2) > 0.3
    difference = np.abs(changed.astype(int) - expected)[is_tissue]
    assert difference.max() <= 2
    assert difference.mean() < 0.5


def test_glass_remains_glass() -> None:
    stains = unit(HAEMATOXYLIN, EOSIN).astype(np.float32)
    glass = np.full((4, 4, 3), 255, np.uint8)
    assert (restained(glass, stains, np.array([1.1, 1.1]), np.array([0.1, 0.1])) == 255).all()
