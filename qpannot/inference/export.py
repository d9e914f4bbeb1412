"""A patch network as ONNX, for faster engines than torch."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from qpannot.models import Bundle, PatchNetwork
from qpannot.qupath.files import write_atomically

VERSION = 1
"""To be raised when the same network is exported otherwise than before."""


class _FromPixels(nn.Module):
    """From patches as slides give them, uint8 (N, H, W, 3), to probabilities."""

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        logits = self.network(patches.permute(0, 3, 1, 2))
        return torch.softmax(logits, dim=1)


def exported(bundle: Bundle, folder: Path) -> Path:
    """Return the ONNX file of a bundle, written if it is not there yet.

    Its input are patches, uint8 [n, size, size, 3]; its output are probabilities, float32
    [n, classes]. It is named by the weights, so that no other network's is taken for it.

    Parameters
    ----------
    folder
        Where such files lie; made where it is missing.

    Raises
    ------
    ProjectError
        It cannot be written.
    """
    path = folder / f"{bundle.card.weights_sha256[:16]}-{VERSION}.onnx"
    if not path.exists():
        data = _onnx(bundle.network)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return path


def _onnx(network: PatchNetwork) -> bytes:
    size = network.architecture.size_px
    patches = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, to its own developers
        torch.onnx.export(
            _FromPixels(copy.deepcopy(network).cpu()).eval(),
            (patches,),
            file,  # type: ignore[arg-type] # this exporter takes files
            input_names=["patches"],
            output_names=["probabilities"],
            dynamic_axes={"patches": {0: "n"}, "probabilities": {0: "n"}},
            # By tracing: a few seconds rather than half a minute, and without onnxscript.
            # Whatever it gets wrong, the comparison with torch sees.
            dynamo=False,
        )
    return file.getvalue()
