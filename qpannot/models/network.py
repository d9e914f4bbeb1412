"""The patch network: an encoder and a small head (H2G-Net sec. 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from qpannot.models.encoders import IMAGENET, Encoder, build_encoder


class PatchArchitecture(BaseModel):
    """All that is needed to build a patch network again.

    Parameters
    ----------
    encoder
        Its name; see `qpannot.models.encoders`.
    classes
        In the order of the network's outputs; the first is the rest.
    size_px
        Width and height of the patches it is for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2)
    hidden_units: int = Field(default=100, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    size_px: int = Field(default=256, ge=16)

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must differ from each other: {', '.join(self.classes)}")
        return self


class PatchNetwork(nn.Module):
    """Tells the class of a patch.

    The head is H2G-Net's: global average pool (the encoder's last step), dense, dropout, ReLU,
    batch norm, dense. It gives logits; the softmax is the loss's, or `predict_probabilities`'.

    Attributes
    ----------
    architecture
        What it was built from.
    """

    def __init__(self, architecture: PatchArchitecture, encoder: Encoder) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(encoder.channels, architecture.hidden_units),
            nn.Dropout(architecture.dropout),
            nn.ReLU(),
            nn.BatchNorm1d(architecture.hidden_units),
            nn.Linear(architecture.hidden_units, len(architecture.classes)),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits of patches.

        Parameters
        ----------
        patches
            (N, 3, H, W): uint8 from 0 to 255, or floats from 0 to 1. The network normalises them
            itself. Pixels of slides, (N, H, W, 3), need ``permute(0, 3, 1, 2)``, which copies
            nothing.

        Returns
        -------
        Tensor
            Floats, (N, classes).
        """
        return cast(Tensor, self.head(self.encoder(patches)))


def patch_network(
    encoder: str,
    classes: Sequence[str],
    *,
    hidden_units: int = 100,
    dropout: float = 0.5,
    weights: str | Path | None = IMAGENET,
    size_px: int = 256,
) -> PatchNetwork:
    """Return a patch network to be trained.

    Parameters
    ----------
    encoder
        Its name; see `qpannot.models.encoders`.
    classes
        In the order of the outputs; the rest first.
    weights
        The encoder's: ``"imagenet"``, a file, or ``None`` for random numbers.
    size_px
        Width and height of the patches.

    Raises
    ------
    UsageError
        When there is no such encoder, or it cannot take such patches.
    QpannotError
        When the weights cannot be had, or do not fit.
    ValueError
        When there are fewer than two classes, or two of one name.
    """
    architecture = PatchArchitecture(
        encoder=encoder,
        classes=tuple(classes),
        hidden_units=hidden_units,
        dropout=dropout,
        size_px=size_px,
    )
    return PatchNetwork(architecture, build_encoder(encoder, weights=weights, size_px=size_px))


def predict_probabilities(network: nn.Module, batch: Tensor) -> Tensor:
    """Return the probabilities of the classes, patch by patch.

    Dropout is off and batch norm uses what it learned; the network's own mode is left as it was.

    Parameters
    ----------
    batch
        (N, 3, H, W), as `PatchNetwork.forward` takes them, on any device.

    Returns
    -------
    Tensor
        float32, (N, classes), on the network's device; each row sums to 1.
    """
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            logits = network(batch.to(next(network.parameters()).device))
            return torch.softmax(logits.float(), dim=1)
    finally:
        network.train(training)


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters as Keras counts: batch norm's running statistics included.

    With this reading the paper's 2.39 M (MobileNetV2) and 22.0 M (InceptionV3) come out.
    """
    statistics = ("running_mean", "running_var")
    return sum(parameter.numel() for parameter in network.parameters()) + sum(
        buffer.numel() for name, buffer in network.named_buffers() if name.endswith(statistics)
    )
