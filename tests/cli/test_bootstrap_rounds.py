"""The loop as a process of its own, that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qpannot.bootstrap.ledger import Ledger
from qpannot.training.checkpoints import LAST
from qpannot.training.keeper import CHECKPOINTS


def test_a_round_that_was_killed_while_it_trained_is_finished_by_the_next_run(
    reviewed_study: Any, tmp_path: Path, here: Callable[..., Any]
) -> None:
    study = reviewed_study.copied(tmp_path / "study")
    endless = ("--set", "training.epochs=100000", "--set", "training.train_batches=12")
    command = [sys.executable, "-m", "qpannot", "bootstrap", str(study.project), *endless]
    checkpoint = Ledger(study.project).model_folder("round-002").with_name(CHECKPOINTS) / LAST
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        while not checkpoint.is_file():
            assert killed.poll() is None, "it ended by itself"
            time.sleep(0.05)
        killed.kill()
    ended = here("bootstrap", study.project, "--set", "training.epochs=3", "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert said["training"]["model"] == "round-002" and len(said["proposed"]) == 3
    before, after = reviewed_study.data(), study.data()
    assert all(after[f"{name}.tif"] == before[f"{name}.tif"] for name in "abcde")
    record = Ledger(study.project).round(2)
    assert record is not None and record.is_complete
    assert "Nothing to propose" in here("bootstrap", study.project).out
