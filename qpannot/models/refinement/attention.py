"""AGU-Net and DAGU-Net: several scales in, attention, several scales out.

Both are of Bouget et al. 2021 (arXiv:2101.07715), in two dimensions and with H2G-Net's filters. The
encoder sees the image again at every level, averaged down; the decoder says the classes at every
level but the lowest, and each of them is taught (deep supervision).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from qpannot.models.refinement.layers import (
    FILTERS,
    BatchNorm,
    Body,
    ConvBlock,
    conv_norm_relu,
    halve,
    initialise,
    run,
    upsampled,
)

LEVELS = FILTERS[:-1]
"""Those with a decoder; the last of `FILTERS` is the bottom's."""


class AGUNet(Body):
    """Attention gates choose what of the encoder's features the decoder sees.

    Notes
    -----
    The paper's 7.68 M come out with batch renorm, as in its public code: 7,677,275, of which
    7,659,915 trained; plain batch norm gives 7.67 M. A gate has half the filters of its level,
    and its two inputs are put side by side (Oktay et al. 2018 add them). No dropout: the code
    sets one under a name that nothing reads.
    """

    multiple = 2 ** len(LEVELS)

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = PyramidEncoder(channels, renorm=True)
        self.decoder = nn.ModuleList()
        channels = FILTERS[-1]
        for filters in reversed(LEVELS):
            self.decoder.append(_GatedUp(channels, filters))
            channels = filters
        self.heads = nn.ModuleList(nn.Conv2d(n, classes, 1) for n in reversed(LEVELS))
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of seven scales, the finest first."""
        features, skipped = self.encoder(images)
        return _decoded(features, skipped, self.decoder, self.heads)


class DAGUNet(Body):
    """Attention between positions and between channels, at the bottom.

    Notes
    -----
    The paper's 9.99 M come out with plain batch norm and without the three projections of the
    position attention, 81,920 numbers: 9,992,680. The public code makes these where Keras
    does not see them, so they were not counted, nor trained. Here they are trained: 10,074,600
    with everything, 10,064,456 without batch norm's statistics. Renorm would give 10.00 M.
    The dropout of the attention is the public code's; elsewhere it sets one that nothing reads.
    """

    multiple = 2 ** len(LEVELS)

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = PyramidEncoder(channels, renorm=False)
        channels = FILTERS[-1]
        self.positions = _attending(PositionAttention(channels), channels)
        self.channels = _attending(ChannelAttention(), channels)
        self.fuse = nn.Sequential(
            nn.Dropout2d(0.5), nn.Conv2d(channels, channels, 1), BatchNorm(channels, renorm=False)
        )
        self.decoder = nn.ModuleList()
        for filters in reversed(LEVELS):
            self.decoder.append(_Up(channels, filters))
            channels = filters
        self.heads = nn.ModuleList(nn.Conv2d(n, classes, 1) for n in reversed(LEVELS))
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of seven scales, the finest first."""
        features, skipped = self.encoder(images)
        features = run(self.fuse, run(self.positions, features) + run(self.channels, features))
        return _decoded(features, skipped, self.decoder, self.heads)


class PyramidEncoder(nn.Module):
    """An encoder that sees the image at every level but the lowest."""

    def __init__(self, channels: int, *, renorm: bool) -> None:
        super().__init__()
        self.images = nn.ModuleList(nn.Conv2d(channels, n, 3, padding=1) for n in LEVELS[1:])
        self.levels = nn.ModuleList([ConvBlock(channels, LEVELS[0], renorm=renorm)])
        for above, filters in pairwise(LEVELS):
            self.levels.append(ConvBlock(filters + above, filters, renorm=renorm))
        self.bottom = ConvBlock(LEVELS[-1], FILTERS[-1], renorm=renorm)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the bottom's features, and the levels' from the finest down."""
        skipped = [run(self.levels[0], images)]
        for see, level in zip(self.images, self.levels[1:], strict=True):
            images = functional.avg_pool2d(images, 2)
            seen = functional.relu(run(see, images))
            skipped.append(run(level, torch.cat([seen, halve(skipped[-1])], dim=1)))
        return run(self.bottom, halve(skipped[-1])), skipped


class AttentionGate(nn.Module):
    """Weighs the positions of the encoder's features by what the decoder has there."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.guide = _conv_norm(channels, filters)
        self.skip = _conv_norm(channels, filters)
        self.weigh = nn.Sequential(nn.ReLU(), *_conv_norm(2 * filters, 1), nn.Sigmoid())

    def forward(self, guide: Tensor, skipped: Tensor) -> Tensor:
        """Return the skipped features, (N, channels, H, W), each position times its weight."""
        both = torch.cat([run(self.guide, guide), run(self.skip, skipped)], dim=1)
        return skipped * run(self.weigh, both)


class PositionAttention(nn.Module):
    """Every position takes part in every other, as far as their features agree (DANet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    @property
    def uncounted(self) -> int:
        """Trained numbers that the paper's count lacks; see `DAGUNet`."""
        layers = (self.key, self.query, self.value)
        return sum(layer.weight.numel() for layer in layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        # In half precision the sums over all positions overflow.
        with torch.autocast(features.device.type, enabled=False):
            whole = features.float()
            key, query, value = (
                run(layer, whole).flatten(2) for layer in (self.key, self.query, self.value)
            )
            shares = torch.softmax(query.transpose(1, 2) @ key, dim=2)
            attended = (value @ shares.transpose(1, 2)).reshape(features.shape)
            return (self.gamma * attended + whole).to(features.dtype)


class ChannelAttention(nn.Module):
    """Every channel takes part in every other, as far as they agree (DANet)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        with torch.autocast(features.device.type, enabled=False):
            flat = features.float().flatten(2)
            shares = torch.softmax(flat @ flat.transpose(1, 2), dim=2)
            attended = (shares.transpose(1, 2) @ flat).reshape(features.shape)
            return (self.gamma * attended + features.float()).to(features.dtype)


class _GatedUp(nn.Module):
    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        norm = BatchNorm(filters, renorm=True)
        self.up = nn.Sequential(upsampled(channels, filters), norm, nn.ReLU())
        self.gate = AttentionGate(filters, filters // 2)
        self.block = ConvBlock(2 * filters, filters, renorm=True)

    def forward(self, features: Tensor, skipped: Tensor) -> Tensor:
        features = run(self.up, features)
        return run(self.block, torch.cat([features, self.gate(features, skipped)], dim=1))


class _Up(nn.Module):
    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.up = upsampled(channels, filters)
        self.block = nn.Sequential(
            BatchNorm(2 * filters, renorm=False),
            nn.ReLU(),
            ConvBlock(2 * filters, filters, renorm=False),
        )

    def forward(self, features: Tensor, skipped: Tensor) -> Tensor:
        return run(self.block, torch.cat([skipped, run(self.up, features)], dim=1))


def _conv_norm(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, filters, 1), BatchNorm(filters, renorm=True))


def _attending(attention: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(
        attention,
        *conv_norm_relu(channels, channels, 3, renorm=False),
        nn.Dropout2d(0.5),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


def _decoded(
    features: Tensor, skipped: list[Tensor], decoder: nn.ModuleList, heads: nn.ModuleList
) -> tuple[Tensor, ...]:
    outputs = []
    for up, head, skip in zip(decoder, heads, reversed(skipped), strict=True):
        features = up(features, skip)
        outputs.append(run(head, features))
    return tuple(reversed(outputs))
