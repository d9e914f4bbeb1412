"""Dice of squares of which it can be said by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import shapely
from shapely import box

from qpannot.affine import Affine
from qpannot.bootstrap.areas import areas_by_class
from qpannot.bootstrap.records import Score
from qpannot.bootstrap.scoring import mean_dice, outlines_in, score
from qpannot.bootstrap.truth import Lesson
from qpannot.heatmap import Heatmap
from qpannot.linking import open_image
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.proposals import Origin, make_proposal
from qpannot.recipe import Recipe, load_recipe
from qpannot.tissue import detect_tissue
from qpannot.vectorize import Outline

TUMOR = Recipe()
TWO = Recipe.model_validate({"labels": {"classes": ["Tumor", "Stroma"]}})
PARTIAL = Recipe.model_validate({"labels": {"coverage": "partial"}})

LessonOf = Callable[..., Lesson]


def drawn(outline: shapely.Polygon, name: str = "Tumor") -> Annotation:
    return Annotation(outline, path_class=PathClass(name))


def found(outline: shapely.Polygon, name: str = "Tumor") -> Outline:
    return Outline(polygon=outline, class_name=name, score=0.9)


@pytest.fixture(scope="module")
def lesson_of(proposed_study: Any) -> Iterator[LessonOf]:
    with proposed_study.open() as project:

        def made(*annotations: Annotation, is_vouched: bool = True) -> Lesson:
            return Lesson(project.images[0], annotations, is_vouched, "key")

        yield made


def test_half_of_a_square_is_a_dice_of_a_half(lesson_of: LessonOf) -> None:
    lesson = lesson_of(drawn(box(0, 0, 100, 100)))
    result = score([found(box(50, 0, 150, 100))], lesson, TUMOR)
    assert (result.dice, result.by_class) == (0.5, {"Tumor": 0.5})
    assert result.iou == pytest.approx(1 / 3)


def test_outlines_of_a_class_count_together_and_once(lesson_of: LessonOf) -> None:
    lesson = lesson_of(drawn(box(0, 0, 60, 100)), drawn(box(40, 0, 100, 100)))
    outlines = [found(box(0, 0, 70, 100)), found(box(30, 0, 100, 100))]
    assert score(outlines, lesson, TUMOR).dice == 1


def test_what_lies_in_ignored_areas_does_not_count(lesson_of: LessonOf) -> None:
    lesson = lesson_of(drawn(box(0, 0, 100, 100)), drawn(box(100, 0, 200, 100), "Ignore*"))
    result = score([found(box(50, 0, 150, 100))], lesson, TUMOR)
    assert result.dice == pytest.approx(2 * 5000 / (10_000 + 5000))


def test_where_only_parts_are_annotated_nothing_else_counts(lesson_of: LessonOf) -> None:
    truth = (drawn(box(0, 0, 100, 100)), drawn(box(0, 0, 120, 100), "Region*"))
    outlines = [found(box(50, 0, 400, 100))]  # of 350 x 100, 70 x 100 lie in the region
    partial = score(outlines, lesson_of(*truth), PARTIAL)
    assert partial.dice == pytest.approx(2 * 5000 / (10_000 + 7000))
    whole = score(outlines, lesson_of(*truth), TUMOR)
    assert whole.dice == pytest.approx(2 * 5000 / (10_000 + 35_000))


def test_where_only_parts_are_annotated_classes_nobody_asked_for_do_not_count(
    lesson_of: LessonOf,
) -> None:
    truth = (
        drawn(box(0, 0, 100, 100)),
        drawn(box(100, 0, 200, 100), "Necrosis"),
        drawn(box(0, 0, 150, 200), "Region*"),
    )
    outlines = [found(box(0, 0, 300, 100))]  # Necrosis may hold tumour, Region* beside it does not
    assert score(outlines, lesson_of(*truth), PARTIAL).dice == 1
    outlines = [found(box(0, 0, 100, 150))]
    assert score(outlines, lesson_of(*truth), PARTIAL).dice == pytest.approx(2 * 100 / 250)


def test_where_a_proposal_was_not_looked_at_nothing_counts(lesson_of: LessonOf) -> None:
    untouched = make_proposal(
        box(200, 0, 300, 100), PathClass("Tumor"), Origin(1, "AN1"), locked=False
    )
    outlines = [found(box(0, 0, 100, 100)), found(box(250, 0, 350, 100))]
    truth = drawn(box(0, 0, 100, 100))
    assert score(outlines, lesson_of(truth, untouched, is_vouched=False), TUMOR).dice == (
        pytest.approx(2 * 10_000 / (10_000 + 15_000))
    )
    assert score(outlines, lesson_of(truth, untouched), TUMOR).dice == pytest.approx(
        2 * 15_000 / (20_000 + 20_000)
    )


def test_the_mean_is_over_classes_that_are_there_or_were_found(lesson_of: LessonOf) -> None:
    lesson = lesson_of(drawn(box(0, 0, 100, 100)))
    outlines = [found(box(50, 0, 150, 100))]
    result = score(outlines, lesson, TWO)
    assert (result.dice, result.by_class) == (0.5, {"Tumor": 0.5, "Stroma": 1})
    outlines.append(found(box(0, 200, 10, 210), "Stroma"))
    result = score(outlines, lesson, TWO)
    assert (result.dice, result.by_class) == (0.25, {"Tumor": 0.5, "Stroma": 0})


def test_nothing_where_nothing_is_is_right(lesson_of: LessonOf) -> None:
    assert score([], lesson_of(), TUMOR) == Score(dice=1, iou=1, by_class={"Tumor": 1})
    assert score([], lesson_of(drawn(box(0, 0, 9, 9))), TUMOR).dice == 0
    assert score([found(box(0, 0, 9, 9))], lesson_of(), TUMOR).dice == 0


def test_the_mean_over_slides() -> None:
    scores = [Score(dice=dice, iou=0, by_class={}) for dice in (0.5, 1.0)]
    assert mean_dice(scores) == 0.75
    assert mean_dice([]) is None


def test_areas_of_a_class_are_united_and_marks_are_left_out() -> None:
    areas = areas_by_class(
        [
            ("Tumor", box(0, 0, 10, 10)),
            ("Tumor", box(5, 0, 15, 10)),
            ("Tumor", shapely.LineString([(0, 0), (50, 50)])),
            ("Stroma", shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])),  # a bow tie
            ("Ignore*", box(0, 0, 99, 99)),
            (None, box(0, 0, 99, 99)),
        ]
    )
    assert {name: area.area for name, area in areas.items()} == {"Tumor": 150, "Stroma": 50}


def test_outlines_of_a_map_that_answers_on_glass_too_end_at_the_tissue(
    proposed_study: Any,
) -> None:
    """As a refined one does; this one says tumour everywhere."""
    recipe = load_recipe(proposed_study.recipe)
    with proposed_study.open() as project:
        (image,) = (each for each in project.images if each.name == "a.tif")
        with open_image(image) as slide:
            everywhere = np.zeros((8, 12, 2), np.float32)
            everywhere[..., 1] = 0.9
            maps = Heatmap(everywhere, ("Non-tumor", "Tumor"), Affine(64, 64), slide.mpp)
            outlines = outlines_in(maps, slide, recipe)
            tissue = detect_tissue(slide, recipe.tissue)
    covered = shapely.union_all([each.polygon for each in outlines])
    assert covered.area == pytest.approx(shapely.union_all(tissue).area, rel=0.01)
    assert covered.area < 0.7 * 768 * 512
