"""The settings of the refinement stage; the paper's values are the defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qpannot.recipe.section import Section


class RefinementAugmentationSettings(Section):
    """Changes of whole slides, each made with the same probability (H2G-Net sec. 3.2)."""

    probability: float = Field(default=0.5, ge=0, le=1)
    flip: bool = True
    rotate: bool = True
    """By multiples of 90 degrees, without loss."""

    zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.8, 1.2)
    """Range of the factor; above 1 the middle of the slide fills the image."""

    stain_sigma: float = Field(default=0.1, ge=0, lt=1)
    """How much of each stain there is (Macenko) is multiplied by 1 ± this, and moved by ± this."""


class RefinementSettings(Section):
    """The network that refines a heatmap with the slide, small as a whole (H2G-Net sec. 2.6)."""

    enabled: bool = False
    """Whether the loop trains one, and proposes from what it refined."""

    design: str = Field(default="unet", min_length=1)
    """``unet``, ``agunet``, ``dagunet``, ``doubleunet``, or any network of
    segmentation-models-pytorch as ``smp:decoder/encoder``."""

    size_px: int = Field(default=1024, ge=16)
    """Width and height of the image that a slide becomes."""

    use_heatmap: bool = True
    """``False``: from the slide alone, three channels (the paper's UNet-LR)."""

    fit: Literal["pad", "stretch"] = "pad"
    """``pad``: a slide keeps its shape, and white fills the square, of which nothing is learned.
    ``stretch``: the paper's plain resize, which distorts what is not square."""

    train_after: int = Field(default=10, ge=2)
    """Reviewed slides from which on it is trained at all."""

    protocol: Literal["held_out", "paper"] = "held_out"
    """Whose heatmaps it learns from. ``held_out``: slides the patch network was not fitted to,
    whose heatmaps are as good as those of new slides; where they are fewer than ``train_after``,
    as ``paper``. ``paper``: the slides the patch network was fitted to, whose heatmaps are
    better than any it will refine."""

    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=4, ge=1)
    accumulate: int = Field(default=6, ge=1)
    """Batches whose gradients make one step."""

    epochs: int = Field(default=1000, ge=1)
    patience: int | None = Field(default=100, ge=1)
    """Epochs without a better validation loss after which to stop; ``null``: never."""

    augmentation: RefinementAugmentationSettings = RefinementAugmentationSettings()

    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    """``auto``: 16-mixed on a GPU, 32 elsewhere."""

    workers: int | None = Field(default=None, ge=0)
    """Processes that prepare slides, besides the one that calculates; ``null``: as for
    ``training.workers``."""

    seed: int = 0
