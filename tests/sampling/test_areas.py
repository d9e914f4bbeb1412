from __future__ import annotations

import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.proposals import Origin, is_untouched, make_proposal
from qpannot.recipe.settings import LabelSettings
from qpannot.sampling.areas import is_drawn, polygonal, resolve_areas

BOTH = LabelSettings(classes=("Tumor", "Stroma"))


def square(x: float, y: float, side: float) -> BaseGeometry:
    return shapely.box(x, y, x + side, y + side)


def drawn(geometry: BaseGeometry, name: str | None) -> Annotation:
    return Annotation(geometry, path_class=PathClass(name) if name else None)


def proposed(geometry: BaseGeometry, name: str = "Tumor") -> Annotation:
    return make_proposal(geometry, PathClass(name), Origin(1, "AN1"), locked=False)


def test_a_derived_class_counts_as_its_base_class() -> None:
    areas = resolve_areas([drawn(square(0, 0, 10), "Tumor: Invasive")], BOTH)
    assert areas.classes[0].equals(square(0, 0, 10))


def test_a_derived_class_that_is_listed_stands_for_itself() -> None:
    settings = LabelSettings(classes=("Tumor", "Tumor: In situ"))
    areas = resolve_areas(
        [
            drawn(square(0, 0, 10), "Tumor: In situ: Solid"),
            drawn(square(20, 0, 10), "Tumor: Invasive"),
        ],
        settings,
    )
    assert areas.classes[1].equals(square(0, 0, 10))
    assert areas.classes[0].equals(square(20, 0, 10))


def test_a_class_that_only_begins_like_another_is_another() -> None:
    areas = resolve_areas([drawn(square(0, 0, 10), "Tumorous")], BOTH)
    assert areas.classes[0].is_empty
    assert areas.other.equals(square(0, 0, 10))


@pytest.mark.parametrize("nested_first", [True, False])
def test_a_nested_annotation_wins_whenever_it_was_drawn(nested_first: bool) -> None:
    outer, inner = square(0, 0, 100), square(40, 40, 20)
    annotations = [drawn(outer, "Tumor"), drawn(inner, "Stroma")]
    areas = resolve_areas(annotations[::-1] if nested_first else annotations, BOTH)
    assert areas.classes[0].area == 100**2 - 20**2
    assert areas.classes[1].equals(inner)


def test_of_two_that_overlap_the_later_one_wins() -> None:
    areas = resolve_areas(
        [drawn(square(0, 0, 10), "Tumor"), drawn(square(5, 0, 10), "Stroma")], BOTH
    )
    assert areas.classes[0].area == 50
    assert areas.classes[1].equals(square(5, 0, 10))


def test_the_topmost_of_three_wins_even_over_what_won_over_its_own_class() -> None:
    areas = resolve_areas(
        [
            drawn(square(0, 0, 100), "Tumor"),
            drawn(square(20, 20, 60), "Stroma"),
            drawn(square(40, 40, 20), "Tumor"),
        ],
        BOTH,
    )
    assert areas.classes[0].area == 100**2 - 60**2 + 20**2
    assert areas.classes[1].area == 60**2 - 20**2


def test_a_class_the_recipe_does_not_know_cuts_into_those_it_does() -> None:
    areas = resolve_areas(
        [drawn(square(0, 0, 100), "Tumor"), drawn(square(40, 40, 20), "Necrosis")], BOTH
    )
    assert areas.classes[0].area == 100**2 - 20**2


def test_what_carries_the_name_of_the_rest_cuts_into_a_class() -> None:
    areas = resolve_areas(
        [drawn(square(0, 0, 100), "Tumor"), drawn(square(40, 40, 20), "Non-tumor")], BOTH
    )
    assert areas.classes[0].area == 100**2 - 20**2
    assert areas.rest.equals(square(40, 40, 20))


def test_areas_of_one_class_are_united() -> None:
    areas = resolve_areas(
        [drawn(square(0, 0, 10), "Tumor"), drawn(square(5, 0, 10), "Tumor")], BOTH
    )
    assert areas.classes[0].area == 150


def test_starred_classes_are_no_classes() -> None:
    areas = resolve_areas(
        [
            drawn(square(0, 0, 10), "Ignore*"),
            drawn(square(20, 0, 10), "Region*"),
            drawn(square(40, 0, 10), "Something*"),
            drawn(square(0, 0, 100), "Tumor"),
        ],
        BOTH,
    )
    assert areas.ignored.equals(square(0, 0, 10))
    assert areas.region.equals(square(20, 0, 10))
    assert areas.classes[0].area == 100**2
    assert areas.other.is_empty


def test_lines_points_and_unclassified_annotations_say_nothing() -> None:
    areas = resolve_areas(
        [
            drawn(shapely.LineString([(0, 0), (10, 10)]), "Tumor"),
            drawn(shapely.MultiPoint([(0, 0), (10, 10)]), "Tumor"),
            drawn(square(0, 0, 10), None),
        ],
        BOTH,
    )
    everything = [*areas.classes, areas.rest, areas.other, areas.region, areas.ignored]
    assert all(area.is_empty for area in everything)


def test_a_proposal_is_no_truth_unless_the_caller_says_so() -> None:
    proposal = proposed(square(0, 0, 10))
    areas = resolve_areas([proposal], BOTH)
    assert areas.classes[0].is_empty
    assert areas.ignored.equals(square(0, 0, 10))
    assert resolve_areas([proposal], BOTH, is_truth=lambda each: True).ignored.is_empty


def test_a_corrected_proposal_is_truth_and_an_untouched_one_beside_it_is_left_out() -> None:
    corrected = proposed(square(0, 0, 10)).with_changes(geometry=square(0, 0, 8))
    untouched = proposed(square(20, 0, 10))
    assert not is_drawn(corrected)
    areas = resolve_areas(
        [corrected, untouched], BOTH, is_truth=lambda each: not is_untouched(each)
    )
    assert areas.classes[0].equals(square(0, 0, 8))
    assert areas.ignored.equals(square(20, 0, 10))


def test_what_a_person_drew_inside_an_unreviewed_proposal_counts() -> None:
    areas = resolve_areas([proposed(square(0, 0, 100)), drawn(square(0, 0, 10), "Tumor")], BOTH)
    assert areas.classes[0].equals(square(0, 0, 10))
    assert areas.ignored.area == 100**2 - 10**2


def test_an_outline_that_crosses_itself_is_repaired() -> None:
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    assert polygonal(bow).is_valid
    assert polygonal(bow).area == 50
    assert resolve_areas([drawn(bow, "Tumor")], BOTH).classes[0].area == 50


def test_only_the_area_of_a_collection_counts() -> None:
    mixed = shapely.GeometryCollection(
        [square(0, 0, 10), shapely.LineString([(0, 0), (99, 99)]), square(20, 0, 10)]
    )
    assert polygonal(mixed).area == 200
