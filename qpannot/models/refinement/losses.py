"""The loss of the refinement networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def soft_dice_loss(logits: Tensor, targets: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Return one minus the soft Dice, image by image and class by class, averaged.

    Parameters
    ----------
    logits
        Floats, (N, classes, H, W).
    targets
        Class indices, int64, (N, H, W). Class 0 is the rest, of which no Dice is taken; a pixel
        whose class is not known is negative, and carries no loss.
    smooth
        Added above and below, in pixels; an image where a class is neither there nor predicted
        has no loss of it.

    Returns
    -------
    Tensor
        A scalar from 0 to 1.

    Notes
    -----
    H2G-Net does not name its loss; this is its public code's: squares in the denominator,
    smoothed by 1, each image by itself.
    """
    classes = torch.arange(1, logits.shape[1], device=logits.device)
    truth = (targets[:, None] == classes[:, None, None]).float()
    # Whole precision: sums over a million pixels.
    predicted = torch.softmax(logits.float(), dim=1)[:, 1:] * (targets >= 0)[:, None]
    common = (predicted * truth).sum(dim=(2, 3))
    sizes = (predicted.square() + truth).sum(dim=(2, 3))
    return (1 - (2 * common + smooth) / (sizes + smooth)).mean()


def refinement_loss(outputs: Tensor | Sequence[Tensor], targets: Tensor) -> Tensor:
    """Return the mean soft Dice loss of a network's outputs.

    Parameters
    ----------
    outputs
        What a `RefinementNetwork` returned, in either mode: one map of logits, or several.
    targets
        Of full size; see `soft_dice_loss`. For smaller maps every k-th pixel is taken, as in
        H2G-Net's public code.

    Raises
    ------
    ValueError
        When the targets are no whole multiple of an output in size.
    """
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    losses = [soft_dice_loss(output, _at_scale(targets, output)) for output in outputs]
    return torch.stack(losses).mean()


def _at_scale(targets: Tensor, output: Tensor) -> Tensor:
    (height, width), (rows, columns) = targets.shape[-2:], output.shape[-2:]
    step = height // rows
    if (rows * step, columns * step) != (height, width):
        raise ValueError(
            f"targets of {width} x {height} px are no multiple of an output of {columns} x {rows}"
        )
    return targets[:, ::step, ::step]
