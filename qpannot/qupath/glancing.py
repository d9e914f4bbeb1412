"""What can be told of an image's annotations from its summary and the start of its data."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from qpannot.errors import FormatError
from qpannot.qupath import gson
from qpannot.qupath.annotation import Annotation
from qpannot.qupath.qpdata.javastream import parse_start
from qpannot.qupath.qpdata.javatypes import JavaObject, UnexpectedError
from qpannot.qupath.qpdata.pathobjects import ANNOTATION, TreeObject
from qpannot.qupath.qpdata.pathreading import read_objects

_FIRST_BYTES: Final = 8 << 10
_MORE: Final = 4
_AT_ONCE: Final = 4 << 20
_NO_CHILDREN: Final = struct.pack(">i", 0)
_PROBABILITY_BYTES: Final = 8
"""What an annotation writes last."""

_ANY_ID: Final = UUID(int=0)


@dataclass(frozen=True)
class Glance:
    """What QuPath's summary says of an image's annotations, and where its data is.

    Made by `glance_at` where the summary is of the data as it is now.

    Parameters
    ----------
    annotations
        How many there are.
    class_names
        The classes they have, ``None`` among them where some have none.
    data
        The data file.
    """

    annotations: int
    class_names: frozenset[str | None]
    data: Path

    def first_annotations(self) -> Iterator[tuple[Annotation, ...]]:
        """Yield some of the annotations, of ever more of the file: 8 KB, 32 KB, up to half of it.

        Those with nothing within them that lie wholly in the bytes read. Their IDs are not told.
        """
        size = _FIRST_BYTES
        while size <= self.data.stat().st_size // 2:
            with self.data.open("rb") as file:
                start = file.read(size)
            yield _annotations_in(start)
            size *= _MORE

    def mentions(self, key: str) -> bool:
        """Tell whether the bytes of the data hold this metadata key, of whatever object.

        All bytes are read, which takes a hundredth of the time of understanding them.

        Parameters
        ----------
        key
            In ASCII: such is written as it is.
        """
        wanted = key.encode("ascii")
        before = b""
        with self.data.open("rb") as file:
            while part := file.read(_AT_ONCE):
                both = before + part
                if wanted in both:
                    return True
                before = both[-len(wanted) :]
        return False


def glance_at(folder: Path) -> Glance | None:
    """Return what can be told of an image without reading its data.

    ``None`` where there is no summary of the data file as it is now.

    Parameters
    ----------
    folder
        The image's, ``data/<ID>`` of the project.
    """
    data = folder / "data.qpdata"
    try:
        summary: Any = gson.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if summary["timestamp"] != data.stat().st_mtime_ns // 1_000_000:
            return None
        hierarchy = summary["hierarchy"]
        classes = hierarchy["annotationClassificationCounts"]
        return Glance(
            annotations=int(hierarchy["objectTypeCounts"].get("Annotations", 0)),
            class_names=frozenset(None if name == "Unclassified" else name for name in classes),
            data=data,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # the data itself tells


def _annotations_in(start: bytes) -> tuple[Annotation, ...]:
    try:
        whole = [
            TreeObject(node, None) for node in parse_start(start) if _is_whole_annotation(node)
        ]
        leaves = [each for each in whole if each.node.contents[each.count_at] == _NO_CHILDREN]
        for each in leaves:
            each.id, each.parent = _ANY_ID.int, each
        values = read_objects(leaves)
    except (UnexpectedError, FormatError):
        return ()  # who reads the whole file says what is wrong with it
    return tuple(each for each in values if isinstance(each, Annotation))


def _is_whole_annotation(node: JavaObject) -> bool:
    if node.desc.name != ANNOTATION or not node.data or not node.data[-1].contents:
        return False
    last = node.data[-1].contents[-1]
    return isinstance(last, bytes) and len(last) == _PROBABILITY_BYTES
