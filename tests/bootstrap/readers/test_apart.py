"""Several people read one slide, each alone: whose annotations are whose, and what is learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import shapely
from shapely import box
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.review import say, send_back, still_waiting, take_back
from qpannot.bootstrap.said import SAID_KEY, STATE_KEY
from qpannot.bootstrap.states import ImageStatus, State, key_of, survey
from qpannot.bootstrap.truth import Lesson, lessons_of, material_of
from qpannot.bootstrap.words import mirror
from qpannot.errors import UsageError
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, open_project
from qpannot.qupath.annotators import annotated_by, annotator_of
from qpannot.recipe import Recipe, load_recipe

TUMOR = PathClass("Tumor")
LEFT, MIDDLE, RIGHT = box(600, 400, 900, 1100), box(900, 400, 1000, 1100), box(1000, 400, 1400, 800)


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    """Its first two slides have a proposal each."""
    with open_project(project_folder, "r+") as opened:
        bootstrap(opened, load_recipe("h2gnet", ["tissue.min_area_um2=10000"]))
        yield opened


def recipe(rule: str = "majority") -> Recipe:
    return load_recipe(
        "quick",
        ["patches.size_px=32", "tissue.min_area_um2=10000", f"annotators.rule={rule}"],
    )


def read(project: Project, by: str, *outlines: BaseGeometry, empty: bool = False) -> None:
    """Let somebody read the first slide independently."""
    drawn = [annotated_by(Annotation(each, path_class=TUMOR), by) for each in outlines]
    if drawn:
        project.images[0].write_annotations(add=drawn)
    said = say(
        project, project.images[:1], State.REVIEWED, by=by, independent=True, allow_empty=empty
    )
    assert not said.skipped


def status(project: Project) -> ImageStatus:
    return survey(project, Ledger.of(project))[0]


def lesson(project: Project, rule: str = "majority") -> Lesson:
    ledger = Ledger.of(project)
    found, failed = lessons_of(survey(project, ledger), ledger, recipe(rule))
    assert not failed
    return found[0]


def tumor(of: Lesson, class_name: str = "Tumor") -> BaseGeometry:
    return shapely.union_all(
        [each.geometry for each in of.annotations if each.class_name == class_name]
    )


def same(one: BaseGeometry, other: BaseGeometry) -> bool:
    return bool(one.symmetric_difference(other).area < 1e-3)


def test_one_independent_reader_makes_the_slide_reviewed_and_vouches_for_no_other(
    project: Project,
) -> None:
    read(project, "B", LEFT)
    assert (
        status(project).state is State.REVIEWED and "by B, independently" in status(project).reason
    )
    alone = lesson(project)
    assert not alone.is_vouched
    assert [annotator_of(each) for each in alone.annotations] == ["B"]
    assert same(tumor(alone), LEFT), "the proposal, which B did not take over, is not learned"


def test_what_most_readers_say_is_learned_and_what_is_disputed_is_not(project: Project) -> None:
    read(project, "B", LEFT, MIDDLE)
    read(project, "C", LEFT)
    two = lesson(project)
    assert same(tumor(two), LEFT) and same(tumor(two, "Ignore*"), MIDDLE)
    read(project, "D", LEFT, MIDDLE, RIGHT)
    three = lesson(project)
    assert same(tumor(three), LEFT.union(MIDDLE)) and tumor(three, "Ignore*").is_empty
    assert len({two.key, three.key}) == 2


def test_who_found_nothing_has_read_the_slide(project: Project) -> None:
    read(project, "B", LEFT)
    read(project, "C", empty=True)
    read(project, "D", empty=True)
    assert lesson(project).annotations == ()


def test_whoever_corrected_the_proposal_is_one_reader_more(project: Project) -> None:
    image = project.images[0]
    (proposal,) = image.annotations()
    image.write_annotations(replace=[(proposal, proposal.with_changes(geometry=LEFT))])
    read(project, "B", LEFT, MIDDLE)
    found = lesson(project)
    assert same(tumor(found), LEFT) and same(tumor(found, "Ignore*"), MIDDLE)


def test_a_reader_who_is_not_done_is_left_out_and_told_of(project: Project) -> None:
    read(project, "B", LEFT)
    half = annotated_by(Annotation(RIGHT, path_class=TUMOR), "C")
    project.images[0].write_annotations(add=[half])
    assert same(tumor(lesson(project)), LEFT)
    assert "C not finished" in status(project).reason
    take_back(project, project.images[:1], by="B", independent=True)
    assert status(project).state is State.PROPOSED


def test_what_a_reader_has_not_finished_is_learned_from_on_no_slide(project: Project) -> None:
    glass = project.images[2]  # never proposed for
    glass.write_annotations(add=[annotated_by(Annotation(LEFT, path_class=TUMOR), "C")])
    ledger = Ledger.of(project)

    def found(at_a_glance: bool = True) -> ImageStatus:
        return survey(project, ledger, at_a_glance=at_a_glance)[2]

    assert found().state is found(False).state is State.PROPOSED
    assert found().reason == "waits for a person; C not finished"
    say(project, [glass], State.REVIEWED, by="C", independent=True)
    assert found().state is State.REVIEWED
    take_back(project, [glass], by="C", independent=True)
    assert found().state is State.PROPOSED
    glass.write_annotations(add=[Annotation(RIGHT, path_class=TUMOR)])
    assert found().state is State.REVIEWED, "what is nobody's own is annotated as ever"


def test_what_was_sent_back_waits_whatever_an_independent_reader_says(project: Project) -> None:
    image = project.images[0]
    (proposal,) = image.annotations()
    image.write_annotations(replace=[(proposal, proposal.with_changes(geometry=LEFT))])
    send_back(project, [image])
    read(project, "B", RIGHT)
    with still_waiting(project):
        image.write_annotations(add=[Annotation(MIDDLE)])
    assert same(tumor(lesson(project)), RIGHT), "B's alone"
    take_back(project, [image], by="B", independent=True)
    assert status(project).state is State.PROPOSED
    corrected = next(each for each in image.annotations() if each.id == proposal.id)
    image.write_annotations(replace=[(corrected, corrected.with_changes(geometry=MIDDLE))])
    assert status(project).state is State.REVIEWED


def all_of_one(project: Project, by: str) -> None:
    """Leave nothing on the first slide but what one reader drew."""
    image = project.images[0]
    drawn = annotated_by(Annotation(LEFT, path_class=TUMOR), by)
    image.write_annotations(add=[drawn], remove=image.annotations())


def test_who_speaks_of_what_others_drew_says_not_that_there_is_nothing(project: Project) -> None:
    all_of_one(project, "B")
    ((_, error),) = say(project, project.images[:1], State.REVIEWED, by="A").skipped
    assert "B's own" in error.message and "--independent" in (error.hint or "")
    metadata = {STATE_KEY: "reviewed", SAID_KEY: "reviewed 2026-02-03T10:20:30.123Z by A"}
    project.update_images({"1": ImageChanges(metadata=metadata)})
    ledger = Ledger.of(project)
    for _ in range(2):
        assert "reviewed in QuPath by A" in status(project).reason
        assert same(tumor(lesson(project)), LEFT)
        mirror(project, ledger, survey(project, ledger))


def test_who_says_that_there_is_nothing_is_one_reader_more(project: Project) -> None:
    all_of_one(project, "B")
    say(project, project.images[:1], State.REVIEWED, by="B", independent=True)
    assert not say(project, project.images[:1], State.REVIEWED, by="A", allow_empty=True).skipped
    assert same(tumor(lesson(project), "Ignore*"), LEFT), "one of two"


def test_taking_back_undoes_the_word_of_the_one_who_does(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED, by="A")
    read(project, "B", LEFT)
    read(project, "C", RIGHT)
    take_back(project, project.images[:1], by="B", independent=True)
    record = Ledger.of(project).image("1", "one.svs")
    assert record.independent_readers == ("C",)
    assert record.word is not None and record.word.by == "A"
    take_back(project, project.images[:1])
    assert status(project).state is State.REVIEWED, "C's word stands"
    assert not lesson(project).is_vouched


def test_an_independent_reader_has_a_name_and_annotations(project: Project) -> None:
    with pytest.raises(UsageError, match="needs a name"):
        say(project, project.images[:1], State.REVIEWED, independent=True)
    said = say(project, project.images[:1], State.REVIEWED, by="B", independent=True)
    ((_, error),) = said.skipped
    assert "No annotations of B" in error.message and "--by" in (error.hint or "")


def test_an_annotation_of_an_independent_reader_changes_nothing_that_others_vouched_for(
    project: Project,
) -> None:
    say(project, project.images[:1], State.REVIEWED, by="A")
    read(project, "B", LEFT)
    assert "changed since" not in status(project).reason
    assert "by A" in status(project).reason and "independently by B" in status(project).reason


def test_the_rule_of_the_second_reader_takes_who_approved(project: Project) -> None:
    read(project, "B", LEFT)
    read(project, "C", RIGHT)
    read(project, "D", MIDDLE)
    assert same(tumor(lesson(project, "second_reader")), MIDDLE), "nobody approved: the last"
    say(project, project.images[:1], State.APPROVED, by="C")
    approved = lesson(project, "second_reader")
    assert same(tumor(approved), RIGHT)
    assert same(tumor(lesson(project)), shapely.Polygon()), "the majority is another rule"


def test_another_rule_is_something_new_to_learn_where_several_read_and_nowhere_else(
    project: Project,
) -> None:
    read(project, "B", LEFT)
    read(project, "C", RIGHT)
    say(project, project.images[1:2], State.REVIEWED)
    ledger = Ledger.of(project)
    one, two, _ = survey(project, ledger)
    assert key_of(one, ledger, "majority") != key_of(one, ledger, "staple")
    assert key_of(two, ledger, "majority") == key_of(two, ledger, "staple")
    assert lesson(project).key == key_of(one, ledger, "majority")


def test_a_slide_that_nobody_read_alone_is_learned_as_ever(
    project: Project, tmp_path: Path, files_below: Callable[[Path], object]
) -> None:
    image = project.images[0]
    image.write_annotations(add=[Annotation(LEFT, path_class=TUMOR), Annotation(RIGHT)])
    say(project, project.images[:1], State.REVIEWED, by="A")
    tables = tmp_path / "patches"
    material_of(project, [lesson(project)], recipe(), tables)
    before = files_below(tables)
    for rule in ("staple", "second_reader"):
        assert lesson(project, rule).annotations == image.annotations()
        material_of(project, [lesson(project, rule)], recipe(rule), tables)
    assert files_below(tables) == before


def test_patches_are_those_of_the_merged_readings(project: Project, tmp_path: Path) -> None:
    for by, outlines in (("B", (LEFT, MIDDLE)), ("C", (LEFT, MIDDLE)), ("D", (RIGHT,))):
        read(project, by, *outlines)
    table = material_of(project, [lesson(project)], recipe(), tmp_path).tables["1"]
    is_tumor = table.label == 1
    assert is_tumor.any() and (table.x[is_tumor] < 1000).all()
    assert (~is_tumor & (table.x > 1000)).any(), "where D alone saw tumour, most saw none"
