from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from qpannot.errors import QpannotError
from qpannot.models import load_bundle
from qpannot.recipe import Recipe
from qpannot.sampling import EpochSampler, PatchTree
from qpannot.sampling.loading import Batch, PatchLoader
from qpannot.training import train_patch_network
from qpannot.training.fitting import empty_network
from qpannot.training.processes import Place, count_workers, find_place

if TYPE_CHECKING:
    from tests.training.conftest import Study

MakeRecipe = Callable[..., Recipe]

CHILD = """
import json, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conftest import Study
from qpannot.recipe import Recipe
from qpannot.training import TrainingInterrupted, train_patch_network
from qpannot.training.task import PatchTask

slides, recipe, folder, rank = sys.argv[2:]
step, seen, stopped = PatchTask.training_step, [], []

def seen_step(task, batch, batch_idx):
    seen.append(batch.rows.tolist())
    if rank == "1" and (task.current_epoch, batch_idx) == (1, 3) and not stopped:
        stopped.append(True)
        signal.raise_signal(signal.SIGTERM)
    return step(task, batch, batch_idx)

PatchTask.training_step = seen_step
study = Study(Path(slides))

def train():
    return train_patch_network(
        study.tables, {}, study.openers, study.parts, Recipe.model_validate_json(recipe),
        Path(folder),
    )

try:
    train()
except TrainingInterrupted as error:
    message, before = error.message, list(seen)
seen.clear()
result = train()
print(json.dumps([message, before, seen, result.resumed_after, result.metrics]))
"""


def batches_of(
    study: Study, part: str, recipe: Recipe, count: int, *, epoch: int = 0, is_plain: bool = True
) -> list[Batch]:
    """The batches that all processes together see."""
    tables = {name: study.tables[name] for name, own in study.parts.items() if own == part}
    tree = PatchTree(tables, {}, recipe.sampling.levels)
    sampler = EpochSampler(tree, batch_size=recipe.training.batch_size, batches=count, seed=0)
    sampler.set_epoch(epoch)
    augmentation = None if is_plain else recipe.augmentation
    return list(PatchLoader(sampler, study.openers, augmentation=augmentation))


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v or "nan") for k, v in row.items() if k != "seconds"} for row in rows]


def test_two_processes_learn_from_the_mean_of_what_each_sees(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(epochs=1, train_batches=2, validation_batches=2)
    network = recipe.network.model_copy(update={"dropout": 0.0})
    recipe = recipe.model_copy(update={"network": network})
    first, second = batches_of(study, "train", recipe, 2, is_plain=False)
    assert first.rows.tolist() != second.rows.tolist()
    tree = PatchTree({"a": study.tables["a"]}, {}, recipe.sampling.levels)
    expected = empty_network(recipe, tree).train()
    state = {key: value.clone() for key, value in expected.state_dict().items()}
    losses = []
    for batch in (second, first):  # the first process's statistics are what stays
        expected.load_state_dict(state)
        loss = functional.cross_entropy(expected(batch.pixels), batch.labels)
        (loss / 2).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())

    arguments: Any = (study.tables, {}, study.openers, study.parts, recipe, tmp_path / "run")
    result = train_patch_network(*arguments, processes=2)
    found = load_bundle(result.bundle).network
    for (name, buffer), other in zip(expected.named_buffers(), found.buffers(), strict=True):
        torch.testing.assert_close(other, buffer, rtol=1e-4, atol=1e-5, msg=name)
    # Adam's first step has about the same length however small a gradient is; what it remembers of
    # the gradients tells what they were.
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    (optimizer,) = checkpoint["optimizer_states"]
    named = dict(enumerate(expected.named_parameters()))
    assert named.keys() == optimizer["state"].keys()
    for number, (name, parameter) in named.items():
        assert parameter.grad is not None
        remembered = optimizer["state"][number]["exp_avg"] / 0.1
        torch.testing.assert_close(remembered, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    (row,) = curve(tmp_path / "run")
    assert row["train.loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    validated = [
        functional.cross_entropy(found(batch.pixels), batch.labels).item()
        for batch in batches_of(study, "validation", recipe, 2)
    ]
    assert result.metrics["loss"] == pytest.approx(sum(validated) / 2, rel=1e-4)
    assert not torch.distributed.is_initialized()
    assert "MASTER_PORT" not in os.environ


def test_processes_started_from_outside_stop_together_and_go_on_together(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    """As torchrun starts them; only one of them is told to stop."""
    recipe = recipe_of(train_batches=30, validation_batches=2, epochs=2)
    environment = {
        "TORCHELASTIC_RUN_ID": "test",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(find_place(2, uses_gpu=False).port),
    }
    here = str(Path(__file__).parent)
    told = [str(study.slides), recipe.model_dump_json(), str(tmp_path / "run")]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, here, *told, rank],
            env={**os.environ, **environment, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    answers: list[Any] = [json.loads(child.communicate()[0]) for child in children]
    own = [
        [batch.rows.tolist() for batch in batches_of(study, "train", recipe, 30, epoch=epoch)]
        for epoch in range(2)
    ]
    for rank, (message, before, after, resumed_after, metrics) in enumerate(answers):
        # They agree every ten batches, here in the second epoch.
        assert before == own[0][rank::2] + own[1][rank::2][:10]
        assert after == own[1][rank::2][10:]
        assert resumed_after == 1
        assert metrics == load_bundle(tmp_path / "run" / "model").card.metrics
        assert message.startswith("The training was stopped")
    assert "by SIGTERM" in answers[1][0]


def test_a_process_that_fails_is_told_of_and_leaves_none_behind(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    study.slides = tmp_path / "nowhere"
    arguments: Any = (study.tables, {}, study.openers, study.parts, recipe_of(), tmp_path / "run")
    with pytest.raises(QpannotError, match="No slide can be read") as caught:
        train_patch_network(*arguments, processes=2)
    assert "nowhere" in str(caught.value)
    assert not torch.distributed.is_initialized()


def test_who_is_who_is_read_from_what_torchrun_or_slurm_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in [key for key in os.environ if key.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(key)
    assert find_place(None, uses_gpu=False) == Place(0, 1, 1)
    own = find_place(3, uses_gpu=False)
    assert (own.rank, own.processes, own.machines) == (0, 3, 1)
    assert own.port
    slurm = {"NTASKS": 8, "NNODES": 2, "PROCID": 5, "JOB_NAME": "train", "JOB_ID": 7}
    for key, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    place = find_place(None, uses_gpu=False)
    assert (place, place.machines) == (Place(5, 8, 4), 2)
    assert place.environment().world_size() == 8
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for key, value in {"RANK": 3, "WORLD_SIZE": 6, "LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(key, str(value))
    place = find_place(None, uses_gpu=False)
    assert (place, place.machines) == (Place(3, 6, 2), 3)
    assert place.environment().global_rank() == 3


def test_workers_are_as_many_as_the_recipe_says_or_as_the_cores_are_good_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, four = Place(0, 1, 1), Place(0, 4, 4, 1234)
    assert count_workers(3, alone, uses_gpu=False) == 3
    for n, with_gpu, without in ((1, 0, 0), (2, 1, 1), (6, 5, 1), (16, 8, 4), (64, 8, 8)):
        monkeypatch.setattr("qpannot.training.processes.cores", lambda n=n: n)
        assert count_workers(None, alone, uses_gpu=True) == with_gpu
        assert count_workers(None, alone, uses_gpu=False) == without
    assert count_workers(None, four, uses_gpu=True) == 8
    monkeypatch.setattr("qpannot.training.processes.cores", lambda: 8)
    assert count_workers(None, four, uses_gpu=True) == 1
