"""Whether the coordinates of a file are pixels of an image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

from qpannot.errors import FormatError
from qpannot.geometry import Size
from qpannot.qupath import PathObject
from qpannot.qupath.geojson.reading import Geojson

_OF_MAPS: Final = re.compile(r"(?i)epsg|crs84|ogc|wgs ?84")
_DEGREES: Final = (180.0, 90.0)
_MANY: Final = 20
"""How many times larger than the range of degrees an image is of which nobody would annotate that
corner alone."""

AS_PIXELS: Final = (
    "qpannot needs pixels of full resolution, counted from the upper left corner of the image as "
    "QuPath shows it. If these are, say so with --as-pixels."
)


def check_are_pixels(file: Path, content: Geojson, size: Size | None) -> None:
    """Refuse a file whose coordinates are those of a map, or fractions of an image.

    Such a file would put specks into a corner of the slide. Small numbers alone prove nothing
    where the file says what kinds of objects QuPath has there: then only fractions are refused.

    Parameters
    ----------
    size
        Of the image in full-resolution pixels, ``None`` where the project does not say.

    Raises
    ------
    FormatError
        When they cannot be pixels; says why.
    """
    if content.crs and _OF_MAPS.search(content.crs):
        raise FormatError(file, f"its coordinates are of a map ({content.crs}).", hint=AS_PIXELS)
    if size is None or not content.objects:
        return
    x, y, x2, y2 = _bounds(content.objects).T
    low_x, low_y, high_x, high_y = x.min(), y.min(), x2.max(), y2.max()
    extent = f"x from {low_x:g} to {high_x:g}, y from {low_y:g} to {high_y:g}"
    has_extent = max(high_x - low_x, high_y - low_y) > 0
    is_tiny = min(low_x, low_y) >= 0 and max(high_x, high_y) <= 1
    if is_tiny and has_extent and min(size.width, size.height) > _MANY:
        raise FormatError(
            file,
            f"its coordinates look like fractions of the image, not pixels ({extent}).",
            hint=AS_PIXELS,
        )
    are_degrees = (
        max(abs(low_x), abs(high_x)) <= _DEGREES[0] and max(abs(low_y), abs(high_y)) <= _DEGREES[1]
    )
    is_large = size.width > _MANY * _DEGREES[0] and size.height > _MANY * _DEGREES[1]
    is_of_qupath = any("objectType" in keys for keys in content.stated.values())
    if are_degrees and has_extent and is_large and not is_of_qupath:
        raise FormatError(
            file,
            f"its coordinates look like degrees of a map, not pixels ({extent}).",
            hint=AS_PIXELS,
        )


def count_outside(objects: Sequence[PathObject], size: Size | None) -> int:
    """Return how many objects lie outside an image, by the centres of their bounds."""
    if size is None or not objects:
        return 0
    x, y, x2, y2 = _bounds(objects).T
    middle_x, middle_y = (x + x2) / 2, (y + y2) / 2
    inside = (
        (middle_x >= 0) & (middle_y >= 0) & (middle_x <= size.width) & (middle_y <= size.height)
    )
    return int((~inside).sum())


def _bounds(objects: Sequence[PathObject]) -> NDArray[np.float64]:
    geometries = np.empty(len(objects), dtype=object)
    geometries[:] = [each.geometry for each in objects]
    return shapely.bounds(geometries)
