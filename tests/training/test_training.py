from __future__ import annotations

import csv
import dataclasses
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import torch

from qpannot.errors import QpannotError, UsageError
from qpannot.models import load_bundle, predict_probabilities
from qpannot.recipe import Recipe
from qpannot.sampling import EpochSampler, Part, PatchTree
from qpannot.sampling.loading import PatchLoader
from qpannot.training import (
    Diverged,
    Progress,
    TrainingInterrupted,
    TrainingResult,
    keeper,
    train_patch_network,
)
from qpannot.training.task import PatchTask

if TYPE_CHECKING:
    from tests.training.conftest import Study

MakeRecipe = Callable[..., Recipe]

BATCHES = 6 + 3
"""Of an epoch of the small recipe, validation included."""


@pytest.fixture(autouse=True)
def every_batch_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOKED_EVERY_S", 0.0)


def train(study: Study, recipe: Recipe, folder: Path, **others: object) -> TrainingResult:
    arguments: Any = (study.tables, {}, study.openers, study.parts, recipe, folder)
    return train_patch_network(*arguments, **others)  # type: ignore[arg-type]


def curve(folder: Path) -> list[dict[str, str]]:
    """The curves of a training, but for the time it took."""
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_training(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    first, second = (load_bundle(each / "model").network.state_dict() for each in (one, other))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.fixture(scope="module")
def whole(
    new_study: Callable[[], Study], recipe_of: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A training that nothing broke off."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(new_study(), recipe_of(), folder)
    return folder


def place_of(progress: Progress) -> tuple[int, int]:
    """The epoch and the batch of it, validation included, both from 1."""
    epoch, batch = divmod(progress.done - 1, BATCHES)
    return epoch + 1, batch + 1


def stop_at(epoch: int, batch: int, number: signal.Signals) -> Callable[[Progress], None]:
    """Have a signal come when a training is there."""

    def show(progress: Progress) -> None:
        if progress.stage == "Training" and place_of(progress) == (epoch, batch):
            signal.raise_signal(number)

    return show


def test_a_network_learns_and_its_bundle_has_the_metrics_that_it_is_measured_to_have(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(epochs=7)
    result = train(study, recipe, tmp_path / "run", round=2)
    assert result.stopped == "epochs"
    assert result.epochs == 7
    assert result.metrics["accuracy"] > 0.9
    bundle = load_bundle(result.bundle)
    assert bundle.card.metrics == result.metrics
    assert bundle.card.slides == ("a", "b", "c")
    assert bundle.card.round == 2
    tree = PatchTree({"c": study.tables["c"]}, {}, recipe.sampling.levels)
    settings = recipe.training
    sampler = EpochSampler(
        tree, batch_size=settings.batch_size, batches=settings.validation_batches, seed=0
    )
    batches = list(PatchLoader(sampler, study.openers))
    probabilities = torch.cat([predict_probabilities(bundle.network, b.pixels) for b in batches])
    labels = torch.cat([batch.labels for batch in batches])
    of_truth = probabilities[torch.arange(len(labels)), labels]
    assert result.metrics["loss"] == pytest.approx(-of_truth.log().mean().item(), abs=1e-5)
    found = probabilities.argmax(dim=1)
    assert result.metrics["accuracy"] == pytest.approx((found == labels).float().mean().item())
    both = ((found == 1) & (labels == 1)).sum().item()
    assert result.metrics["recall.Tumor"] == pytest.approx(both / (labels == 1).sum().item())
    dice = 2 * both / ((found == 1).sum() + (labels == 1).sum()).item()
    assert result.metrics["dice.Tumor"] == result.metrics["dice"] == pytest.approx(dice)


def test_the_model_is_that_of_the_lowest_validation_loss(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    result = train(study, recipe_of(epochs=5, learning_rate=0.03), tmp_path / "run")
    losses = [float(row["validation.loss"]) for row in curve(tmp_path / "run")]
    assert len(losses) == 5
    assert losses.index(min(losses)) == result.best_epoch - 1
    assert result.metrics["loss"] == min(losses)


def test_it_stops_when_it_no_longer_gets_better(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    # Labels the wrong way round: what is learned makes the validation worse.
    table = study.tables["c"]
    table.label[:] = 1 - table.label
    recipe = recipe_of(epochs=50, patience=3, learning_rate=0.01)
    result = train(study, recipe, tmp_path / "run")
    assert result.stopped == "patience"
    assert result.epochs == result.best_epoch + 3 < 50
    again = train(study, recipe, tmp_path / "run")
    assert (again.stopped, again.epochs) == ("patience", result.epochs)


def test_progress_tells_losses(study: Study, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    told: list[Progress] = []
    train(study, recipe_of(epochs=2), tmp_path / "run", progress=told.append)
    assert [progress.done for progress in told] == list(range(1, 2 * (6 + 3) + 1))
    assert {(progress.stage, progress.total) for progress in told} == {("Training", 2 * BATCHES)}
    assert [progress.done for progress in told if progress.ends_epoch] == [BATCHES, 2 * BATCHES]
    first, last = (
        {key: float(row[f"{key}.loss"]) for key in ("train", "validation")}
        for row in curve(tmp_path / "run")
    )
    assert told[5].text.startswith("epoch 1/2, loss ")
    while_validating = f"epoch 2/2, validation {first['validation']:.4f}, best "
    assert told[BATCHES + 6].text.startswith(while_validating)
    at_the_end = f"epoch 2/2, loss {last['train']:.4f}, validation {last['validation']:.4f}"
    assert told[-1].text.startswith(at_the_end)


def test_training_says_nothing_by_itself_and_writes_nowhere_else(
    study: Study,
    recipe_of: MakeRecipe,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    levels = logging.getLogger("lightning.pytorch").level
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    torch.manual_seed(5)
    random = torch.rand(3)
    torch.manual_seed(5)
    train(study, recipe_of(), tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "here").iterdir())
    expected = {"model", "curves.csv", "tensorboard", "checkpoints"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == expected
    assert logging.getLogger("lightning.pytorch").level == levels
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert torch.equal(torch.rand(3), random)


def test_tensorboard_shows_the_curves(study: Study, whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss/validation")]
    rows = curve(whole)
    assert [step for step, _ in shown] == [1, 2, 3]
    losses = [float(row["validation.loss"]) for row in rows]
    assert [value for _, value in shown] == pytest.approx(losses)


@pytest.mark.parametrize(
    ("epoch", "batch", "number"),
    [
        (1, 2, signal.SIGTERM),  # before the first epoch is over
        (2, 4, signal.SIGINT),
        (2, 5, signal.SIGTERM),  # seen after the last batch that teaches
        (2, 7, signal.SIGTERM),  # during validation
        (2, 9, signal.SIGINT),  # when the epoch is over
    ],
)
def test_a_training_that_was_asked_to_stop_goes_on_as_if_nothing_had_happened(
    study: Study,
    recipe_of: MakeRecipe,
    whole: Path,
    tmp_path: Path,
    epoch: int,
    batch: int,
    number: signal.Signals,
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=number.name) as caught:
        train(study, recipe_of(), folder, progress=stop_at(epoch, batch, number))
    assert "Run the command again" in str(caught.value)
    assert not (folder / "model").exists()
    told: list[Progress] = []
    result = train(study, recipe_of(), folder, progress=told.append)
    assert result.resumed_after == (epoch if batch == 9 else epoch - 1)
    if batch < 5:  # in the middle of the epoch, and not at its start
        assert place_of(told[0]) == (epoch, batch + 2)
    assert_same_training(folder, whole)
    assert not (folder / "checkpoints" / "middle.ckpt").exists()


def test_a_rate_that_rises_and_falls_goes_on_where_it_was(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(schedule="one_cycle")
    train(study, recipe, tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        train(study, recipe, tmp_path / "run", progress=stop_at(2, 4, signal.SIGTERM))
    assert train(study, recipe, tmp_path / "run").resumed_after == 1
    assert_same_training(tmp_path / "run", tmp_path / "whole")
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] < recipe.training.learning_rate / 50


def test_a_long_epoch_is_saved_in_between(
    study: Study,
    recipe_of: MakeRecipe,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "SAVED_EVERY_S", 0.0)

    class PulledOutError(Exception):
        """A power failure, as far as a training can tell."""

    def show(progress: Progress) -> None:
        if place_of(progress) == (2, 4):
            raise PulledOutError

    with pytest.raises(PulledOutError):
        train(study, recipe_of(), tmp_path / "run", progress=show)
    told: list[Progress] = []
    train(study, recipe_of(), tmp_path / "run", progress=told.append)
    assert place_of(told[0]) == (2, 5)
    assert_same_training(tmp_path / "run", whole)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conftest import Study
from qpannot.recipe import Recipe
from qpannot.training import train_patch_network

slides, recipe, folder, shown = sys.argv[2:]

def show(progress):
    if shown == "each" or progress.ends_epoch:
        print(progress.text, flush=True)

if __name__ == "__main__":
    study, recipe = Study(Path(slides)), Recipe.model_validate_json(recipe)
    train_patch_network(
        study.tables, {}, study.openers, study.parts, recipe, Path(folder), progress=show
    )
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_training_that_was_killed_goes_on_after_its_last_epoch(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(epochs=60)
    here = str(Path(__file__).parent)
    told = [str(study.slides), recipe.model_dump_json(), str(tmp_path / "run")]
    command = [sys.executable, "-c", CHILD, here, *told, "epochs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert "epoch 1/60" in child.stdout.readline()
        assert "epoch 2/60" in child.stdout.readline()
        child.kill()
    assert child.returncode == -signal.SIGKILL
    shorter = recipe_of(epochs=len(curve(tmp_path / "run")) + 2)
    result = train(study, shorter, tmp_path / "run")
    assert result.resumed_after >= 2
    train(study, shorter, tmp_path / "whole")
    assert_same_training(tmp_path / "run", tmp_path / "whole")


@pytest.mark.skipif(os.name == "nt", reason="a signal to a group of processes")
def test_ctrl_c_in_a_terminal_reaches_the_workers_too_and_nothing_is_lost(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(epochs=1, train_batches=2_000, workers=1)
    here = str(Path(__file__).parent)
    told = [str(study.slides), recipe.model_dump_json(), str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, here, *told, "each"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        assert child.stdout
        assert child.stderr
        assert "epoch 1/1" in child.stdout.readline()
        os.killpg(child.pid, signal.SIGINT)
        last_words = child.stderr.read().strip().splitlines()
    assert last_words[-2].endswith("TrainingInterrupted: The training was stopped by SIGINT.")
    assert (tmp_path / "run" / "checkpoints" / "middle.ckpt").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not limit the size of files")
def test_a_full_disk_is_told_and_the_training_goes_on_once_there_is_room(
    study: Study, recipe_of: MakeRecipe, whole: Path, tmp_path: Path
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, hard))
    try:
        with pytest.raises(QpannotError, match=r"last\.ckpt.* cannot be written") as caught:
            train(study, recipe_of(), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Check free space" in str(caught.value.hint)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".tmp", ".new", ".ckpt")]
    train(study, recipe_of(), tmp_path / "run")
    assert_same_training(tmp_path / "run", whole)


@pytest.mark.parametrize("damage", ["cut", "pickle", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    study: Study,
    recipe_of: MakeRecipe,
    whole: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "model")
    last = folder / "checkpoints" / "last.ckpt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:-1000])
    elif damage == "empty":
        last.write_bytes(b"")
    else:
        torch.save({"qpannot": Path("a class, which could run code")}, last)
    result = train(study, recipe_of(), folder)
    assert result.resumed_after == 2
    assert "last.ckpt is damaged" in caplog.text
    assert_same_training(folder, whole)


def test_other_settings_start_anew_and_say_why(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TrainingInterrupted):
        train(study, recipe_of(), tmp_path / "run", progress=stop_at(3, 2, signal.SIGTERM))
    other = recipe_of(learning_rate=0.002, epochs=2)
    result = train(study, other, tmp_path / "run")
    assert result.resumed_after == 0
    assert "training.learning_rate (0.001, now 0.002)" in caplog.text
    assert "epochs" not in caplog.text
    train(study, other, tmp_path / "fresh")
    assert_same_training(tmp_path / "run", tmp_path / "fresh")


def test_other_patches_start_anew_and_say_why(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TrainingInterrupted):
        train(study, recipe_of(), tmp_path / "run", progress=stop_at(3, 2, signal.SIGTERM))
    study.tables["a"].label[3] = 1
    assert train(study, recipe_of(epochs=1), tmp_path / "run").resumed_after == 0
    assert "differs in the patches. Training starts anew" in caplog.text


def test_a_training_goes_on_for_more_epochs(
    study: Study, recipe_of: MakeRecipe, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingInterrupted):
        train(study, recipe_of(epochs=2), tmp_path / "run", progress=stop_at(2, 2, signal.SIGTERM))
    assert train(study, recipe_of(epochs=3), tmp_path / "run").resumed_after == 1
    assert_same_training(tmp_path / "run", whole)


def test_a_finished_training_is_not_run_again_and_no_model_is_overwritten(
    study: Study,
    recipe_of: MakeRecipe,
    whole: Path,
    files_below: Callable[[Path], dict[str, tuple[int, bytes]]],
) -> None:
    before = files_below(whole)
    result = train(study, recipe_of(), whole)
    assert result.resumed_after == result.epochs == 3
    assert result.metrics == load_bundle(whole / "model").card.metrics
    for other in (recipe_of(seed=1), recipe_of(epochs=4)):
        with pytest.raises(QpannotError, match="already a model") as caught:
            train(study, other, whole)
        assert "Name another folder" in str(caught.value.hint)
    assert files_below(whole) == before


def test_a_model_that_was_not_yet_saved_is_saved(
    study: Study, recipe_of: MakeRecipe, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "run" / "curves.csv").unlink()
    assert train(study, recipe_of(), tmp_path / "run").resumed_after == 3
    assert_same_training(tmp_path / "run", whole)


def test_a_round_goes_on_from_the_last_model_or_from_scratch(
    study: Study, recipe_of: MakeRecipe, whole: Path, tmp_path: Path
) -> None:
    last = load_bundle(whole / "model")
    barely = {"epochs": 1, "train_batches": 1, "learning_rate": 1e-9}
    results = {
        start: train(study, recipe_of(**barely, start=start), tmp_path / start, start_from=last)
        for start in ("last", "scratch")
    }
    weights = {
        start: load_bundle(result.bundle).network.head[0].weight
        for start, result in results.items()
    }
    own = last.network.head[0].weight
    assert torch.allclose(weights["last"], own, atol=1e-6)  # type: ignore[arg-type]
    assert not torch.allclose(weights["scratch"], own, atol=1e-2)  # type: ignore[arg-type]
    train(study, recipe_of(**barely), tmp_path / "first")
    assert_same_training(tmp_path / "scratch", tmp_path / "first")


def test_a_last_model_of_another_network_or_other_classes_is_not_gone_on_from(
    study: Study,
    recipe_of: MakeRecipe,
    whole: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recipe = recipe_of(epochs=1)
    network = recipe.network.model_copy(update={"hidden_units": 8})
    labels = recipe.labels.model_copy(update={"classes": ("Cancer",)})
    other = recipe.model_copy(update={"network": network, "labels": labels})
    classes = ("Non-tumor", "Cancer")
    study.tables = {
        name: dataclasses.replace(table, classes=classes) for name, table in study.tables.items()
    }
    last = load_bundle(whole / "model")
    result = train(study, other, tmp_path / "run", start_from=last)
    assert "network.hidden_units (16, now 8) and the classes (Non-tumor, Tumor, now" in caplog.text
    assert "Training starts from network.weights (null) instead" in caplog.text
    assert load_bundle(result.bundle).card.architecture.classes == classes
    train(study, other, tmp_path / "fresh")
    assert_same_training(tmp_path / "run", tmp_path / "fresh")


def test_the_cluster_weighted_loss_trains_and_resumes(
    study: Study, recipe_of: MakeRecipe, whole: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(epochs=2, loss="cluster_weighted")
    told: list[Progress] = []
    train(study, recipe, tmp_path / "whole", progress=told.append)
    of_clusters = [progress.done for progress in told if progress.stage == "Clustering patches"]
    assert of_clusters == [0, 1]
    assert curve(tmp_path / "whole")[0]["train.loss"] != curve(whole)[0]["train.loss"]
    (clusters,) = (tmp_path / "whole").glob("clusters-*.safetensors")
    saved = (tmp_path / "whole" / "checkpoints" / "last.ckpt").stat().st_size
    assert saved < clusters.stat().st_size / 5
    with pytest.raises(TrainingInterrupted):
        train(study, recipe, tmp_path / "run", progress=stop_at(2, 1, signal.SIGTERM))
    train(study, recipe, tmp_path / "run")
    assert_same_training(tmp_path / "run", tmp_path / "whole")


def test_a_class_without_patches_is_an_error_that_says_what_there_is(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    study.take_tumor_from("a", "b")
    with pytest.raises(QpannotError, match="no patches of Tumor") as caught:
        train(study, recipe_of(), tmp_path / "run")
    assert "Non-tumor: 32 patches from 2 of 2 slides" in str(caught.value.hint)
    assert "Annotate some" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()


def test_a_class_without_validation_patches_is_told_and_not_measured(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study.take_tumor_from("c")
    result = train(study, recipe_of(epochs=1), tmp_path / "run")
    assert "no patches of Tumor" in caplog.text
    assert "recall.Tumor" not in result.metrics
    assert "recall.Non-tumor" in result.metrics


@pytest.mark.parametrize(("part", "what"), [("train", "learn from"), ("validation", "choose")])
def test_a_part_without_slides_is_an_error(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path, part: str, what: str
) -> None:
    study.parts = {name: p for name, p in study.parts.items() if p != part} | {"d": Part.TEST}
    with pytest.raises(QpannotError, match=f"no patches to {what}") as caught:
        train(study, recipe_of(), tmp_path / "run")
    assert "Review more slides" in str(caught.value.hint)


def test_slides_for_the_test_are_never_opened_and_bad_ones_are_named(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    study.slides = shutil.copytree(study.slides, tmp_path / "slides")
    (study.slides / "d.tif").unlink()
    (study.slides / "b.tif").write_bytes(b"no slide")
    with pytest.raises(TrainingInterrupted):
        train(study, recipe_of(), tmp_path / "run", progress=stop_at(2, 2, signal.SIGTERM))
    shutil.copy(study.slides / "a.tif", study.slides / "b.tif")
    result = train(study, recipe_of(), tmp_path / "run")
    assert list(result.failures) == ["b"]
    assert "b.tif" in result.failures["b"]


def test_a_loss_that_is_no_number_stops_the_training(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match="no finite number any more, in epoch 1") as caught:
        train(study, recipe_of(learning_rate=1e30), tmp_path / "run")
    assert "smaller training.learning_rate" in str(caught.value.hint)
    assert not list((tmp_path / "run").glob("model*"))


def test_the_best_model_before_a_loss_that_is_no_number_is_kept(
    study: Study,
    recipe_of: MakeRecipe,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = PatchTask.training_step

    def spoiled(self: PatchTask, batch: object, batch_idx: int) -> torch.Tensor:
        loss = step(self, batch, batch_idx)  # type: ignore[arg-type]
        if (self.current_epoch, batch_idx) == (2, 3):
            self.train_tally.losses += float("nan")
        return loss

    monkeypatch.setattr(PatchTask, "training_step", spoiled)
    for _ in range(2):  # the second time it goes on from the last good epoch, to the same end
        with pytest.raises(Diverged, match="in epoch 3") as caught:
            train(study, recipe_of(), tmp_path / "run")
        (model,) = (tmp_path / "run").glob("model*")
        assert str(model) in str(caught.value.hint)
    rows = curve(whole)[:2]
    best = min(float(row["validation.loss"]) for row in rows)
    assert load_bundle(model).card.metrics["loss"] == best


def test_what_this_machine_cannot_do_is_an_error_before_anything_is_read(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="needs a GPU"):
        train(study, recipe_of(precision="16-mixed"), tmp_path / "run", device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU"):
            train(study, recipe_of(), tmp_path / "run", device="cuda")


@pytest.mark.parametrize("what", ["network", "clusters"])
def test_weights_that_cannot_be_had_are_told_before_anything_is_written(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    recipe = recipe_of(loss="cluster_weighted")
    settings = {"weights": "imagenet" if what == "network" else str(tmp_path / "vgg16.pth")}
    if what == "network":
        settings["encoder"] = "resnet10t"
    section = getattr(recipe, what).model_copy(update=settings)
    with pytest.raises(QpannotError) as caught:
        train(study, recipe.model_copy(update={what: section}), tmp_path / "run")
    assert f"{what}.weights" in str(caught.value.hint)
    assert not list(tmp_path.rglob("*.*"))


def test_a_worker_that_is_killed_is_told_of_and_the_training_goes_on_with_fewer(
    study: Study, recipe_of: MakeRecipe, whole: Path, tmp_path: Path
) -> None:
    def kill_workers(progress: Progress) -> None:
        if place_of(progress) == (2, 1):
            for worker in multiprocessing.active_children():
                worker.kill()

    with pytest.raises(QpannotError, match="reads for the training ended") as caught:
        train(study, recipe_of(workers=1), tmp_path / "run", progress=kill_workers)
    assert "training.workers" in str(caught.value.hint)
    assert train(study, recipe_of(), tmp_path / "run").resumed_after == 1
    assert_same_training(tmp_path / "run", whole)


def test_a_gpu_with_too_little_memory_is_told_with_what_to_set(
    study: Study, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: PatchTask, batch: object, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(PatchTask, "training_step", full)
    with pytest.raises(QpannotError, match="8 patches of 32 px at a time") as caught:
        train(study, recipe_of(), tmp_path / "run")
    assert "smaller training.batch_size" in str(caught.value.hint)


def test_bf16_trains_on_a_processor(study: Study, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    train(study, recipe_of(epochs=1, precision="bf16-mixed"), tmp_path / "mixed")
    train(study, recipe_of(epochs=1), tmp_path / "full")
    (mixed,), (full,) = curve(tmp_path / "mixed"), curve(tmp_path / "full")
    assert mixed["train.loss"] != full["train.loss"]
    assert float(mixed["train.loss"]) == pytest.approx(float(full["train.loss"]), rel=0.1)
