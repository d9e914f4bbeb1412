from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from qpannot import console
from qpannot.console import PACE_S, TimeLeft, listed, stages


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pace(left: TimeLeft, clock: Clock, *, start: float, step: float, total: int) -> Iterator[str]:
    """One step of work every ten seconds."""
    done = start
    while done < total:
        yield left.told(done, total)
        clock.now += 10
        done += step


def test_the_time_left_follows_from_parts_of_items(clock: Clock) -> None:
    told = list(pace(TimeLeft(clock), clock, start=0, step=0.25, total=2))
    assert told[0] == ""  # nothing was done yet
    assert told[1:4] == ["70 s left", "60 s left", "50 s left"]


def test_what_was_done_already_does_not_make_the_rest_look_quick(clock: Clock) -> None:
    left = TimeLeft(clock)
    assert left.told(0, 200) == ""
    clock.now += 1  # an earlier run made a hundred
    told = list(pace(left, clock, start=100, step=1, total=200))
    after = int(PACE_S / 10) + 1
    assert told[1] == "11 s left"  # as if it went on like this
    assert told[after] == "14 min left"  # 87 of ten seconds each


def test_a_stage_that_begins_anew_is_reckoned_anew(clock: Clock) -> None:
    left = TimeLeft(clock)
    list(pace(left, clock, start=0, step=1, total=10))
    assert left.told(0, 10) == ""


def test_a_pipe_gets_percentages_that_move_within_a_slide(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "SPARSE_S", 0)
    with stages(sparse=("Predicting",)) as each:
        for done in (0, 0.5, 1, 1.75):
            each("Predicting", "one.svs", done, 2)
        each("Proposing", "one.svs", 0, 2)
    *told, proposing = capsys.readouterr().err.splitlines()
    assert [re.sub(r", \d+ s left", "", line) for line in told] == [
        f"Predicting {percent} % one.svs" for percent in (0, 25, 50, 87)
    ]
    assert ["left" in line for line in told] == [False, True, True, True]
    assert proposing == "Proposing 1/2 one.svs"


def test_a_terminal_gets_a_percentage_within_a_slide_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with stages() as each:
        each("Predicting", "one.svs", 0, 2)
        each("Predicting", "one.svs", 1.5, 2)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "75%" in shown and "1/2" in shown and "0 s left" in shown


def test_names_are_listed_as_people_do() -> None:
    assert [listed(["A", "B", "C"][:n]) for n in range(4)] == ["", "A", "A and B", "A, B and C"]
