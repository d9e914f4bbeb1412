from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qpannot.errors import QpannotError, UsageError
from qpannot.models import predict_probabilities
from qpannot.models.refinement import load_refinement, refinement_network, soft_dice_loss
from qpannot.recipe import Recipe
from qpannot.sampling.whole import UNKNOWN, StoredSlide, WholeSlide, load_whole, store_whole
from qpannot.sampling.whole_loading import SlideBatch
from qpannot.training import (
    ModelExistsError,
    Progress,
    RefinementResult,
    Roles,
    TrainingInterrupted,
    keeper,
    train_refinement_network,
)
from qpannot.training.refinement_task import RefinementTask

SIDE = 64
TEACH, CHOOSE = tuple("abcdefg"), tuple("xyz")
PATCH_MODEL = "cd" * 32
BATCHES = 7 + 3
"""Of an epoch: seven slides teach, one by one, three choose."""


@pytest.fixture(autouse=True)
def every_batch_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOKED_EVERY_S", 0.0)


def whole_of(seed: int, channels: int) -> WholeSlide:
    """A dark square is the class; the heatmap marks it, and as much that is none."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.int8)
    left, top = rng.integers(4, 28, 2)
    labels[top : top + 24, left : left + 24] = 1
    image = np.full((SIDE, SIDE, channels), 200, np.uint8)
    image[labels == 1, :3] = 60
    image[..., :3] += rng.integers(0, 30, (SIDE, SIDE, 3), np.uint8)
    if channels == 4:
        image[..., 3] = np.where((labels == 1) | (labels.T == 1), 255, 0)
    labels[:2] = UNKNOWN
    return WholeSlide(image, labels)


MakeSlides = Callable[..., dict[str, StoredSlide]]


@pytest.fixture(scope="module")
def make_slides(tmp_path_factory: pytest.TempPathFactory) -> MakeSlides:
    def make(channels: int = 4) -> dict[str, StoredSlide]:
        folder = tmp_path_factory.mktemp("slides")
        return {
            key: store_whole(folder / f"{key}.npz", whole_of(seed, channels), f"{key}{channels}")
            for seed, key in enumerate(TEACH + CHOOSE)
        }

    return make


@pytest.fixture(scope="module")
def slides(make_slides: MakeSlides) -> dict[str, StoredSlide]:
    return make_slides()


def recipe_of(**refinement: object) -> Recipe:
    return Recipe.model_validate(
        {
            "refinement": {
                "design": "smp:linknet/tu-test_resnet",
                "size_px": SIDE,
                "learning_rate": 0.003,
                "batch_size": 1,
                "accumulate": 3,
                "epochs": 3,
                "workers": 0,
                **refinement,
            }
        }
    )


ROLES = Roles("held_out", TEACH, CHOOSE)


def train(
    slides: dict[str, StoredSlide], folder: Path, recipe: Recipe | None = None, **others: Any
) -> RefinementResult:
    arguments: dict[str, Any] = {"roles": ROLES, "patch_model_sha256": PATCH_MODEL} | others
    roles = arguments.pop("roles")
    return train_refinement_network(slides, roles, recipe or recipe_of(), folder, **arguments)


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_training(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    first, second = (load_refinement(each / "model").network.state_dict() for each in (one, other))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.fixture(scope="module")
def whole(slides: dict[str, StoredSlide], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing broke off."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(slides, folder)
    return folder


def test_it_learns_and_its_bundle_has_the_metrics_that_it_is_measured_to_have(
    slides: dict[str, StoredSlide], tmp_path: Path
) -> None:
    recipe = recipe_of(epochs=12, accumulate=1)
    result = train(slides, tmp_path / "run", recipe, round=4)
    assert result.roles == ROLES
    trained = result.trained
    assert trained.metrics["dice"] > 0.8
    bundle = load_refinement(trained.bundle)
    card = bundle.card
    assert card.metrics == trained.metrics
    assert card.slides == (*TEACH, *CHOOSE)
    assert (card.patch_model_sha256, card.protocol, card.round) == (PATCH_MODEL, "held_out", 4)
    assert card.classes == ("Non-tumor", "Tumor")
    rows = curve(tmp_path / "run")
    assert float(rows[0]["train.loss"]) > float(rows[-1]["train.loss"])
    losses, both, sizes = [], 0, 0
    for key in CHOOSE:
        given = load_whole(slides[key])
        image = torch.from_numpy(given.image).permute(2, 0, 1)[None]
        labels = torch.from_numpy(given.labels)[None].long()
        with torch.inference_mode():
            losses.append(soft_dice_loss(bundle.network(image), labels).item())
        found = predict_probabilities(bundle.network, image).argmax(dim=1)
        known = labels >= 0
        both += int(((found == 1) & (labels == 1)).sum())
        sizes += int((known & (found == 1)).sum() + (labels == 1).sum())
    assert trained.metrics["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert trained.metrics["dice"] == pytest.approx(2 * both / sizes)


def test_the_model_is_that_of_the_lowest_validation_loss(
    slides: dict[str, StoredSlide], tmp_path: Path
) -> None:
    result = train(slides, tmp_path / "run", recipe_of(epochs=6, learning_rate=0.05))
    losses = [float(row["validation.loss"]) for row in curve(tmp_path / "run")]
    assert losses.index(min(losses)) == result.trained.best_epoch - 1
    assert result.trained.metrics["loss"] == min(losses)


def test_from_the_slide_alone_it_takes_three_channels_and_names_no_patch_network(
    make_slides: MakeSlides, tmp_path: Path
) -> None:
    recipe = recipe_of(use_heatmap=False, epochs=1)
    roles = Roles("paper", TEACH[:2], CHOOSE[:1])
    result = train(make_slides(3), tmp_path / "run", recipe, roles=roles, patch_model_sha256=None)
    card = load_refinement(result.trained.bundle).card
    assert not card.takes_heatmap
    assert card.protocol == "paper"


def test_every_output_of_a_design_is_taught(slides: dict[str, StoredSlide]) -> None:
    # DAGU-Net has seven, each half as large as the one before.
    torch.manual_seed(0)
    network = refinement_network("dagunet", size_px=128)
    task = RefinementTask(network, ("Non-tumor", "Tumor"), recipe_of().refinement)
    labels = torch.zeros((1, 128, 128), dtype=torch.int8)
    labels[:, :64, :64] = 1
    images = torch.randint(0, 256, (1, 4, 128, 128), dtype=torch.uint8)
    torch.autograd.backward(task.training_step(SlideBatch(images, labels), 0))
    untaught = [name for name, each in network.named_parameters() if each.grad is None]
    assert not untaught
    assert task.train_tally.confusion.sum() == 128**2  # of the finest alone
    assert task.train_tally.confusion[1].sum() == 64**2


def test_gradients_of_several_batches_make_one_step(
    slides: dict[str, StoredSlide], tmp_path: Path
) -> None:
    recipe = recipe_of(epochs=1, accumulate=3)
    train(slides, tmp_path / "run", recipe)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3  # of seven batches: 3, 3 and 1


def stop_at(epoch: int, batch: int, number: signal.Signals) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        if progress.done == (epoch - 1) * BATCHES + batch:
            signal.raise_signal(number)

    return show


@pytest.mark.parametrize(
    ("epoch", "batch", "resumed_at"),
    [
        (1, 1, 3),  # in the middle of a step: it is finished first
        (2, 5, 6),
        (2, 6, 7),  # the last step of an epoch has one batch
        (2, 9, 0),  # during validation
    ],
)
def test_a_training_that_was_asked_to_stop_goes_on_at_a_whole_step(
    slides: dict[str, StoredSlide],
    whole: Path,
    tmp_path: Path,
    epoch: int,
    batch: int,
    resumed_at: int,
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train(slides, folder, progress=stop_at(epoch, batch, signal.SIGTERM))
    assert not (folder / "model").exists()
    told: list[Progress] = []
    train(slides, folder, progress=told.append)
    if resumed_at in (3, 6):
        assert told[0].done == (epoch - 1) * BATCHES + resumed_at + 1
    assert_same_training(folder, whole)


def test_a_training_that_is_over_is_not_run_again(
    slides: dict[str, StoredSlide], whole: Path
) -> None:
    told: list[Progress] = []
    result = train(slides, whole, progress=told.append)
    assert not told
    assert result.trained.resumed_after == result.trained.epochs == 3
    assert result.trained.metrics == load_refinement(whole / "model").card.metrics


def test_another_heatmap_of_a_slide_begins_another_training(
    slides: dict[str, StoredSlide], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = recipe_of(epochs=1)
    train(slides, tmp_path / "run", recipe)
    first = slides["a"]
    other = store_whole(tmp_path / "a.npz", whole_of(99, 4), "a-with-another-heatmap")
    changed = {**slides, "a": replace(first, path=other.path, key=other.key)}
    with pytest.raises(ModelExistsError):
        train(changed, tmp_path / "run", recipe)
    assert "the slides, their heatmaps or annotations" in caplog.text
    longer = train(slides, tmp_path / "next", recipe)
    more = recipe_of(epochs=1, patience=7, protocol="paper", train_after=3)
    assert train(slides, tmp_path / "next", more).trained.resumed_after == longer.trained.epochs


def test_workers_prepare_the_same_batches(
    slides: dict[str, StoredSlide], whole: Path, tmp_path: Path
) -> None:
    train(slides, tmp_path / "run", recipe_of(workers=1))
    assert_same_training(tmp_path / "run", whole)


def test_a_design_that_cannot_be_is_told_at_once(
    slides: dict[str, StoredSlide], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no refinement network 'unett'"):
        train(slides, tmp_path / "run", recipe_of(design="unett"))
    with pytest.raises(UsageError, match="cannot take images of 64 px"):
        train(slides, tmp_path / "run", recipe_of(design="unet"))
    with pytest.raises(UsageError, match=r"refinement\.precision 16-mixed needs a GPU"):
        train(slides, tmp_path / "run", recipe_of(precision="16-mixed"), device="cpu")
    assert not (tmp_path / "run").exists()


def test_whose_heatmaps_they_are_has_to_be_said(
    slides: dict[str, StoredSlide], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="patch network is named"):
        train(slides, tmp_path / "run", patch_model_sha256=None)


def test_a_slide_whose_file_went_away_is_named(make_slides: MakeSlides, tmp_path: Path) -> None:
    slides = make_slides()
    slides["c"].path.unlink()
    with pytest.raises(QpannotError, match=r"c\.npz was removed or changed"):
        train(slides, tmp_path / "run")
