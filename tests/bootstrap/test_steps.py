from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.records import Judgement, TrainingRecord
from qpannot.bootstrap.states import ImageStatus, State, key_of, survey
from qpannot.bootstrap.steps import Kind, Step, next_step
from qpannot.errors import ProjectError
from qpannot.recipe import Recipe

U, P, R, A = State.UNANNOTATED, State.PROPOSED, State.REVIEWED, State.APPROVED
RECIPE = Recipe.model_validate({"round": {"train_after": 3}})

Stand = Callable[..., list[ImageStatus]]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture(scope="module")
def found(proposed_study: Any) -> Iterator[list[ImageStatus]]:
    with proposed_study.open() as project:
        yield survey(project, Ledger.of(project))


@pytest.fixture
def stand(found: list[ImageStatus]) -> Stand:
    """Say in which states the first images of a project are."""

    def at(*states: State) -> list[ImageStatus]:
        return [replace(each, state=state) for each, state in zip(found, states, strict=False)]

    return at


def keys(statuses: list[ImageStatus], ledger: Ledger) -> dict[str, str]:
    return {each.image.id: key_of(each, ledger, "majority") for each in statuses}


def save_round(
    ledger: Ledger,
    number: int,
    slides: Mapping[str, str],
    *,
    is_complete: bool = True,
    kept: str | None = None,
) -> None:
    """Record a round that learned from slides, as `qpannot.bootstrap.loop` does."""
    name = f"round-{number:03d}"
    record = RoundRecord(
        number=number,
        method="AN2: test_resnet",
        started="2026-01-01T00:00:00+00:00",
        qpannot="0",
        recipe=RECIPE.model_dump(mode="json"),
        is_complete=is_complete,
        training=TrainingRecord(
            model=name,
            before=None,
            slides=dict(slides),
            parts=dict.fromkeys(slides, "train"),
            epochs=1,
            best_epoch=1,
            stopped="epochs",
            seconds=1,
            metrics={},
        ),
        judgement=Judgement(scores={}, kept=kept or name, helped=None),
    )
    ledger.model_folder(name).mkdir(parents=True, exist_ok=True)
    ledger.save_round(record)


def test_at_first_the_tissue_is_outlined(stand: Stand, ledger: Ledger) -> None:
    assert next_step(stand(U, U), ledger, RECIPE) == Step(Kind.TISSUE, 1, 0)


def test_nothing_is_learned_while_too_few_are_reviewed_and_others_wait(
    stand: Stand, ledger: Ledger
) -> None:
    assert next_step(stand(R, R, P), ledger, RECIPE) == Step(Kind.TISSUE, 1, 2)


def test_enough_reviewed_slides_are_learned_from_whatever_waits(
    stand: Stand, ledger: Ledger
) -> None:
    assert next_step(stand(R, A, R, P, U), ledger, RECIPE) == Step(Kind.LEARN, 2, 3)


def test_fewer_are_enough_where_nothing_waits_and_nothing_is_open(
    stand: Stand, ledger: Ledger
) -> None:
    assert next_step(stand(R, R), ledger, RECIPE) == Step(Kind.LEARN, 2, 2)


def test_open_slides_are_outlined_before_fewer_are_learned_from(
    stand: Stand, ledger: Ledger
) -> None:
    assert next_step(stand(R, R, U), ledger, RECIPE) == Step(Kind.TISSUE, 1, 2)


@pytest.mark.parametrize("why", ["rejected", "nothing_found"])
def test_a_slide_of_which_all_is_said_is_not_open(stand: Stand, ledger: Ledger, why: str) -> None:
    *reviewed, settled = stand(R, R, U)
    settled = replace(settled, **{why: True})  # type: ignore[arg-type]
    assert next_step([*reviewed, settled], ledger, RECIPE).kind is Kind.LEARN


def test_a_slide_that_cannot_be_read_is_neither_open_nor_reviewed(
    stand: Stand, ledger: Ledger
) -> None:
    one, two, broken = stand(R, R, R)
    error = ProjectError(Path("data.qpdata"), "cannot be read.")
    assert next_step([one, two, replace(broken, error=error)], ledger, RECIPE).newly_reviewed == 2
    unread = replace(broken, state=U, error=error)
    assert next_step([one, two, unread], ledger, RECIPE).kind is Kind.LEARN
    assert next_step([one, replace(two, error=error)], ledger, RECIPE).kind is Kind.TISSUE


def test_one_slide_is_never_enough(stand: Stand, ledger: Ledger) -> None:
    greedy = Recipe.model_validate({"round": {"train_after": 1}})
    assert next_step(stand(R), ledger, greedy) == Step(Kind.TISSUE, 1, 1)


def test_what_was_learned_from_is_no_news(stand: Stand, ledger: Ledger) -> None:
    statuses = stand(R, R, R, P)
    save_round(ledger, 2, keys(statuses[:3], ledger))
    assert next_step(statuses, ledger, RECIPE) == Step(Kind.PROPOSE, 2, 0)


def test_what_was_corrected_again_is_news(stand: Stand, ledger: Ledger) -> None:
    statuses = stand(R, R, R)
    before = keys(statuses, ledger)
    save_round(ledger, 2, {**before, statuses[0].image.id: "another digest"})
    assert next_step(statuses, ledger, RECIPE) == Step(Kind.LEARN, 3, 1)


def test_with_a_network_any_news_is_learned_from_once_nobody_waits(
    stand: Stand, ledger: Ledger
) -> None:
    statuses = stand(R, R, R, U)
    save_round(ledger, 2, keys(statuses[:2], ledger))
    assert next_step(statuses, ledger, RECIPE) == Step(Kind.LEARN, 3, 1)
    assert next_step([*statuses[:3], *stand(U, U, U, U, P)[4:]], ledger, RECIPE) == Step(
        Kind.PROPOSE, 2, 1
    )


def test_a_round_that_was_broken_off_goes_on_before_all_else(stand: Stand, ledger: Ledger) -> None:
    statuses = stand(R, R, R)
    save_round(ledger, 2, keys(statuses, ledger))
    save_round(ledger, 3, keys(statuses, ledger), is_complete=False)
    assert next_step(statuses, ledger, RECIPE) == Step(Kind.LEARN, 3, 0, is_broken_off=True)
