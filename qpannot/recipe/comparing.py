"""The settings of what is compared, and how: evaluations, and the designs of an ablation."""

from __future__ import annotations

from collections import Counter
from typing import Literal, Self

from pydantic import Field, model_validator

from qpannot.recipe.section import Section


class EvaluationSettings(Section):
    """How predictions are compared with annotations (H2G-Net sec. 3.3)."""

    mpp: float = Field(default=4.0, gt=0)
    """Micrometres per pixel at which is compared. 4 is finer than a heatmap's pixel and than a hand
    draws, and a whole slide still fits into memory; as annotations count by the part of a pixel
    they cover, finer pixels change little."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """A pixel is of a class from this probability on."""

    calibration_bins: int = Field(default=15, ge=1)
    """Of equal width; 15 are Guo et al.'s (ICML 2017)."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the intervals of means."""

    resamples: int = Field(default=10_000, ge=1)
    """How often slides are drawn for an interval, whole patients (``split.by``) at a time."""

    groups: tuple[str, ...] = ("grade",)
    """Keys of image metadata by which results are told apart, where slides have them."""

    seed: int = 0
    """Of the draws for intervals."""


class DesignSettings(Section):
    """One of the designs that an ablation study compares (H2G-Net sec. 3.2)."""

    name: str = Field(min_length=1)
    numeral: str = ""
    """What the paper's tables put in front of the name; ``--design`` takes it as well."""

    stage: Literal["threshold", "patch", "refinement"]
    """``threshold``: the tissue, untrained; ``patch``: a patch network; ``refinement``: a network
    that sees the slide small as a whole, and with ``refinement.use_heatmap`` the heatmap of a patch
    network."""

    patch: str | None = None
    """Name of the patch design whose heatmaps are refined. That is trained once, however many
    designs refine what it finds."""

    set: tuple[str, ...] = ()
    """In what the design differs from the recipe, each as ``key=value``, as for ``--set``."""

    @model_validator(mode="after")
    def _only_refinement_refines(self) -> Self:
        if self.patch and self.stage != "refinement":
            raise ValueError(f"{self.name} is no refinement, and takes no heatmap of {self.patch}")
        return self


class AblationSettings(Section):
    """The designs that are trained on one split and compared (``qpannot ablation``)."""

    designs: tuple[DesignSettings, ...] = ()
    """None: the nine of the paper, which the recipe ``ablation`` has."""

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        named = [each.name for each in self.designs] + [
            each.numeral for each in self.designs if each.numeral
        ]
        counts = Counter(name.casefold() for name in named)
        if twice := [name for name in dict.fromkeys(named) if counts[name.casefold()] > 1]:
            raise ValueError(f"several designs are called {', '.join(twice)}")
        patches = {each.name for each in self.designs if each.stage == "patch"}
        for each in self.designs:
            if each.patch and each.patch not in patches:
                raise ValueError(f"{each.name} refines {each.patch}, which is no patch design")
        return self
