"""U-Net, the paper's best refinement network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qpannot.models.refinement.layers import (
    FILTERS,
    Body,
    ConvBlock,
    double,
    halve,
    initialise,
    run,
)

BOTTOM = 512


class UNet(Body):
    """U-Net of nine levels (H2G-Net sec. 2.6).

    Notes
    -----
    Trained are 11,563,410 numbers (two classes, four channels). The paper's 11.58 M come out
    when the batch norms are batch *re*norms, as its public code has them (11,581,782 with their
    statistics); plain ones give 11.57 M. Also of the public code: upsampling by repetition, the
    encoder's features before the decoder's, dropout of 10 % of the channels in the decoder only.
    """

    multiple = 2 ** len(FILTERS)

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        for filters in FILTERS:
            self.encoder.append(ConvBlock(channels, filters, renorm=True))
            channels = filters
        self.bottom = ConvBlock(channels, BOTTOM, renorm=True)
        channels = BOTTOM
        self.decoder = nn.ModuleList()
        for filters in reversed(FILTERS):
            block = ConvBlock(filters + channels, filters, renorm=True, dropout=0.1)
            self.decoder.append(block)
            channels = filters
        self.head = nn.Conv2d(channels, classes, 1)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits, (N, classes, H, W), as the only output."""
        features = images
        skipped = []
        for block in self.encoder:
            skipped.append(run(block, features))
            features = halve(skipped[-1])
        features = run(self.bottom, features)
        for block in self.decoder:
            features = run(block, torch.cat([skipped.pop(), double(features, "nearest")], dim=1))
        return (run(self.head, features),)
