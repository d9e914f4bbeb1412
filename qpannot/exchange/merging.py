"""A file's version of an object, and what the file does not speak of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeVar

from qpannot.qupath import Annotation, PathObject
from qpannot.qupath.proposals import FINGERPRINT, is_sealed, sealed

_KEYS: Final = {
    "name": "name",
    "locked": "isLocked",
    "color": "color",
    "measurements": "measurements",
}
"""Fields of objects, and the properties that state them; metadata is merged by its own keys."""

_OURS: Final = "qpannot."

ObjectT = TypeVar("ObjectT", bound=PathObject)


def merged(new: ObjectT, old: PathObject, stated: Collection[str], *, is_same: bool) -> ObjectT:
    """Return a file's version of an object, with the old values of what the file does not state.

    QuPath and other tools leave out what is empty to them, or what they do not know: that a file
    has no name for an object does not take its name away.

    Parameters
    ----------
    stated
        The properties of the GeoJSON feature.
    is_same
        Whether both have the same outline and class. Then the old outline stays to the last
        digit, and so does qpannot's own metadata: where a proposal came from.
    """
    changes = {field: getattr(old, field) for field, key in _KEYS.items() if key not in stated}
    ours = {key: value for key, value in old.metadata.items() if key.startswith(_OURS)}
    kept = {} if "metadata" in stated else dict(old.metadata)
    if is_same:
        changes |= {"geometry": old.geometry, "roi": old.roi}
        changes["metadata"] = {**kept, **new.metadata, **ours}
    else:
        others = {key: value for key, value in kept.items() if key not in ours}
        changes["metadata"] = {**(others if FINGERPRINT in new.metadata else kept), **new.metadata}
        return new.with_changes(**changes)
    made = new.with_changes(**changes)
    if FINGERPRINT in ours or not (isinstance(new, Annotation) and is_sealed(new)):
        return made
    assert isinstance(made, Annotation)
    return made.with_changes(metadata=sealed(made).metadata)
