"""The properties of GeoJSON features, in every spelling that QuPath ever used.

Source: QuPath 0.6 ``GsonTools.PathClassTypeAdapter`` and ``QuPathTypeAdapters``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qpannot.qupath.annotation import Color, ObjectKind, PathClass, color_from_argb
from qpannot.qupath.geojson.geometry import WrongError

KINDS: Final = {
    "annotation": ObjectKind.ANNOTATION,
    "PathAnnotationObject": ObjectKind.ANNOTATION,
    "detection": ObjectKind.DETECTION,
    "PathDetectionObject": ObjectKind.DETECTION,
    "cell": ObjectKind.CELL,
    "PathCellObject": ObjectKind.CELL,
    "tile": ObjectKind.TILE,
    "PathTileObject": ObjectKind.TILE,
    "tmaCore": ObjectKind.TMA_CORE,
    "tma_core": ObjectKind.TMA_CORE,
    "TMACoreObject": ObjectKind.TMA_CORE,
}
ROOTS: Final = ("root", "PathRootObject")
_MAX_CLASS_DEPTH: Final = 100


def kind_name_of(content: Mapping[str, Any]) -> str | None:
    """Return what a feature says it is, ``None`` where it does not."""
    properties = content.get("properties") or {}
    for key in ("objectType", "object_type", "type"):
        if isinstance(kind := properties.get(key), str):
            return kind
    legacy = content.get("id")  # of QuPath 0.2
    is_type = isinstance(legacy, str) and (legacy in KINDS or legacy in ROOTS)
    return legacy if is_type else None


def shortened(content: Any) -> str:
    """Return a wrong value as an error can show it."""
    text = repr(content) if not isinstance(content, (dict, list)) else f"a {type(content).__name__}"
    if isinstance(content, dict) and "type" in content:
        text = f"of type {content['type']!r}"
    return text if len(text) <= 60 else text[:57] + "..."


def read_text(value: Any) -> str | None:
    """Return a name, or a value of metadata, as text.

    Raises
    ------
    WrongError
        If it is none.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise WrongError("its name is no text")


def is_true(value: Any) -> bool:
    """Tell whether a flag is set, as QuPath does."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def read_color(value: Any) -> Color | None:
    """Return a colour given as [r, g, b], with alpha or without, or as packed ARGB.

    Raises
    ------
    WrongError
        If it is none.
    """
    if value is None or value == []:
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return color_from_argb(value)
    if isinstance(value, list) and len(value) in (3, 4):
        if all(isinstance(each, (int, float)) and 0 <= each <= 255 for each in value):
            red, green, blue = (int(each) for each in value[:3])
            return red, green, blue
    raise WrongError(f"has the impossible colour {shortened(value)}")


def read_class(value: Any) -> PathClass | None:
    """Return a classification: a text, {name or names, color}, or QuPath 0.3's tree of parents.

    Raises
    ------
    WrongError
        If it is none.
    """
    color: Any = None
    names: list[Any] = []
    if isinstance(value, dict) and ("colorRGB" in value or "parentClass" in value):
        color = value.get("colorRGB")
        while isinstance(value, dict) and len(names) < _MAX_CLASS_DEPTH:
            names.insert(0, value.get("name"))
            value = value.get("parentClass")
    elif isinstance(value, dict):
        color = value.get("color")
        one, several = value.get("name"), value.get("names")
        names = [one] if one is not None else several if isinstance(several, list) else []
        if value and not names:
            raise WrongError("its classification has no name")
    elif value is not None:
        names = [value]
    if not all(name is None or isinstance(name, str) for name in names):
        raise WrongError(f"has the impossible class {shortened(value)}")
    parts = [part.strip() for name in names if name for part in name.split(":")]
    full = ": ".join(part for part in parts if part)
    return PathClass(full, read_color(color)) if full else None


def read_metadata(value: Any) -> dict[str, str]:
    """Return metadata, what is no text as text; QuPath ignores lists and objects.

    Raises
    ------
    WrongError
        If it is none.
    """
    if not isinstance(value, dict):
        return {}
    return {
        key: text
        for key, each in value.items()
        if not isinstance(each, (dict, list)) and (text := read_text(each)) is not None
    }


def read_measurements(value: Any) -> dict[str, float]:
    """Return measurements given by name, or as QuPath's list before 0.4.

    Raises
    ------
    WrongError
        If it is none.
    """
    if isinstance(value, list):  # of QuPath before 0.4
        if not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in value):
            raise WrongError("its measurements have no names")
        value = {each["name"]: each.get("value") for each in value}
    if not isinstance(value, dict):
        return {}
    numbers: dict[str, float] = {}
    for key, each in value.items():
        if each is None or isinstance(each, (bool, dict, list)):
            continue  # QuPath ignores these
        try:
            numbers[key] = float(each)
        except (ValueError, OverflowError):
            raise WrongError(f"its measurement {key!r} is {shortened(each)}") from None
    return numbers
