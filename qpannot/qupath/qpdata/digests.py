"""One number for all that an object says of itself: what a write is checked by.

`wanted_digests` makes it of the values that were to be written, `digests_of` of the objects in a
file. Neither builds a geometry: a region is what QuPath keeps of it, bit for bit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Sequence

from qpannot.qupath.annotation import Color, PathClass, PathObject, digest
from qpannot.qupath.qpdata.objectlayout import read
from qpannot.qupath.qpdata.pathobjects import ID_KEY, KINDS, TreeObject
from qpannot.qupath.qpdata.pathreading import path_class_of
from qpannot.qupath.qpdata.roi import Corners, Shape
from qpannot.qupath.qpdata.storable import without_id


def digests_of(objects: Iterable[TreeObject]) -> list[int]:
    """Return the digest of each of many objects of a file, which are of known kinds.

    Raises
    ------
    UnexpectedError
        If one is not as QuPath writes it.
    """
    classes: dict[int, PathClass | None] = {}
    digests: list[int] = []
    for each in objects:
        record = read(each)
        node = record.class_node
        if id(node) not in classes:
            classes[id(node)] = path_class_of(node)
        record.metadata.pop(ID_KEY, None)
        made = digest(
            kind=KINDS[each.kind],
            region=_stands_for(record.shape),
            nucleus=_stands_for(record.nucleus),
            path_class=classes[id(node)],
            name=record.name,
            locked=record.locked,
            color=record.color,
            plane=record.plane,
            measurements=record.measurements,
            metadata=record.metadata,
        )
        digests.append(made)
    return digests


def wanted_digests(
    values: Sequence[PathObject],
    shapes: Iterable[Shape | None],
    nuclei: Iterable[Shape | None],
    class_of: Callable[[PathClass], PathClass],
) -> list[int]:
    """Return the digests that objects must have in a file to be these values.

    Parameters
    ----------
    values
        Annotations, detections, cells and tiles.
    shapes, nuclei
        Their regions, and those of the nuclei of cells.
    class_of
        Returns the class that the file has for one, in its colour there.
    """
    classes: dict[tuple[str, Color | None] | None, PathClass | None] = {None: None}
    digests: list[int] = []
    for each, shape, nucleus in zip(values, shapes, nuclei, strict=True):
        path_class = each.path_class
        key = None if path_class is None else (path_class.name, path_class.color)
        if path_class is not None and key not in classes:
            classes[key] = class_of(path_class)
        made = digest(
            kind=each.kind,
            region=_stands_for(shape),
            nucleus=_stands_for(nucleus),
            path_class=classes[key],
            name=each.name,
            locked=each.locked,
            color=each.color,
            plane=each.plane,
            measurements=each.measurements,
            metadata=without_id(each.metadata) if ID_KEY in each.metadata else each.metadata,
        )
        digests.append(made)
    return digests


def _stands_for(shape: Shape | None) -> Hashable:
    if isinstance(shape, Corners):
        return shape.roi, struct.pack("4d", *shape[1:])
    return shape
