"""Probability maps of slides, and their files."""

from qpannot.heatmap.files import load_heatmap, save_heatmap
from qpannot.heatmap.heatmap import Heatmap

__all__ = ["Heatmap", "load_heatmap", "save_heatmap"]
