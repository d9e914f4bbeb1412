"""Pixels to polygons and back: outlines of heatmaps and masks, class masks and covered parts."""

from qpannot.vectorize.outlines import Outline, outlines_of, outlines_of_labels
from qpannot.vectorize.rasterize import Spans, class_mask, coverage, spans_of
from qpannot.vectorize.tracing import polygons_of

__all__ = [
    "Outline",
    "Spans",
    "class_mask",
    "coverage",
    "outlines_of",
    "outlines_of_labels",
    "polygons_of",
    "spans_of",
]
