"""Which engine runs a network: the fastest that is installed and gives what torch gives."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from qpannot.errors import QpannotError, UsageError
from qpannot.inference.engines import (
    Bits,
    Engine,
    OnnxRuntimeEngine,
    OpenVinoEngine,
    Probabilities,
    TorchEngine,
    described,
)
from qpannot.inference.export import exported
from qpannot.inference.reading import Patches
from qpannot.models import Bundle

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
Precision = Literal["auto", "32", "bf16"]

TOLERANCE: dict[Bits, float] = {"32": 1e-3, "bf16": 0.05, "16": 0.05}
"""How far a probability may lie from torch's in 32 bit. A heatmap's file keeps steps of 1/254."""

COMPARED = 16
"""Patches of each slide on which an engine is compared with torch."""

MAX_THREADS = 32

FASTER = ("openvino", "onnxruntime")
"""Than torch on a processor; the first is preferred."""


@dataclass(frozen=True)
class Compared:
    """An engine that may run a slide.

    Parameters
    ----------
    difference
        The largest by which a probability differed from torch's in 32 bit on patches of the slide;
        None where it is torch in 32 bit.
    """

    engine: Engine
    difference: float | None


class Engines:
    """The engines that can run a network, best first; each is loaded once, when it is needed.

    Parameters
    ----------
    engine
        ``"auto"``: torch where there is a GPU; else OpenVINO, ONNX Runtime or torch, the first of
        them that is installed.
    precision
        ``"auto"``: float16 where torch finds it best on a GPU, 32 bit on a processor. ``"bf16"``:
        bfloat16, of OpenVINO on processors that have it, or of torch if that is the engine.
    batch_size
        Patches at a time; a processor takes fewer on each core.
    cache
        Folder for what other engines than torch are given; by default that of the bundle.
    threads
        How many call it at once; by default one for each core.

    Raises
    ------
    UsageError
        The engine is not installed, or has no such precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: EngineName = "auto",
        precision: Precision = "auto",
        batch_size: int = 64,
        cache: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.precision = precision
        self.threads = threads or min(cores(), MAX_THREADS)
        self._batch_size = batch_size
        self._cache = cache or bundle.folder
        if engine in FASTER and find_spec(engine) is None:
            raise UsageError(
                f"The engine {engine} is not installed.",
                hint="Install it with pip install 'qpannot[fast]', or leave the choice to qpannot.",
            )
        if engine == "onnxruntime" and precision == "bf16":
            raise UsageError(
                "onnxruntime does not calculate in bfloat16 on a processor.",
                hint="Take another engine, or 32 bit.",
            )
        has_gpu = torch.cuda.is_available() and engine in ("auto", "torch")
        self._device = torch.device("cuda" if has_gpu else "cpu")
        self._candidates = _candidates(engine, precision, has_gpu=has_gpu)
        self._loaded: dict[tuple[str, Bits], Engine] = {}

    def compared(self, patches: Patches, slide: str) -> Compared:
        """Return the first engine that gives for patches what torch gives in 32 bit.

        An engine that does not, or fails, is passed over with a warning in the log.

        Parameters
        ----------
        patches
            Of the slide.
        slide
            Its name, for the log.

        Raises
        ------
        QpannotError
            The network does not give numbers.
        """
        expected = self._plain.predict(patches)
        if not np.isfinite(expected).all():
            raise QpannotError(
                f"{self.bundle.folder}: the network gives no numbers for patches of {slide}.",
                hint="Its training went wrong; train again, or take another model.",
            )
        for name, bits in list(self._candidates):
            what = f"{name} ({described(bits)})"
            try:
                engine = self._load(name, bits)
                found = engine.predict(patches)
            except Exception as error:  # noqa: BLE001 - whatever another engine raises, torch is left
                reason = error.message if isinstance(error, QpannotError) else error
                logger.warning("%s is not used: %s", what, reason)
                self._candidates.remove((name, bits))
                continue
            difference = _difference(found, expected)
            if difference <= TOLERANCE[bits]:
                return Compared(engine, difference)
            logger.warning(
                "%s: %s is not used; its probabilities differ from torch's by up to %.3f, and "
                "%g is allowed.",
                slide,
                what,
                difference,
                TOLERANCE[bits],
            )
        return Compared(self._plain, None)

    @cached_property
    def _plain(self) -> TorchEngine:
        return TorchEngine(self.bundle.network, self._device, "32", self._batch_size)

    def _load(self, name: str, bits: Bits) -> Engine:
        key = name, bits
        if key not in self._loaded:
            self._loaded[key] = self._open(name, bits)
        return self._loaded[key]

    def _open(self, name: str, bits: Bits) -> Engine:
        if name == "torch":
            return TorchEngine(self.bundle.network, self._device, bits, self._batch_size)
        path = exported(self.bundle, self._cache)
        try:
            if name == "onnxruntime":
                return OnnxRuntimeEngine(path, self._batch_size)
            return OpenVinoEngine(path, bits, self._batch_size, self.threads)
        except QpannotError:
            raise
        except Exception as error:
            raise QpannotError(f"{path} cannot be loaded ({error}); delete it.") from error


def _candidates(
    engine: EngineName, precision: Precision, *, has_gpu: bool
) -> list[tuple[str, Bits]]:
    """Return what to try before torch in 32 bit."""
    if has_gpu or engine == "torch":
        if precision == "bf16":
            return [("torch", "bf16")]
        return [("torch", "16")] if has_gpu and precision == "auto" else []
    names = [name for name in FASTER if engine == name or (engine == "auto" and find_spec(name))]
    plain: list[tuple[str, Bits]] = [(name, "32") for name in names]
    return [("openvino", "bf16"), *plain] if precision == "bf16" and "openvino" in names else plain


def _difference(found: Probabilities, expected: Probabilities) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max())


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
