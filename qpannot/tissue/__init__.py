"""AN1: which parts of a slide are tissue."""

from qpannot.tissue.detect import detect_in_rgb, detect_tissue

__all__ = ["detect_in_rgb", "detect_tissue"]
