"""Synthetic slides to try everything on: plausible H&E with known tumours, patients and grades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qpannot.demo.slides import DemoSlide, make_demo_slides

__all__ = ["DemoSlide", "make_demo_slides"]


def __getattr__(name: str) -> Any:  # SciPy and scikit-image load only when slides are made
    if name in __all__:
        from qpannot.demo import slides

        return getattr(slides, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
