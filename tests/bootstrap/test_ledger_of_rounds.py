from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.records import Choice, Judgement, Score, TrainingRecord
from qpannot.errors import FormatError
from qpannot.recipe import Recipe

Save = Callable[..., RoundRecord]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture
def save(ledger: Ledger) -> Save:
    """Record a round that trained a network, and judged it if ``kept`` says what came of that."""

    def record(number: int, *, kept: str | None, slides: dict[str, str]) -> RoundRecord:
        name = f"round-{number:03d}"
        made = RoundRecord(
            number=number,
            method="AN2: test_resnet",
            started="2026-01-01T00:00:00+00:00",
            qpannot="0",
            recipe=Recipe().model_dump(mode="json"),
            training=TrainingRecord(
                model=name,
                before=None,
                slides=slides,
                parts=dict.fromkeys(slides, "train"),
                epochs=3,
                best_epoch=2,
                stopped="patience",
                seconds=1.5,
                metrics={"loss": 0.25},
            ),
            chosen=[Choice(image_id="7", score=0.5, reason="the network is least sure here")],
        )
        if kept:
            score = Score(dice=0.8, iou=2 / 3, by_class={"Tumor": 0.8})
            made.judgement = Judgement(scores={name: {"1": score}}, kept=kept, helped=kept == name)
        ledger.model_folder(name).mkdir(parents=True)
        ledger.save_round(made)
        return made

    return record


def test_a_new_ledger_knows_of_no_model_and_of_no_parts(ledger: Ledger) -> None:
    assert ledger.kept_model() is None and ledger.parts() == {} and ledger.rounds() == []
    assert ledger.learned(Recipe()) == {}
    assert not ledger.house.exists()  # asking leaves nothing behind


def test_parts_of_other_slides_are_kept(ledger: Ledger) -> None:
    ledger.save_parts({"1": "train", "2": "test"})
    ledger.save_parts({"2": "validation", "3": "train"})
    assert ledger.parts() == {"1": "train", "2": "validation", "3": "train"}
    assert Ledger(ledger.house.parent).parts() == ledger.parts()


def test_a_round_is_read_as_it_was_written(ledger: Ledger, save: Save) -> None:
    made = save(2, kept="round-002", slides={"1": "aa"})
    assert Ledger(ledger.house.parent).round(2) == made
    assert made.is_broken_off
    made.is_complete = True
    ledger.save_round(made)
    assert [record.is_broken_off for record in ledger.rounds()] == [False]


def test_the_kept_model_is_what_the_last_judged_round_kept(ledger: Ledger, save: Save) -> None:
    save(2, kept="round-002", slides={})
    save(3, kept="round-002", slides={})
    save(4, kept=None, slides={})
    assert ledger.kept_model() == "round-002"
    save(10, kept="round-010", slides={})
    assert ledger.kept_model() == "round-010"


def test_what_was_learned_is_what_the_last_training_saw(ledger: Ledger, save: Save) -> None:
    save(2, kept="round-002", slides={"1": "aa", "2": "bb"})
    save(3, kept="round-002", slides={"1": "aa", "2": "cc"})  # was not kept, but seen
    assert ledger.learned(Recipe()) == {"1": "aa", "2": "cc"}


def test_other_classes_make_everything_news(ledger: Ledger, save: Save) -> None:
    save(2, kept="round-002", slides={"1": "aa"})
    other = Recipe.model_validate({"labels": {"classes": ["Tumor", "Stroma"]}})
    assert ledger.learned(other) == {}


def test_a_model_that_was_deleted_is_not_the_kept_one(ledger: Ledger, save: Save) -> None:
    save(2, kept="round-002", slides={"1": "aa"})
    ledger.model_folder("round-002").rmdir()
    assert ledger.kept_model() is None and ledger.learned(Recipe()) == {}


def test_a_record_of_a_first_round_without_a_network_is_still_read(ledger: Ledger) -> None:
    path = ledger.house / "rounds" / "001.json"
    path.parent.mkdir(parents=True)
    old = {"number": 1, "method": "AN1", "started": "2026", "qpannot": "0", "recipe": {}}
    path.write_text(json.dumps(old), encoding="utf-8")
    (record,) = ledger.rounds()
    assert record.training is None and record.corrections == {} and not record.is_broken_off


def test_a_damaged_record_is_named(ledger: Ledger) -> None:
    path = ledger.house / "parts.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"parts": [1, 2]}', encoding="utf-8")
    with pytest.raises(FormatError, match=r"parts\.json"):
        ledger.parts()
