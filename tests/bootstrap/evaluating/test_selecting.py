from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from qpannot.bootstrap.evaluating.designs import Design, TissueDesign, baseline
from qpannot.bootstrap.evaluating.selecting import (
    Selection,
    Wanted,
    parts_of,
    select,
    warnings_of,
)
from qpannot.bootstrap.truth import Lesson
from qpannot.errors import QpannotError
from qpannot.recipe import Recipe
from qpannot.sampling import Part

TRAIN, VALIDATION, TEST = Part.TRAIN, Part.VALIDATION, Part.TEST


@pytest.fixture(scope="module")
def lessons(proposed_study: Any) -> Iterator[list[Lesson]]:
    """The slides a to e."""
    with proposed_study.open() as project:
        yield [Lesson(image, (), True, "key") for image in project.images[:5]]


def names(selection: Selection) -> str:
    return "".join(each.image.name[0] for each in selection.lessons)


def parts_for(lessons: Sequence[Lesson], text: str) -> dict[str, Part]:
    known = {"t": TRAIN, "v": VALIDATION, "s": TEST}
    return {each.image.id: known[letter] for each, letter in zip(lessons, text, strict=True)}


def design_that_knows(seen: dict[str, Part], name: str = "net") -> TissueDesign:
    design = baseline("otsu", Recipe())
    design.name, design.seen = name, seen
    return design


@pytest.mark.parametrize(
    ("parts", "wanted", "expected"),
    [
        ("ttvss", "auto", ("test", "de")),
        ("ttvvt", "auto", ("validation", "cd")),
        ("ttvss", "validation", ("validation", "c")),
        ("ttvss", "held-out", ("held-out", "cde")),
        ("ttvss", "all", ("all", "abcde")),
    ],
)
def test_slides_that_taught_are_left_out_unless_asked_for(
    lessons: list[Lesson], parts: str, wanted: Wanted, expected: tuple[str, str]
) -> None:
    found = select(lessons, parts_for(lessons, parts), wanted)
    assert (found.part, names(found)) == expected


def test_slides_a_person_names_are_taken_whatever_part_they_are_of(lessons: list[Lesson]) -> None:
    parts = parts_for(lessons, "ttvss")
    only = {lessons[0].image.id, lessons[3].image.id}
    found = select(lessons, parts, only=only)
    assert (found.part, names(found)) == ("named", "ad")
    assert found.parts == {lessons[0].image.id: TRAIN, lessons[3].image.id: TEST}
    assert names(select(lessons, parts, "test", only)) == "d"


def test_it_is_said_which_slides_these_are(lessons: list[Lesson]) -> None:
    assert select(lessons, parts_for(lessons, "ttvss")).told == "2 test slides"
    assert select(lessons, parts_for(lessons, "ttvtt")).told == "1 validation slide"
    assert select(lessons, parts_for(lessons, "ttvss"), "all").told == "5 reviewed slides"


def test_where_only_slides_that_taught_are_left_it_says_what_there_is(
    lessons: list[Lesson],
) -> None:
    parts = parts_for(lessons, "ttttt")
    with pytest.raises(QpannotError, match=r"no test or validation slides among 5 .*5 train"):
        select(lessons, parts)
    with pytest.raises(QpannotError, match="no test slides"):
        select(lessons, parts, "test")
    with pytest.raises(QpannotError, match="No slide of the project is reviewed"):
        select([], {})


def test_the_strictest_of_ledger_and_models_says_what_a_slide_is(lessons: list[Lesson]) -> None:
    a, b, c, d, e = (each.image.id for each in lessons)
    designs: list[Design] = [
        design_that_knows({a: VALIDATION, b: TRAIN}),
        design_that_knows({a: TRAIN, d: VALIDATION}),
    ]
    found = parts_of(lessons, {b: "test", c: "validation"}, designs)
    assert found == {a: TRAIN, b: TRAIN, c: VALIDATION, d: VALIDATION, e: TEST}


def test_slides_that_a_design_knows_are_warned_of_by_name(lessons: list[Lesson]) -> None:
    a, _, c, *_ = (each.image.id for each in lessons)
    design = design_that_knows({a: TRAIN, c: VALIDATION})
    selection = select(lessons, parts_for(lessons, "tsvss"), "all")
    fitted, chosen, few = warnings_of(selection, [design], "patient")
    assert fitted.startswith("net was trained on 1 of these slides") and "a.tif" in fitted
    assert chosen.startswith("net was chosen by 1 of these slides") and "c.tif" in chosen
    assert few.startswith("5 slides only")
    assert warnings_of(select(lessons, parts_for(lessons, "tsvss")), [design]) == [
        few.replace("5", "3")
    ]
