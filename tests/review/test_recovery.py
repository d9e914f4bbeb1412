from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpannot.bootstrap.ledger import Ledger
from qpannot.geometry import Region
from qpannot.qupath import ImageChanges
from qpannot.review.session import NOTE, Opened, Session

if TYPE_CHECKING:
    from tests.review.conftest import Desk


def test_a_crash_loses_nothing_of_what_was_painted(desk: Desk) -> None:
    session = Session(desk.project, by="AB")
    opened = session.open("1")
    desk.paint(opened, 0, 0, 100, 100, 1)
    opened.finer(Region(200, 0, 100, 100))
    desk.paint(opened, 210, 10, 260, 60, 2)
    opened.note = "a tear on the left"
    desk.crash(session)
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and "by AB" in opened.messages[0]
        assert "changed since" not in opened.messages[0]
        assert opened.note == "a tear on the left" and opened.is_changed
        assert opened.save().added == 2
        assert desk.image("1", other).metadata[NOTE] == "a tear on the left"
    with desk.again() as other, Session(other) as session:
        assert not session.open("1").recovered
        notes = {item.image.id: item.note for item in session.queue}
        assert notes == {"1": "a tear on the left", "2": "", "3": ""}


def test_a_note_that_was_saved_after_a_crash_is_not_undone_by_the_next_session(
    desk: Desk,
) -> None:
    session = Session(desk.project)
    desk.paint(session.open("1"), 0, 0, 100, 100, 1)
    desk.crash(session)
    with desk.again() as other:
        other.update_images({"1": ImageChanges(metadata={NOTE: "see level 2"})})
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and opened.note == "see level 2"
        opened.save()
        assert desk.image("1", other).metadata[NOTE] == "see level 2"


def test_after_a_crash_strokes_are_painted_upon_what_was_saved_since(desk: Desk) -> None:
    session = Session(desk.project)
    desk.paint(session.open("1"), 0, 0, 100, 100, 1)
    desk.crash(session)
    drawn = desk.save_in_qupath("1")
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and "changed since" in opened.messages[0]
        opened.save()
        assert len(desk.image("1", other).annotations()) == 3
        assert drawn.id in {each.id for each in desk.image("1", other).annotations()}


def crash_while_saving(opened: Opened, *, written: bool) -> None:
    """Save, and break off right after the project was written, or right before."""
    with pytest.MonkeyPatch.context() as patched:
        if written:
            patched.setattr(opened._drawing, "settle", lambda wanted: 1 / 0)
        else:
            patched.setattr(type(opened.image), "write_annotations", lambda *_, **__: 1 / 0)
            patched.setattr(opened._journal, "ask", lambda: None)
        with pytest.raises(ZeroDivisionError):
            opened.save()
    opened._journal.abandon()
    opened.slide.close()


def test_a_crash_right_after_a_save_does_not_bring_it_up_again(desk: Desk) -> None:
    opened = Session(desk.project).open("1")
    desk.paint(opened, 0, 0, 100, 100, 1)
    crash_while_saving(opened, written=True)
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert not opened.recovered and not opened.is_changed and not opened.messages
        assert len(desk.image("1", other).annotations()) == 2


@pytest.mark.parametrize("what", ["add", "change", "remove"])
def test_what_was_saved_before_a_crash_is_not_painted_upon_what_qupath_saved_since(
    desk: Desk, what: str
) -> None:
    opened = Session(desk.project).open("1")
    (old,) = desk.image("1").annotations()
    left, top, right, bottom = map(int, old.geometry.bounds)
    if what == "add":
        desk.paint(opened, 0, 0, 100, 100, 1)
    elif what == "change":
        desk.paint(opened, left, top, (left + right) // 2, bottom, 0)
    else:
        desk.paint(opened, left - 50, top - 50, right + 50, bottom + 50, 0)
    crash_while_saving(opened, written=True)
    desk.save_in_qupath("1")
    stored = desk.image("1").annotations()
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert not opened.recovered and not opened.is_changed and not opened.messages
        opened.save()
        assert desk.image("1", other).annotations() == stored


def test_what_was_not_saved_before_a_crash_is_painted_upon_what_qupath_saved_since(
    desk: Desk,
) -> None:
    opened = Session(desk.project).open("1")
    desk.paint(opened, 0, 0, 100, 100, 1)
    crash_while_saving(opened, written=False)
    drawn = desk.save_in_qupath("1")
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and "just being saved" in opened.messages[0]
        assert opened.save().added == 1
        assert drawn.id in {each.id for each in desk.image("1", other).annotations()}


def test_what_qupath_wrote_over_with_what_it_had_open_is_painted_again(desk: Desk) -> None:
    before = desk.image("1").annotations()
    opened = Session(desk.project).open("1")
    desk.paint(opened, 0, 0, 100, 100, 1)
    crash_while_saving(opened, written=True)
    with desk.again() as other:
        image = desk.image("1", other)
        image.write_annotations(add=before, remove=image.annotations())
        desk.save_in_qupath("1")
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert opened.recovered and opened.labels[10, 10] == 1


def test_a_note_is_not_lost_by_a_crash_between_the_annotations_and_it(desk: Desk) -> None:
    opened = Session(desk.project).open("1")
    desk.paint(opened, 0, 0, 100, 100, 1)
    opened.note = "a tear on the left"
    crash_while_saving(opened, written=True)
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        assert opened.note == "a tear on the left" and "noted" in opened.messages[0]
        opened.save()
        assert desk.image("1", other).metadata[NOTE] == "a tear on the left"


def test_a_damaged_journal_is_set_aside(desk: Desk) -> None:
    session = Session(desk.project)
    desk.paint(session.open("1"), 0, 0, 100, 100, 1)
    desk.crash(session)
    (journal,) = (Ledger.of(desk.project).house / "review").glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:-100])
    with desk.again() as other, Session(other) as session:
        opened = session.open("1")
        (message,) = opened.messages
        assert not opened.recovered and "set aside" in message
        assert journal.with_suffix(".damaged").is_file()


def test_two_sessions_of_one_slide_know_of_each_other_and_lose_nothing(desk: Desk) -> None:
    with Session(desk.project) as one, desk.again() as other, Session(other) as two:
        first, second = one.open("1"), two.open("1")
        assert not first.messages and "open in" in second.messages[0]
        desk.paint(first, 0, 0, 100, 100, 1)
        desk.paint(second, 1800, 0, 1900, 100, 1)
        first.save()
        assert second.save().conflicts == 1
        assert len(desk.image("1", other).annotations()) == 3


def test_what_is_closed_unsaved_is_there_again(desk: Desk) -> None:
    with Session(desk.project) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        session.open("2")
        opened = session.open("1")
        assert opened.recovered and opened.labels[10, 10] == 1
        opened.discard()
        assert not opened.is_changed and opened.labels[10, 10] == 0
    assert not list((Ledger.of(desk.project).house / "review").glob("*.journal"))
