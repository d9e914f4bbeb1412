"""The folder of a model: its weights, and a card that says what they are of.

No part of it could run code. Each kind of model has a card of its own; patch networks, which came
first, do not name their kind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, TypeVar

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from qpannot import __version__
from qpannot.errors import QpannotError
from qpannot.qupath.files import sync_folder, write_atomically

CARD = "model.json"
WEIGHTS = "weights.safetensors"
FORMAT: Final = 1
"""Raised when an older qpannot could misread a model."""

PATCH, REFINEMENT = "patch", "refinement"
KINDS = {PATCH: "patch network", REFINEMENT: "refinement network"}

LIBRARIES = ("torch", "torchvision", "timm", "segmentation-models-pytorch")
SHOWN = 5


class Part(BaseModel):
    """A part of a card: of known keys only, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Card = TypeVar("Card", bound=Part)


def packed_weights(network: nn.Module) -> tuple[bytes, str]:
    """Return the weights of a network as safetensors, and their SHA-256."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    weights = safetensors.torch.save(state)
    return weights, hashlib.sha256(weights).hexdigest()


def write_model(folder: Path, weights: bytes, card: Part) -> None:
    """Write the folder of a model.

    Everything goes to a folder beside it, is synced and read back, and renamed: after a crash
    there is the whole model or none.

    Raises
    ------
    QpannotError
        When there is something at ``folder``, or it cannot be written.
    """
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


def kind_of(folder: Path) -> str:
    """Return which of ``KINDS`` a model is; a patch network where its card does not tell."""
    try:
        values = json.loads((folder / CARD).read_bytes())
    except (OSError, ValueError):
        return PATCH  # whoever reads the card says what is wrong with it
    return str(values.get("kind", PATCH)) if isinstance(values, dict) else PATCH


def read_model_card(folder: Path, kind: str, card: type[Card]) -> Card:
    """Return what a model's ``model.json`` says, without its weights.

    Parameters
    ----------
    kind
        Of ``KINDS``: what is asked for.
    card
        What such a model's file holds.

    Raises
    ------
    QpannotError
        When it is missing, damaged, of a newer qpannot, or of another kind; every problem is
        named.
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
        raise bad(path, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise bad(path, f"is no JSON: {error}") from error
    said = values if isinstance(values, dict) else {}
    number, own = said.get("format"), said.get("kind", PATCH)
    if isinstance(number, int) and number > FORMAT:
        raise QpannotError(
            f"{folder} was written by a newer qpannot (format {number}; this one reads {FORMAT}).",
            hint="Upgrade: pip install --upgrade qpannot",
        )
    if isinstance(own, str) and own != kind and own in KINDS:
        raise QpannotError(
            f"{folder} is a {KINDS[own]}, where a {KINDS[kind]} is needed.",
            hint=f"Give the folder of a {KINDS[kind]}.",
        )
    try:
        return card.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}"
            for each in error.errors()
        )
        raise bad(path, f"is not what it should be: {problems}") from error


def load_weights(
    folder: Path, network: nn.Module, sha256: str, versions: Mapping[str, str]
) -> None:
    """Fill a network with the weights of a model's folder.

    Parameters
    ----------
    sha256, versions
        As the card has them.

    Raises
    ------
    QpannotError
        They are missing, not those of the card, or do not fit the network.
    """
    path = folder / WEIGHTS
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise bad(path, f"is not the file {CARD} was written for (its SHA-256 differs)")
        state = safetensors.torch.load(data)
    except OSError as error:
        raise bad(path, f"cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise bad(path, f"is no safetensors file: {error}") from error
    if problems := _misfits(network.state_dict(), state):
        written_with = ", ".join(f"{name} {number}" for name, number in versions.items())
        raise bad(path, f"does not fit the network: {problems} (written with {written_with})")
    network.load_state_dict(state)


def bad(path: Path, trouble: str) -> QpannotError:
    """Return what to raise of a damaged file."""
    return QpannotError(
        f"{path} {trouble}.",
        hint="Copy the whole folder of the model again, or train again with qpannot train.",
    )


def versions() -> dict[str, str]:
    """Return of what a model is written with which version."""
    found = {"qpannot": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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
