from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.recipe.settings import SplitSettings
from qpannot.sampling import Part, split_slides, with_their_patients

PAPER = SplitSettings()


def anonymous(count: int) -> dict[str, dict[str, str]]:
    return {f"slide {number}": {} for number in range(count)}


def of_patients(*counts: int) -> dict[str, dict[str, str]]:
    return {
        f"{patient}-{slide}": {"patient": f"patient {patient}"}
        for patient, count in enumerate(counts)
        for slide in range(count)
    }


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (1, 1, 0)),
        (3, (2, 1, 0)),
        (4, (3, 1, 0)),
        (5, (3, 1, 1)),
        (6, (4, 1, 1)),
        (20, (14, 3, 3)),
        (624, (437, 94, 93)),
    ],
)
def test_parts_have_their_shares_and_few_slides_still_train_and_validate(
    count: int, expected: tuple[int, int, int]
) -> None:
    counts = Counter(split_slides(anonymous(count), PAPER).values())
    assert tuple(counts[part] for part in Part) == expected


def test_slides_of_a_patient_stay_together() -> None:
    slides = of_patients(3, 1, 4, 2, 2, 5, 1, 1, 3)
    split = split_slides(slides, PAPER)
    parts: dict[int, set[Part]] = {patient: set() for patient in range(9)}
    for slide, part in split.items():
        parts[int(slide[0])].add(part)
    assert all(len(found) == 1 for found in parts.values())
    assert set(split.values()) == set(Part)


def test_without_a_key_patients_may_be_divided() -> None:
    slides = of_patients(20)
    assert set(split_slides(slides, PAPER).values()) == {Part.TRAIN}
    assert set(split_slides(slides, SplitSettings(by=None)).values()) == set(Part)


def test_blank_patients_are_not_one_patient() -> None:
    slides = {name: {"patient": " "} for name in anonymous(20)}
    assert set(split_slides(slides, PAPER).values()) == set(Part)


def test_the_order_of_the_slides_has_no_influence() -> None:
    slides = of_patients(3, 1, 4, 2, 2, 5, 1, 1, 3) | anonymous(7)
    backwards = dict(reversed(slides.items()))
    assert split_slides(backwards, PAPER) == split_slides(slides, PAPER)
    assert list(split_slides(backwards, PAPER)) == list(backwards)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
)
def test_slides_that_join_change_nothing_and_keep_the_shares(
    first: list[int], then: list[int]
) -> None:
    before = split_slides(of_patients(*first), PAPER)
    everything = of_patients(*first, *then)
    after = split_slides(everything, PAPER, before)
    assert {slide: after[slide] for slide in before} == before
    assert after == split_slides(everything, PAPER, after)
    if len(first) + len(then) >= 2:
        assert {Part.TRAIN, Part.VALIDATION} <= set(after.values())


def test_one_by_one_the_shares_are_kept_as_well() -> None:
    split: dict[str, Part] = {}
    slides: dict[str, dict[str, str]] = {}
    for name in anonymous(100):
        slides[name] = {}
        split = split_slides(slides, PAPER, split)
    counts = Counter(split.values())
    assert counts[Part.TRAIN] == pytest.approx(70, abs=1)
    assert counts[Part.VALIDATION] == pytest.approx(15, abs=1)


def test_a_new_slide_joins_its_patient() -> None:
    existing = {f"0-{number}": Part.TEST for number in range(3)}
    split = split_slides(of_patients(6, 2), PAPER, existing)
    assert {split[f"0-{number}"] for number in range(6)} == {Part.TEST}


def test_slides_that_were_removed_have_no_say() -> None:
    gone = {f"gone {number}": Part.TRAIN for number in range(50)}
    assert split_slides(anonymous(6), PAPER, gone) == split_slides(anonymous(6), PAPER)


def test_a_part_of_no_share_stays_empty() -> None:
    settings = SplitSettings(train=0.8, validation=0.2, test=0)
    counts = Counter(split_slides(anonymous(50), settings).values())
    assert counts == {Part.TRAIN: 40, Part.VALIDATION: 10}


def test_a_patient_is_one_however_the_key_is_written() -> None:
    slides = {str(n): {("Patient", " patient")[n % 2]: f"{n // 4} "} for n in range(80)}
    parts = split_slides(slides, PAPER)
    for patient in range(20):
        assert len({parts[str(n)] for n in range(4 * patient, 4 * patient + 4)}) == 1


def test_slides_bring_along_those_of_the_same_patients() -> None:
    slides = of_patients(2, 2) | anonymous(2)
    found = with_their_patients(["0-1", "slide 0", "elsewhere"], slides, "patient")
    assert found == {"0-0", "0-1", "slide 0", "elsewhere"}
    assert with_their_patients(["0-1"], slides, None) == {"0-1"}
