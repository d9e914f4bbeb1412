"""Which reader opens a file."""

from __future__ import annotations

import os
from pathlib import Path

import openslide

from qpannot.errors import MissingSlideError, SlideError
from qpannot.geometry import Mpp, Region
from qpannot.slide.flat_reader import FlatReader
from qpannot.slide.handles import MISSING_HINT, Handles
from qpannot.slide.image import Reader
from qpannot.slide.openslide_reader import OpenSlideReader
from qpannot.slide.slide import Slide
from qpannot.slide.tiff_reader import TiffReader, is_rgb_pyramid_for_openslide

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
FORMATS_HINT = (
    "qpannot reads what OpenSlide reads (SVS, NDPI, MRXS, SCN, BIF, DICOM ...), TIFF, OME-TIFF, "
    "PNG and JPEG. Convert other slides to a pyramidal OME-TIFF, for example with QuPath's "
    "File > Export images."
)
"""What to do about a file that no reader opens."""


def open_slide(
    path: str | os.PathLike[str],
    *,
    crop_to_bounds: bool = True,
    mpp: Mpp | None = None,
    series: int = 0,
) -> Slide:
    """Open a whole slide image or a flat image.

    Parameters
    ----------
    path
        What OpenSlide reads, TIFF, OME-TIFF, PNG or JPEG.
    crop_to_bounds
        Whether the frame begins at OpenSlide's bounds, as QuPath does without ``--no-crop``.
    mpp
        Overrides the file's pixel size, as the entry of a QuPath project may.
    series
        Which image of a TIFF with several, as Bio-Formats' ``--series``.

    Raises
    ------
    MissingSlideError
        There is no such file.
    SlideError
        The file cannot be opened.
    """
    path = Path(path)
    if not path.exists():
        raise MissingSlideError(path, "there is no such file.", hint=MISSING_HINT)
    if not path.is_file():
        raise SlideError(path, "it is no file.", hint="Give the slide's own file.")
    reader = _open_reader(path, series)
    image = reader.image
    handles = Handles(path, series, type(reader))
    handles.adopt(reader)
    frame = Region(0, 0, image.size.width, image.size.height)
    if crop_to_bounds and image.bounds is not None:
        frame = Region(*image.bounds)
    return Slide(path, image, handles, mpp=mpp or image.mpp, frame=frame)


def _open_reader(path: Path, series: int) -> Reader:
    try:
        return _first_that_opens(path, series)
    except SlideError:
        raise
    except Exception as error:
        cause = str(error) or type(error).__name__
        raise SlideError(path, f"it cannot be opened: {cause}", hint=FORMATS_HINT) from error


def _first_that_opens(path: Path, series: int) -> Reader:
    vendor = openslide.OpenSlide.detect_format(path.resolve())
    with path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_MAGIC
    if vendor == "generic-tiff" and (series != 0 or not is_rgb_pyramid_for_openslide(path)):
        vendor = None
    if series != 0 and (vendor is not None or not is_tiff):
        raise SlideError(path, f"it holds one image, and no series {series}.", hint="Use series 0.")
    if vendor is not None:
        try:
            return OpenSlideReader.open(path, series)
        except openslide.OpenSlideError:
            if not is_tiff:
                raise
    return TiffReader.open(path, series) if is_tiff else FlatReader.open(path, series)
