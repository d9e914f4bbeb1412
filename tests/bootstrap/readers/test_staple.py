from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.bootstrap.readers.staple import SILENT, staple

SEEN = np.array(
    [(0, 0, 0), (1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)], np.int64
)
PIXELS = np.array([6000, 2500, 400, 300, 90, 60, 50], np.float64)


def test_it_is_what_itk_finds_of_pixels() -> None:
    """``STAPLEImageFilter`` of SimpleITK 2.5.7, of an image that has these pixels."""
    found = staple(SEEN, PIXELS, 2)
    foreground = [2.3900458e-05, 1.0, 1.0, 0.023104029, 0.010189191, 1.0, 0.91060378]
    assert found.probability[:, 1] == pytest.approx(foreground, rel=1e-4)
    sensitivity = [0.97973785, 0.98223942, 0.86491731]
    specificity = [0.95341117, 1.0, 0.98535144]
    assert found.performance[:, 1, 1] == pytest.approx(sensitivity, abs=1e-6)
    assert found.performance[:, 0, 0] == pytest.approx(specificity, abs=1e-6)


def test_readers_of_known_skill_are_found_out_and_the_truth_with_them() -> None:
    generator = np.random.default_rng(0)
    truth = generator.choice(3, size=40_000, p=[0.6, 0.3, 0.1])
    skill = (0.97, 0.9, 0.8, 0.7)
    votes = np.stack(
        [
            np.where(generator.random(len(truth)) < own, truth, (truth + 1) % 3)  # one confusion
            for own in skill
        ],
        axis=1,
    )
    places, place, pixels = np.unique(votes, axis=0, return_inverse=True, return_counts=True)
    found = staple(places, pixels.astype(np.float64), 3)
    for reader, own in enumerate(skill):
        assert np.diag(found.performance[reader]) == pytest.approx(own, abs=0.03)
        assert found.performance[reader].sum(axis=0) == pytest.approx(1)
    decided = found.probability.argmax(axis=1)[place.ravel()]
    of_most = np.array([np.bincount(row, minlength=3).argmax() for row in votes])
    assert (decided == truth).mean() > (of_most == truth).mean() > 0.8


def test_who_says_nothing_of_a_place_has_no_say_in_it() -> None:
    votes = np.vstack([SEEN, [(1, SILENT, SILENT), (SILENT, SILENT, 1)]])
    area = np.append(PIXELS, [10.0, 10.0])
    found = staple(votes, area, 2)
    prior = (area[:, None] * (votes == 1)).sum() / (area[:, None] * (votes != SILENT)).sum()
    for place, reader in ((-2, 0), (-1, 2)):
        true, false = found.performance[reader, 1, 1], found.performance[reader, 1, 0]
        expected = prior * true / (prior * true + (1 - prior) * false)
        assert found.probability[place, 1] == pytest.approx(expected, abs=1e-6)


@given(
    st.lists(
        st.tuples(st.tuples(*[st.integers(0, 2)] * 3), st.floats(0.1, 1e6)),
        min_size=1,
        max_size=12,
        unique_by=lambda each: each[0],
    )
)
def test_probabilities_add_up_and_a_place_may_be_told_in_two_parts(
    places: list[tuple[tuple[int, int, int], float]],
) -> None:
    votes = np.array([signature for signature, _ in places], np.int64)
    area = np.array([size for _, size in places])
    found = staple(votes, area, 3)
    assert found.probability.sum(axis=1) == pytest.approx(1)
    halves = staple(np.vstack([votes, votes]), np.concatenate([area, area]) / 2, 3)
    assert halves.probability[: len(votes)] == pytest.approx(found.probability, abs=1e-6)
