"""What is said of slides inside QuPath, and the queue that is shown there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qpannot.bootstrap.image_record import SENT_BACK
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.queue import QUEUE_KEY, places
from qpannot.bootstrap.records import Choice
from qpannot.bootstrap.review import say, send_back, take_back
from qpannot.bootstrap.said import SAID_KEY, STATE_KEY, WRITTEN_KEY, marks_in
from qpannot.bootstrap.states import ImageStatus, State, survey
from qpannot.bootstrap.words import mirror
from qpannot.qupath import ImageChanges, Project, open_project
from qpannot.recipe import load_recipe

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])
REVIEWED = "reviewed 2026-02-03T10:20:30.123Z by AB"
APPROVED = "approved 2026-02-03T11:00:00Z"
BACK = "sent back 2026-02-03T12:00:00.5Z by C D"


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        bootstrap(opened, RECIPE)
        yield opened


def last_saved_by(version: str, folder: Path) -> Project:
    """Return the project as if a version of QuPath had saved it last."""
    path = folder / "project.qpproj"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"version": version}))
    return open_project(folder, "r+")


def script_says(project: Project, state: str, *words: str) -> None:
    """Write of the first slide what a script inside QuPath writes."""
    metadata = {STATE_KEY: state, SAID_KEY: "; ".join(words), QUEUE_KEY: None}
    project.update_images({"1": ImageChanges(metadata=metadata)})


def first(project: Project) -> ImageStatus:
    return survey(project, Ledger.of(project))[0]


def hear(project: Project) -> None:
    ledger = Ledger.of(project)
    mirror(project, ledger, survey(project, ledger))


def words(project: Project) -> list[tuple[str, str, str]]:
    record = Ledger.of(project).image("1", "one.svs")
    return [(word.state, word.by, word.when) for word in record.words]


def test_a_word_is_shown_before_it_is_recorded_and_after(project: Project) -> None:
    script_says(project, "reviewed", REVIEWED)
    for _ in range(2):
        status = first(project)
        assert status.state is State.REVIEWED
        assert status.reason == "reviewed in QuPath by AB on 2026-02-03"
        hear(project)
    assert words(project) == [("reviewed", "AB", "2026-02-03T10:20:30+00:00")]
    assert dict(project.images[0].metadata) == {STATE_KEY: "reviewed"}


def test_several_words_are_heard_in_their_order(project: Project) -> None:
    script_says(project, "approved", REVIEWED, APPROVED)
    hear(project)
    assert [word[:2] for word in words(project)] == [("reviewed", "AB"), ("approved", "")]
    assert first(project).state is State.APPROVED
    take_back(project, project.images[:1])
    assert first(project).state is State.REVIEWED


def test_a_slide_that_was_sent_back_waits_for_the_first_reader(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED, by="AB")
    say(project, project.images[:1], State.APPROVED)
    script_says(project, SENT_BACK, BACK)
    for _ in range(2):
        status = first(project)
        assert status.state is State.PROPOSED
        assert status.reason == "sent back in QuPath by C D on 2026-02-03, waits for a person"
        hear(project)
    assert project.images[0].metadata[STATE_KEY] == "proposed"
    assert project.images[0].tags == ("qpannot: proposed",)
    assert QUEUE_KEY in project.images[0].metadata


def test_a_correction_that_was_sent_back_waits_until_it_is_corrected_again(
    project: Project,
) -> None:
    image = project.images[0]

    def correct(by_px: float) -> None:
        (drawn,) = image.annotations()
        image.write_annotations(
            replace=[(drawn, drawn.with_changes(geometry=drawn.geometry.buffer(by_px)))]
        )

    correct(-20)
    script_says(project, SENT_BACK, BACK)
    hear(project)
    assert first(project).state is State.PROPOSED
    correct(-20)
    assert first(project).state is State.REVIEWED


def test_what_was_sent_back_can_be_reviewed_again(project: Project) -> None:
    script_says(project, "reviewed", REVIEWED)
    hear(project)
    script_says(project, "reviewed", BACK, "reviewed 2026-02-04T08:00:00.000Z by AB")
    assert first(project).reason == "reviewed in QuPath by AB on 2026-02-04"
    hear(project)
    assert [word[0] for word in words(project)] == ["reviewed", "sent back", "reviewed"]


@pytest.mark.parametrize(("state", "word"), [("reviewed", REVIEWED), (SENT_BACK, BACK)])
def test_an_old_project_that_qupath_writes_back_says_nothing_anew(
    project: Project, state: str, word: str
) -> None:
    script_says(project, state, word)
    hear(project)
    if state == SENT_BACK:
        say(project, project.images[:1], State.REVIEWED)
    else:
        take_back(project, project.images[:1])
    before, heard = first(project).state, words(project)

    script_says(project, state, word)  # from QuPath's memory

    assert first(project).state is before
    hear(project)
    assert words(project) == heard and first(project).state is before
    assert project.images[0].metadata[STATE_KEY] == before.value
    assert SAID_KEY not in project.images[0].metadata


@pytest.mark.parametrize("version", ["0.7.0", "0.5.1"])  # with tags, without
@pytest.mark.parametrize("undo", [take_back, send_back])
def test_a_state_of_ours_that_qupath_writes_back_is_no_word(
    project_folder: Path, undo: Callable[..., object], version: str
) -> None:
    project = last_saved_by(version, project_folder)
    bootstrap(project, RECIPE)
    say(project, project.images[:1], State.REVIEWED, by="AB")
    shown = project.images[0]
    assert (shown.tags == ()) is (version == "0.5.1")
    old, tags = dict(shown.metadata), shown.tags
    undo(project, project.images[:1])
    heard = words(project)
    since = project.images[0]

    project.update_images(  # from QuPath's memory
        {
            "1": ImageChanges(
                metadata={key: old.get(key) for key in {*old, *since.metadata}},
                tags=dict.fromkeys(since.tags, False) | dict.fromkeys(tags, True),
            )
        }
    )

    assert dict(project.images[0].metadata) == old
    assert first(project).state is State.PROPOSED
    hear(project)
    assert words(project) == heard
    assert project.images[0].metadata[STATE_KEY] == "proposed"


@pytest.mark.parametrize("version", ["0.7.0", "0.5.1"])
def test_a_state_set_by_hand_is_heard_and_its_marks_follow(
    project_folder: Path, version: str
) -> None:
    project = last_saved_by(version, project_folder)
    bootstrap(project, RECIPE)
    say(project, project.images[:1], State.REVIEWED)

    project.update_images({"1": ImageChanges(metadata={STATE_KEY: "approved"})})
    hear(project)

    assert words(project)[-1][0] == "approved"
    has_tags = version == "0.7.0"
    written = project.images[0].metadata.get(WRITTEN_KEY)
    assert written == (None if has_tags else "approved")
    assert project.images[0].tags == (("qpannot: approved",) if has_tags else ())


def test_a_state_that_only_the_project_still_tells_counts_where_the_ledger_is_gone(
    project: Project,
) -> None:
    say(project, project.images[:1], State.REVIEWED, by="AB")
    shutil.rmtree(Ledger.of(project).house)
    assert first(project).state is State.REVIEWED


def test_a_review_of_an_approved_slide_is_not_heard_once_the_approval_is_gone(
    project: Project,
) -> None:
    say(project, project.images[:1], State.REVIEWED)
    say(project, project.images[:1], State.APPROVED)
    script_says(project, "reviewed", REVIEWED)
    hear(project)
    assert first(project).state is State.APPROVED
    send_back(project, project.images[:1])
    script_says(project, "reviewed", REVIEWED)  # from QuPath's memory
    hear(project)
    assert first(project).state is State.PROPOSED


def test_a_review_that_qupath_writes_back_undoes_no_approval(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED)
    say(project, project.images[:1], State.APPROVED)
    project.update_images({"1": ImageChanges(metadata={STATE_KEY: "reviewed"})})
    hear(project)
    assert first(project).state is State.APPROVED
    assert project.images[0].metadata[STATE_KEY] == "approved"


def test_a_state_set_by_hand_after_a_script_spoke_counts(project: Project) -> None:
    script_says(project, "reviewed", REVIEWED)
    hear(project)
    script_says(project, "approved", REVIEWED)
    assert first(project).state is State.APPROVED


def test_sent_back_by_hand_is_heard_once(project: Project) -> None:
    say(project, project.images[:1], State.REVIEWED)
    project.update_images({"1": ImageChanges(metadata={STATE_KEY: SENT_BACK})})
    hear(project)
    assert first(project).state is State.PROPOSED
    assert [word[0] for word in words(project)] == ["reviewed", "sent back"]
    hear(project)
    assert len(words(project)) == 2


@pytest.mark.parametrize(
    "text", ["", "reviewed", "reviewed yesterday", "reviewed 2026-99-99T00:00:00Z", "wonderful Z"]
)
def test_what_is_no_word_is_left_out(project: Project, text: str) -> None:
    assert marks_in(text) == []
    script_says(project, "proposed", text)
    assert first(project).state is State.PROPOSED
    hear(project)
    assert words(project) == []


def test_sending_back_undoes_every_word_and_taking_back_one(project: Project) -> None:
    for by in ("AB", "CD"):
        say(project, project.images[:1], State.REVIEWED, by=by)
    say(project, project.images[:1], State.APPROVED)
    (status,) = send_back(project, project.images[:1], by="EF").statuses
    assert status.state is State.PROPOSED and "sent back by EF" in status.reason


def test_slides_that_wait_carry_their_place_and_no_others(project: Project) -> None:
    shown = [image.metadata.get(QUEUE_KEY) for image in project.images]
    assert shown == ["01", "02", None]  # the third is glass
    say(project, project.images[:1], State.REVIEWED)
    shown = [image.metadata.get(QUEUE_KEY) for image in project.images]
    assert shown == [None, "02", None]


def test_the_newest_round_decides_the_order(project: Project) -> None:
    ledger = Ledger.of(project)
    newest = RoundRecord(number=2, method="AN2", started="", qpannot="", recipe={})
    newest.chosen = [Choice(image_id=key, score=None, reason="") for key in ("gone", "2")]
    ledger.save_round(newest)
    assert places(project.images, ledger) == {"2": 1, "1": 2, "3": 3}
