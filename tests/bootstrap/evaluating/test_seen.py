"""What a model knows of slides, from what is written beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qpannot.bootstrap.evaluating.seen import (
    keep_seen,
    seen_before,
    seen_by,
    strictest,
    with_patients,
)
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.refinement.alone import slides_fitted
from qpannot.errors import QpannotError
from qpannot.models import load_bundle
from qpannot.sampling import Part

TRAIN, VALIDATION, TEST = Part.TRAIN, Part.VALIDATION, Part.TEST


@pytest.fixture(scope="module")
def ledger(trained_study: Any) -> Ledger:
    return Ledger(trained_study.project)


@pytest.fixture(scope="module")
def names(trained_study: Any) -> dict[str, str]:
    with trained_study.open() as project:
        return {image.id: image.name for image in project.images}


def test_a_round_says_which_slides_taught_its_model_and_which_chose_it(
    ledger: Ledger, names: dict[str, str]
) -> None:
    kept = ledger.kept_model()
    assert kept is not None
    seen = seen_by(ledger.model_folder(kept), ledger, names)
    expected = {key: part for key, part in ledger.parts().items() if part != TEST}
    assert seen == expected and sorted(seen.values()) == [TRAIN] * 3 + [VALIDATION]


def test_a_model_away_from_its_round_counts_as_fitted_to_all_on_its_card(
    ledger: Ledger, names: dict[str, str], tmp_path: Path
) -> None:
    copied = tmp_path / "copied" / "model"
    shutil.copytree(ledger.model_folder("round-002"), copied)
    assert list(seen_by(copied, ledger, names).values()) == [TRAIN] * 4
    assert seen_by(copied, ledger, {"other": "a.tif"}) == {}


def test_a_training_of_its_own_says_what_each_slide_was_for(
    ledger: Ledger, names: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(ledger.model_folder("round-002"), tmp_path / "model")
    first, second, third, *_ = names
    keep_seen(tmp_path, {first: TRAIN, second: VALIDATION, third: TEST}, names, {})
    assert seen_by(tmp_path / "model", ledger, names) == {first: TRAIN, second: VALIDATION}


def test_what_the_model_before_was_fitted_to_stays_known(
    ledger: Ledger, names: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(ledger.model_folder("round-002"), tmp_path / "model")
    first, second, third, *_ = names
    before = {second: TRAIN, third: VALIDATION}
    keep_seen(tmp_path, {first: TRAIN, second: TEST}, names, before)
    seen = seen_by(tmp_path / "model", ledger, names)
    assert seen == {first: TRAIN, second: TRAIN, third: VALIDATION}


def test_slides_of_another_project_with_the_same_numbers_are_not_taken_for_these(
    ledger: Ledger, names: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(ledger.model_folder("round-002"), tmp_path / "model")
    elsewhere = {key: f"other-{name}" for key, name in names.items()}
    keep_seen(tmp_path, dict.fromkeys(names, TRAIN), elsewhere, {})
    assert seen_by(tmp_path / "model", ledger, names) == {}


def test_a_slide_that_was_renamed_since_is_still_known(
    ledger: Ledger, names: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(ledger.model_folder("round-002"), tmp_path / "model")
    keep_seen(tmp_path, dict.fromkeys(names, TRAIN), names, {})
    first = next(iter(names))
    renamed = names | {first: "without the patient's name"}
    assert seen_by(tmp_path / "model", ledger, renamed) == dict.fromkeys(names, TRAIN)


def test_a_folder_without_a_model_is_said_to_be_none(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(QpannotError, match="no model"):
        seen_by(tmp_path, ledger, {})


def test_slides_of_one_patient_are_for_the_same() -> None:
    metadata = {"1": {"patient": "A"}, "2": {"Patient": "A "}, "3": {"patient": "B"}, "4": {}}
    parts = {"1": "train", "3": "test", "4": "validation", "gone": "train"}
    found = with_patients(parts, metadata, "patient")
    assert found == {"1": TRAIN, "2": TRAIN, "3": TEST, "4": VALIDATION}
    assert with_patients(parts, metadata, None) == {"1": TRAIN, "3": TEST, "4": VALIDATION}


def test_a_patient_that_was_divided_counts_as_what_taught() -> None:
    metadata = {"1": {"patient": "A"}, "2": {"patient": "A"}}
    assert with_patients({"1": "test", "2": "train"}, metadata, "patient")["1"] is TRAIN


def test_what_taught_is_stricter_than_what_chose() -> None:
    assert strictest(TEST, TRAIN, VALIDATION) is TRAIN
    assert strictest(VALIDATION, TEST) is VALIDATION


def test_a_slide_that_taught_an_earlier_round_stays_known_when_its_review_is_taken_back(
    trained_study: Any, names: dict[str, str], tmp_path: Path
) -> None:
    """As of a third round that went on from the second, without one of its slides."""
    study = trained_study.copied(tmp_path / "study")
    ledger = Ledger(study.project)
    second = ledger.rounds()[-1]
    assert second.training is not None
    gone = next(key for key, part in second.training.parts.items() if part == TRAIN)
    left = {key: part for key, part in second.training.parts.items() if key != gone}
    training = second.training.model_copy(
        update={"model": "round-003", "before": "round-002", "parts": left}
    )
    ledger.save_round(second.model_copy(update={"number": 3, "training": training}))
    model = ledger.model_folder("round-003")
    shutil.copytree(ledger.model_folder("round-002"), model)
    card = json.loads((model / "model.json").read_bytes())
    card["slides"].remove(gone)
    (model / "model.json").write_text(json.dumps(card))

    assert seen_before(model, ledger, names)[gone] is TRAIN
    assert seen_by(model, ledger, names) == seen_by(ledger.model_folder("round-002"), ledger, names)
    with study.open() as project:
        assert gone in slides_fitted(load_bundle(model), ledger.parts(), ledger, project.images)
