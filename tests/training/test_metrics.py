from __future__ import annotations

import math

import pytest
import torch

from qpannot.training.metrics import Tally, patch_metrics

CLASSES = ("Non-tumor", "Tumor", "Necrosis")


def test_metrics_are_those_of_the_confusion() -> None:
    found = patch_metrics([[50, 10, 0], [5, 30, 5], [0, 0, 20]], CLASSES)
    assert found["accuracy"] == pytest.approx(100 / 120)
    assert found["recall.Tumor"] == pytest.approx(30 / 40)
    assert found["precision.Tumor"] == pytest.approx(30 / 40)
    assert found["recall.Non-tumor"] == pytest.approx(50 / 60)
    assert found["precision.Necrosis"] == pytest.approx(20 / 25)
    assert found["dice.Necrosis"] == pytest.approx(40 / 45)
    assert found["dice"] == pytest.approx((30 / 40 + 40 / 45) / 2)


def test_what_cannot_be_measured_is_left_out() -> None:
    found = patch_metrics([[8, 2, 0], [0, 0, 0], [0, 0, 0]], CLASSES)
    assert set(found) == {
        *("accuracy", "recall.Non-tumor", "precision.Non-tumor", "dice.Non-tumor"),
        *("precision.Tumor", "dice.Tumor", "dice"),
    }
    assert found["precision.Tumor"] == found["dice.Tumor"] == found["dice"] == 0
    assert patch_metrics([[0, 0, 0]] * 3, CLASSES) == {}


def test_a_tally_counts_what_is_taken_for_what() -> None:
    tally = Tally.empty(3)
    assert math.isnan(tally.loss)
    logits = torch.tensor([[2.0, 1, 0], [0, 3, 1], [0, 3, 1], [0, 1, 2]], requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2])
    tally.add(logits, labels, logits.sum() * 0 + 0.5)
    tally.add(logits[:1], labels[:1], logits.sum() * 0 + 1.5)
    assert tally.confusion.tolist() == [[2, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert tally.loss == 1.0
    assert not tally.losses.requires_grad
    assert tally.metrics(CLASSES)["accuracy"] == pytest.approx(4 / 5)


def test_tallies_of_processes_are_added_up() -> None:
    tally = Tally(torch.tensor([[1, 0], [2, 3]]), torch.tensor([4.0, 2.0], dtype=torch.float64))
    both = tally.reduced(lambda tensor: tensor.add_(tensor))
    assert both.confusion.tolist() == [[2, 0], [4, 6]]
    assert both.loss == tally.loss == 2.0
    assert tally.confusion.tolist() == [[1, 0], [2, 3]]


def test_a_loss_that_is_no_number_is_never_averaged_away() -> None:
    tally = Tally.empty(2)
    for loss in (1.0, float("nan"), 1.0):
        tally.add(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), torch.tensor(loss))
    assert math.isnan(tally.loss)
