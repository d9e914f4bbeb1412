"""A second reader: what the first left is kept, and what the second changed of it measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shapely import box
from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.image_record import ImageRecord
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.readers.readings import hand_over
from qpannot.bootstrap.review import say, send_back, take_back
from qpannot.bootstrap.said import STATE_KEY
from qpannot.bootstrap.states import State
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, open_project
from qpannot.qupath.annotators import annotated_by
from qpannot.recipe import load_recipe

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])
FIRST, SECOND = box(600, 400, 1000, 1100), box(600, 400, 1100, 1000)
"""What the first reader left, and what the second made of it; a pixel is 0.5 µm."""


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        bootstrap(opened, RECIPE)
        yield opened


def draw(project: Project, outline: BaseGeometry) -> None:
    """Give the first slide's annotation another outline, as a person does in QuPath."""
    image = project.images[0]
    (old,) = image.annotations()
    image.write_annotations(replace=[(old, old.with_changes(geometry=outline))])


def approve(project: Project, by: str = "CD") -> None:
    assert not say(project, project.images[:1], State.APPROVED, by=by).skipped


def test_what_the_second_reader_changed_is_measured(project: Project) -> None:
    draw(project, FIRST)
    say(project, project.images[:1], State.REVIEWED, by="AB")
    draw(project, SECOND)
    assert Ledger.of(project).image("1", "one.svs").second_reading is None
    approve(project)
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None and (second.first, second.second) == ("AB", "CD")
    change = second.change.by_class["Tumor"]
    common, first, both = 400 * 600, 400 * 700, 500 * 600
    assert change.dice == pytest.approx(2 * common / (first + both))
    assert change.iou == pytest.approx(common / (first + both - common))
    assert change.area_added_mm2 == pytest.approx((both - common) * 0.25e-6)
    assert change.area_removed_mm2 == pytest.approx((first - common) * 0.25e-6)
    assert change.boundary_moved_mean_um is not None and 5 < change.boundary_moved_mean_um < 50
    assert second.change.overall == change


def test_a_second_reader_who_changes_nothing_agrees(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED)
    approve(project)
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None and second.change.overall.dice == 1


def test_a_correction_that_a_command_saw_is_what_the_first_reader_left(project: Project) -> None:
    draw(project, box(0, 0, 50, 50))
    bootstrap(project, RECIPE)
    draw(project, FIRST)
    bootstrap(project, RECIPE)
    draw(project, SECOND)
    approve(project)
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None
    assert second.change.overall.iou == pytest.approx(240_000 / 340_000)


def test_what_nobody_saw_of_the_first_reader_is_not_made_up(project: Project) -> None:
    draw(project, SECOND)
    approve(project)
    record = Ledger.of(project).image("1", "one.svs")
    assert record.word is not None and record.word.state == "approved"
    assert record.second_reading is None


def test_a_review_of_before_outlines_were_kept_is_known_while_nothing_changed(
    project: Project,
) -> None:
    def forget(record: ImageRecord) -> None:
        record.readings = []

    ledger = Ledger.of(project)
    say(project, project.images[:1], State.REVIEWED, by="AB")
    ledger.edit_image("1", "one.svs", forget)
    approve(project)
    second = ledger.image("1", "one.svs").second_reading
    assert second is not None and (second.first, second.change.overall.dice) == ("AB", 1)
    take_back(project, project.images[:1])
    ledger.edit_image("1", "one.svs", forget)
    draw(project, SECOND)
    approve(project)
    assert ledger.image("1", "one.svs").second_reading is None


def test_what_changes_after_a_second_reader_began_is_the_second_readers(project: Project) -> None:
    draw(project, FIRST)
    ledger = Ledger.of(project)
    hand_over(ledger, project.images[0])
    draw(project, box(600, 400, 1050, 1050))  # half done; a command sees it, and the reader returns
    bootstrap(project, RECIPE)
    hand_over(ledger, project.images[0])
    draw(project, SECOND)
    approve(project)
    second = ledger.image("1", "one.svs").second_reading
    assert second is not None
    assert second.change.overall.iou == pytest.approx(240_000 / 340_000)


def test_what_changes_after_a_slide_was_sent_back_is_the_first_readers(project: Project) -> None:
    ledger, image = Ledger.of(project), project.images[0]
    say(project, [image], State.REVIEWED, by="AB")
    hand_over(ledger, image)
    send_back(project, [image], by="CD")
    draw(project, SECOND)
    hand_over(ledger, image)
    approve(project)
    second = ledger.image("1", "one.svs").second_reading
    assert second is not None and second.change.overall.dice == 1


def test_an_approval_inside_qupath_is_measured_as_well(project: Project) -> None:
    draw(project, FIRST)
    say(project, project.images[:1], State.REVIEWED, by="AB")
    draw(project, SECOND)
    project.update_images({"1": ImageChanges(metadata={STATE_KEY: "approved"})})
    bootstrap(project, RECIPE)
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None and second.first == "AB" and second.change.overall.dice < 1


def test_an_approval_that_was_taken_back_is_not_what_the_next_is_compared_with(
    project: Project,
) -> None:
    draw(project, FIRST)
    say(project, project.images[:1], State.REVIEWED)
    approve(project, by="CD")
    take_back(project, project.images[:1])
    assert Ledger.of(project).image("1", "one.svs").second_reading is None
    draw(project, SECOND)
    approve(project, by="EF")
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None and second.second == "EF"
    assert second.change.overall.iou == pytest.approx(240_000 / 340_000)


def test_a_third_reader_is_compared_with_the_second(project: Project) -> None:
    draw(project, FIRST)
    say(project, project.images[:1], State.REVIEWED, by="AB")
    draw(project, SECOND)
    approve(project, by="CD")
    approve(project, by="EF")
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None and (second.first, second.second) == ("CD", "EF")
    assert second.change.overall.dice == 1


def test_outlines_are_kept_once_for_each_state_of_the_annotations(project: Project) -> None:
    draw(project, FIRST)
    for by in ("AB", "CD"):
        say(project, project.images[:1], State.REVIEWED, by=by)
    for _ in range(2):
        bootstrap(project, RECIPE)
    approve(project)
    folder = project.folder / "qpannot" / "readings" / "1"
    assert len(list(folder.iterdir())) == 1
    assert not (folder.parent / "2").exists(), "a proposal that nobody looked at is no reading"


def test_outlines_that_are_damaged_leave_the_second_reading_unmeasured(project: Project) -> None:
    draw(project, FIRST)
    say(project, project.images[:1], State.REVIEWED)
    (path,) = (project.folder / "qpannot" / "readings" / "1").iterdir()
    path.write_bytes(path.read_bytes()[:40])
    draw(project, SECOND)
    approve(project)
    assert Ledger.of(project).image("1", "one.svs").second_reading is None


def test_what_others_drew_independently_is_no_change_of_the_second_readers(
    project: Project,
) -> None:
    draw(project, FIRST)
    say(project, project.images[:1], State.REVIEWED)
    own = annotated_by(Annotation(SECOND, path_class=PathClass("Tumor")), "B")
    project.images[0].write_annotations(add=[own])
    approve(project)
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None and second.change.overall.dice == 1
