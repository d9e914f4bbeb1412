"""What the paper's four refinement networks are made of."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

FILTERS = (8, 16, 32, 64, 128, 128, 256, 256)
"""Of the levels, from full resolution down; H2G-Net's public training script."""

EPSILON = 1e-3
MOMENTUM = 0.99
"""Keras' own, of batch norm and of batch renorm."""


class Body(nn.Module):
    """The layers of a design, from images to its outputs.

    ``forward`` takes floats (N, channels, H, W), height and width multiples of ``multiple``, and
    returns the logits of every output, (N, classes, H / k, W / k), the one that counts first.
    """

    multiple: int


class BatchNorm(nn.Module):
    """Batch norm, or batch renorm, that remembers as Keras does but knows it sooner.

    In evaluation it uses the averages of the batches it saw. They are corrected for how few
    those were: with Keras' momentum of 0.99 they would otherwise be wrong for hundreds of
    batches, which on a small project is most of the training.

    Parameters
    ----------
    channels
        Of what it normalises, (N, channels, H, W).
    renorm
        Whether a batch is normalised by those averages in training too (batch renormalisation,
        Ioffe 2017), so that a batch of four slides is treated as any of them will be later. As in
        TensorFlow 1.13 without clipping: the batch's own numbers fill in for the batches that
        the averages still lack.
    """

    running_mean: Tensor
    running_std: Tensor
    batches: Tensor

    def __init__(self, channels: int, *, renorm: bool) -> None:
        super().__init__()
        self.channels = channels
        self.renorm = renorm
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_std", torch.ones(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @property
    def keras_statistics(self) -> int:
        """Numbers that Keras (TensorFlow 1.13) keeps beside the trained ones.

        Moving mean and variance; with renorm, mean and deviation once more with a weight each.
        """
        return 4 * self.channels + 2 if self.renorm else 2 * self.channels

    def forward(self, features: Tensor) -> Tensor:
        """Normalise features, (N, channels, H, W)."""
        # One value per channel has no spread: the last batch of an epoch, one slide, pooled.
        if not self.training or features.numel() == self.channels:
            variance = (self.running_std.square() - EPSILON).clamp(min=0)
            return functional.batch_norm(
                features, self.running_mean, variance, self.weight, self.bias, eps=EPSILON
            )
        ratio, shift = self._remember(features)
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if self.renorm:
            weight, bias = weight * ratio, bias + weight * shift
        return functional.batch_norm(features, None, None, weight, bias, training=True, eps=EPSILON)

    @torch.no_grad()
    def _remember(self, features: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(features.float(), dim=(0, 2, 3), correction=0)
        std = (variance + EPSILON).sqrt()
        known = 1 - torch.pow(MOMENTUM, self.batches)
        expected_mean = torch.lerp(mean, self.running_mean, known)
        expected_std = torch.lerp(std, self.running_std, known)
        self.batches += 1
        share = (1 - MOMENTUM) / (1 - torch.pow(MOMENTUM, self.batches))
        self.running_mean.lerp_(mean, share)
        self.running_std.lerp_(std, share)
        return std / expected_std, (mean - expected_mean) / expected_std


class ConvBlock(nn.Sequential):
    """Twice: 3x3 convolution, batch norm, ReLU, and dropout of whole channels if asked for."""

    def __init__(self, channels: int, filters: int, *, renorm: bool, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, filters):
            layers += conv_norm_relu(inputs, filters, 3, renorm=renorm)
            if dropout:
                layers.append(nn.Dropout2d(dropout))
        super().__init__(*layers)


def conv_norm_relu(
    channels: int,
    filters: int,
    kernel: int,
    *,
    renorm: bool,
    dilation: int = 1,
    bias: bool = True,
) -> list[nn.Module]:
    """Return a convolution that keeps height and width, its batch norm and ReLU."""
    padding = dilation * (kernel // 2)  # not "same": of dilated ones, onnxruntime refuses that
    convolution = nn.Conv2d(
        channels, filters, kernel, padding=padding, dilation=dilation, bias=bias
    )
    return [convolution, BatchNorm(filters, renorm=renorm), nn.ReLU()]


def upsampled(channels: int, filters: int) -> nn.ConvTranspose2d:
    """Return a 3x3 transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(channels, filters, 3, stride=2, padding=1, output_padding=1)


def double(features: Tensor, mode: str) -> Tensor:
    """Double height and width; ``nearest`` or ``bilinear``."""
    corners = False if mode == "bilinear" else None
    return functional.interpolate(features, scale_factor=2, mode=mode, align_corners=corners)


def halve(features: Tensor) -> Tensor:
    """Halve height and width by the largest of 2x2."""
    return functional.max_pool2d(features, 2)


def initialise(network: nn.Module) -> None:
    """Fill convolutions as Keras does: Glorot's uniform, no bias."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def run(layer: nn.Module, features: Tensor) -> Tensor:
    """Apply a layer; what ``layer(features)`` is, with its type."""
    return cast(Tensor, layer(features))
