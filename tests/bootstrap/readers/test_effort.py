from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.readers.effort import IDLE_S, Effort, EffortClock, record_effort
from qpannot.qupath import Project, open_project


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_time_between_events_counts_and_a_break_does_not() -> None:
    now = Time()
    clock = EffortClock(now)
    now.now += 500  # before the first event nobody was there
    assert clock.touched() == 0
    for seconds, total in ((10, 10), (IDLE_S, 40), (IDLE_S + 0.1, 40), (5, 45)):
        now.now += seconds
        assert clock.stroke() == pytest.approx(total)
    now.now += 3
    assert clock.active_seconds == pytest.approx(45), "after the last event nothing is known"
    assert clock.strokes == 4


@given(st.lists(st.tuples(st.floats(0, 120), st.booleans()), max_size=50))
def test_active_time_is_that_of_the_short_gaps_whatever_the_events(
    events: list[tuple[float, bool]],
) -> None:
    now = Time()
    clock = EffortClock(now)
    begun, expected, before = now.now, 0.0, 0.0
    clock.touched()
    for gap, is_stroke in events:
        last, now.now = now.now, now.now + gap
        active = clock.stroke() if is_stroke else clock.touched()
        expected += now.now - last if now.now - last <= IDLE_S else 0
        assert before <= active <= now.now - begun + 1e-6
        before = active
    assert clock.active_seconds == pytest.approx(expected)
    assert clock.strokes == sum(is_stroke for _, is_stroke in events)


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        yield opened


def sitting(started: str, seconds: float, by: str = "AB") -> Effort:
    return Effort(
        by=by,
        tool="napari",
        started=started,
        active_seconds=seconds,
        strokes=3,
        area_changed_um2=1500.0,
        round=2,
    )


def test_sittings_are_kept_in_the_record_of_the_image(project: Project) -> None:
    ledger, image = Ledger.of(project), project.images[0]
    first, second = sitting("2026-01-05T10:00:00+00:00", 60), sitting("2026-01-06", 30)
    record_effort(ledger, image, first)
    record_effort(ledger, image, second)
    kept = Ledger.of(project).image(image.id, image.name)
    assert kept.effort == [first, second] and kept.name == image.name
    assert Ledger.of(project).image("2", "two.svs").effort == []


def test_a_sitting_recorded_at_each_save_counts_once(project: Project) -> None:
    ledger, image = Ledger.of(project), project.images[0]
    for seconds in (20, 50, 90):
        record_effort(ledger, image, sitting("2026-01-05T10:00:00+00:00", seconds))
    record_effort(ledger, image, sitting("2026-01-05T10:00:00+00:00", 7, by="CD"))
    kept = ledger.image(image.id, image.name).effort
    assert [(each.by, each.active_seconds) for each in kept] == [("AB", 90), ("CD", 7)]
