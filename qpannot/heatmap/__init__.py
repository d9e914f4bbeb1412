"""Probability maps of slides, and their files."""

from qpannot.heatmap.files import heatmap_path, load_heatmap, save_heatmap
from qpannot.heatmap.heatmap import Heatmap

__all__ = ["Heatmap", "heatmap_path", "load_heatmap", "save_heatmap"]
