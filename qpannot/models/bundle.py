"""Bundles of patch networks: a folder with all that a trained network is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue
from torch import Tensor

from qpannot.models.encoders import Triple, build_encoder
from qpannot.models.folders import (
    CARD,
    FORMAT,
    PATCH,
    WEIGHTS,
    Part,
    bad,
    load_weights,
    packed_weights,
    read_model_card,
    versions,
    write_model,
)
from qpannot.models.network import PatchArchitecture, PatchNetwork
from qpannot.recipe import Recipe

__all__ = [
    "CARD",
    "WEIGHTS",
    "Bundle",
    "ModelCard",
    "Normalisation",
    "load_bundle",
    "read_card",
    "save_bundle",
]


class Normalisation(Part):
    """What is done to red, green and blue in [0, 1]: (value - mean) / std."""

    mean: Triple
    std: Triple


class ModelCard(Part):
    """What ``model.json`` says.

    Attributes
    ----------
    mpp
        Micrometres per pixel of the patches.
    normalisation
        For other programs; the network does it itself.
    recipe
        The whole recipe of the training, as a record.
    slides
        What the network was trained on, validation included.
    chosen_by
        Those of them that only chose its best epoch; empty in bundles of qpannot 0.1, which did
        not say.
    round
        The round of the loop it was trained in, if any.
    versions
        Of what wrote it.
    """

    format: Literal[1] = FORMAT
    architecture: PatchArchitecture
    mpp: float = Field(gt=0)
    normalisation: Normalisation
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    slides: tuple[str, ...]
    chosen_by: tuple[str, ...] = ()
    round: int | None = Field(ge=1)
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    recipe: dict[str, JsonValue]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A network as it was saved, ready to predict (in evaluation mode), and its card."""

    folder: Path
    card: ModelCard
    network: PatchNetwork


def save_bundle(
    folder: Path,
    network: PatchNetwork,
    recipe: Recipe,
    *,
    slides: Sequence[str],
    metrics: Mapping[str, float],
    chosen_by: Sequence[str] = (),
    round: int | None = None,
) -> ModelCard:
    """Write a network with all that is needed to use and to judge it.

    After a crash there is the whole bundle or none.

    Parameters
    ----------
    folder
        Must not exist.
    recipe
        What it was trained by; its ``patches`` say for which resolution it is.
    slides
        What it was trained on.
    metrics
        What was measured, by name.
    chosen_by
        Those of the slides that only chose its best epoch.
    round
        The round of the loop, from 1.

    Returns
    -------
    ModelCard
        What ``model.json`` says.

    Raises
    ------
    QpannotError
        When there is something at ``folder``, or it cannot be written.
    ValueError
        When the network is for patches of another size than the recipe's, or a metric is no number.
    """
    if network.architecture.size_px != recipe.patches.size_px:
        raise ValueError(
            f"the network is for patches of {network.architecture.size_px} px, the recipe for "
            f"{recipe.patches.size_px} px"
        )
    weights, sha256 = packed_weights(network)
    encoder = network.encoder
    card = ModelCard(
        architecture=network.architecture,
        mpp=recipe.patches.mpp,
        normalisation=Normalisation(mean=_triple(encoder.mean), std=_triple(encoder.std)),
        weights_sha256=sha256,
        slides=tuple(slides),
        chosen_by=tuple(chosen_by),
        round=round,
        metrics=dict(metrics),
        recipe=recipe.model_dump(mode="json"),
        versions=versions(),
    )
    write_model(folder, weights, card)
    return card


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle; needs no network, and runs no code of it.

    Raises
    ------
    QpannotError
        When it is missing, damaged, of a newer qpannot, no patch network's, or its parts do not
        fit together.
    """
    card = read_card(folder)
    architecture = card.architecture
    encoder = build_encoder(architecture.encoder, weights=None, size_px=architecture.size_px)
    network = PatchNetwork(architecture, encoder)
    load_weights(folder, network, card.weights_sha256, card.versions)
    if card.normalisation != Normalisation(mean=_triple(encoder.mean), std=_triple(encoder.std)):
        raise bad(folder / CARD, "gives another normalisation than the weights")
    return Bundle(folder, card, network.eval())


def read_card(folder: Path) -> ModelCard:
    """Read what a bundle's ``model.json`` says, without its weights.

    Raises
    ------
    QpannotError
        When it is missing, damaged, of a newer qpannot, or no patch network's; every problem is
        named.
    """
    return read_model_card(folder, PATCH, ModelCard)


def _triple(values: Tensor) -> Triple:
    red, green, blue = values.flatten().tolist()
    return red, green, blue
