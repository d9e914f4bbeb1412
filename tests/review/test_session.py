from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import shapely

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.said import STATE_KEY
from qpannot.bootstrap.states import State, survey
from qpannot.errors import ProjectError, QpannotError, ReadOnlyError, UsageError
from qpannot.geometry import Region
from qpannot.linking import describe_slide
from qpannot.qupath import (
    Annotation,
    ImageChanges,
    PathClass,
    Project,
    ProjectImage,
    open_project,
)
from qpannot.qupath.annotators import ANNOTATOR, annotator_of
from qpannot.qupath.proposals import is_proposal, is_untouched, sealed
from qpannot.recipe import load_recipe
from qpannot.review.session import (
    NOTE,
    ChangedMeanwhileError,
    NothingAnnotatedError,
    Opened,
    Session,
)

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])
TUMOR = PathClass("Tumor", (200, 0, 0))


@pytest.fixture(scope="session")
def proposed(tmp_path_factory: pytest.TempPathFactory, make_slide: Callable[..., Path]) -> Path:
    """A project with proposals for one.svs and two.svs, none for glass.svs. To be copied."""
    folder = tmp_path_factory.mktemp("review")
    slides = [
        make_slide(folder / "one.svs"),
        make_slide(folder / "two.svs", size=(1536, 2048)),
        make_slide(folder / "glass.svs", tissue=False),
    ]
    with open_project(folder / "study", "x") as project:
        project.add_images([describe_slide(path) for path in slides])
        bootstrap(project, RECIPE)
    return folder / "study"


@pytest.fixture
def project(proposed: Path, tmp_path: Path) -> Iterator[Project]:
    """The same, to be changed; its slides are not."""
    shutil.copytree(proposed, tmp_path / "study")
    with open_project(tmp_path / "study", "r+") as opened:
        yield opened


def again(project: Project) -> Project:
    """Open the same project as another program does."""
    return open_project(project.path, "r+")


def image_of(project: Project, image_id: str) -> ProjectImage:
    return next(image for image in project.images if image.id == image_id)


def paint(opened: Opened, left: int, top: int, right: int, bottom: int, value: int) -> None:
    """Paint a rectangle given in full-resolution pixels, as a stroke."""
    (c0, r0), (c1, r1) = opened.canvas.affine.from_slide(
        np.array([[left, top], [right, bottom]])
    ).astype(int)
    opened.labels[max(0, r0) : r1, max(0, c0) : c1] = value
    opened.changed()


def state_of(project: Project, image_id: str) -> State:
    with again(project) as other:
        (status,) = (each for each in survey(other, Ledger.of(other)) if each.image.id == image_id)
        return status.state


def test_the_queue_is_gone_through_and_says_what_is_done(project: Project) -> None:
    with Session(project, by="AB") as session:
        assert [item.image.id for item in session.queue] == ["1", "2", "3"]
        assert session.waiting == 3
        first = session.open()
        assert session.position == 0 and first.image.id == "1"
        assert first.accept().status.state is State.REVIEWED
        assert [item.done for item in session.queue] == [True, False, False]
        second = session.next()
        assert second is not None and second.image.id == "2" and session.waiting == 2
        back = session.previous()
        assert back is not None and back.image.id == "1"
        assert session.previous() is None
    assert state_of(project, "1") is State.REVIEWED
    with again(project) as other:
        assert image_of(other, "1").metadata[STATE_KEY] == "reviewed"
        assert [item.image.id for item in Session(other).queue] == ["2", "3", "1"]


def test_the_order_of_the_newest_round_comes_first(project: Project) -> None:
    from qpannot.bootstrap.records import Choice

    ledger = Ledger.of(project)
    record = ledger.rounds()[0].model_copy(update={"number": 2})
    record.chosen = [
        Choice(image_id="2", score=0.4, reason="the network is least sure here"),
        Choice(image_id="1", score=0.3, reason="number 2 of 2"),
    ]
    ledger.save_round(record)
    session = Session(project)
    assert [(item.image.id, item.score) for item in session.queue][:2] == [("2", 0.4), ("1", 0.3)]
    assert session.queue[0].reason == "the network is least sure here"


def test_what_is_skipped_comes_last(project: Project) -> None:
    with Session(project) as session:
        session.open()
        opened = session.skip()
        assert opened is not None and opened.image.id == "2"
        assert [item.image.id for item in session.queue] == ["2", "3", "1"]
        assert not any(item.done for item in session.queue)
    assert Ledger.of(project).image("1", "").words == []


def test_a_stroke_becomes_part_of_the_proposal_and_reviews_it(project: Project) -> None:
    (old,) = image_of(project, "1").annotations()
    with Session(project) as session:
        opened = session.open("1")
        left, top, _, _ = old.geometry.bounds
        paint(opened, int(left) + 200, int(top) + 200, int(left) + 300, int(top) + 300, 0)
        saved = opened.save()
    assert (saved.added, saved.changed, saved.removed, saved.conflicts) == (0, 1, 0, 0)
    assert saved.status.state is State.REVIEWED and "1 changed" in saved.message
    with again(project) as other:
        (new,) = image_of(other, "1").annotations()
    assert new.id == old.id and is_proposal(new) and not is_untouched(new)
    lost = shapely.difference(old.geometry, new.geometry).area
    assert lost == pytest.approx(100 * 100, rel=0.05)
    assert state_of(project, "1") is State.REVIEWED


def test_saving_without_a_change_writes_nothing(project: Project) -> None:
    image = image_of(project, "1")
    before = image.fingerprint()
    with Session(project) as session:
        opened = session.open("1")
        assert not opened.is_changed
        saved = opened.save()
    assert (saved.added, saved.changed, saved.removed) == (0, 0, 0)
    assert image.fingerprint() == before and saved.status.state is State.PROPOSED


def test_a_stroke_elsewhere_leaves_the_proposal_a_proposal(project: Project) -> None:
    (old,) = image_of(project, "1").annotations()
    with Session(project) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 2)
        assert opened.save().added == 1
    first, second = image_of(project, "1").annotations()
    assert is_untouched(first) and first.geometry == old.geometry
    assert second.class_name == opened.classes[1].name and not is_proposal(second)


def test_a_save_can_be_painted_upon_and_saved_again(project: Project) -> None:
    with Session(project) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        opened.save()
        labels = opened.labels
        paint(opened, 100, 0, 200, 100, 1)
        saved = opened.save()
        assert opened.labels is labels
    assert (saved.added, saved.changed) == (0, 1)
    made = image_of(project, "1").annotations()[1]
    assert made.geometry.area == pytest.approx(200 * 100, rel=0.03)


def test_a_part_is_painted_more_finely_and_nothing_before_is_lost(project: Project) -> None:
    with Session(project) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        whole = opened.canvas
        opened.finer(Region(50, 0, 300, 200))
        assert opened.canvas.region.width == 300 and (opened.labels[:90, :45] == 1).all()
        paint(opened, 200, 100, 300, 200, 1)
        opened.whole()
        assert opened.canvas == whole and (opened.labels[110:190, 210:290] == 1).all()
        assert opened.save().added == 2
    areas = sorted(each.geometry.area for each in image_of(project, "1").annotations())
    assert areas[:2] == pytest.approx([100 * 100, 100 * 100], rel=0.05)


def save_in_qupath(project: Project, image_id: str, *, remove: bool = False) -> Annotation:
    """Change the slide's annotations as QuPath does meanwhile; return what it added."""
    drawn = Annotation(shapely.box(1800, 1300, 1900, 1400), path_class=PathClass("Stroma"))
    with again(project) as other:
        image = image_of(other, image_id)
        image.write_annotations(add=[drawn], remove=image.annotations() if remove else ())
    return drawn


def test_what_somebody_saved_meanwhile_is_kept_and_painted_upon(project: Project) -> None:
    with Session(project) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        drawn = save_in_qupath(project, "1")
        saved = opened.save()
        assert saved.conflicts == 1 and saved.is_redrawn and "somebody else" in saved.message
        (column, row) = opened.canvas.affine.from_slide(np.array([1850, 1350])).astype(int)
        assert opened.classes[opened.labels[row, column] - 1].name == "Stroma"
        assert opened.labels[10, 10] == 1 and not opened.is_changed
    found = {each.id: each for each in image_of(project, "1").annotations()}
    assert len(found) == 3 and found[drawn.id].geometry.equals(drawn.geometry)


def test_what_was_painted_outlives_that_qupath_deleted_what_it_was_painted_on(
    project: Project,
) -> None:
    (old,) = image_of(project, "1").annotations()
    with Session(project) as session:
        opened = session.open("1")
        left, top, right, _ = old.geometry.bounds
        middle = int(left + right) // 2
        paint(opened, middle - 50, int(top) - 60, middle + 50, int(top) + 60, 1)
        drawn = save_in_qupath(project, "1", remove=True)
        opened.save()
    found = {each.id: each for each in image_of(project, "1").annotations()}
    assert drawn.id in found and old.id not in found and len(found) == 2


def test_nothing_is_said_of_annotations_that_nobody_has_seen(project: Project) -> None:
    with Session(project, by="AB") as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        save_in_qupath(project, "1")
        with pytest.raises(ChangedMeanwhileError, match="Somebody else"):
            opened.accept()
        assert len(image_of(project, "1").annotations()) == 3, "the stroke is saved"
        assert state_of(project, "1") is State.PROPOSED
        assert opened.accept().status.state is State.REVIEWED, "seen by now"


def test_a_proposal_that_nobody_has_seen_is_not_rejected(project: Project) -> None:
    with Session(project) as session:
        opened = session.open("1")
        (old,) = image_of(project, "1").annotations()
        new = sealed(old.with_changes(id=uuid4(), geometry=shapely.box(10, 10, 90, 90), roi=None))
        with again(project) as other:
            image_of(other, "1").write_annotations(add=[new], remove=[old])
        with pytest.raises(ChangedMeanwhileError):
            opened.reject()
        assert [each.id for each in image_of(project, "1").annotations()] == [new.id]
        assert opened.reject().removed == 1


def crash(session: Session) -> None:
    """Let go of the slide as the system does when a process is killed."""
    assert session.current is not None
    session.current._journal.write()
    session.current._journal.abandon()
    session.current.slide.close()
    session.current = None


def test_a_crash_loses_nothing_of_what_was_painted(project: Project) -> None:
    session = Session(project, by="AB")
    opened = session.open("1")
    paint(opened, 0, 0, 100, 100, 1)
    opened.finer(Region(200, 0, 100, 100))
    paint(opened, 210, 10, 260, 60, 2)
    opened.note = "a tear on the left"
    crash(session)
    with again(project) as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and "by AB" in opened.messages[0]
        assert "changed since" not in opened.messages[0]
        assert opened.note == "a tear on the left" and opened.is_changed
        assert opened.save().added == 2
        assert image_of(other, "1").metadata[NOTE] == "a tear on the left"
    with again(project) as other, Session(other) as session:
        assert not session.open("1").recovered
        notes = {item.image.id: item.note for item in session.queue}
        assert notes == {"1": "a tear on the left", "2": "", "3": ""}


def test_a_note_that_was_saved_after_a_crash_is_not_undone_by_the_next_session(
    project: Project,
) -> None:
    session = Session(project)
    paint(session.open("1"), 0, 0, 100, 100, 1)
    crash(session)
    with again(project) as other:
        other.update_images({"1": ImageChanges(metadata={NOTE: "see level 2"})})
    with again(project) as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and opened.note == "see level 2"
        opened.save()
        assert image_of(other, "1").metadata[NOTE] == "see level 2"


def test_after_a_crash_strokes_are_painted_upon_what_was_saved_since(project: Project) -> None:
    session = Session(project)
    paint(session.open("1"), 0, 0, 100, 100, 1)
    crash(session)
    drawn = save_in_qupath(project, "1")
    with again(project) as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and "changed since" in opened.messages[0]
        opened.save()
        assert len(image_of(other, "1").annotations()) == 3
        assert drawn.id in {each.id for each in image_of(other, "1").annotations()}


def test_a_crash_right_after_a_save_does_not_bring_it_up_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(project)
    opened = session.open("1")
    paint(opened, 0, 0, 100, 100, 1)
    with monkeypatch.context() as patched:
        patched.setattr(opened._drawing, "settle", lambda wanted: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            opened.save()
    opened._journal.abandon()
    opened.slide.close()
    with again(project) as other, Session(other) as session:
        opened = session.open("1")
        assert not opened.recovered and not opened.is_changed
        assert len(image_of(other, "1").annotations()) == 2


def test_a_damaged_journal_is_set_aside(project: Project) -> None:
    session = Session(project)
    paint(session.open("1"), 0, 0, 100, 100, 1)
    crash(session)
    (journal,) = (Ledger.of(project).house / "review").glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:-100])
    with again(project) as other, Session(other) as session:
        opened = session.open("1")
        (message,) = opened.messages
        assert not opened.recovered and "set aside" in message
        assert journal.with_suffix(".damaged").is_file()


def test_two_sessions_of_one_slide_know_of_each_other_and_lose_nothing(project: Project) -> None:
    with Session(project) as one, again(project) as other, Session(other) as two:
        first, second = one.open("1"), two.open("1")
        assert not first.messages and "open in" in second.messages[0]
        paint(first, 0, 0, 100, 100, 1)
        paint(second, 1800, 0, 1900, 100, 1)
        first.save()
        assert second.save().conflicts == 1
        assert len(image_of(other, "1").annotations()) == 3


def test_what_is_closed_unsaved_is_there_again(project: Project) -> None:
    with Session(project) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        session.open("2")
        opened = session.open("1")
        assert opened.recovered and opened.labels[10, 10] == 1
        opened.discard()
        assert not opened.is_changed and opened.labels[10, 10] == 0
    assert not list((Ledger.of(project).house / "review").glob("*.journal"))


def test_an_empty_slide_is_accepted_only_if_the_person_says_so(project: Project) -> None:
    with Session(project) as session:
        opened = session.open("3")
        with pytest.raises(NothingAnnotatedError):
            opened.accept()
        assert opened.accept(allow_empty=True).status.state is State.REVIEWED


def test_rejecting_takes_away_what_nobody_touched(project: Project) -> None:
    with Session(project) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        saved = opened.reject()
        assert (saved.added, saved.removed, saved.is_redrawn) == (1, 1, True)
        assert opened.labels[10, 10] == 1 and (opened.labels > 0).sum() < 11_000
        opened = session.open("2")
        assert opened.reject().removed == 1 and not opened.labels.any()
        assert session.queue[1].done
    (left,) = image_of(project, "1").annotations()
    assert not is_proposal(left)


def test_a_second_reader_approves_what_is_reviewed(project: Project) -> None:
    with Session(project, by="AB") as session:
        session.open("1").accept()
        with pytest.raises(UsageError, match="Not reviewed"):
            session.open("2").approve()
    with Session(project, by="CD", second_reader=True) as session:
        assert [item.image.id for item in session.queue] == ["1"]
        opened = session.open()
        paint(opened, 0, 0, 100, 100, 1)
        assert opened.accept().status.state is State.APPROVED
        assert session.next() is None
    second = Ledger.of(project).image("1", "one.svs").second_reading
    assert second is not None and second.second == "CD" and second.change.overall.dice < 1
    with Session(project, second_reader=True) as session, pytest.raises(UsageError):
        session.open()


def test_what_is_sent_back_waits_for_the_first_reader(project: Project) -> None:
    with Session(project, by="AB") as session:
        session.open("1").accept()
    with Session(project, by="CD", second_reader=True) as session:
        opened = session.open("1")
        opened.accept()
        sent = opened.send_back()
        assert sent.status.state is State.PROPOSED
        assert sent.message.startswith("sent back by CD")
        assert session.next() is None  # it waits for somebody else
    assert [item.image.id for item in Session(project).queue if not item.done] == ["1", "2", "3"]


def test_an_independent_reader_draws_beside_the_others(project: Project) -> None:
    (shared,) = image_of(project, "1").annotations()
    with Session(project, by="B", independent=True) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        saved = opened.accept()
        assert saved.added == 2 and session.queue[0].done
        with pytest.raises(UsageError):
            opened.reject()
    annotations = image_of(project, "1").annotations()
    assert shared in annotations and is_untouched(shared)
    assert [annotator_of(each) for each in annotations] == ["", "B", "B"]
    assert Ledger.of(project).image("1", "one.svs").independent_readers == ("B",)
    with Session(project) as session:
        opened = session.open("1")
        assert opened.labels[10, 10] == 0 and not opened.context
    with Session(project, by="B", independent=True) as session:
        opened = session.open("1")
        assert opened.labels[10, 10] == 1
        opened.labels[...] = 0
        saved = opened.save()
        assert (saved.added, saved.removed) == (0, 2)
        assert not session.open("1").labels.any()
    assert image_of(project, "1").annotations() == (shared,)


def test_an_independent_reader_who_erases_everything_finds_nothing(project: Project) -> None:
    (shared,) = image_of(project, "1").annotations()
    with Session(project, by="B", independent=True) as session:
        opened = session.open("1")
        opened.labels[...] = 0
        opened.changed()
        opened.save()
        with pytest.raises(NothingAnnotatedError):
            opened.accept()
        opened.accept(allow_empty=True)
    assert image_of(project, "1").annotations() == (shared,), "no copy came back"
    assert Ledger.of(project).image("1", "one.svs").independent_readers == ("B",)


def test_what_others_drew_does_not_answer_for_a_first_reader(project: Project) -> None:
    image = image_of(project, "1")
    box = shapely.box(0, 0, 90, 90)
    image.write_annotations(
        add=[Annotation(box, path_class=TUMOR, metadata={ANNOTATOR: "B"})],
        remove=image.annotations(),
    )
    with Session(project, by="AB") as session:
        opened = session.open("1")
        with pytest.raises(NothingAnnotatedError):
            opened.accept()
        assert opened.accept(allow_empty=True).status.state is State.REVIEWED


def test_what_others_save_is_no_conflict_of_an_independent_reader(project: Project) -> None:
    with Session(project, by="B", independent=True) as session:
        opened = session.open("1")
        opened.save()
        save_in_qupath(project, "1")
        assert opened.accept().conflicts == 0


def test_an_independent_reader_begins_with_what_was_proposed_whatever_others_made_of_it(
    project: Project,
) -> None:
    with Session(project, by="B", independent=True) as session:
        proposed = session.open("1").labels.copy()
    assert proposed.any() and proposed[10, 10] == 0
    with Session(project, by="AB") as session:
        opened = session.open("1")
        opened.labels[: proposed.shape[0] // 2] = 0
        paint(opened, 0, 0, 100, 100, 1)
        opened.save()
        left = opened.labels.copy()
    with Session(project, by="B", independent=True) as session:
        opened = session.open("1")
        assert not opened.messages
        assert np.array_equal(opened.labels, proposed)
        opened.accept()
    with Session(project) as session:
        assert np.array_equal(session.open("1").labels, left)


def test_an_independent_reader_is_told_where_nobody_knows_what_was_proposed(
    project: Project,
) -> None:
    with Session(project, by="AB") as session:
        opened = session.open("1")
        opened.labels[: opened.labels.shape[0] // 2] = 0
        opened.changed()
        opened.save()
        left = opened.labels.copy()
    shutil.rmtree(project.folder / "qpannot" / "images")
    with Session(project, by="B", independent=True) as session:
        opened = session.open("1")
        assert "not known any more" in "".join(opened.messages)
        assert np.array_equal(opened.labels, left)
        opened.accept()
        assert not session.open("1").messages


def test_what_is_not_editable_is_shown_beside(project: Project) -> None:
    image = image_of(project, "1")
    (proposal,) = image.annotations()
    beside = [
        Annotation(shapely.box(0, 0, 50, 50), path_class=PathClass("Region*")),
        Annotation(shapely.box(0, 0, 50, 50), path_class=TUMOR, locked=True),
        Annotation(shapely.Point(10, 10), path_class=TUMOR),
    ]
    ignored = Annotation(shapely.box(1500, 0, 1600, 50), path_class=PathClass("Ignore*"))
    image.write_annotations(add=[*beside, ignored])
    with Session(project) as session:
        opened = session.open("1")
        assert {each.id for each in opened.context} == {each.id for each in beside}
        names = [each.name for each in opened.classes]
        assert names[0] == "Tumor" and "Ignore*" in names and "Region*" not in names
        assert opened.labels[10, 1550] == names.index("Ignore*") + 1
        assert all(each.color for each in opened.classes)
    assert proposal in image.annotations()


def test_effort_is_recorded_without_idle_time(project: Project) -> None:
    time = iter([0.0, 10.0, 15.0, 500.0, 503.0])
    with Session(project, by="AB", clock=lambda: next(time)) as session:
        opened = session.open("1")
        opened.touched()
        paint(opened, 0, 0, 100, 100, 1)
        session.touched()
        paint(opened, 100, 0, 200, 100, 1)
        session.touched()
        opened.save()
    (effort,) = Ledger.of(project).image("1", "one.svs").effort
    assert (effort.by, effort.tool, effort.strokes, effort.round) == ("AB", "napari", 2, 1)
    assert effort.active_seconds == 18
    assert effort.area_changed_um2 == pytest.approx(200 * 100 * 0.25, rel=0.01)


def test_who_only_looks_on_leaves_no_record_of_effort(project: Project) -> None:
    with Session(project) as session:
        session.open("1")
        session.touched()
    assert Ledger.of(project).image("1", "one.svs").effort == []


def test_a_save_that_fails_loses_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ProjectError(project.path, "the disk is full.")

    with Session(project) as session:
        opened = session.open("1")
        paint(opened, 0, 0, 100, 100, 1)
        with monkeypatch.context() as patched:
            patched.setattr(type(opened.image), "write_annotations", refuse)
            with pytest.raises(ProjectError, match="disk is full"):
                opened.save()
        assert opened.is_changed and opened.unsaved == 1
        assert opened.save().added == 1


def test_a_slide_that_is_missing_is_left_out_and_named(
    project_folder: Path, slide_file: Path
) -> None:
    with open_project(project_folder, "r+") as project:
        bootstrap(project, RECIPE)
        slide_file.unlink()
        session = Session(project)
        ((image, why),) = session.left_out
        assert image.id == "1" and "one.svs" in why
        assert [item.image.id for item in session.queue] == ["2", "3"]
        with pytest.raises(UsageError, match="not in the queue"):
            session.open("1")


def test_a_session_needs_to_write(project_folder: Path) -> None:
    with open_project(project_folder) as project, pytest.raises(ReadOnlyError):
        Session(project)


def test_only_the_asked_for_images_are_gone_through(project: Project) -> None:
    session = Session(project, images=["2"])
    assert [item.image.id for item in session.queue] == ["2"]
    with pytest.raises(QpannotError):
        Session(project, independent=True)
