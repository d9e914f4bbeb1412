from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qpannot.models.refinement.attention import ChannelAttention, PositionAttention
from qpannot.models.refinement.layers import EPSILON, BatchNorm


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 8, 8, generator=generator) * 2 + 5 for _ in range(count)]


@pytest.mark.parametrize("renorm", [False, True])
def test_the_first_batch_is_normalised_by_itself(renorm: bool) -> None:
    (batch,) = batches(1)
    expected = nn.BatchNorm2d(3, eps=EPSILON)(batch)
    torch.testing.assert_close(BatchNorm(3, renorm=renorm)(batch), expected)


@pytest.mark.parametrize("renorm", [False, True])
def test_the_averages_are_right_after_few_batches(renorm: bool) -> None:
    norm = BatchNorm(3, renorm=renorm)
    for batch in batches(5):
        norm(batch)
    torch.testing.assert_close(norm.running_mean, torch.full((3,), 5.0), atol=0.2, rtol=0)
    torch.testing.assert_close(norm.running_std, torch.full((3,), 2.0), atol=0.2, rtol=0)


@pytest.mark.parametrize("renorm", [False, True])
def test_only_with_renorm_training_comes_to_see_what_evaluation_sees(renorm: bool) -> None:
    norm = BatchNorm(3, renorm=renorm)
    norm.batches.fill_(100_000)
    norm.running_mean.fill_(5.0)
    norm.running_std.fill_(2.0)
    batch = batches(1)[0] * 1.5
    evaluated = norm.eval()(batch)
    same = torch.allclose(norm.train()(batch), evaluated, atol=1e-4)
    assert same is renorm


def test_renorm_passes_gradients_as_if_its_corrections_were_constants() -> None:
    norm = BatchNorm(3, renorm=True)
    for batch in batches(3):
        norm(batch)
    batch = batches(4)[3].requires_grad_()
    known = 1 - 0.99**3
    std, mean = torch.std_mean(batch.detach(), dim=(0, 2, 3), correction=0)
    std = (std.square() + EPSILON).sqrt()
    ratio = std / torch.lerp(std, norm.running_std, known)
    shift = (mean - torch.lerp(mean, norm.running_mean, known)) / (std / ratio)
    plain = nn.BatchNorm2d(3, eps=EPSILON)(batch)
    expected = plain * ratio[:, None, None] + shift[:, None, None]
    target = torch.arange(batch.numel()).reshape(batch.shape).sin()
    (wanted,) = torch.autograd.grad((expected * target).sum(), batch)
    output = norm(batch)
    torch.testing.assert_close(output, expected)
    (got,) = torch.autograd.grad((output * target).sum(), batch)
    torch.testing.assert_close(got, wanted)


def test_one_value_per_channel_is_normalised_by_what_is_known_and_teaches_nothing() -> None:
    norm = BatchNorm(3, renorm=False)
    for batch in batches(5):
        norm(batch)
    before = norm.running_mean.clone()
    single = torch.full((1, 3, 1, 1), 9.0)
    torch.testing.assert_close(norm(single).flatten(), torch.full((3,), 2.0), atol=0.3, rtol=0)
    assert torch.equal(norm.running_mean, before)


def test_attention_changes_nothing_until_it_is_learned() -> None:
    features = torch.rand(2, 16, 3, 5)
    assert torch.equal(PositionAttention(16)(features), features)
    assert torch.equal(ChannelAttention()(features), features)


def test_position_attention_follows_the_positions_wherever_they_are() -> None:
    attention = PositionAttention(16)
    nn.init.ones_(attention.gamma)
    features = torch.rand(1, 16, 4, 6)
    order = torch.randperm(24)
    shuffled = features.flatten(2)[:, :, order].reshape(features.shape)
    expected = attention(features).flatten(2)[:, :, order].reshape(features.shape)
    torch.testing.assert_close(attention(shuffled), expected)


def test_channel_attention_mixes_in_the_channel_that_agrees_most() -> None:
    attention = ChannelAttention()
    nn.init.ones_(attention.gamma)
    features = torch.zeros(1, 2, 2, 2)
    features[0, 0, 0, 0], features[0, 1, 1, 1] = 10.0, 10.0
    # Each agrees with itself alone, so what is mixed in is itself.
    torch.testing.assert_close(attention(features), 2 * features)
