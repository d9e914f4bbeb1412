"""Whether a file is the slide of a project's entry: by its bytes, else by its picture."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

from qpannot.errors import SlideError
from qpannot.geometry import Size
from qpannot.linking.opening import WrongSizeError, open_as
from qpannot.qupath import ProjectImage
from qpannot.qupath.server import is_there
from qpannot.slide.fingerprint import SlideFingerprint, fingerprint_slide

GRID_PX = 64
"""The longer side pictures are compared at, in pixels."""

MAX_UNLIKE = 0.03
"""How much of two pictures' variance may be difference, for them to show the same slide.

Measured at `GRID_PX` on pictures of 13 slides (six H&E composites of 8192 x 8192 px, OpenSlide's
CMU-1-Small-Region, six synthetic ones): QuPath's own thumbnail and the file's picture differ by
0.0024 at most, by 0.008 where the thumbnail is saved as JPEG of quality 15. The same slide shifted
by 1 % of its width differs by 0.05 to 0.12, other slides of the same size by 1.0 and more.
"""

PLAIN = 4.0
"""Pictures that vary less than this, as a standard deviation of 0 to 255, show no more than glass:
their likeness says nothing."""

BLACK = 32
"""No channel of what a scanner did not scan, 0 to 255, is above this. Tissue is never so dark."""

GLASS = 200
"""Every channel of glass, 0 to 255, is above this."""

FEWEST_CELLS = 16
"""Cells of the grid that must show more than glass for pictures to be told apart."""


class Evidence(IntEnum):
    """What speaks for a file being an entry's slide, from nothing to certainty."""

    OTHER = 0
    """Its size in pixels is another, or it cannot be read."""
    UNLIKE = 1
    """Its size in pixels is right, but its picture is another than the project's thumbnail."""
    ALTERED = 2
    """Nothing looks different, but its bytes are not those of the slide that was seen before."""
    FITS = 3
    """Its size in pixels is right; there is nothing else to compare."""
    ALIKE = 4
    """Its picture is that of the project's thumbnail."""
    SAME = 5
    """Its bytes are those of the slide that was seen before."""


@dataclass(frozen=True)
class Judgement:
    """What was found of one file, and in words for people."""

    evidence: Evidence
    why: str


def recognise(path: Path, image: ProjectImage, known: SlideFingerprint | None) -> Judgement:
    """Tell whether a file is the slide of an entry.

    Parameters
    ----------
    path
        An existing file.
    known
        The fingerprint of the slide, if it was ever taken.
    """
    try:
        if known and path.stat().st_size == known.size_bytes and fingerprint_slide(path) == known:
            return Judgement(Evidence.SAME, "the same bytes")
        alike = _is_alike(path, image)
    except WrongSizeError as error:
        reason = f"{path} is {error.size}, not {image.server.file_size}"
        return Judgement(Evidence.OTHER, reason)
    except SlideError as error:
        return Judgement(Evidence.OTHER, error.message)
    except OSError as error:
        return Judgement(Evidence.OTHER, f"{path} cannot be read ({error.strerror or error})")
    if alike is False:
        return Judgement(Evidence.UNLIKE, f"{path} shows another picture than the thumbnail")
    if known:
        altered = f"{path} has the right size, but is not the file that was seen before"
        return Judgement(Evidence.ALTERED, altered)
    if alike:
        return Judgement(Evidence.ALIKE, "the same picture")
    nothing = f"{path} has the right size, and there is no picture to compare"
    return Judgement(Evidence.FITS, nothing)


def check_is_slide(image: ProjectImage, known: SlideFingerprint | None) -> None:
    """Refuse the file an entry points to where it plainly is another slide.

    A slide that was replaced by one of the same name and size would get the other's annotations.

    Raises
    ------
    SlideError
        When its picture is not the project's thumbnail, and its bytes are not known either.
    """
    if not is_there(image.path):
        return  # whoever opens it says so
    assert image.path is not None
    if recognise(image.path, image, known).evidence is Evidence.UNLIKE:
        raise SlideError(
            image.name,
            f"the file at {image.path} shows another slide than the project's thumbnail.",
            hint="Put the right file there, or point the image to it: "
            f"qpannot relink PROJECT --image {shlex.quote(image.name)} FILE",
        )


def _is_alike(path: Path, image: ProjectImage) -> bool | None:
    """Tell whether a file has the picture of the entry; ``None`` where that cannot be told."""
    info = image.server
    slide, _ = open_as(path, info)
    with slide:
        if not slide.is_rgb:
            return None
        picture = slide.thumbnail(Size(256, 256))  # a file that was cut off opens, and no more
    if info.unsupported or image.thumbnail_path is None:
        return None
    try:
        with Image.open(image.thumbnail_path) as opened:
            thumbnail = opened.convert("RGB")
    except (OSError, ValueError):
        return None  # a broken thumbnail is as good as none
    return are_alike(np.asarray(thumbnail), picture)


def are_alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool | None:
    """Tell whether two pictures show the same, whatever their sizes.

    What was not scanned, black in one picture and black or white in the other, counts in neither:
    it is alike in all slides of a scanner, and outweighs pale tissue by far.

    Parameters
    ----------
    one, other
        RGB, shape (height, width, 3).

    Returns
    -------
    bool or None
        ``None`` where they show so little that they cannot be told from any other.
    """
    height, width = one.shape[:2]
    scale = GRID_PX / max(width, height)
    grid = (max(1, round(width * scale)), max(1, round(height * scale)))
    first, second = (
        np.asarray(Image.fromarray(each).resize(grid, Image.Resampling.BOX), np.float64)
        for each in (one, other)
    )
    scanned = ~_not_scanned(first, second)
    shows = scanned & ~(_is_glass(first) & _is_glass(second))
    first, second = first[scanned], second[scanned]
    difference = float(((first - second) ** 2).mean()) if scanned.any() else 0.0
    variances = [
        float(each.var(axis=0).mean()) if scanned.any() else 0.0 for each in (first, second)
    ]
    if shows.sum() < FEWEST_CELLS or (max(variances) < PLAIN**2 and difference < PLAIN**2):
        return None
    return difference <= MAX_UNLIKE * sum(variances) / 2


def _not_scanned(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    # with the cells around it, which the edge of the black is in
    black = [
        binary_dilation(each.max(axis=2) <= BLACK, np.ones((3, 3), bool))
        for each in (first, second)
    ]
    empty = [near | _is_glass(each) for near, each in zip(black, (first, second), strict=True)]
    nowhere: NDArray[np.bool_] = (black[0] | black[1]) & empty[0] & empty[1]
    return nowhere


def _is_glass(cells: NDArray[np.float64]) -> NDArray[np.bool_]:
    glass: NDArray[np.bool_] = cells.min(axis=2) >= GLASS
    return glass
