"""The network over slides: from a model bundle to heatmaps."""

from qpannot.heatmap import heatmap_path
from qpannot.inference.choosing import EngineName, Engines, Precision
from qpannot.inference.predict import Prediction, heatmap_key, predict_heatmap
from qpannot.inference.refine import refine_heatmap, refine_slides, refined_key
from qpannot.inference.slides import SlideProgress, SlideResult, predict_slides

__all__ = [
    "EngineName",
    "Engines",
    "Precision",
    "Prediction",
    "SlideProgress",
    "SlideResult",
    "heatmap_key",
    "heatmap_path",
    "predict_heatmap",
    "predict_slides",
    "refine_heatmap",
    "refine_slides",
    "refined_key",
]
