"""Slides of one size that look different, as a scanner's batch folders are full of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from qpannot.linking import describe_slide
from qpannot.qupath import Project, open_project


def write_case(path: Path, case: int, *, marked: bool = False) -> Path:
    """Write a pyramidal slide of 1024 x 768 px with pieces of tissue where only this case has them.

    Parameters
    ----------
    marked
        Whether a few pixels are others, as when a program wrote the same slide again.
    """
    random = np.random.default_rng(case)
    y, x = np.mgrid[:768, :1024]
    level = np.full((768, 1024, 3), 244, np.uint8)
    for _ in range(4):
        center_x, center_y = random.uniform(150, 850), random.uniform(150, 600)
        width, height = random.uniform(50, 150, 2)
        inside = ((x - center_x) / width) ** 2 + ((y - center_y) / height) ** 2 < 1
        level[inside] = random.integers(80, 200, 3)
    if marked:
        level[:8, :8] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for downsample in (1, 4):
            tiff.write(
                np.ascontiguousarray(level[::downsample, ::downsample]),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90},
                description="Aperio Image Library v12\r\n1024x768|AppMag = 20|MPP = 0.5",
                metadata=None,
                subfiletype=0,
            )
    return path


@pytest.fixture
def make_case() -> Callable[..., Path]:
    """Write a slide that looks like no other case's; see ``write_case``."""
    return write_case


@pytest.fixture
def batches(tmp_path: Path) -> Project:
    """A project of slides/a/1.svs and slides/b/1.svs, of one size; no fingerprint is known."""
    files = [
        write_case(tmp_path / "slides" / name / "1.svs", case) for case, name in enumerate("ab")
    ]
    with open_project(tmp_path / "study", "x") as project:
        project.add_images([describe_slide(file) for file in files])
    return open_project(tmp_path / "study", "r+")
