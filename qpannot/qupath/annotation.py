"""The values a QuPath project is made of: annotations, their classes and colours.

They know nothing of Java, of files, or of which backend read them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self
from uuid import UUID, uuid4

from shapely.geometry.base import BaseGeometry

Color = tuple[int, int, int]
"""Red, green, blue, each 0 to 255."""


def color_from_argb(packed: int) -> Color:
    """Return the colour of QuPath's packed signed 32-bit ARGB integer."""
    return (packed >> 16) & 0xFF, (packed >> 8) & 0xFF, packed & 0xFF


def argb_from_color(color: Color) -> int:
    """Return QuPath's packed signed 32-bit ARGB integer, fully opaque."""
    red, green, blue = color
    return (0xFF000000 | red << 16 | green << 8 | blue) - (1 << 32)


@dataclass(frozen=True, slots=True)
class PathClass:
    """A classification, QuPath's ``PathClass``.

    Parameters
    ----------
    name
        The full name; a derived class joins its parts with ``": "``, as ``"Tumor: Positive"``.
    color
        Its display colour. Two classes of the same name are equal whatever their colours.
    """

    name: str
    color: Color | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a class needs a name; use no class (None) for unclassified objects")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names from the base class to the most derived one."""
        return tuple(self.name.split(": "))

    def __str__(self) -> str:
        return self.name


class RoiType(StrEnum):
    """QuPath's kinds of region of interest, by their ``getRoiName()``."""

    RECTANGLE = "Rectangle"
    ELLIPSE = "Ellipse"
    LINE = "Line"
    POLYGON = "Polygon"
    POLYLINE = "Polyline"
    POINTS = "Points"
    GEOMETRY = "Geometry"


@dataclass(frozen=True, slots=True)
class Plane:
    """The image plane an annotation lies on: channel (-1: all), z-slice and timepoint."""

    c: int = -1
    z: int = 0
    t: int = 0


DEFAULT_PLANE = Plane()


class ObjectKind(StrEnum):
    """QuPath's kinds of objects, by the names its GeoJSON has for them."""

    ANNOTATION = "annotation"
    DETECTION = "detection"
    CELL = "cell"
    TILE = "tile"
    TMA_CORE = "tmaCore"


@dataclass(frozen=True)
class PathObject:
    """One object of an image, as a value: what all of QuPath's kinds of objects share.

    Parameters
    ----------
    geometry
        Shapely geometry in full-resolution pixels of QuPath's frame: Polygon, MultiPolygon,
        LineString, Point or MultiPoint, GeometryCollection where QuPath itself has one.
        An ellipse is given as a polygon around it; its bounding box is what QuPath keeps.
    roi
        QuPath's ROI type; ``None`` lets the geometry decide when it is written.
    path_class
        Its class, or ``None`` when unclassified.
    name, locked, color
        As QuPath shows them; ``color`` is the object's own, ``None`` where the class decides.
    measurements, metadata
        Numbers (NaN allowed) and strings by key, in QuPath's order.
    plane
        Where in a stack the object lies.
    id
        QuPath's object ID: what ties an object to itself across edits and programs.
    parent_id
        The ID of the object it lies in in QuPath's hierarchy, ``None`` at the top.
    """

    geometry: BaseGeometry
    path_class: PathClass | None = None
    name: str | None = None
    locked: bool = False
    color: Color | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    roi: RoiType | None = None
    plane: Plane = DEFAULT_PLANE
    id: UUID = field(default_factory=uuid4)
    parent_id: UUID | None = None

    @property
    def kind(self) -> ObjectKind:
        """What kind of object it is."""
        raise NotImplementedError

    @property
    def class_name(self) -> str | None:
        """The full name of its class, ``None`` when unclassified."""
        return self.path_class.name if self.path_class else None

    def with_changes(self, **changes: object) -> Self:
        """Return a copy of the object with some fields changed, its ID kept."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Annotation(PathObject):
    """An annotation, what a person draws and corrects. Its values are those of `PathObject`."""

    @property
    def kind(self) -> ObjectKind:
        """Always ``ANNOTATION``."""
        return ObjectKind.ANNOTATION


@dataclass(frozen=True)
class Detection(PathObject):
    """A detection, cell or tile: made by programs in great numbers, and never edited by us.

    Parameters
    ----------
    kind
        ``DETECTION``, ``CELL`` or ``TILE``.
    nucleus
        The outline of a cell's nucleus, if it has one.
    """

    kind: ObjectKind = ObjectKind.DETECTION
    nucleus: BaseGeometry | None = None


@dataclass(frozen=True)
class TMACore(PathObject):
    """A core of a tissue microarray, a circle named by its place in the grid.

    Parameters
    ----------
    missing
        Whether the tissue of the core is missing.
    """

    missing: bool = False

    @property
    def kind(self) -> ObjectKind:
        """Always ``TMA_CORE``."""
        return ObjectKind.TMA_CORE


def differences(one: PathObject, other: PathObject) -> tuple[str, ...]:
    """Return the names of the fields in which two objects differ.

    Colours of equal classes count, NaN equals NaN, geometries are compared vertex by vertex.
    """
    different = [
        name
        for name in ("geometry", "path_class", "name", "locked", "color", "metadata", "plane", "id")
        if getattr(one, name) != getattr(other, name)
    ]
    if (one.path_class and one.path_class.color) != (other.path_class and other.path_class.color):
        different.append("class color")
    numbers = [
        [(key, None if math.isnan(value) else value) for key, value in each.measurements.items()]
        for each in (one, other)
    ]
    if numbers[0] != numbers[1]:
        different.append("measurements")
    return tuple(different)


def digest(
    *,
    kind: ObjectKind,
    region: Hashable,
    nucleus: Hashable,
    path_class: PathClass | None,
    name: str | None,
    locked: bool,
    color: Color | None,
    plane: Plane,
    measurements: Mapping[str, float],
    metadata: Mapping[str, str],
) -> int:
    """Return a number that two objects share, in one process, if nothing differs between them.

    That is all that `differences` compares but the ID, what kind of object it is, and a cell's
    nucleus. The regions are what stands for them, bytes rather than numbers: Python's hashes of
    -1 and -2 are the same.
    """
    numbers = [math.nan if math.isnan(each) else each for each in measurements.values()]
    return hash(
        (
            kind,
            region,
            nucleus,
            path_class and (path_class.name, path_class.color),
            name,
            locked,
            color,
            None if plane is DEFAULT_PLANE or plane == DEFAULT_PLANE else _packed(plane),
            (*measurements, struct.pack(f"{len(numbers)}d", *numbers)) if numbers else None,
            frozenset(metadata.items()) if metadata else None,
        )
    )


def _packed(plane: Plane) -> bytes:
    return struct.pack("3i", plane.c, plane.z, plane.t)
