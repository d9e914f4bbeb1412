"""Model bundles: a folder with all that a trained network is, and nothing that could run code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from qpannot import __version__
from qpannot.errors import QpannotError
from qpannot.models.encoders import Triple, build_encoder
from qpannot.models.network import PatchArchitecture, PatchNetwork
from qpannot.qupath.files import sync_folder, write_atomically
from qpannot.recipe import Recipe

CARD = "model.json"
WEIGHTS = "weights.safetensors"
FORMAT: Final = 1
"""Raised when an older qpannot could misread a bundle."""

LIBRARIES = ("torch", "torchvision", "timm", "segmentation-models-pytorch")
SHOWN = 5


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Normalisation(_Part):
    """What is done to red, green and blue in [0, 1]: (value - mean) / std."""

    mean: Triple
    std: Triple


class ModelCard(_Part):
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
    round: int | None = None,
) -> ModelCard:
    """Write a network with all that is needed to use and to judge it.

    Everything goes to a folder beside it, is synced and read back, and renamed: after a crash
    there is the whole bundle or none.

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
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    weights = safetensors.torch.save(state)
    encoder = network.encoder
    card = ModelCard(
        architecture=network.architecture,
        mpp=recipe.patches.mpp,
        normalisation=Normalisation(mean=_triple(encoder.mean), std=_triple(encoder.std)),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        slides=tuple(slides),
        round=round,
        metrics=dict(metrics),
        recipe=recipe.model_dump(mode="json"),
        versions=_versions(),
    )
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    if folder.exists():
        raise QpannotError(
            f"There is already something at {folder}.",
            hint="Name another folder, or move that one away; no model is ever overwritten.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            temporary.mkdir(exist_ok=True)
            write_atomically(temporary / WEIGHTS, weights)
            write_atomically(temporary / CARD, text.encode())
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise QpannotError(
            f"{folder} cannot be written: {error.strerror or error}.",
            hint="Check free space and permissions of the folder, then run the command again.",
        ) from error
    return card


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle; needs no network, and runs no code of it.

    Raises
    ------
    QpannotError
        When it is missing, damaged, of a newer qpannot, or its parts do not fit together.
    """
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != card.weights_sha256:
            raise _bad(path, f"is not the file {CARD} was written for (its SHA-256 differs)")
        state = safetensors.torch.load(data)
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise _bad(path, f"is no safetensors file: {error}") from error
    architecture = card.architecture
    encoder = build_encoder(architecture.encoder, weights=None, size_px=architecture.size_px)
    network = PatchNetwork(architecture, encoder)
    if problems := _misfits(network.state_dict(), state):
        written_with = ", ".join(f"{name} {number}" for name, number in card.versions.items())
        raise _bad(path, f"does not fit the network: {problems} (written with {written_with})")
    network.load_state_dict(state)
    if card.normalisation != Normalisation(mean=_triple(encoder.mean), std=_triple(encoder.std)):
        raise _bad(folder / CARD, "gives another normalisation than the weights")
    return Bundle(folder, card, network.eval())


def read_card(folder: Path) -> ModelCard:
    """Read what a bundle's ``model.json`` says, without its weights.

    Raises
    ------
    QpannotError
        When it is missing, damaged, or of a newer qpannot; every problem is named.
    """
    path = folder / CARD
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise QpannotError(
            f"{folder} is no model: it has no {CARD}.",
            hint="Give the folder of a model, as qpannot train writes it.",
        ) from error
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise _bad(path, f"is no JSON: {error}") from error
    number = values.get("format") if isinstance(values, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise QpannotError(
            f"{folder} was written by a newer qpannot (format {number}; this one reads {FORMAT}).",
            hint="Upgrade: pip install --upgrade qpannot",
        )
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}"
            for each in error.errors()
        )
        raise _bad(path, f"is not what it should be: {problems}") from error


def _bad(path: Path, trouble: str) -> QpannotError:
    return QpannotError(
        f"{path} {trouble}.",
        hint="Copy the whole folder of the model again, or train again with qpannot train.",
    )


def _misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    problems = [f"{key} is missing" for key in own.keys() - given.keys()]
    problems += [f"{key} is unknown" for key in given.keys() - own.keys()]
    problems += [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & given.keys()
        if own[key].shape != given[key].shape
    ]
    more = f" and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    return "; ".join(sorted(problems)[:SHOWN]) + more


def _triple(values: Tensor) -> Triple:
    red, green, blue = values.flatten().tolist()
    return red, green, blue


def _versions() -> dict[str, str]:
    found = {"qpannot": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
