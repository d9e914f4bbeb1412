"""Whole-slide reading: `open_slide` gives a `Slide`, whose frame and pixels are QuPath's."""

from qpannot.slide.opening import open_slide
from qpannot.slide.slide import Level, Slide

__all__ = ["Level", "Slide", "open_slide"]
