"""Bundles of refinement networks: folders as of patch networks, told apart by their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from qpannot.models.folders import (
    FORMAT,
    REFINEMENT,
    Part,
    load_weights,
    packed_weights,
    read_model_card,
    versions,
    write_model,
)
from qpannot.models.refinement.network import RefinementArchitecture, RefinementNetwork
from qpannot.recipe import Recipe

COLOURS = 3


class RefinementCard(Part):
    """What the ``model.json`` of a refinement network says.

    Attributes
    ----------
    classes
        By their names, the rest first; the heatmaps of the others follow on the colours of an
        image.
    fit
        How a slide becomes an image (see `qpannot.sampling.frame`).
    patch_model_sha256
        Of the weights whose heatmaps it was trained on; None where it takes none.
    protocol
        Whose heatmaps those were (see ``refinement.protocol`` of the recipe).
    slides
        What it was trained on, validation included.
    recipe, round, versions
        As a patch network's card has them.
    """

    format: Literal[1] = FORMAT
    kind: Literal["refinement"] = "refinement"
    architecture: RefinementArchitecture
    classes: tuple[str, ...]
    fit: Literal["pad", "stretch"]
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    patch_model_sha256: str | None = Field(pattern="^[0-9a-f]{64}$")
    protocol: Literal["held_out", "paper"]
    slides: tuple[str, ...]
    round: int | None = Field(ge=1)
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    recipe: dict[str, JsonValue]
    versions: dict[str, str]

    @property
    def takes_heatmap(self) -> bool:
        """Whether it sees a heatmap, or the slide alone."""
        return self.architecture.channels > COLOURS

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names, channels = len(set(self.classes)), self.architecture.channels
        if names != len(self.classes) or names != self.architecture.classes:
            raise ValueError(f"{self.architecture.classes} classes need as many names")
        if channels not in (COLOURS, COLOURS + names - 1):
            raise ValueError(f"an image of {names} classes has no {channels} channels")
        if (self.patch_model_sha256 is not None) != self.takes_heatmap:
            raise ValueError("heatmaps are of a patch network, which has to be named")
        return self


@dataclass(frozen=True, slots=True)
class RefinementBundle:
    """A network as it was saved, ready to predict (in evaluation mode), and its card."""

    folder: Path
    card: RefinementCard
    network: RefinementNetwork


def save_refinement(
    folder: Path,
    network: RefinementNetwork,
    recipe: Recipe,
    *,
    classes: Sequence[str],
    patch_model_sha256: str | None,
    protocol: Literal["held_out", "paper"],
    slides: Sequence[str],
    metrics: Mapping[str, float],
    round: int | None = None,
) -> RefinementCard:
    """Write a network with all that is needed to use and to judge it.

    After a crash there is the whole bundle or none.

    Parameters
    ----------
    folder
        Must not exist.
    recipe
        What it was trained by.
    classes, patch_model_sha256, protocol, slides, metrics, round
        See `RefinementCard`.

    Raises
    ------
    QpannotError
        When there is something at ``folder``, or it cannot be written.
    ValueError
        When classes, channels and patch model contradict each other, or a metric is no number.
    """
    weights, sha256 = packed_weights(network)
    card = RefinementCard(
        architecture=network.architecture,
        classes=tuple(classes),
        fit=recipe.refinement.fit,
        weights_sha256=sha256,
        patch_model_sha256=patch_model_sha256,
        protocol=protocol,
        slides=tuple(slides),
        round=round,
        metrics=dict(metrics),
        recipe=recipe.model_dump(mode="json"),
        versions=versions(),
    )
    write_model(folder, weights, card)
    return card


def read_refinement_card(folder: Path) -> RefinementCard:
    """Return what a bundle says of itself, without its weights; raises as `load_refinement`."""
    return read_model_card(folder, REFINEMENT, RefinementCard)


def load_refinement(folder: Path) -> RefinementBundle:
    """Read a bundle; needs no network, and runs no code of it.

    Raises
    ------
    QpannotError
        When it is missing, damaged, of a newer qpannot, no refinement network's, or its parts do
        not fit together.
    """
    card = read_refinement_card(folder)
    network = RefinementNetwork(card.architecture)
    load_weights(folder, network, card.weights_sha256, card.versions)
    return RefinementBundle(folder, card, network.eval())
