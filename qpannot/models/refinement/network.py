"""The refinement network: a design by its name, and what all designs share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from qpannot.errors import UsageError
from qpannot.models.refinement.attention import AGUNet, DAGUNet, PositionAttention
from qpannot.models.refinement.doubleunet import DoubleUNet
from qpannot.models.refinement.layers import BatchNorm, Body
from qpannot.models.refinement.smp import PREFIX, SmpBody
from qpannot.models.refinement.unet import UNet

DESIGNS: Mapping[str, Callable[[int, int], Body]] = MappingProxyType(
    {"unet": UNet, "agunet": AGUNet, "dagunet": DAGUNet, "doubleunet": DoubleUNet}
)
"""The paper's; UNet-LR is ``unet`` of three channels."""


class RefinementArchitecture(BaseModel):
    """All that is needed to build a refinement network again.

    Parameters
    ----------
    design
        ``unet``, ``agunet``, ``dagunet``, ``doubleunet``, or ``smp:decoder/encoder``.
    channels
        Of the images: red, green, blue, then the heatmap of each class but the rest.
    classes
        How many; the first is the rest.
    size_px
        Width and height of the images it is for; it takes others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    design: str = Field(min_length=1)
    channels: int = Field(default=4, ge=1)
    classes: int = Field(default=2, ge=2)
    size_px: int = Field(default=1024, ge=16)


class RefinementNetwork(nn.Module):
    """Tells the class of each pixel of a slide, small as a whole.

    It gives logits; the softmax is the loss's, or `predict_probabilities`'.

    Attributes
    ----------
    architecture
        What it was built from.
    multiple
        Height and width of its images are multiples of this.

    Raises
    ------
    UsageError
        When there is no such design, or it cannot take images of that size.
    """

    def __init__(self, architecture: RefinementArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.body = _body(architecture)
        self.multiple = self.body.multiple
        if architecture.size_px % self.multiple:
            raise UsageError(
                f"{architecture.design} cannot take images of {architecture.size_px} px.",
                hint=f"Set refinement.size_px to a multiple of {self.multiple}.",
            )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits of images.

        Parameters
        ----------
        images
            (N, channels, H, W): uint8 from 0 to 255, or floats from 0 to 1. Height and width may
            differ; both are multiples of ``multiple``.

        Returns
        -------
        Tensor or tuple of Tensor
            In evaluation, floats (N, classes, H, W). In training, all that is to be taught, that
            map first: of ``agunet`` and ``dagunet`` seven scales, each half the one before; of
            ``doubleunet`` the second net's map and the first's; of the others it alone.

        Raises
        ------
        ValueError
            When they are of another shape or type.
        """
        outputs = cast(tuple[Tensor, ...], self.body(self._checked(images)))
        return outputs if self.training else outputs[0]

    def _checked(self, images: Tensor) -> Tensor:
        channels = self.architecture.channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images must be (N, {channels}, H, W), not {tuple(images.shape)}")
        height, width = images.shape[2:]
        if not height or not width or height % self.multiple or width % self.multiple:
            raise ValueError(
                f"{self.architecture.design} takes images whose height and width are multiples of "
                f"{self.multiple} px, not {height} x {width}: pad them to "
                f"{_up(height, self.multiple)} x {_up(width, self.multiple)}"
            )
        if not images.is_floating_point():
            if images.dtype != torch.uint8:
                raise ValueError(f"images must be uint8 or floats, not {images.dtype}")
            images = images.to(next(self.parameters()).dtype) / 255
        return images


def refinement_network(
    design: str, *, channels: int = 4, classes: int = 2, size_px: int = 1024
) -> RefinementNetwork:
    """Return a refinement network to be trained, from random numbers as in the paper.

    Parameters
    ----------
    design, channels, classes, size_px
        See `RefinementArchitecture`.

    Raises
    ------
    UsageError
        When there is no such design, or it cannot take images of that size.
    ValueError
        When a number is out of its range.
    """
    return RefinementNetwork(
        RefinementArchitecture(design=design, channels=channels, classes=classes, size_px=size_px)
    )


def count_as_keras(network: nn.Module) -> int:
    """Return the number of parameters as the paper's Keras (TensorFlow 1.13) counts them.

    The statistics of batch norm and batch renorm are included; the projections of position
    attention are not, since Keras does not see them in the public code (see `DAGUNet`). With this
    reading the paper's 11.58 M, 7.68 M, 9.99 M and 16.04 M come out.
    """
    count = sum(parameter.numel() for parameter in network.parameters())
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            count += layer.keras_statistics
        elif isinstance(layer, nn.BatchNorm2d):
            count += 2 * layer.num_features
        elif isinstance(layer, PositionAttention):
            count -= layer.uncounted
    return count


def _body(architecture: RefinementArchitecture) -> Body:
    design = architecture.design
    if design.startswith(PREFIX):
        return SmpBody(design, architecture.channels, architecture.classes, architecture.size_px)
    if design in DESIGNS:
        return DESIGNS[design](architecture.channels, architecture.classes)
    nearest = difflib.get_close_matches(design, DESIGNS, n=1, cutoff=0.5)
    meant = f"Did you mean {nearest[0]}? " if nearest else ""
    raise UsageError(
        f"There is no refinement network {design!r}.",
        hint=f"{meant}There are {', '.join(DESIGNS)}, and smp:decoder/encoder, "
        "for example smp:unet/resnet18.",
    )


def _up(size_px: int, multiple: int) -> int:
    return max(1, -(-size_px // multiple)) * multiple
