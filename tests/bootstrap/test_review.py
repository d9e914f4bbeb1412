from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.review import say, take_back
from qpannot.bootstrap.states import STATE_KEY, State, survey
from qpannot.errors import UsageError
from qpannot.qupath import ImageChanges, Project, open_project
from qpannot.recipe import load_recipe

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        bootstrap(opened, RECIPE)
        yield opened


def test_a_persons_word_makes_a_proposal_reviewed(project: Project) -> None:
    (status,) = say(project, project.images[:1], State.REVIEWED, by="AB")
    assert status.state is State.REVIEWED and "by AB" in status.reason
    with open_project(project.path) as again:
        assert again.images[0].metadata[STATE_KEY] == "reviewed"
        assert survey(again, Ledger.of(again))[0].state is State.REVIEWED


def test_a_second_reader_comes_after_the_first(project: Project) -> None:
    with pytest.raises(UsageError, match="Not reviewed yet"):
        say(project, project.images[:1], State.APPROVED)
    assert Ledger.of(project).image("1", "one.svs").words == []
    say(project, project.images[:1], State.REVIEWED)
    (status,) = say(project, project.images[:1], State.APPROVED)
    assert status.state is State.APPROVED
    assert project.images[0].tags == ("qpannot: approved",)


def test_a_slide_without_annotations_needs_to_be_said_empty(project: Project) -> None:
    glass = project.images[2:]
    with pytest.raises(UsageError, match="--empty"):
        say(project, glass, State.REVIEWED)
    (status,) = say(project, glass, State.REVIEWED, allow_empty=True)
    assert status.state is State.REVIEWED
    assert bootstrap(project, RECIPE, only=glass).round is None


def test_what_was_said_can_be_taken_back(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED)
    (status,) = take_back(project, project.images[:1])
    assert status.state is State.PROPOSED
    assert project.images[0].metadata[STATE_KEY] == "proposed"


def test_a_word_said_twice_is_taken_back_at_once(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED, by="AB")
    say(project, project.images[:1], State.REVIEWED, by="AB")
    (status,) = take_back(project, project.images[:1])
    assert status.state is State.PROPOSED


def test_taking_back_undoes_one_word_at_a_time(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED, by="AB")
    say(project, project.images[:1], State.APPROVED, by="CD")
    (status,) = say(project, project.images[:1], State.REVIEWED)
    assert status.state is State.APPROVED and "by CD" in status.reason
    (status,) = take_back(project, project.images[:1])
    assert status.state is State.REVIEWED and "by AB" in status.reason
    (status,) = take_back(project, project.images[:1])
    assert status.state is State.PROPOSED


def test_a_correction_can_be_called_unfinished_until_it_is_saved_again(project: Project) -> None:
    image = project.images[0]
    (proposal,) = image.annotations()
    half = proposal.with_changes(geometry=proposal.geometry.buffer(-20))
    image.write_annotations(replace=[(proposal, half)])
    (half,) = image.annotations()
    assert survey(project, Ledger.of(project))[0].state is State.REVIEWED
    (status,) = take_back(project, project.images[:1])
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
    assert take_back(project, project.images[:1])[0].state is State.PROPOSED


def test_a_save_after_the_word_is_mentioned(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED)
    image = project.images[0]
    (proposal,) = image.annotations()
    image.write_annotations(replace=[(proposal, proposal.with_changes(name="again"))])
    assert "saved again since" in survey(project, Ledger.of(project))[0].reason
