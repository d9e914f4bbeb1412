"""Draw the README's picture of a review in napari: round 1 on a slide, half corrected.

    python examples/draw_review.py CMU-1-Small-Region.svs review.png

Needs a screen (or ``xvfb-run -s '-screen 0 1400x1000x24'`` before the command).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

from qpannot import open_project
from qpannot.review.launching import dock_alone
from qpannot.review.session import Session
from qpannot.review.viewer import ReviewWindow

SIZE = (1360, 860)
STROKES = (((0.12, 0.56), (0.19, 0.64)), ((0.42, 0.73), (0.58, 0.62)))
"""Of the eraser, over glass within the tissue: from and to, as parts of height and width."""

COLORS = 256
"""Of the picture, so that it stays small."""


def look(seconds: float) -> None:
    """Let the window draw itself."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


def main() -> None:
    """Make a project of the slide in a temporary folder, review it, and draw the window."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("picture", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        for command in (
            ["init", str(chosen.slide.resolve()), "-o", str(study)],
            ["bootstrap", str(study), "--recipe", "quick"],
        ):
            subprocess.run([sys.executable, "-m", "qpannot", *command], check=True)
        with open_project(study, mode="r+") as project, Session(project) as session:
            viewer = napari.Viewer()
            window = ReviewWindow(viewer, session)
            dock_alone(viewer, window)
            viewer.window.resize(*SIZE)
            look(1)
            window.start()
            look(3)
            window.do("erase")
            labels = window.easel.labels
            height, width = labels.data.shape
            labels.brush_size = round(0.11 * width)
            for start, end in STROKES:
                with labels.block_history():  # one stroke
                    for place in np.linspace(start, end, 30):
                        labels.paint(tuple(place * (height, width)), 0)
            window.do("paint")
            look(2)
            picture = Image.fromarray(viewer.window.screenshot(flash=False, canvas_only=False))
            window.close()
            viewer.close()
    picture.convert("RGB").quantize(COLORS).save(chosen.picture, optimize=True)


if __name__ == "__main__":
    main()
