from __future__ import annotations

from pathlib import Path

import pytest
from shapely.geometry import box

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.restoring import restore_file, restore_image
from qpannot.bootstrap.review import say
from qpannot.bootstrap.states import STATE_KEY, State, survey
from qpannot.errors import FormatError
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, open_project
from qpannot.qupath.files import ProjectFiles
from qpannot.recipe import load_recipe


@pytest.fixture
def study(project_folder: Path) -> Path:
    """A project after round 1, its first slide proposed for once more with another threshold."""
    with open_project(project_folder, "r+") as project:
        bootstrap(project, load_recipe("quick", ()))
        again = load_recipe("quick", ["tissue.threshold=200"])
        bootstrap(project, again, only=project.images[:1])
    return project_folder


def states(project: Project) -> list[State]:
    return [status.state for status in survey(project, Ledger.of(project))]


def test_a_restored_proposal_is_no_corrected_one(study: Path) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        (second,) = image.annotations()
        status = restore_image(project, image, image.snapshots()[0])
        (first,) = image.annotations()
        assert first.id != second.id
        assert status.state is State.PROPOSED
        assert status.annotations == 1
        assert bootstrap(project, load_recipe("quick", ())).proposed == []


def test_what_was_said_of_other_annotations_is_taken_back(study: Path) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        say(project, [image], State.REVIEWED)
        say(project, [image], State.APPROVED)
        image = project.images[0]
        status = restore_image(project, image, image.snapshots()[0])
        assert status.state is State.PROPOSED
        assert project.images[0].metadata[STATE_KEY] == "proposed"


def test_what_was_said_of_the_restored_annotations_holds_again(study: Path) -> None:
    with open_project(study, "r+") as project:
        say(project, [project.images[0]], State.REVIEWED, by="AB")
        image = project.images[0]
        image.write_annotations(add=[Annotation(box(0, 0, 9, 9), PathClass("Stroma"))])
        status = restore_image(project, image, image.snapshots()[-1])
        assert status.state is State.REVIEWED
        assert "by AB" in status.reason


def test_restoring_what_is_there_already_takes_nothing_back(study: Path) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        restore_image(project, image, image.snapshots()[0])
        say(project, [project.images[0]], State.REVIEWED)
        image = project.images[0]
        assert restore_image(project, image, image.snapshots()[0]).state is State.REVIEWED


def test_a_damaged_snapshot_changes_neither_file_nor_record(study: Path) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        snapshot = image.snapshots()[0]
        snapshot.path.write_bytes(snapshot.path.read_bytes()[:-100])
        before = image.annotations()
        with pytest.raises(FormatError):
            restore_image(project, image, snapshot)
        assert image.annotations() == before
        assert states(project)[0] is State.PROPOSED


def test_a_restored_project_file_makes_no_word_of_an_old_mark(study: Path) -> None:
    with open_project(study, "r+") as project:
        say(project, [project.images[0]], State.REVIEWED)
        project.update_images({"2": ImageChanges(metadata={"block": "A"})})
        from qpannot.bootstrap.review import take_back

        take_back(project, [project.images[0]])
    path = study / "project.qpproj"
    marked = ProjectFiles(study).snapshots(path)[-1]
    assert b"reviewed" in marked.read() and b'"block"' in marked.read()
    path.write_bytes(b"damaged")
    assert restore_file(path, marked)
    with open_project(study, "r+") as project:
        assert project.images[1].metadata["block"] == "A"
        assert states(project)[:2] == [State.PROPOSED, State.PROPOSED]
        bootstrap(project, load_recipe("quick", ()))
        assert project.images[0].metadata[STATE_KEY] == "proposed"


def test_a_restored_project_file_gives_no_id_of_an_image_out_again(study: Path) -> None:
    path = study / "project.qpproj"
    empty = ProjectFiles(study).snapshots(path)[0]
    assert restore_file(path, empty)
    with open_project(study, "r+") as project:
        assert project.images == ()
        assert project.document["lastID"] == 3  # type: ignore[attr-defined]
    assert restore_file(path, ProjectFiles(study).snapshots(path)[-1])
    with open_project(study) as project:
        assert states(project) == [State.PROPOSED, State.PROPOSED, State.UNANNOTATED]


def test_a_crash_while_a_mark_is_taken_down_makes_no_word_of_it(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException): ...

    def crash(self: object, changes: object) -> None:
        raise Crash

    with open_project(study, "r+") as project:
        say(project, [project.images[0]], State.REVIEWED)
    with open_project(study, "r+") as project:
        image = project.images[0]
        monkeypatch.setattr(type(project), "update_images", crash)
        with pytest.raises(Crash):
            restore_image(project, image, image.snapshots()[0])
        monkeypatch.undo()
    with open_project(study, "r+") as project:
        assert project.images[0].metadata[STATE_KEY] == "reviewed", "the mark is still shown"
        assert states(project)[0] is State.PROPOSED
        bootstrap(project, load_recipe("quick", ()))
        assert project.images[0].metadata[STATE_KEY] == "proposed"
    with open_project(study, "r+") as project:  # set by hand in QuPath, it is a word again
        project.update_images({"1": ImageChanges(metadata={STATE_KEY: "reviewed"})})
        assert states(project)[0] is State.REVIEWED
