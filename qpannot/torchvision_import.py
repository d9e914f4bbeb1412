"""The one place where torchvision is imported.

torchvision's wheels on PyPI are CUDA builds. Beside a CPU-only torch they fail to import, because
the operator ``torchvision::nms`` (and ``qnms``, from 0.28) is not there to be given a fake kernel.
Declaring the schemas is enough; ``torchvision.ops.nms`` itself stays unusable, and nothing here
uses it. Call
``import_torchvision`` before importing anything that imports torchvision by itself
(segmentation-models-pytorch, timm, torchmetrics, lightning).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_MISSING = "operator torchvision::nms does not exist"
_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []
"""Keeps the declaration alive: torch takes a library back when it is collected."""


def import_torchvision() -> ModuleType:
    """Import torchvision, also beside a CPU-only torch.

    Raises
    ------
    ImportError
        When torch or torchvision is not installed.
    RuntimeError
        When torchvision fails for any other reason, as when it does not match torch.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise
    else:
        return torchvision
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(_SCHEMA.format(operator))
    _declared.append(library)
    import torchvision

    return torchvision
