from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qpannot.errors import FormatError, ProjectError
from qpannot.geometry import Region
from qpannot.review.canvas import Canvas
from qpannot.review.journal import Entry, Journal, claim, decoded, encoded, forget
from qpannot.review.painted import Painted
from qpannot.review.writing import Writing

CANVAS = Canvas.of(Region(10.5, 20, 4000, 3000), longest_px=40)


SAVING = Writing("z", ("a",), (("b", "y"), ("c", "x")), ("d", "e"))


def entry(*, value: int = 1, when: str = "2026-01-01T10:00:00+00:00") -> Entry:
    layer = Painted(CANVAS, 2, 3, np.full((4, 5), value, np.uint8))
    return Entry("AB", when, "before", None, "a note", ("Tumor", "Stroma"), (layer,))


def write(folder: Path, name: str, content: Entry) -> None:
    """Leave a journal behind as a session that broke off."""
    journal = claim(folder, name).journal
    journal.start(lambda: content)
    journal.write()
    journal.abandon()


def assert_same(one: Entry, other: Entry) -> None:
    assert (one.by, one.when, one.digest, one.saving, one.note, one.classes) == (
        other.by,
        other.when,
        other.digest,
        other.saving,
        other.note,
        other.classes,
    )
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        assert (mine.canvas, mine.top, mine.left) == (theirs.canvas, theirs.top, theirs.left)
        assert np.array_equal(mine.values, theirs.values)


labels = arrays.arrays(np.uint8, (30, 40), elements=st.integers(0, 3))


@given(labels, labels, st.text())
def test_what_was_painted_comes_back_from_its_bytes(
    before: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
    after: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
    note: str,
) -> None:
    layer = Painted.between(before, after, CANVAS)
    if layer is None:
        assert np.array_equal(before, after)
        return
    note = note.encode(errors="replace").decode()
    kept = Entry("", "now", "x", SAVING, note, ("A", "B", "C"), (layer, layer))
    back = decoded(encoded(kept), Path("journal"))
    assert_same(back, kept)
    again = before.copy()
    back.layers[0].put_on(again)
    assert np.array_equal(again, after)


@pytest.mark.parametrize("cut", [0, 1, 50, 200, -1])
def test_a_journal_that_is_cut_off_is_told_from_a_whole_one(cut: int) -> None:
    with pytest.raises(FormatError):
        decoded(encoded(entry())[:cut], Path("journal"))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_byte_that_is_damaged_is_noticed(place: int, by: int) -> None:
    data = bytearray(encoded(entry()))
    data[place % len(data)] ^= by
    with pytest.raises(FormatError):
        decoded(bytes(data), Path("journal"))


def test_what_a_broken_off_session_left_is_found_by_the_next(tmp_path: Path) -> None:
    write(tmp_path / "review", "7", entry())
    claimed = claim(tmp_path / "review", "7")
    ((path, found),) = claimed.left
    assert_same(found, entry())
    assert path == claimed.journal.path and not claimed.others and not claimed.damaged
    claimed.journal.close()
    assert not path.exists()


def test_journals_of_other_slides_are_let_alone(tmp_path: Path) -> None:
    write(tmp_path, "7", entry())
    claimed = claim(tmp_path, "17")
    assert not claimed.left
    claimed.journal.close()
    assert len(list(tmp_path.glob("7-*.journal"))) == 1


def test_a_journal_that_somebody_writes_is_not_taken(tmp_path: Path) -> None:
    one = claim(tmp_path, "7")
    two = claim(tmp_path, "7")
    assert not one.others and len(two.others) == 1
    assert one.journal.path != two.journal.path
    one.journal.close()
    two.journal.close()


def test_what_several_sessions_left_is_found_oldest_first(tmp_path: Path) -> None:
    one, two = claim(tmp_path, "7").journal, claim(tmp_path, "7").journal
    for journal, when in ((one, "2026-02-02"), (two, "2026-01-01")):
        journal.start(lambda when=when: entry(when=when))  # type: ignore[misc]
        journal.write()
        journal.abandon()
    claimed = claim(tmp_path, "7")
    assert [found.when for _, found in claimed.left] == ["2026-01-01", "2026-02-02"]
    forget([path for path, _ in claimed.left])
    claimed.journal.abandon()
    assert not list(tmp_path.glob("*.journal"))


def test_damaged_journals_are_set_aside_each_under_its_own_name(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "7-0.journal").write_bytes(b"nonsense")
        claimed = claim(tmp_path, "7")
        assert not claimed.left and len(claimed.damaged) == 1
        claimed.journal.close()
    assert len(list(tmp_path.glob("*.damaged*"))) == 2


def test_a_journal_that_cannot_be_written_says_so_until_it_can(tmp_path: Path) -> None:
    journal = claim(tmp_path / "review", "7").journal
    journal.start(entry)
    journal.path.mkdir()
    journal.write()
    problems = [journal.problem]
    journal.path.rmdir()
    journal.write()
    problems.append(journal.problem)
    assert isinstance(problems[0], ProjectError) and problems[1] is None
    journal.path.unlink()
    journal.path.mkdir()
    with pytest.raises(ProjectError):
        journal.close()
    assert not claim(tmp_path / "review", "8").others


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "review").write_text("a file")
    with pytest.raises(ProjectError, match="cannot be kept"):
        claim(tmp_path / "review", "7")


def test_it_is_written_soon_after_it_was_asked_for(tmp_path: Path) -> None:
    made = iter([entry(value=1), entry(value=2), entry(value=2)])
    journal: Journal = claim(tmp_path, "7").journal
    journal.start(lambda: next(made))
    for value in (1, 2):
        journal.ask()
        while not journal.path.exists() or _value(journal.path) != value:
            time.sleep(0.01)
    journal.close()


def _value(path: Path) -> int:
    return int(decoded(path.read_bytes(), path).layers[0].values[0, 0])


PAINTER = """\
import sys, time
from qpannot.qupath import open_project
from qpannot.review.session import Session

with open_project(sys.argv[1], "r+") as project:
    opened = Session(project, by="AB", images=["1"]).open()
    opened.labels[10:60, 20:90] = 1
    opened.changed()
    time.sleep(600)
"""


def test_a_killed_process_leaves_all_but_the_last_seconds(project_folder: Path) -> None:
    from qpannot.qupath import open_project
    from qpannot.review.session import Session

    painter = subprocess.Popen([sys.executable, "-c", PAINTER, str(project_folder)])
    try:
        path = project_folder / "qpannot" / "review" / "1-0.journal"
        while not path.exists():
            assert painter.poll() is None
            time.sleep(0.05)
    finally:
        painter.send_signal(signal.SIGKILL)
        painter.wait()
    with open_project(project_folder, "r+") as project, Session(project, images=["1"]) as session:
        opened = session.open()
        assert opened.recovered and "by AB" in opened.messages[0]
        assert opened.labels.sum() == 50 * 70
        assert opened.save().added == 1
