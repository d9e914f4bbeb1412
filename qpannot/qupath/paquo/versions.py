"""Where the Java interfaces of QuPath 0.4 to 0.7 differ, and where they are not public."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jpype import JClass, JString

_OBJECTS = "qupath.lib.objects.PathObject"


def object_metadata(path_object: Any) -> dict[str, str]:
    """Return the metadata of a Java ``PathObject``.

    Public as ``getMetadata`` since QuPath 0.5, which makes a map where there was none. What it
    builds on is in all versions.
    """
    method = _declared(_OBJECTS, "getUnmodifiableMetadataMap")
    return strings_of(method.invoke(path_object, []))


def set_object_metadata(path_object: Any, metadata: Mapping[str, str]) -> None:
    """Replace the metadata of a Java ``PathObject``; QuPath 0.5 offers it for annotations alone."""
    _declared(_OBJECTS, "clearMetadataMap").invoke(path_object, [])
    store = _declared(_OBJECTS, "storeMetadataValue", "java.lang.String", "java.lang.String")
    for key, value in metadata.items():
        store.invoke(path_object, [JString(key), JString(value)])


def forget_classes() -> None:
    """Make QuPath forget the classes it has read so far.

    It keeps one object a class, with the colour it had in whatever file was read first: without
    this, colours of one project would turn up in another.
    """
    _known_classes().clear()


@cache
def _known_classes() -> Any:
    # PathClass.resetCaches does no more, but for a warning each time
    field = JClass("qupath.lib.objects.classes.PathClass").class_.getDeclaredField(
        "existingClasses"
    )
    field.setAccessible(True)
    return field.get(None)


def strings_of(java_map: Any) -> dict[str, str]:
    """Return a Java ``Map`` of strings."""
    return {
        str(each.getKey()): str(each.getValue())
        for each in java_map.entrySet()
        if each.getValue() is not None
    }


@cache
def _declared(class_name: str, name: str, *parameters: str) -> Any:
    types = [JClass(each).class_ for each in parameters]
    method = JClass(class_name).class_.getDeclaredMethod(name, *types)
    method.setAccessible(True)
    return method
