from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import box
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.readers.agreement import agreement_of
from qpannot.bootstrap.readers.apart import Readers
from qpannot.bootstrap.readers.merging import merged
from qpannot.qupath import Annotation, PathClass
from qpannot.recipe import Recipe, load_recipe

Drawn = Sequence[tuple[str, BaseGeometry]]


def readers(drawn: Mapping[str, Drawn], last: str = "A") -> Readers:
    """Several readers, each with classes and outlines."""
    return Readers(
        {
            name: tuple(Annotation(area, path_class=PathClass(of)) for of, area in own)
            for name, own in drawn.items()
        },
        context=(),
        last=last,
        is_vouched=True,
    )


def recipe(rule: str = "majority", *, coverage: str = "exhaustive") -> Recipe:
    return load_recipe(
        "h2gnet",
        [
            f"annotators.rule={rule}",
            "labels.classes=[Tumor, Stroma]",
            f"labels.coverage={coverage}",
        ],
    )


def areas(found: tuple[Annotation, ...]) -> dict[str, BaseGeometry]:
    made = {each.class_name or "": each.geometry for each in found}
    assert len(made) == len(found) and all(area.is_valid for area in made.values())
    return made


def same(one: BaseGeometry, other: BaseGeometry) -> bool:
    return one.symmetric_difference(other).area < 1e-6


THREE: Mapping[str, Drawn] = {
    "A": [("Tumor", box(0, 0, 100, 100))],
    "B": [("Tumor", box(0, 0, 110, 100))],
    "C": [("Tumor", box(50, 0, 200, 100))],
}


def test_more_than_half_make_the_truth_where_they_agree_exactly() -> None:
    found = areas(merged(readers(THREE), recipe()))
    assert set(found) == {"Tumor"}
    assert same(found["Tumor"], box(0, 0, 110, 100))


def test_where_as_many_say_so_as_do_not_nothing_is_learned() -> None:
    two = {name: THREE[name] for name in "AB"}
    found = areas(merged(readers(two), recipe()))
    assert same(found["Tumor"], box(0, 0, 100, 100))
    assert same(found["Ignore*"], box(100, 0, 110, 100))


def test_three_opinions_of_three_are_none() -> None:
    opinions = readers(
        {"A": [("Tumor", box(0, 0, 10, 10))], "B": [("Stroma", box(0, 0, 10, 10))], "C": []}
    )
    found = areas(merged(opinions, recipe()))
    assert set(found) == {"Ignore*"} and same(found["Ignore*"], box(0, 0, 10, 10))


def test_a_reader_who_found_nothing_has_a_vote() -> None:
    nothing = readers({"A": THREE["A"], "B": [], "C": []})
    assert merged(nothing, recipe()) == ()
    disputed = areas(merged(readers({"A": THREE["A"], "B": []}), recipe()))
    assert set(disputed) == {"Ignore*"}


def test_to_leave_something_out_is_a_vote_too() -> None:
    left_out: Drawn = [("Ignore*", box(50, 0, 100, 100)), *THREE["A"]]
    found = areas(merged(readers({"A": THREE["A"], "B": left_out, "C": left_out}), recipe()))
    assert same(found["Tumor"], box(0, 0, 50, 100))
    assert same(found["Ignore*"], box(50, 0, 100, 100))


def test_with_partial_coverage_only_those_count_who_say_something() -> None:
    said = readers(
        {
            "A": [("Tumor", box(0, 0, 10, 10))],
            "B": [("Stroma", box(20, 0, 30, 10))],
            "C": [("Region*", box(0, 0, 5, 10)), ("Stroma", box(20, 0, 30, 10))],
        }
    )
    found = areas(merged(said, recipe(coverage="partial")))
    assert same(found["Stroma"], box(20, 0, 30, 10))
    assert same(found["Tumor"], box(5, 0, 10, 10)), "only A looked there"
    assert same(found["Ignore*"], box(0, 0, 5, 10)), "A says tumour, C that it is none"
    both = readers({"A": [("Region*", box(0, 0, 9, 9))], "B": [("Region*", box(0, 0, 9, 9))]})
    assert same(areas(merged(both, recipe(coverage="partial")))["Non-tumor"], box(0, 0, 9, 9))


def test_the_reader_who_decides_is_taken_as_drawn() -> None:
    everyone = readers(THREE, last="C")
    assert merged(everyone, recipe("second_reader")) == everyone.annotations["C"]


def test_of_one_reader_every_rule_takes_what_was_drawn() -> None:
    alone = readers({"A": [*THREE["A"], *THREE["A"]]})
    for rule in ("majority", "staple", "second_reader"):
        assert merged(alone, recipe(rule)) == alone.annotations["A"]


def test_staple_trusts_those_more_who_agree_with_the_others() -> None:
    """Two careful readers, and two who outline anything: as many say tumour as do not."""
    tumors = [box(x, 0, x + 100, 100) for x in range(0, 1000, 200)]
    careful: Drawn = [("Tumor", each) for each in tumors]
    wild: Drawn = [("Tumor", each.buffer(40)) for each in tumors[:2]]
    wilder: Drawn = [("Tumor", box(0, 0, 1000, 40)), ("Tumor", box(200, 200, 300, 300))]
    all_four = readers({"A": careful, "B": careful, "C": wild, "D": wilder})
    by_most = areas(merged(all_four, recipe()))
    assert by_most["Ignore*"].area > 10_000, "two against two"
    by_staple = areas(merged(all_four, recipe("staple")))
    assert set(by_staple) == {"Tumor"}
    assert same(by_staple["Tumor"], shapely.union_all(tumors))


def test_staple_of_two_readers_is_the_majority() -> None:
    two = readers({name: THREE[name] for name in "AB"})
    assert [each.geometry for each in merged(two, recipe("staple"))] == [
        each.geometry for each in merged(two, recipe())
    ]


def test_outlines_that_all_drew_stay_as_they_were_drawn() -> None:
    drawn = shapely.Point(500, 500).buffer(200, quad_segs=64)
    found = areas(merged(readers({name: [("Tumor", drawn)] for name in "ABC"}), recipe()))
    assert found["Tumor"].normalize().equals_exact(drawn.normalize(), 0)


rectangles = st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2).map(
    lambda each: box(each[0], each[1], each[0] + each[2], each[1] + each[3])
)
drawings = st.lists(st.tuples(st.sampled_from(["Tumor", "Stroma"]), rectangles), max_size=3)


@given(st.dictionaries(st.sampled_from("ABCDE"), drawings, min_size=2, max_size=5))
def test_every_place_gets_the_class_that_most_readers_give_it(drawn: Mapping[str, Drawn]) -> None:
    found = areas(merged(readers(drawn), recipe()))
    for x in range(0, 60, 7):
        for y in range(0, 60, 7):
            here = shapely.Point(x + 0.5, y + 0.5)
            # which of a reader's own overlapping areas counts is tested where that is decided
            said = {name: {of for of, a in own if a.covers(here)} for name, own in drawn.items()}
            if any(len(each) > 1 for each in said.values()):
                continue
            count = {
                name: sum(each == {name} for each in said.values()) for name in ("Tumor", "Stroma")
            }
            count[""] = len(said) - sum(count.values())
            most = [name for name, number in count.items() if 2 * number > len(said)] or ["Ignore*"]
            assert [name for name, area in found.items() if area.covers(here)] == [
                name for name in most if name
            ]


def test_agreement_is_measured_of_each_two_and_each_class() -> None:
    found = agreement_of(
        readers({**THREE, "D": [("Stroma", box(300, 0, 310, 10))]}), recipe().labels
    )
    dice = {(each.one, each.other): each.dice for each in found}
    assert set(dice) == {("A", "B"), ("A", "C"), ("A", "D"), ("B", "C"), ("B", "D"), ("C", "D")}
    assert dice["A", "B"] == {"Tumor": pytest.approx(2 * 100 / 210)}
    assert dice["A", "C"] == {"Tumor": pytest.approx(2 * 50 / 250)}
    assert dice["C", "D"] == {"Tumor": 0, "Stroma": 0}
