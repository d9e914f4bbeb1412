"""Slides whose truth is drawn, and a network that tells their colours apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from qpannot.models import Bundle, PatchArchitecture, PatchNetwork, save_bundle
from qpannot.models.encoders import Encoder
from qpannot.recipe import Recipe
from qpannot.recipe.settings import HeatmapSettings, LabelSettings, PatchSettings, TissueSettings

GLASS, TISSUE, TUMOUR = (244, 244, 244), (210, 110, 130), (110, 70, 190)
CLASSES = ("Non-tumor", "Tumor")

Truth = NDArray[np.uint8]
"""0 glass, 1 tissue, 2 tumour; shape [height, width]."""

MakeRecipe = Callable[..., Recipe]
MakeBundle = Callable[..., Bundle]
WriteTruth = Callable[..., Path]


@pytest.fixture
def make_recipe() -> MakeRecipe:
    """Return a recipe for patches of 64 px at 1 mpp, and outlines of tissue that are exact."""

    def make(stride_px: int | None = None, size_px: int = 64, min_tissue: float = 0.25) -> Recipe:
        return Recipe(
            patches=PatchSettings(size_px=size_px, mpp=1.0),
            labels=LabelSettings(min_tissue=min_tissue),
            heatmap=HeatmapSettings(stride_px=stride_px),
            tissue=TissueSettings(
                threshold=225,
                requested_pixel_size_um=4,
                min_area_um2=2000,
                max_hole_area_um2=2000,
                java_cuts=False,
            ),
        )

    return make


def colour_network(size_px: int, gain: float = 10.0) -> PatchNetwork:
    """Return a network whose answer is sigmoid(gain * (part of tumour - part of other tissue))."""
    convolution = nn.Conv2d(3, 2, 1)
    head_gain = torch.tensor([[gain, 0.0], [0.0, gain]])
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight[:] = 5 * torch.tensor([[1.0, 0, -1], [-1, 0, 1]])[:, :, None, None]
        convolution.bias[:] = -0.4  # what JPEG makes of grey
    body = nn.Sequential(convolution, nn.Hardtanh(0, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder = Encoder("colour", body, mean=(0, 0, 0), std=(1, 1, 1), size_px=size_px)
    network = PatchNetwork(
        PatchArchitecture(encoder="colour", classes=CLASSES, hidden_units=2, size_px=size_px),
        encoder,
    )
    first, last = cast(nn.Linear, network.head[0]), cast(nn.Linear, network.head[4])
    with torch.no_grad():
        first.weight[:], last.weight[:] = torch.eye(2), head_gain
        first.bias.zero_()
        last.bias.zero_()
    return network.eval()


@pytest.fixture
def make_bundle(tmp_path: Path, make_recipe: MakeRecipe) -> MakeBundle:
    """Save a network that tells tumour by its colour."""

    def make(name: str = "model", size_px: int = 64, gain: float = 10.0) -> Bundle:
        network = colour_network(size_px, gain)
        recipe = make_recipe(size_px=size_px)
        card = save_bundle(tmp_path / name, network, recipe, slides=[], metrics={})
        return Bundle(tmp_path / name, card, network)

    return make


def write_truth(path: Path, truth: Truth, *, mpp: float | None = 1.0) -> Path:
    """Write a pyramidal slide in the colours of a truth."""
    height, width = truth.shape
    pixels = np.array([GLASS, TISSUE, TUMOUR], np.uint8)[truth]
    resolution = "" if mpp is None else f"|MPP = {mpp:g}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 4):
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95},
                description=f"Aperio Image Library v12\r\n{width}x{height}{resolution}",
                metadata=None,
                subfiletype=0,
            )
    return path


@pytest.fixture
def write_slide_of(tmp_path: Path) -> WriteTruth:
    """Write a slide of a truth; see ``write_truth``."""

    def write(truth: Truth, name: str = "slide.svs", mpp: float | None = 1.0) -> Path:
        return write_truth(tmp_path / "slides" / name, truth, mpp=mpp)

    return write


@pytest.fixture
def truth() -> Truth:
    """A disc of tissue, whose right third is tumour up to the glass."""
    y, x = np.mgrid[:1500, :2000]
    drawn: Truth = (np.hypot(x - 1000, y - 750) < 650).astype(np.uint8)
    drawn[(drawn == 1) & (x > 1200 + 0.2 * y)] = 2
    return drawn
