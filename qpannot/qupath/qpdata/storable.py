"""What a data file can hold of annotations and detections.

`as_stored` is the contract between reading and writing: what an object is after it was written
and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, TypeVar, cast

from qpannot.errors import QpannotError
from qpannot.qupath.annotation import (
    DEFAULT_PLANE,
    Annotation,
    Color,
    Detection,
    ObjectKind,
    PathClass,
    PathObject,
    Plane,
)
from qpannot.qupath.qpdata.pathobjects import ID_KEY
from qpannot.qupath.qpdata.roi import Shape, geometries_of, shapes_of

DEFAULT_CLASS_COLOR: Final[Color] = (64, 64, 64)
"""What a class without a colour gets (QuPath's PathClass.DEFAULT_COLOR)."""

CLASS_SEPARATOR: Final = ": "

_LINE_ENDS: Final = frozenset("\n\r")  # which QuPath allows in no class
_HALF: Final = "holds half a character, which no other program could read"

ObjectT = TypeVar("ObjectT", bound=PathObject)


def as_stored(value: ObjectT) -> ObjectT:
    """Return what a read-back gives after an annotation or detection was written to a file.

    Its geometry is the one QuPath's region can hold (see `roi.shapes_of`) and its `RoiType` is
    set; the parts of its class name are stripped as QuPath does, and a class without a colour
    gets QuPath's default; numbers are floats; metadata has no ID. Whatever `QpData.annotations`
    returns is stored as it is. A file that has the class already keeps the class' colour there;
    `QpData.all_as_stored` knows it. ``parent_id`` is as given.

    Raises
    ------
    QpannotError
        If it cannot be stored.
    """
    return all_as_stored([value])[0]


def all_as_stored(
    values: Sequence[ObjectT], class_of: Callable[[PathClass], PathClass] | None = None
) -> list[ObjectT]:
    """Return what `as_stored` does for each of many objects, faster.

    Parameters
    ----------
    values
        Annotations, detections, cells and tiles.
    class_of
        Returns the class that a file has for one, in its colour there.
    """
    check_storable(values)
    class_of = class_of or stored_class
    shapes, nucleus_shapes = shapes_of(values), nucleus_shapes_of(values)
    nuclei = geometries_of(nucleus_shapes)
    classes: dict[tuple[str, Color | None], PathClass] = {}
    results: list[PathObject] = []
    for i, (each, shape, geometry) in enumerate(
        zip(values, shapes, geometries_of(shapes), strict=True)
    ):
        path_class = each.path_class
        if path_class is not None:
            key = path_class.name, path_class.color
            if key not in classes:
                classes[key] = class_of(path_class)
            path_class = classes[key]
        fields = (
            geometry,
            path_class,
            each.name,
            each.locked,
            each.color,
            {name: float(value) for name, value in each.measurements.items()},
            without_id(each.metadata),
            shape.roi,
            each.plane,
            each.id,
            each.parent_id,
        )
        if isinstance(each, Detection):
            nucleus = nuclei[i] if nucleus_shapes[i] else None
            results.append(Detection(*fields, kind=each.kind, nucleus=nucleus))
        else:
            results.append(Annotation(*fields))
    return cast("list[ObjectT]", results)


def stored_class(path_class: PathClass) -> PathClass:
    """Return a class as a file has it that did not have it before."""
    return PathClass(
        CLASS_SEPARATOR.join(class_parts(path_class)), path_class.color or DEFAULT_CLASS_COLOR
    )


def nucleus_shapes_of(values: Sequence[PathObject]) -> list[Shape | None]:
    """Return what QuPath keeps of the nuclei of cells, ``None`` for objects that have none."""
    cells = {
        i: each.with_changes(geometry=each.nucleus, roi=None)
        for i, each in enumerate(values)
        if isinstance(each, Detection) and each.nucleus is not None
    }
    shapes = dict(zip(cells, shapes_of(list(cells.values())), strict=True))
    return [shapes.get(i) for i in range(len(values))]


def check_storable(values: Sequence[PathObject]) -> None:
    """Refuse objects with values, other than geometry, that QuPath could not read.

    Raises
    ------
    QpannotError
        Naming the first such object.
    """
    checked: set[tuple[str, Color | None]] = set()
    for each in values:
        if each.kind is ObjectKind.TMA_CORE:
            _refuse(each, "it belongs to a grid of cores", "Make the grid in QuPath.")
        if isinstance(each, Detection) and each.nucleus is not None:
            if each.kind is not ObjectKind.CELL:
                _refuse(each, f"it is a {each.kind} with a nucleus", "Only cells have one.")
        plane = each.plane
        if plane is not DEFAULT_PLANE and not _is_plane(plane):
            _refuse(each, f"its plane is {plane}", "Planes count from 0; channel -1 means all.")
        if each.color is not None and not _is_color(each.color):
            _refuse(each, f"its colour is {each.color}", "A colour is three whole numbers 0-255.")
        path_class = each.path_class
        if path_class is not None and (path_class.name, path_class.color) not in checked:
            if path_class.color is not None and not _is_color(path_class.color):
                _refuse(
                    each,
                    f"its class has the colour {path_class.color}",
                    "Use three numbers 0-255.",
                )
            parts = class_parts(path_class)
            if not parts or any(set(part) & _LINE_ENDS or not is_text(part) for part in parts):
                _refuse(each, f"its class is named {path_class.name!r}", "Rename the class.")
            checked.add((path_class.name, path_class.color))
        for key, value in each.metadata.items():
            if not (type(key) is type(value) is str):
                _refuse(each, f"its metadata {key!r} is no text", "Metadata are texts by name.")
            if not (is_text(key) and is_text(value)):
                _refuse(each, f"its metadata {key!r} {_HALF}", "Correct that text.")
        if each.name is not None and not is_text(each.name):
            _refuse(each, f"its name {_HALF}", "Give it another name.")
        for key in each.measurements:
            if not is_text(key):
                _refuse(each, f"its measurement {key!r} {_HALF}", "Rename the measurement.")


def is_text(text: object) -> bool:
    """Tell whether a text is whole characters, which all programs and files can hold.

    Half of a surrogate pair, as a text cut in its middle ends with, is none.
    """
    if not isinstance(text, str):
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plane(plane: Plane) -> bool:
    return (
        plane.c >= -1 and plane.z >= 0 and plane.t >= 0 and max(plane.c, plane.z, plane.t) < 2**31
    )


def _is_color(color: Color) -> bool:
    return len(color) == 3 and all(0 <= value <= 255 for value in color)


def _refuse(value: PathObject, why: str, hint: str) -> NoReturn:
    label = value.name or value.class_name or "unclassified"
    label = label.encode(errors="backslashreplace").decode()
    raise QpannotError(
        f"The {value.kind} {label} ({value.id}) cannot be stored: {why}.",
        hint=f"{hint} Nothing was changed.",
    )


def without_id(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata without the key that QuPath keeps an object's ID under."""
    return {key: value for key, value in metadata.items() if key != ID_KEY}


def class_parts(path_class: PathClass) -> list[str]:
    """Return the names a class is derived by, as QuPath's ``PathClass.fromString`` has them.

    No part may hold a colon: QuPath could not read the file.
    """
    parts = [part.strip() for part in path_class.name.split(":")]
    return [part for part in parts if part]
