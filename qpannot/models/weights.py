"""Weights of encoders: found in a cache, fetched, read from files, and fitted by name.

Files are safetensors, or torch's with nothing but tensors in them; pickled code is never run.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import pickle
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from qpannot.errors import MissingWeightsError, QpannotError

PATIENCE_S = 4.0
"""How long a server may take to give a first answer; the libraries' own retries take up to 45."""

CLASSIFIER_PARTS = frozenset(
    {"AuxLogits", "aux_logits", "classifier", "fc", "head", "head_dist", "last_linear"}
    | {"logits", "pre_logits"}
)
"""What networks call the layers after the encoder; a file may have them, they are left out."""

UNNEEDED = "num_batches_tracked"
"""What batch norm counts for a kind of average that no encoder uses; older files are without."""

SHOWN_KEYS = 5

FORBIDDEN = "unsupported global"
"""In the message of torch 2.13 when a file names a class or function; it only chooses our message,
the file is refused either way."""

FETCHING_FAILS = (OSError, EntryNotFoundError, http.client.HTTPException, RuntimeError)
"""What fetching raises; the ``RuntimeError`` is torch's when a digest differs."""

READING_FAILS = (
    *(SafetensorError, pickle.UnpicklingError, OSError, EOFError),
    *(RuntimeError, ValueError, KeyError),
)
"""What reading a damaged file raises; torch has no exception of its own for it."""

CONVERTING_FAILS = (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError)
"""What converting names raises that are of neither library."""

StateDict = dict[str, Tensor]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A file torchvision publishes, kept in torch hub's cache."""

    url: str

    def cached(self) -> Path | None:
        """Return the file if it was fetched before."""
        path = self._place()
        return path if path.is_file() else None

    def download(self) -> Path:
        """Fetch the file, and check it against the digest in its name."""
        path = self._place()
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(self.url, str(path), digest, progress=sys.stderr.isatty())
        return path

    def _place(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(self.url).path).name


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the Hugging Face hub, kept in its cache."""

    repository: str
    revision: str | None = None
    filename: str = "model.safetensors"

    @property
    def url(self) -> str:
        """Where a person finds the file."""
        place = f"{self.repository}/resolve/{self.revision or 'main'}/{self.filename}"
        return f"{hub_constants.ENDPOINT}/{place}"

    def cached(self) -> Path | None:
        """Return the file if it was fetched before."""
        found = huggingface_hub.try_to_load_from_cache(
            self.repository, self.filename, revision=self.revision
        )
        return Path(found) if isinstance(found, str) else None

    def download(self) -> Path:
        """Fetch the file."""
        return Path(
            huggingface_hub.hf_hub_download(self.repository, self.filename, revision=self.revision)
        )


PublishedFile = TorchFile | HubFile


def fetch(file: PublishedFile, encoder: str, setting: str) -> Path:
    """Return a published file, from the cache or over the network.

    Parameters
    ----------
    encoder
        Whose weights it has, for messages.
    setting
        Key of the recipe that takes a file instead, for messages.

    Raises
    ------
    MissingWeightsError
        Within seconds when it is not cached and the server does not answer; also when fetching it
        fails.
    """
    # The hub's own function asks the server even for what is cached, with all its retries.
    if cached := file.cached():
        return cached
    trouble = unreachable(file)
    if trouble is None:
        try:
            return file.download()
        except FETCHING_FAILS as error:
            trouble = f"fetching them failed: {_first_line(error)}"
    raise MissingWeightsError(encoder, trouble, url=file.url, setting=setting)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def unreachable(file: PublishedFile) -> str | None:
    """Return why the server of a file cannot be asked, or ``None`` when it answers.

    Any answer counts, also an error: the download itself finds out what it means.
    """
    if isinstance(file, HubFile) and hub_constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to fetch them"
    parts = urlsplit(file.url)
    reasons: list[str] = [f"{parts.hostname} does not answer"]

    def ask() -> None:
        request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE_S).close()
        except (urllib.error.HTTPError, ssl.SSLError):
            reasons.clear()
        except urllib.error.URLError as error:
            # Certificates may be known to the library that downloads and not to this one.
            if isinstance(error.reason, ssl.SSLError):
                reasons.clear()
            else:
                reasons.append(f"{parts.hostname} cannot be reached ({error.reason})")
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{parts.hostname} cannot be reached ({error})")
        else:
            reasons.clear()

    # In a thread, because looking up a name heeds no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return reasons[-1] if reasons else None


def read_weights(path: Path, setting: str = "network.weights") -> StateDict:
    """Return the tensors of a file of weights, by name.

    Parameters
    ----------
    path
        ``.safetensors``, or what ``torch.save`` wrote: a state dict, or a checkpoint that has one.
    setting
        Key of the recipe that names it, for messages.

    Raises
    ------
    QpannotError
        When there is no such file, it is damaged, holds anything but plain data, or no tensors.
    """
    if not path.is_file():
        raise QpannotError(
            f"There is no file of weights {path}.",
            hint=f"Set {setting} to imagenet, to a .safetensors or .pth file, or to null.",
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except READING_FAILS as error:
        if FORBIDDEN in str(error).lower():
            raise QpannotError(
                f"{path} holds more than weights, and what else it holds could run code.",
                hint="Save the network's state_dict() alone, best as .safetensors.",
            ) from error
        raise QpannotError(
            f"{path} cannot be read as weights: {_first_line(error)}",
            hint="Delete it or get it again; .safetensors and torch's own files are read.",
        ) from error
    state = _tensors_in(loaded)
    if not state:
        raise QpannotError(
            f"{path} holds no weights.", hint="Give a file with the state_dict() of a network."
        )
    return state


def _tensors_in(loaded: object) -> StateDict:
    """Return the state dict in what a checkpoint holds: itself, or the largest one inside."""
    if not isinstance(loaded, Mapping):
        return {}
    own = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    inner = [_tensors_in(value) for value in loaded.values() if isinstance(value, Mapping)]
    return max([own, *inner], key=len)


def fit_weights(
    module: nn.Module,
    state: StateDict,
    source: str,
    *,
    convert: Callable[[StateDict], StateDict] | None = None,
) -> None:
    """Load weights into a module, whatever they were wrapped in when they were saved.

    Names may have a common prefix (``module.``, ``encoder.``, ``model.backbone.``), and layers
    that follow an encoder may be there; they are left out.

    Parameters
    ----------
    source
        Where the weights come from, for messages.
    convert
        Gives another library's names or sizes those of ``module``; asked where they do not fit.

    Raises
    ------
    QpannotError
        When a weight is missing, of another shape, or the file is of a deeper network of the same
        family. The module is unchanged then.
    """
    own = module.state_dict()
    fit = _Fit.of(own, state)
    if fit.problems and convert is not None:
        with contextlib.suppress(*CONVERTING_FAILS):
            converted = _Fit.of(own, convert(dict(state)))
            fit = converted if converted.weight_of_problems < fit.weight_of_problems else fit
    if fit.problems:
        report = "; ".join(f"{_some(keys)} {what}" for what, keys in fit.problems.items())
        raise QpannotError(
            f"The weights {source} do not fit the encoder: {report}.",
            hint="Give weights of this very encoder, or name the encoder they are of.",
        )
    if fit.left_out:
        _log.info("%s: %s left out, as they follow the encoder", source, _some(fit.left_out))
    module.load_state_dict(own | fit.given)


@dataclass(frozen=True, slots=True)
class _Fit:
    """How the weights of a file lie in a module."""

    given: StateDict
    left_out: list[str]
    problems: dict[str, list[str]]

    @property
    def weight_of_problems(self) -> int:
        return sum(map(len, self.problems.values()))

    @classmethod
    def of(cls, own: StateDict, state: StateDict) -> _Fit:
        prefix = _prefix(own, state)
        given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        left_out = [key for key in given if key not in own]
        problems = {
            "missing": [key for key in own if key not in given and not key.endswith(UNNEEDED)],
            "of another shape": [
                f"{key} {tuple(given[key].shape)} for {tuple(own[key].shape)}"
                for key in own
                if key in given and given[key].shape != own[key].shape
            ],
            "not of this encoder": [
                key
                for key in left_out
                if not key.endswith(UNNEEDED) and not CLASSIFIER_PARTS & set(key.split("."))
            ],
        }
        return cls(
            given={key: value for key, value in given.items() if key in own},
            left_out=left_out,
            problems={what: keys for what, keys in problems.items() if keys},
        )


def _prefix(own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Return what stands before the names of ``own`` in ``state``, by majority."""
    votes: Counter[str] = Counter()
    by_last: dict[str, list[str]] = {}
    for key in own:
        by_last.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    for key in state:
        for wanted in by_last.get(key.rsplit(".", 1)[-1], ()):
            if key == wanted or key.endswith(f".{wanted}"):
                votes[key.removesuffix(wanted)] += 1
    return votes.most_common(1)[0][0] if votes else ""


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:SHOWN_KEYS])
    return f"{shown} and {len(keys) - SHOWN_KEYS:,} more" if len(keys) > SHOWN_KEYS else shown
