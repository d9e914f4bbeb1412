from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.said import STATE_KEY
from qpannot.bootstrap.states import State
from qpannot.errors import QpannotError, ReadOnlyError, UsageError
from qpannot.qupath import Annotation, PathClass, open_project
from qpannot.qupath.annotators import ANNOTATOR, annotator_of
from qpannot.qupath.proposals import is_untouched
from qpannot.recipe import load_recipe
from qpannot.review.session import NOTE, NothingAnnotatedError, Session

if TYPE_CHECKING:
    from tests.review.conftest import Desk

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])
TUMOR = PathClass("Tumor", (200, 0, 0))


def test_the_queue_is_gone_through_and_says_what_is_done(desk: Desk) -> None:
    with Session(desk.project, by="AB") as session:
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
    assert desk.state("1") is State.REVIEWED
    with desk.again() as other:
        assert desk.image("1", other).metadata[STATE_KEY] == "reviewed"
        assert [item.image.id for item in Session(other).queue] == ["2", "3", "1"]


def test_the_order_of_the_newest_round_comes_first(desk: Desk) -> None:
    from qpannot.bootstrap.records import Choice

    ledger = Ledger.of(desk.project)
    record = ledger.rounds()[0].model_copy(update={"number": 2})
    record.chosen = [
        Choice(image_id="2", score=0.4, reason="the network is least sure here"),
        Choice(image_id="1", score=0.3, reason="number 2 of 2"),
    ]
    ledger.save_round(record)
    session = Session(desk.project)
    assert [(item.image.id, item.score) for item in session.queue][:2] == [("2", 0.4), ("1", 0.3)]
    assert session.queue[0].reason == "the network is least sure here"


def test_what_is_skipped_comes_last(desk: Desk) -> None:
    with Session(desk.project) as session:
        session.open()
        opened = session.skip()
        assert opened is not None and opened.image.id == "2"
        assert [item.image.id for item in session.queue] == ["2", "3", "1"]
        assert not any(item.done for item in session.queue)
    assert Ledger.of(desk.project).image("1", "").words == []


def test_a_second_reader_approves_what_is_reviewed(desk: Desk) -> None:
    with Session(desk.project, by="AB") as session:
        session.open("1").accept()
        with pytest.raises(UsageError, match="Not reviewed"):
            session.open("2").approve()
    with Session(desk.project, by="CD", second_reader=True) as session:
        assert [item.image.id for item in session.queue] == ["1"]
        opened = session.open()
        desk.paint(opened, 0, 0, 100, 100, 1)
        assert opened.accept().status.state is State.APPROVED
        assert session.next() is None
    second = Ledger.of(desk.project).image("1", "one.svs").second_reading
    assert second is not None and second.second == "CD" and second.change.overall.dice < 1
    with Session(desk.project, second_reader=True) as session, pytest.raises(UsageError):
        session.open()


def test_what_is_sent_back_waits_for_the_first_reader(desk: Desk) -> None:
    with Session(desk.project, by="AB") as session:
        session.open("1").accept()
    with Session(desk.project, by="CD", second_reader=True) as session:
        opened = session.open("1")
        opened.accept()
        sent = opened.send_back()
        assert sent.status.state is State.PROPOSED
        assert sent.message.startswith("sent back by CD")
        assert session.next() is None  # it waits for somebody else
    assert [item.image.id for item in Session(desk.project).queue if not item.done] == [
        "1",
        "2",
        "3",
    ]


def test_an_independent_reader_draws_beside_the_others(desk: Desk) -> None:
    (shared,) = desk.image("1").annotations()
    with Session(desk.project, by="B", independent=True) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        saved = opened.accept()
        assert saved.added == 2 and session.queue[0].done
        with pytest.raises(UsageError):
            opened.reject()
    annotations = desk.image("1").annotations()
    assert shared in annotations and is_untouched(shared)
    assert [annotator_of(each) for each in annotations] == ["", "B", "B"]
    assert Ledger.of(desk.project).image("1", "one.svs").independent_readers == ("B",)
    with Session(desk.project) as session:
        opened = session.open("1")
        assert opened.labels[10, 10] == 0 and not opened.context
    with Session(desk.project, by="B", independent=True) as session:
        opened = session.open("1")
        assert opened.labels[10, 10] == 1
        opened.labels[...] = 0
        saved = opened.save()
        assert (saved.added, saved.removed) == (0, 2)
        assert not session.open("1").labels.any()
    assert desk.image("1").annotations() == (shared,)


def test_an_independent_reader_is_told_nothing_of_what_others_said(desk: Desk) -> None:
    with Session(desk.project, by="AB") as session:
        opened = session.open("1")
        opened.note = "sparse tumour"
        opened.accept()
    with Session(desk.project, by="CD", independent=True) as session:
        opened = session.open("1")
        assert opened.note == "" and not opened.recovered
        assert opened.item.reason == "independent reading by CD"
        opened.note = "looks benign"
        said = opened.accept().message
        assert said.startswith("your reading is done;") and "AB" not in said
    metadata = desk.image("1").metadata
    assert metadata[NOTE] == "sparse tumour" and metadata[f"{NOTE} CD"] == "looks benign"
    with Session(desk.project, by="CD", independent=True) as session:
        assert session.open("1").note == "looks benign"


def test_an_independent_reader_who_erases_everything_finds_nothing(desk: Desk) -> None:
    (shared,) = desk.image("1").annotations()
    with Session(desk.project, by="B", independent=True) as session:
        opened = session.open("1")
        opened.labels[...] = 0
        opened.changed()
        opened.save()
        with pytest.raises(NothingAnnotatedError):
            opened.accept()
        opened.accept(allow_empty=True)
    assert desk.image("1").annotations() == (shared,), "no copy came back"
    assert Ledger.of(desk.project).image("1", "one.svs").independent_readers == ("B",)


def test_what_others_drew_does_not_answer_for_a_first_reader(desk: Desk) -> None:
    image = desk.image("1")
    box = shapely.box(0, 0, 90, 90)
    image.write_annotations(
        add=[Annotation(box, path_class=TUMOR, metadata={ANNOTATOR: "B"})],
        remove=image.annotations(),
    )
    with Session(desk.project, by="AB") as session:
        opened = session.open("1")
        with pytest.raises(NothingAnnotatedError):
            opened.accept()
        assert opened.accept(allow_empty=True).status.state is State.REVIEWED


def test_what_others_save_is_no_conflict_of_an_independent_reader(desk: Desk) -> None:
    with Session(desk.project, by="B", independent=True) as session:
        opened = session.open("1")
        opened.save()
        desk.save_in_qupath("1")
        assert opened.accept().conflicts == 0


def test_an_independent_reader_begins_with_what_was_proposed_whatever_others_made_of_it(
    desk: Desk,
) -> None:
    with Session(desk.project, by="B", independent=True) as session:
        proposed = session.open("1").labels.copy()
    assert proposed.any() and proposed[10, 10] == 0
    with Session(desk.project, by="AB") as session:
        opened = session.open("1")
        opened.labels[: proposed.shape[0] // 2] = 0
        desk.paint(opened, 0, 0, 100, 100, 1)
        opened.save()
        left = opened.labels.copy()
    with Session(desk.project, by="B", independent=True) as session:
        opened = session.open("1")
        assert not opened.messages
        assert np.array_equal(opened.labels, proposed)
        opened.accept()
    with Session(desk.project) as session:
        assert np.array_equal(session.open("1").labels, left)


def test_an_independent_reader_is_told_where_nobody_knows_what_was_proposed(
    desk: Desk,
) -> None:
    with Session(desk.project, by="AB") as session:
        opened = session.open("1")
        opened.labels[: opened.labels.shape[0] // 2] = 0
        opened.changed()
        opened.save()
        left = opened.labels.copy()
    shutil.rmtree(desk.project.folder / "qpannot" / "images")
    with Session(desk.project, by="B", independent=True) as session:
        opened = session.open("1")
        assert "not known any more" in "".join(opened.messages)
        assert np.array_equal(opened.labels, left)
        opened.accept()
        assert not session.open("1").messages


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


def test_only_the_asked_for_images_are_gone_through(desk: Desk) -> None:
    session = Session(desk.project, images=["2"])
    assert [item.image.id for item in session.queue] == ["2"]
    with pytest.raises(QpannotError):
        Session(desk.project, independent=True)


def test_a_class_keeps_its_key_whatever_is_drawn(desk: Desk) -> None:
    with Session(desk.project) as session:
        names = [each.name for each in session.open("1").classes]
        desk.paint(session.open("1"), 0, 0, 100, 100, len(names))
        session.open("1").save()
        assert [each.name for each in session.open("1").classes] == names
        assert [each.name for each in session.open("2").classes] == names
