"""What runs a network: torch, and what is faster on a processor where it is installed.

Engines are called from many threads at once, each of which calculates on one core: on a processor
that is faster than many cores for one batch, and nothing waits for a slide to be read.
"""

from __future__ import annotations

import copy
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from qpannot.errors import QpannotError
from qpannot.inference.reading import Patches
from qpannot.models import PatchNetwork

Probabilities = NDArray[np.float32]
"""Shape [n, classes]; each row sums to 1."""

Bits = Literal["32", "bf16", "16"]
"""Precision of the calculation: float32, bfloat16 or float16."""

GPU_BATCHES = 2
"""Batches given to a GPU at once: it need not wait for the next, and its memory does not have to
suffice for as many as there are cores."""

CPU_BATCH = 8
"""Patches at a time on one core. More are no faster there, and take memory on every core."""

_TYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


class Engine(Protocol):
    """Runs a network; may be called by several threads at once.

    Attributes
    ----------
    name
        For people: ``openvino (32 bit)``.
    batch_size
        How many patches to give it at a time.
    """

    name: str
    batch_size: int

    def predict(self, patches: Patches) -> Probabilities:
        """Return the probabilities of the classes, patch by patch."""
        ...


class TorchEngine:
    """torch on a GPU or a processor."""

    def __init__(
        self, network: PatchNetwork, device: torch.device, bits: Bits, batch_size: int
    ) -> None:
        self.name = f"torch on {device.type} ({described(bits)})"
        self.batch_size = min(batch_size, CPU_BATCH) if device.type == "cpu" else batch_size
        self._device = device
        self._type = _TYPES[bits]
        self._turns = (
            nullcontext() if device.type == "cpu" else threading.BoundedSemaphore(GPU_BATCHES)
        )
        self._network = copy.deepcopy(network).eval()
        self._network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(self, patches: Patches) -> Probabilities:
        """Return the probabilities of the classes, patch by patch.

        Raises
        ------
        QpannotError
            The memory of the GPU does not suffice.
        """
        is_mixed = self._type != torch.float32
        try:
            with (
                self._turns,
                torch.inference_mode(),
                torch.autocast(self._device.type, self._type, enabled=is_mixed),
            ):
                batch = torch.from_numpy(patches).to(self._device).permute(0, 3, 1, 2)
                logits = self._network(batch)
                found: Probabilities = torch.softmax(logits.float(), dim=1).cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise QpannotError(
                f"The GPU has too little memory for {len(patches)} patches at once.",
                hint="Set a smaller heatmap.batch_size, and run the command again.",
            ) from error
        return found


class OnnxRuntimeEngine:
    """ONNX Runtime on a processor.

    Parameters
    ----------
    path
        What `qpannot.inference.export` wrote.
    """

    def __init__(self, path: Path, batch_size: int) -> None:
        import onnxruntime

        self.name = f"onnxruntime ({described('32')})"
        self.batch_size = min(batch_size, CPU_BATCH)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        (given,) = self._session.get_inputs()
        self._input = given.name

    def predict(self, patches: Patches) -> Probabilities:
        """Return the probabilities of the classes, patch by patch."""
        (found,) = self._session.run(None, {self._input: patches})
        return np.asarray(found, np.float32)


class OpenVinoEngine:
    """OpenVINO on a processor.

    Parameters
    ----------
    path
        What `qpannot.inference.export` wrote.
    threads
        How many will call it at once.

    Raises
    ------
    QpannotError
        The processor does not calculate in this precision; OpenVINO would take another in silence.
    """

    def __init__(self, path: Path, bits: Bits, batch_size: int, threads: int) -> None:
        import openvino

        core = openvino.Core()
        if bits == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise QpannotError("this processor does not calculate in bfloat16")
        self.name = f"openvino ({described(bits)})"
        self.batch_size = min(batch_size, CPU_BATCH)
        self._compiled = core.compile_model(
            core.read_model(path.read_bytes()),
            "CPU",
            {
                # Unsaid it would be bfloat16 where the processor has it.
                "INFERENCE_PRECISION_HINT": "bf16" if bits == "bf16" else "f32",
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # Others may calculate on this machine, too.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._local = threading.local()

    def predict(self, patches: Patches) -> Probabilities:
        """Return the probabilities of the classes, patch by patch."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        return np.asarray(request.infer([patches], share_inputs=True)[0], np.float32)


def described(bits: Bits) -> str:
    """Return a precision in words."""
    return {"32": "32 bit", "bf16": "bfloat16", "16": "16 bit"}[bits]
