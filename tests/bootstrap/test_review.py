from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from shapely import box

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.review import say, still_waiting, take_back
from qpannot.bootstrap.said import STATE_KEY
from qpannot.bootstrap.states import State, survey
from qpannot.qupath import Annotation, Detection, ImageChanges, Project, open_project
from qpannot.recipe import load_recipe

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        bootstrap(opened, RECIPE)
        yield opened


def test_a_persons_word_makes_a_proposal_reviewed(project: Project) -> None:
    (status,) = say(project, project.images[:1], State.REVIEWED, by="AB").statuses
    assert status.state is State.REVIEWED and "by AB" in status.reason
    with open_project(project.path) as again:
        assert again.images[0].metadata[STATE_KEY] == "reviewed"
        assert survey(again, Ledger.of(again))[0].state is State.REVIEWED


def test_a_second_reader_comes_after_the_first(project: Project) -> None:
    said = say(project, project.images[:1], State.APPROVED)
    ((image, error),) = said.skipped
    assert image.id == "1" and "Not reviewed yet" in error.message and not said.statuses
    assert Ledger.of(project).image("1", "one.svs").words == []
    say(project, project.images[:1], State.REVIEWED)
    (status,) = say(project, project.images[:1], State.APPROVED).statuses
    assert status.state is State.APPROVED
    assert project.images[0].tags == ("qpannot: approved",)


def test_a_slide_without_annotations_needs_to_be_said_empty(project: Project) -> None:
    glass = project.images[2:]
    ((image, error),) = say(project, glass, State.REVIEWED).skipped
    assert image.name == "glass.svs" and "--empty" in (error.hint or "")
    (status,) = say(project, glass, State.REVIEWED, allow_empty=True).statuses
    assert status.state is State.REVIEWED
    assert bootstrap(project, RECIPE, only=glass).round is None


def test_what_was_said_can_be_taken_back(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED)
    (status,) = take_back(project, project.images[:1]).statuses
    assert status.state is State.PROPOSED
    assert project.images[0].metadata[STATE_KEY] == "proposed"


def test_a_word_said_twice_is_taken_back_at_once(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED, by="AB")
    say(project, project.images[:1], State.REVIEWED, by="AB")
    (status,) = take_back(project, project.images[:1]).statuses
    assert status.state is State.PROPOSED


def test_taking_back_undoes_one_word_at_a_time(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED, by="AB")
    say(project, project.images[:1], State.APPROVED, by="CD")
    (status,) = say(project, project.images[:1], State.REVIEWED).statuses
    assert status.state is State.APPROVED and "by CD" in status.reason
    (status,) = take_back(project, project.images[:1]).statuses
    assert status.state is State.REVIEWED and "by AB" in status.reason
    (status,) = take_back(project, project.images[:1]).statuses
    assert status.state is State.PROPOSED


def test_a_correction_can_be_called_unfinished_until_it_is_saved_again(project: Project) -> None:
    image = project.images[0]
    (proposal,) = image.annotations()
    half = proposal.with_changes(geometry=proposal.geometry.buffer(-20))
    image.write_annotations(replace=[(proposal, half)])
    (half,) = image.annotations()
    assert survey(project, Ledger.of(project))[0].state is State.REVIEWED
    (status,) = take_back(project, project.images[:1]).statuses
    assert status.state is State.PROPOSED and "taken back" in status.reason
    before = image.fingerprint()
    assert bootstrap(project, RECIPE, only=project.images[:1]).proposed == []
    assert image.fingerprint() == before
    whole = half.with_changes(geometry=half.geometry.buffer(-20))
    image.write_annotations(replace=[(half, whole)])
    assert survey(project, Ledger.of(project))[0].state is State.REVIEWED


@pytest.mark.parametrize("again", [False, True])
def test_a_state_set_inside_qupath_is_a_persons_word(project: Project, again: bool) -> None:
    project.update_images({"1": ImageChanges(metadata={STATE_KEY: "reviewed"})})
    if again:
        bootstrap(project, RECIPE)
    status = survey(project, Ledger.of(project))[0]
    assert status.state is State.REVIEWED and "in QuPath" in status.reason
    assert take_back(project, project.images[:1]).statuses[0].state is State.PROPOSED


def test_a_change_after_the_word_is_mentioned_and_a_mere_save_is_not(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED)
    image = project.images[0]
    os.utime(project.folder / "data" / "1" / "data.qpdata")
    assert "changed since" not in survey(project, Ledger.of(project))[0].reason
    (proposal,) = image.annotations()
    image.write_annotations(replace=[(proposal, proposal.with_changes(name="again"))])
    assert "changed since" in survey(project, Ledger.of(project))[0].reason


def half_done(project: Project) -> Annotation:
    """Correct the first slide's proposal, and take back that it is reviewed."""
    image = project.images[0]
    (proposal,) = image.annotations()
    half = proposal.with_changes(geometry=proposal.geometry.buffer(-20))
    image.write_annotations(replace=[(proposal, half)])
    (status,) = take_back(project, project.images[:1]).statuses
    assert status.state is State.PROPOSED
    return half


def first_state(project: Project, *, at_a_glance: bool = False) -> State:
    return survey(project, Ledger.of(project), at_a_glance=at_a_glance)[0].state


def test_a_slide_waits_on_when_its_file_is_written_with_the_same_annotations(
    project: Project, tmp_path: Path
) -> None:
    half_done(project)
    cell = Detection(box(0, 0, 9, 9))
    project.images[0].write_annotations(add=[cell])
    assert first_state(project) is State.PROPOSED
    copy = shutil.copytree(project.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    with open_project(copy) as copied:
        assert first_state(copied) is first_state(copied, at_a_glance=True) is State.PROPOSED


def test_a_slide_waits_on_through_our_own_writes_and_no_longer_than_until_a_persons(
    project: Project,
) -> None:
    half = half_done(project)
    with still_waiting(project):
        project.images[0].write_annotations(add=[Annotation(box(0, 0, 90, 90))])
    assert first_state(project) is State.PROPOSED
    with still_waiting(project):
        pass
    whole = half.with_changes(geometry=half.geometry.buffer(-20))
    project.images[0].write_annotations(replace=[(project.images[0].annotations()[0], whole)])
    assert first_state(project) is State.REVIEWED
    with still_waiting(project):
        project.images[0].write_annotations(add=[Annotation(box(0, 0, 80, 80))])
    assert first_state(project) is State.REVIEWED


def test_of_several_slides_those_that_cannot_be_said_are_skipped_and_the_rest_recorded(
    project: Project,
) -> None:
    (project.folder / "data" / "2" / "data.qpdata").write_bytes(b"damaged")
    said = say(project, project.images, State.REVIEWED)
    assert [status.image.name for status in said.statuses] == ["one.svs"]
    assert [image.name for image, _ in said.skipped] == ["two.svs", "glass.svs"]
    with open_project(project.path) as again:
        assert first_state(again) is State.REVIEWED
