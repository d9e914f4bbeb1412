from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapely.geometry import LineString, box

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.restoring import FileChange, file_change, restore_file, restore_image
from qpannot.bootstrap.review import say, take_back
from qpannot.bootstrap.said import SAID_KEY, STATE_KEY
from qpannot.bootstrap.states import State, survey
from qpannot.errors import FormatError
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, open_project
from qpannot.qupath.annotators import annotated_by
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
        status = restore_image(project, image, image.snapshots()[0]).status
        (first,) = image.annotations()
        assert first.id != second.id
        assert status.state is State.PROPOSED
        assert status.annotations == 1
        assert bootstrap(project, load_recipe("quick", ())).proposed == []


def test_what_was_said_of_other_annotations_is_taken_back(study: Path) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        say(project, [image], State.REVIEWED)
        say(project, [image], State.APPROVED, by="CD")
        image = project.images[0]
        restored = restore_image(project, image, image.snapshots()[0])
        assert [(word.state, word.by) for word in restored.lifted] == [
            ("approved", "CD"),
            ("reviewed", ""),
        ]
        status = restored.status
        assert status.state is State.PROPOSED
        assert project.images[0].metadata[STATE_KEY] == "proposed"


def test_what_was_said_of_the_restored_annotations_holds_again(study: Path) -> None:
    with open_project(study, "r+") as project:
        say(project, [project.images[0]], State.REVIEWED, by="AB")
        image = project.images[0]
        image.write_annotations(add=[Annotation(box(0, 0, 9, 9), PathClass("Stroma"))])
        restored = restore_image(project, image, image.snapshots()[-1])
        status = restored.status
        assert not restored.lifted
        assert status.state is State.REVIEWED
        assert "by AB" in status.reason


def test_each_readers_word_holds_as_long_as_that_readers_annotations(study: Path) -> None:
    def read(by: str) -> None:
        own = annotated_by(Annotation(box(0, 0, 9, 9), PathClass("Tumor")), by)
        project.images[0].write_annotations(add=[own])
        say(project, project.images[:1], State.REVIEWED, by=by, independent=True)

    with open_project(study, "r+") as project:
        say(project, project.images[:1], State.REVIEWED, by="A")
        read("B")
        read("C")
        image = project.images[0]
        restored = restore_image(project, image, image.snapshots()[-1])
        assert [word.by for word in restored.lifted] == ["C"]
        record = Ledger.of(project).image(image.id, image.name)
        assert record.independent_readers == ("B",)
        assert record.word is not None and record.word.by == "A"
        assert "changed since" not in restored.status.reason


def test_restoring_what_is_there_already_takes_nothing_back(study: Path) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        restore_image(project, image, image.snapshots()[0])
        say(project, [project.images[0]], State.REVIEWED)
        image = project.images[0]
        restored = restore_image(project, image, image.snapshots()[0])
        assert restored.status.state is State.REVIEWED and not restored.lifted


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


def test_a_word_that_nobody_heard_yet_outlasts_an_older_project_file(study: Path) -> None:
    said = {STATE_KEY: "reviewed", SAID_KEY: "reviewed 2026-02-03T10:20:30.123Z by AB"}
    with open_project(study, "r+") as project:
        project.update_images({"1": ImageChanges(metadata=said)})
        path = project.path
    restore_file(path, ProjectFiles(study).snapshots(path)[-1])
    with open_project(study) as project:
        assert states(project)[0] is State.REVIEWED
        assert project.images[0].metadata[SAID_KEY] == said[SAID_KEY]


def test_a_proposal_that_a_person_deleted_stays_deleted_when_an_older_file_is_restored(
    study: Path,
) -> None:
    ruler = Annotation(LineString([(0, 0), (9, 9)]), name="ruler")
    with open_project(study, "r+") as project:
        image = project.images[0]
        image.write_annotations(remove=image.annotations())
        image.write_annotations(add=[ruler])
        image.write_annotations(remove=image.annotations())
        restored = restore_image(project, image, image.snapshots()[-1])
        assert [each.name for each in image.annotations()] == ["ruler"]
        assert restored.status.rejected
        assert bootstrap(project, load_recipe("quick", ())).proposed == []


def test_an_image_put_back_into_a_project_brings_no_old_mark_along(study: Path) -> None:
    path = study / "project.qpproj"
    with open_project(study, "r+") as project:
        say(project, [project.images[0]], State.REVIEWED)
        project.update_images({"2": ImageChanges(metadata={"block": "A"})})
        take_back(project, [project.images[0]])
    marked = ProjectFiles(study).snapshots(path)[-1]
    assert b"reviewed" in marked.read()
    document = json.loads(path.read_text())  # as when the image is removed in QuPath
    document["images"] = [each for each in document["images"] if each["entryID"] != 1]
    path.write_text(json.dumps(document))
    assert file_change(marked, path.read_bytes()) == FileChange(("one.svs",))
    assert restore_file(path, marked)
    with open_project(study, "r+") as project:
        assert STATE_KEY not in project.images[0].metadata
        assert states(project)[0] is State.PROPOSED


def test_what_restoring_a_file_changes_is_told_by_the_names_in_it(study: Path) -> None:
    path, classes = study / "project.qpproj", study / "classifiers" / "classes.json"
    with open_project(study, "r+") as project:
        project.set_classes([PathClass("Tumor", (1, 2, 3)), PathClass("Stroma")])
        project.set_classes([PathClass("Tumor", (4, 5, 6)), PathClass("Other")])
    files = ProjectFiles(study)
    before, now = files.snapshots(classes)[-1], classes.read_bytes()
    assert file_change(before, now) == FileChange(("Stroma",), ("Other",), ("Tumor",))
    empty = files.snapshots(path)[0]
    assert file_change(empty, path.read_bytes()) == FileChange(
        go=("one.svs", "two.svs", "glass.svs")
    )
    assert file_change(empty, b"damaged") is None
    assert file_change(before, None) == FileChange(("Tumor", "Stroma"))


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
