"""Annotation and active learning for QuPath projects.

The names below are imported when they are first used, so that ``import qpannot`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qpannot.errors import QpannotError
    from qpannot.geometry import Mpp, Region, Size
    from qpannot.qupath import Annotation, PathClass, open_project
    from qpannot.recipe import Recipe, load_recipe
    from qpannot.slide import Slide, open_slide
    from qpannot.tissue import detect_tissue

_HOMES = {
    "Annotation": "qupath",
    "Mpp": "geometry",
    "PathClass": "qupath",
    "QpannotError": "errors",
    "Recipe": "recipe",
    "Region": "geometry",
    "Size": "geometry",
    "Slide": "slide",
    "detect_tissue": "tissue",
    "load_recipe": "recipe",
    "open_project": "qupath",
    "open_slide": "slide",
}

__all__ = [
    "Annotation",
    "Mpp",
    "PathClass",
    "QpannotError",
    "Recipe",
    "Region",
    "Size",
    "Slide",
    "__version__",
    "detect_tissue",
    "load_recipe",
    "open_project",
    "open_slide",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'qpannot' has no attribute {name!r}")
    return getattr(import_module(f"qpannot.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
