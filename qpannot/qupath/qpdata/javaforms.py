"""Objects of one form: in a Java stream, the same bytes but for strings, numbers and arrays.

A file with a hundred thousand annotations has a handful of forms of them. A `Form` is learned from
one object that was made or parsed the general way. Those like it are kept as a `PackedObject`: the
form, and the bytes in its holes. One becomes an ordinary tree of objects when somebody looks into
it; until then it is read, compared and written in one go.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from qpannot.qupath.qpdata.javatypes import (
    PRIMITIVE_SIZES,
    ClassData,
    ClassDesc,
    Content,
    JavaArray,
    JavaObject,
    JavaString,
    UnexpectedError,
    is_utf,
)

_MAX_DEPTH: Final = 16
_MAX_HOLES: Final = 1000
_BY_REFERENCE: Final = 256
"""Values of more bytes than these are not copied out of the stream."""

_U16 = struct.Struct(">H")
_I32 = struct.Struct(">i")

Value: TypeAlias = bytes | memoryview
"""What is in a hole: a length as the stream has it, where there is one, and the bytes."""

Node: TypeAlias = Content | ClassDesc


class Hole(NamedTuple):
    """A place in a form: so many bytes of length that count so many bytes each.

    ``prefix`` is 0 for numbers and blocks, which always have ``width`` bytes; 2 for strings; 4 for
    arrays.
    """

    prefix: int
    width: int


class _NoFormError(Exception):
    """An object is of no form that others could have."""


class Form:
    """What the bytes of like objects have in common.

    Parameters
    ----------
    root
        An object of the form; a copy of it is made.
    is_shared
        Tells of the nodes in it whether they are also elsewhere, that is whether the object holds
        a reference to them rather than the node itself.
    """

    def __init__(self, root: JavaObject, is_shared: Callable[[Node], bool]) -> None:
        self.holes: list[Hole] = []
        self.gaps: list[list[bytes | Node]] = [[]]
        """What is between the holes: bytes, and nodes that are referred to."""
        self.values: list[Value] = []
        """What the object that the form was learned from has in its holes."""
        self._own: set[int] = set()
        self._is_shared = is_shared
        self._learn(root, 0)
        self.n_handles = len(self._own)
        self._places: dict[tuple[int, int], int] = {}
        self.root = JavaObject(root.desc, [])
        del self._is_shared  # and what it knows
        copies = self._copy(root, self.root, iter(self.values), self._places)
        self._own = {id(copy) for copy in copies}

    @classmethod
    def learn(cls, root: JavaObject, is_shared: Callable[[Node], bool]) -> Form | None:
        """Return the form of an object, ``None`` if others cannot be expected to be like it."""
        try:
            return cls(root, is_shared)
        except _NoFormError:
            return None

    def _learn(self, node: Content, depth: int) -> None:
        gap = self.gaps[-1]
        if node is None:
            gap.append(b"\x70")
        elif isinstance(node, bytes):
            if len(node) > 0xFF:
                raise _NoFormError
            gap.append(b"\x77" + bytes((len(node),)))
            self._hole(Hole(0, len(node)), node)
        elif self._is_shared(node):
            gap.append(node)
        elif id(node) in self._own or depth > _MAX_DEPTH or len(self.holes) > _MAX_HOLES:
            raise _NoFormError
        elif isinstance(node, JavaString):
            if node.is_long:
                raise _NoFormError
            self._own.add(id(node))
            gap.append(b"\x74")
            self._hole(Hole(2, 1), _U16.pack(len(node.raw)) + node.raw)
        elif isinstance(node, (JavaArray, JavaObject)) and self._is_shared(node.desc):
            self._own.add(id(node))
            gap += [b"\x73" if isinstance(node, JavaObject) else b"\x75", node.desc]
            if isinstance(node, JavaObject):
                for data in node.data:
                    self._learn_data(data, depth + 1)
            elif isinstance(node.values, bytes):
                width = PRIMITIVE_SIZES[node.desc.name[1]]
                self._hole(Hole(4, width), _I32.pack(len(node.values) // width) + node.values)
            else:
                gap.append(_I32.pack(len(node.values)))
                for each in node.values:
                    self._learn(each, depth + 1)
        else:
            raise _NoFormError

    def _learn_data(self, data: ClassData, depth: int) -> None:
        if data.primitives:
            self._hole(Hole(0, len(data.primitives)), data.primitives)
        for each in data.references:
            self._learn(each, depth)
        if data.contents is not None:
            for each in data.contents:
                self._learn(each, depth)
            self.gaps[-1].append(b"\x78")

    def _hole(self, hole: Hole, value: bytes) -> None:
        self.holes.append(hole)
        self.values.append(value)
        self.gaps.append([])

    def unpack(self, root: JavaObject, values: Sequence[Value]) -> list[Content]:
        """Fill ``root`` with what an object of this form has that has ``values`` in its holes.

        Returns the objects that it consists of in the order of their handles, itself first.
        """
        return self._copy(self.root, root, iter(values), {})

    def _copy(
        self,
        template: JavaObject,
        root: JavaObject,
        values: Iterator[Value],
        places: dict[tuple[int, int], int],
    ) -> list[Content]:
        copies: list[Content] = []

        def value() -> bytes:
            prefix = self.holes[len(places)].prefix
            return bytes(next(values)[prefix:])

        def note(holder: object, at: int = 0) -> None:
            places[id(holder), at] = len(places)

        def copy(node: Content, made: JavaObject | None = None) -> Content:
            if node is None or id(node) not in self._own:
                return node
            if isinstance(node, JavaString):
                string = JavaString(value())
                copies.append(string)
                note(string)
                return string
            if isinstance(node, JavaArray):
                array = JavaArray(node.desc, [])
                copies.append(array)
                if isinstance(node.values, bytes):
                    array.values = value()
                    note(array)
                else:
                    array.values = [copy(each) for each in node.values]
                return array
            assert isinstance(node, JavaObject)
            made = made or JavaObject(node.desc, [])
            copies.append(made)
            made.data = [copy_data(data) for data in node.data]
            return made

        def copy_data(data: ClassData) -> ClassData:
            made = ClassData(b"", [], None)
            if data.primitives:
                made.primitives = value()
                note(made)
            made.references = [copy(each) for each in data.references]
            if data.contents is not None:
                made.contents = []
                for at, each in enumerate(data.contents):
                    if isinstance(each, bytes):
                        made.contents.append(value())
                        note(made.contents, at)
                    else:
                        made.contents.append(copy(each))
            return made

        copy(template, root)
        return copies

    def hole_of(self, holder: object, at: int = 0) -> int | None:
        """Return which hole a string, an array or a `ClassData` of `root` is, or has.

        For a list of contents, ``at`` is the block's place in it. ``None`` for what is shared.
        """
        return self._places.get((id(holder), at))

    def is_own(self, node: object) -> bool:
        """Return whether each object of the form has such a node of its own."""
        return id(node) in self._own

    def literals(self, references: Mapping[int, int]) -> list[bytes] | None:
        """Return the bytes between the holes, given the handles of nodes by their identity.

        ``None`` if one that is referred to has no handle yet.
        """
        literals: list[bytes] = []
        for gap in self.gaps:
            pieces: list[bytes] = []
            for piece in gap:
                if isinstance(piece, bytes):
                    pieces.append(piece)
                elif id(piece) in references:
                    pieces.append(b"\x71" + _I32.pack(references[id(piece)]))
                else:
                    return None
            literals.append(b"".join(pieces))
        return literals


class Matcher:
    """Recognises the objects of a form in one stream.

    Parameters
    ----------
    form
        The form.
    data, offset
        The stream, and where in it the object begins that the form was learned from.
    """

    def __init__(self, form: Form, data: bytes, offset: int) -> None:
        self.form = form
        self._data = data
        self._view = memoryview(data)
        self._steps: list[tuple[bytes, int, int, int]] = []
        for gap, hole, value in zip(form.gaps, form.holes, form.values, strict=False):
            literal = self._literal(gap, offset)
            self._steps.append((literal, len(literal), *hole))
            offset += len(literal) + len(value)
        self._tail = self._literal(form.gaps[-1], offset)

    def _literal(self, gap: list[bytes | Node], offset: int) -> bytes:
        size = sum(len(piece) if isinstance(piece, bytes) else 5 for piece in gap)
        return self._data[offset : offset + size]

    def match(self, offset: int) -> tuple[list[Value], int] | None:
        """Return the values of the object at ``offset`` and where it ends, if it is of the form."""
        data = self._data
        starts_with = data.startswith
        values: list[Value] = []
        for literal, length, prefix, width in self._steps:
            if not starts_with(literal, offset):
                return None
            end = offset + length
            if not prefix:
                offset = end + width
                values.append(data[end:offset])
            elif prefix == 2:
                offset = end + 2 + (data[end] << 8 | data[end + 1])
                value = data[end:offset]
                if not is_utf(value[2:]):
                    return None
                values.append(value)
            else:
                count = _I32.unpack_from(data, end)[0]
                offset = end + 4 + count * width
                if count < 0 or offset > len(data):
                    return None
                long = offset - end > _BY_REFERENCE
                values.append(self._view[end:offset] if long else data[end:offset])
        # beyond the end of the data, where a value would be cut short, the tail does not match
        return (values, offset + len(self._tail)) if starts_with(self._tail, offset) else None


class PackedObject(JavaObject):
    """An object of a form, and what is in its holes. Looking at its ``data`` unpacks it.

    ``values`` is ``None`` from then on.
    """

    __slots__ = ("form", "values")

    def __init__(self, form: Form, values: list[Value], offset: int = -1) -> None:
        self.desc = form.root.desc
        self.offset = offset
        self.form = form
        self.values: list[Value] | None = values

    def __getattr__(self, name: str) -> list[ClassData]:
        # only ever called for what is not there: ``data``, as long as the object is packed
        if name != "data":
            raise AttributeError(name)
        self.unpack()
        return self.data

    def unpack(self) -> list[Content]:
        """Become an ordinary object; return what it consists of, in the order of handles."""
        if self.values is None:
            raise UnexpectedError("an object unpacked twice", self)
        nodes = self.form.unpack(self, self.values)
        self.values = None
        return nodes


def form_and_values(node: object) -> tuple[Form, list[Value]] | None:
    """Return the form of an object and its values, ``None`` unless it is packed."""
    if type(node) is PackedObject and node.values is not None:
        return node.form, node.values
    return None
