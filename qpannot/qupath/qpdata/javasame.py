"""Whether two trees of Java objects are the same, value by value and reference by reference."""

from __future__ import annotations

from collections.abc import Sequence

from qpannot.qupath.qpdata.javaforms import Form, Node, form_and_values
from qpannot.qupath.qpdata.javatypes import (
    ClassDesc,
    Content,
    JavaArray,
    JavaEnum,
    JavaObject,
    JavaString,
)


def is_same(one: Sequence[Content], other: Sequence[Content]) -> bool:
    """Return whether two streams hold the same objects, shared in the same places."""
    comparison = _Comparison()
    comparison.pending.append((one, other))
    while comparison.pending:
        left, right = comparison.pending.pop()
        if len(left) != len(right) or not all(map(comparison.pair, left, right)):
            return False
    return True


class _Comparison:
    """Which node of one tree stands for which of the other, and what is still to be compared."""

    def __init__(self) -> None:
        self.pending: list[tuple[Sequence[Node], Sequence[Node]]] = []
        self._pairs: dict[int, Node] = {}
        self._paired: set[int] = set()
        self._forms: dict[tuple[int, int], bool] = {}

    def pair(self, one: Node, other: Node) -> bool:
        """Take two nodes for the same; return whether that can be."""
        if one is None or isinstance(one, bytes):
            return one == other
        known = self._pairs.get(id(one))
        if known is not None:
            return known is other
        if other is None or isinstance(other, bytes) or id(other) in self._paired:
            return False
        self._pairs[id(one)] = other
        self._paired.add(id(other))
        packed, others = form_and_values(one), form_and_values(other)
        if packed and others and self._are_forms_same(packed[0], others[0]):
            # the same holes: their lengths are in the form, or in what they hold
            return b"".join(packed[1]) == b"".join(others[1])
        return self._is_like(one, other)

    def _are_forms_same(self, one: Form, other: Form) -> bool:
        key = id(one), id(other)
        if key not in self._forms:
            same = one.holes == other.holes
            for gap, other_gap in zip(one.gaps, other.gaps, strict=False):
                literals = [piece for piece in gap if isinstance(piece, bytes)]
                references = [piece for piece in gap if not isinstance(piece, bytes)]
                other_references = [piece for piece in other_gap if not isinstance(piece, bytes)]
                same &= literals == [piece for piece in other_gap if isinstance(piece, bytes)]
                same &= len(references) == len(other_references)
                same &= all(map(self.pair, references, other_references))
            self._forms[key] = same
        return self._forms[key]

    def _is_like(self, one: Node, other: Node) -> bool:
        if isinstance(one, JavaString):
            return (
                isinstance(other, JavaString)
                and one.raw == other.raw
                and one.is_long == other.is_long
            )
        if isinstance(one, ClassDesc):
            return isinstance(other, ClassDesc) and self._are_classes_like(one, other)
        assert one is not None and not isinstance(one, bytes)
        assert other is not None and not isinstance(other, bytes)
        if isinstance(other, (JavaString, ClassDesc)) or not self.pair(one.desc, other.desc):
            return False
        if isinstance(one, JavaObject):
            return isinstance(other, JavaObject) and self._are_objects_like(one, other)
        if isinstance(one, JavaArray):
            if not isinstance(other, JavaArray):
                return False
            if isinstance(one.values, bytes) or isinstance(other.values, bytes):
                return one.values == other.values
            self.pending.append((one.values, other.values))
            return True
        if isinstance(one, JavaEnum):
            return isinstance(other, JavaEnum) and self.pair(one.constant, other.constant)
        return type(one) is type(other)

    def _are_classes_like(self, one: ClassDesc, other: ClassDesc) -> bool:
        self.pending.append(([one.superclass], [other.superclass]))
        self.pending.append(
            ([field.signature for field in one.fields], [field.signature for field in other.fields])
        )
        return (one.name, one.uid, one.flags) == (other.name, other.uid, other.flags) and [
            (field.code, field.name) for field in one.fields
        ] == [(field.code, field.name) for field in other.fields]

    def _are_objects_like(self, one: JavaObject, other: JavaObject) -> bool:
        if len(one.data) != len(other.data):
            return False
        for data, others in zip(one.data, other.data, strict=True):
            if data.primitives != others.primitives:
                return False
            if (data.contents is None) != (others.contents is None):
                return False
            self.pending.append((data.references, others.references))
            self.pending.append((data.contents or (), others.contents or ()))
        return True
