from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from qpannot.models import cluster_weighted_cross_entropy


def test_each_cluster_weighs_the_same_as_reckoned_by_hand() -> None:
    # Odds of 3:1, 1:1, 1:3 and 1:1 for the right class: losses ln 4/3, ln 2, ln 4, ln 2.
    logits = torch.tensor([[math.log(3), 0], [0, 0], [math.log(3), 0], [0, 0]])
    targets = torch.tensor([0, 1, 1, 0])
    clusters = torch.tensor([7, 7, 7, 2])
    of_seven = (math.log(4 / 3) + math.log(2) + math.log(4)) / 3
    expected = (of_seven + math.log(2)) / 2
    loss = cluster_weighted_cross_entropy(logits, targets, clusters)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert loss.item() != pytest.approx(functional.cross_entropy(logits, targets).item(), rel=1e-3)


def test_one_cluster_gives_plain_cross_entropy() -> None:
    torch.manual_seed(1)
    logits, targets = torch.randn(16, 3), torch.randint(0, 3, (16,))
    loss = cluster_weighted_cross_entropy(logits, targets, torch.full((16,), 4))
    torch.testing.assert_close(loss, functional.cross_entropy(logits, targets))


def test_the_gradient_of_a_patch_is_divided_by_the_size_of_its_cluster() -> None:
    logits = torch.zeros(5, 2, requires_grad=True)
    targets = torch.zeros(5, dtype=torch.int64)
    loss = cluster_weighted_cross_entropy(logits, targets, torch.tensor([0, 0, 0, 0, 9]))
    (gradient,) = torch.autograd.grad(loss, logits)
    # d/dlogit of -ln softmax at zero is (-1/2, 1/2); two clusters share the loss.
    per_patch = torch.tensor([1 / 8] * 4 + [1 / 2])[:, None]
    torch.testing.assert_close(gradient, per_patch * torch.tensor([-0.5, 0.5]))


def test_clusters_without_a_patch_change_nothing() -> None:
    torch.manual_seed(1)
    logits, targets = torch.randn(6, 2), torch.randint(0, 2, (6,))
    clusters = torch.tensor([0, 1, 1, 0, 1, 1])
    loss = cluster_weighted_cross_entropy(logits, targets, clusters)
    assert torch.isfinite(loss)
    spread = cluster_weighted_cross_entropy(logits, targets, clusters * 9)
    torch.testing.assert_close(loss, spread)
