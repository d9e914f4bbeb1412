from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qpannot.models.refinement import refinement_loss, soft_dice_loss


def sure(targets: Tensor, classes: int = 2) -> Tensor:
    known = targets.clamp(min=0)
    return 60 * torch.nn.functional.one_hot(known, classes).permute(0, 3, 1, 2).float()


@pytest.fixture
def targets() -> Tensor:
    targets = torch.zeros(1, 8, 8, dtype=torch.int64)
    targets[:, 2:6, 2:6] = 1
    return targets


def test_the_truth_has_no_loss_and_its_opposite_nearly_all(targets: Tensor) -> None:
    assert soft_dice_loss(sure(targets), targets).item() == pytest.approx(0, abs=1e-6)
    opposite = soft_dice_loss(sure(1 - targets), targets).item()
    assert opposite == pytest.approx(1 - 1 / (64 + 1))


def test_the_denominator_has_squares(targets: Tensor) -> None:
    unsure = torch.zeros(1, 2, 8, 8)
    expected = 1 - (2 * 0.5 * 16 + 1) / (0.25 * 64 + 16 + 1)
    assert soft_dice_loss(unsure, targets).item() == pytest.approx(expected)


def test_an_image_without_the_class_has_a_loss_only_of_what_is_predicted() -> None:
    none = torch.zeros(1, 8, 8, dtype=torch.int64)
    assert soft_dice_loss(sure(none), none).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice_loss(sure(1 - none), none).item() > 0.9


def test_every_image_and_class_weighs_the_same() -> None:
    small = torch.zeros(1, 8, 8, dtype=torch.int64)
    small[:, 0, 0] = 1
    large = torch.ones(1, 8, 8, dtype=torch.int64)
    missed = sure(torch.zeros_like(small))
    both = soft_dice_loss(torch.cat([missed, sure(large)]), torch.cat([small, large]))
    alone = soft_dice_loss(missed, small)
    assert both.item() == pytest.approx(alone.item() / 2)
    assert soft_dice_loss(sure(small, 3), small).item() == pytest.approx(0, abs=1e-6)


def test_pixels_whose_class_is_not_known_carry_no_loss(targets: Tensor) -> None:
    logits = torch.randn(1, 2, 8, 8, requires_grad=True)
    targets[:, :, 4:] = -1
    loss = soft_dice_loss(logits, targets)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert (logits.grad[..., 4:] == 0).all()
    assert (logits.grad[..., :4] != 0).any()
    half = soft_dice_loss(logits[..., :4], targets[..., :4])
    assert loss.item() == pytest.approx(half.item())


def test_the_loss_of_several_scales_is_the_mean_over_targets_of_every_kth_pixel(
    targets: Tensor,
) -> None:
    outputs = (torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2))
    expected = [
        soft_dice_loss(output, targets[:, ::step, ::step])
        for output, step in zip(outputs, (1, 2, 4), strict=True)
    ]
    torch.testing.assert_close(refinement_loss(outputs, targets), torch.stack(expected).mean())
    torch.testing.assert_close(refinement_loss(outputs[0], targets), expected[0])


def test_targets_of_another_shape_are_refused(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="8 x 8 px are no multiple of an output of 4 x 8"):
        refinement_loss(torch.zeros(1, 2, 8, 4), targets)
    with pytest.raises(ValueError, match="no multiple"):
        refinement_loss(torch.zeros(1, 2, 16, 16), targets)


def test_half_precision_loses_no_pixels() -> None:
    targets = torch.ones(1, 512, 512, dtype=torch.int64)
    logits = torch.zeros(1, 2, 512, 512, dtype=torch.float16)
    loss = soft_dice_loss(logits, targets).item()
    assert loss == pytest.approx(1 - 1 / 1.25, abs=1e-4)
