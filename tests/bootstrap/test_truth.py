from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shapely import box

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.review import say
from qpannot.bootstrap.states import ImageStatus, State, key_of, survey
from qpannot.bootstrap.truth import Lesson, lessons_of, material_of
from qpannot.qupath import Annotation, PathClass, Project, open_project
from qpannot.qupath.proposals import Origin, make_proposal
from qpannot.recipe import Recipe, load_recipe
from qpannot.sampling import LeftOut

TUMOR = PathClass("Tumor")
LEFT, RIGHT = box(600, 400, 1000, 1100), box(1050, 400, 1400, 1100)
"""Of the tissue of the first slide, in its pixels."""


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("quick", ["patches.size_px=32", "tissue.min_area_um2=10000"])


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    """Its first slide has two proposals, of which a person enlarged the left one."""
    with open_project(project_folder, "r+") as opened:
        left, right = (
            make_proposal(outline, TUMOR, Origin(1, "AN1"), locked=False)
            for outline in (LEFT, RIGHT)
        )
        changed = left.with_changes(geometry=LEFT.buffer(10, join_style="mitre"))
        opened.images[0].write_annotations(add=[changed, right])
        opened.images[1].write_annotations(
            add=[make_proposal(RIGHT, TUMOR, Origin(1, "AN1"), locked=False)]
        )
        yield opened


def statuses_of(project: Project) -> list[ImageStatus]:
    return survey(project, Ledger.of(project))


def lessons(project: Project) -> list[Lesson]:
    found, failed = lessons_of(statuses_of(project), Ledger.of(project), Recipe())
    assert not failed
    return found


def test_only_reviewed_slides_are_lessons(project: Project) -> None:
    states = [status.state for status in statuses_of(project)]
    assert states == [State.REVIEWED, State.PROPOSED, State.UNANNOTATED]
    assert [lesson.image.name for lesson in lessons(project)] == ["one.svs"]


def test_what_nobody_touched_is_no_truth_where_the_person_only_changed_some(
    project: Project,
) -> None:
    (lesson,) = lessons(project)
    assert not lesson.is_vouched and lesson.untouched == 1
    changed, untouched = lesson.annotations
    assert lesson.is_truth(changed) and not lesson.is_truth(untouched)
    assert lesson.is_truth(Annotation(LEFT, path_class=TUMOR))


def test_all_is_truth_where_a_person_said_so(project: Project) -> None:
    say(project, project.images[:2], State.REVIEWED)
    one, two = lessons(project)
    assert one.is_vouched and two.is_vouched and one.untouched == two.untouched == 0
    assert all(one.is_truth(each) for each in one.annotations)


def test_a_word_is_something_new_to_learn_and_saying_it_twice_is_not(project: Project) -> None:
    ledger = Ledger.of(project)

    def key() -> str:
        return key_of(statuses_of(project)[0], ledger, "majority")

    before = key()
    assert key() == before == lessons(project)[0].key
    say(project, project.images[:1], State.REVIEWED)
    said = key()
    assert said != before
    say(project, project.images[:1], State.APPROVED)
    assert key() == said
    project.images[0].write_annotations(add=[Annotation(box(0, 0, 9, 9), path_class=TUMOR)])
    assert key() not in (said, before)


def test_patches_where_an_untouched_proposal_lies_are_left_out(
    project: Project, recipe: Recipe, tmp_path: Path
) -> None:
    material = material_of(project, lessons(project), recipe, tmp_path / "before")
    table = material.tables["1"]
    assert table.counts["Tumor"] and table.counts["Non-tumor"]
    assert table.left_out[LeftOut.IGNORED] > 20
    side = table.width  # of a patch, in pixels of the slide
    inside = (table.x + side > 1060) & (table.x < 1390) & (table.y + side > 410) & (table.y < 1090)
    assert not inside.any()
    say(project, project.images[:1], State.REVIEWED)
    vouched = material_of(project, lessons(project), recipe, tmp_path / "after").tables["1"]
    assert vouched.counts["Tumor"] > table.counts["Tumor"]
    assert not vouched.left_out[LeftOut.IGNORED]


def test_tables_are_made_again_when_a_person_vouches_for_the_same_annotations(
    project: Project, recipe: Recipe, tmp_path: Path
) -> None:
    before = material_of(project, lessons(project), recipe, tmp_path).tables["1"]
    say(project, project.images[:1], State.REVIEWED)
    after = material_of(project, lessons(project), recipe, tmp_path).tables["1"]
    assert after.counts != before.counts


def test_a_slide_that_cannot_be_read_is_named_and_the_others_give_patches(
    project: Project, recipe: Recipe, tmp_path: Path
) -> None:
    say(project, project.images[:2], State.REVIEWED)
    assert project.images[0].path is not None
    project.images[0].path.write_bytes(b"no slide")
    told: list[tuple[str, int, int]] = []
    material = material_of(
        project,
        lessons(project),
        recipe,
        tmp_path,
        each=lambda name, done, total: told.append((name, done, total)),
    )
    ((image, error),) = material.failed
    assert image.name == "one.svs" and error.hint
    assert set(material.tables) == set(material.openers) == set(material.metadata) == {"2"}
    assert told == [("one.svs", 0, 2), ("two.svs", 1, 2)]


def test_annotations_that_cannot_be_read_are_no_lesson_and_end_nothing(project: Project) -> None:
    say(project, project.images[:2], State.REVIEWED)
    before = statuses_of(project)
    (project.folder / "data" / "1" / "data.qpdata").write_bytes(b"no data")
    found, failed = lessons_of(before, Ledger.of(project), Recipe())
    assert [lesson.image.id for lesson in found] == ["2"]
    assert [image.id for image, _ in failed] == ["1"]
