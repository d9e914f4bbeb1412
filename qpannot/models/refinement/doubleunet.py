"""DoubleU-Net: a U-Net, and a second one that is shown what the first one said."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from qpannot.models.refinement.layers import (
    FILTERS,
    Body,
    ConvBlock,
    conv_norm_relu,
    double,
    halve,
    initialise,
    run,
)

POOLED = 32
"""Filters of the pooling at several rates between encoder and decoder."""

DROPOUT = 0.1


class DoubleUNet(Body):
    """Two U-Nets with squeeze-and-excitation; the second takes the first's encoder as well.

    Notes
    -----
    Jha et al. 2020, as H2G-Net's public code changed it: the first encoder is like the second
    rather than VGG-19, and the second net is given image and first output side by side rather
    than their product. With batch renorm it has the paper's 16.04 M: 16,040,204, of which
    16,010,100 trained; plain batch norm gives 16.03 M.

    At 1024 px the bottom is 4x4, where rates of 6 and more reach past the border: of those
    3x3 kernels only the middle ever counts. The design is kept as it was published.
    """

    multiple = 2 ** len(FILTERS)

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first_encoder = _Encoder(channels)
        self.first_decoder = _Decoder(skips=1)
        self.first_head = nn.Conv2d(FILTERS[0], classes, 1)
        self.second_encoder = _Encoder(channels + classes)
        self.second_decoder = _Decoder(skips=2)
        self.second_head = nn.Conv2d(FILTERS[0], classes, 1)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of the second net, then those of the first, (N, classes, H, W)."""
        features, skipped = self.first_encoder(images)
        first = run(self.first_head, self.first_decoder(features, skipped))
        both = torch.cat([images, torch.softmax(first, dim=1)], dim=1)
        features, again = self.second_encoder(both)
        second = run(self.second_head, self.second_decoder(features, skipped, again))
        return second, first


class SqueezeExcite(nn.Module):
    """Weighs the channels by their means (Hu et al. 2018), an eighth as many in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 8, bias=False)
        self.excite = nn.Linear(channels // 8, channels, bias=False)
        for layer in (self.squeeze, self.excite):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape, (N, channels, H, W)."""
        squeezed = functional.relu(run(self.squeeze, features.mean(dim=(2, 3))))
        weights = torch.sigmoid(run(self.excite, squeezed))
        return features * weights[:, :, None, None]


class PyramidPooling(nn.Module):
    """Looks around at several rates at once (atrous spatial pyramid pooling)."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.whole = _unit(channels, filters, 1, bias=True)
        self.rates = nn.ModuleList([_unit(channels, filters, 1)])
        for rate in (6, 12, 18):
            self.rates.append(_unit(channels, filters, 3, dilation=rate))
        self.fuse = _unit((2 + 3) * filters, filters, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features, (N, filters, H, W)."""
        around = [run(rate, features) for rate in self.rates]
        whole = run(self.whole, features.mean(dim=(2, 3), keepdim=True))
        spread = whole.expand(-1, -1, *features.shape[2:])
        return run(self.fuse, torch.cat([spread, *around], dim=1))


class _Encoder(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for filters in FILTERS:
            self.blocks.append(_block(channels, filters))
            channels = filters
        self.pool = PyramidPooling(channels, POOLED)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = images
        skipped = []
        for block in self.blocks:
            skipped.append(run(block, features))
            features = halve(skipped[-1])
        return run(self.pool, features), skipped


class _Decoder(nn.Module):
    def __init__(self, *, skips: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = POOLED
        for filters in reversed(FILTERS):
            self.blocks.append(_block(channels + skips * filters, filters))
            channels = filters

    def forward(self, features: Tensor, *skipped: list[Tensor]) -> Tensor:
        for block, *skips in zip(self.blocks, *map(reversed, skipped), strict=True):
            features = run(block, torch.cat([double(features, "bilinear"), *skips], dim=1))
        return features


def _block(channels: int, filters: int) -> nn.Sequential:
    block = ConvBlock(channels, filters, renorm=True, dropout=DROPOUT)
    return nn.Sequential(block, SqueezeExcite(filters))


def _unit(
    channels: int, filters: int, kernel: int, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    layers = conv_norm_relu(channels, filters, kernel, renorm=True, dilation=dilation, bias=bias)
    return nn.Sequential(*layers, nn.Dropout2d(DROPOUT))
