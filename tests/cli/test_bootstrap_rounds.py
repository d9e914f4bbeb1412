"""The loop as a process of its own, that can be killed."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from qpannot.bootstrap.ledger import Ledger
from qpannot.training.checkpoints import LAST
from qpannot.training.keeper import CHECKPOINTS

REFINEMENT = [
    part
    for each in (
        *("enabled=true", "design=smp:linknet/tu-test_resnet", "size_px=64", "train_after=5"),
        *("batch_size=1", "accumulate=1", "workers=0", "learning_rate=0.001"),
    )
    for part in ("--set", f"refinement.{each}")
]
"""A refinement network that is trained in no time."""


def kill_in_training(folder: Path, *arguments: object) -> None:
    """Run a command until the training in a folder has ended an epoch, and kill it there."""
    command = [sys.executable, "-m", "qpannot", *map(str, arguments)]
    checkpoint = folder / CHECKPOINTS / LAST
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        while not checkpoint.is_file():
            assert killed.poll() is None, "it ended by itself"
            time.sleep(0.05)
        killed.kill()


def epochs_of(folder: Path) -> int:
    with (folder / "curves.csv").open(encoding="utf-8") as file:
        return len(list(csv.DictReader(file)))


def first_epoch(progress: str) -> int:
    """Return the epoch that a training began with, as it told of it."""
    return int(re.findall(r"epoch (\d+)/", progress)[0])


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_round_that_was_killed_while_it_trained_is_finished_by_the_next_run(
    reviewed_study: Any, tmp_path: Path, here: Callable[..., Any]
) -> None:
    study = reviewed_study.copied(tmp_path / "study")
    endless = ("--set", "training.epochs=100000", "--set", "training.train_batches=12")
    kill_in_training(
        Ledger(study.project).model_folder("round-002").parent,
        *("bootstrap", study.project, *endless),
    )
    ended = here("bootstrap", study.project, "--set", "training.epochs=3", "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert said["training"]["model"] == "round-002" and len(said["proposed"]) == 3
    before, after = reviewed_study.data(), study.data()
    assert all(after[f"{name}.tif"] == before[f"{name}.tif"] for name in "abcde")
    record = Ledger(study.project).round(2)
    assert record is not None and record.is_complete
    assert "Nothing to propose" in here("bootstrap", study.project).out


def test_a_refinement_that_was_killed_while_it_trained_ends_as_if_it_had_not_been(
    trained_study: Any, tmp_path: Path, here: Callable[..., Any]
) -> None:
    command = ("train", trained_study.project, "--stage", "refinement", *REFINEMENT)
    out = tmp_path / "killed"
    kill_in_training(out, *command, "-o", out, "--set", "refinement.epochs=100000")
    epochs = ("--set", f"refinement.epochs={epochs_of(out) + 2}")
    ended = here(*command, "-o", out, *epochs, "--json")
    assert ended.code == 0, ended.err
    whole = here(*command, "-o", tmp_path / "whole", *epochs, "--json")
    assert whole.code == 0, whole.err
    resumed, smooth = json.loads(ended.out), json.loads(whole.out)
    assert first_epoch(ended.err) > 1 == first_epoch(whole.err)
    assert resumed["after"] == smooth["after"]
    assert_same_weights(out / "model", tmp_path / "whole" / "model")


def test_a_round_that_was_killed_while_it_trained_a_refinement_ends_as_if_it_had_not_been(
    trained_study: Any, tmp_path: Path, here: Callable[..., Any]
) -> None:
    studies = [trained_study.copied(tmp_path / name) for name in ("killed", "whole")]
    ledgers = [Ledger(study.project) for study in studies]
    for ledger in ledgers:  # the patch network is trained and judged
        record = ledger.round(2)
        assert record is not None
        record.is_complete = False
        ledger.save_round(record)
    models = [ledger.model_folder("round-002-refinement") for ledger in ledgers]
    endless = ("--set", "refinement.epochs=100000")
    kill_in_training(models[0].parent, "bootstrap", studies[0].project, *REFINEMENT, *endless)
    epochs = ("--set", f"refinement.epochs={epochs_of(models[0].parent) + 2}")
    said = [here("bootstrap", study.project, *REFINEMENT, *epochs) for study in studies]
    assert [ended.code for ended in said] == [0, 0], said
    assert first_epoch(said[0].err) > 1 == first_epoch(said[1].err)
    assert_same_weights(*models)
    records = [ledger.round(2) for ledger in ledgers]
    judgements = [each.refinement.judgement for each in records if each and each.refinement]
    assert len(judgements) == 2 and judgements[0] == judgements[1] is not None
    assert all(each and each.is_complete for each in records)
