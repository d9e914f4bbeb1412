"""A tree of Java objects written as ObjectOutputStream does: the counterpart of `javastream`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from qpannot.qupath.qpdata.javaforms import Form, Value, form_and_values
from qpannot.qupath.qpdata.javareader import FIRST_HANDLE
from qpannot.qupath.qpdata.javastream import MAGIC
from qpannot.qupath.qpdata.javatypes import (
    PRIMITIVE_SIZES,
    ClassDesc,
    Content,
    JavaArray,
    JavaEnum,
    JavaObject,
    JavaString,
    encode_utf,
)

_U16 = struct.Struct(">H")
_I32 = struct.Struct(">i")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class _Raw:
    """Bytes to write as they are, among contents."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def _reference(handle: int) -> bytes:
    return b"\x71" + _U32.pack(handle)


_END_BLOCK: Final = (_Raw(b"\x78"),)


class _Writer:
    def __init__(self) -> None:
        self.pieces: list[Value] = [MAGIC]
        self.references: dict[int, int] = {}
        self.next_handle = FIRST_HANDLE
        self._literals: dict[int, list[bytes]] = {}

    def assign(self, node: object) -> None:
        self.references[id(node)] = self.next_handle
        self.next_handle += 1

    def packed(self, node: object, form: Form, values: list[Value]) -> bool:
        """Write a packed object; tell whether all it refers to is there to be referred to."""
        literals = self._literals.get(id(form))
        if literals is None:
            literals = form.literals(self.references)
            if literals is None:
                return False
            self._literals[id(form)] = literals
        self.references[id(node)] = self.next_handle
        self.next_handle += form.n_handles
        pieces: list[Value] = [*literals, *values]
        pieces[::2], pieces[1::2] = literals, values
        self.pieces += pieces
        return True

    def string(self, string: JavaString) -> None:
        reference = self.references.get(id(string))
        if reference is not None:
            self.pieces.append(_reference(reference))
            return
        self.assign(string)
        raw = string.raw
        if string.is_long:
            self.pieces.append(b"\x7c" + _U64.pack(len(raw)) + raw)
        else:
            self.pieces.append(b"\x74" + _U16.pack(len(raw)) + raw)

    def class_desc(self, desc: ClassDesc | None) -> None:
        write = self.pieces.append
        while desc is not None:
            reference = self.references.get(id(desc))
            if reference is not None:
                write(_reference(reference))
                return
            name = encode_utf(desc.name)
            write(b"\x72" + _U16.pack(len(name)) + name + _U64.pack(desc.uid))
            write(bytes([desc.flags]) + _U16.pack(len(desc.fields)))
            self.assign(desc)
            for field in desc.fields:
                name = encode_utf(field.name)
                write(field.code.encode("ascii") + _U16.pack(len(name)) + name)
                if field.signature is not None:
                    self.string(field.signature)
            write(b"\x78")
            desc = desc.superclass
        write(b"\x70")


def emit(contents: Iterable[Content]) -> bytes:
    """Return the serialisation stream of ``contents``, as ObjectOutputStream writes it."""
    writer = _Writer()
    write, references = writer.pieces.append, writer.references
    outer: list[Iterator[Content | _Raw]] = []
    nodes: Iterator[Content | _Raw] = iter(contents)
    while True:
        for node in nodes:
            if node is None:
                write(b"\x70")
                continue
            reference = references.get(id(node))
            if reference is not None:
                write(_reference(reference))
                continue
            packed = form_and_values(node)
            if packed is not None and writer.packed(node, *packed):
                continue
            if isinstance(node, JavaString):
                writer.string(node)
            elif isinstance(node, bytes):
                if len(node) > 0xFF:
                    write(b"\x7a" + _I32.pack(len(node)) + node)
                else:
                    write(b"\x77" + bytes((len(node),)) + node)
            elif isinstance(node, JavaObject):
                write(b"\x73")
                writer.class_desc(node.desc)
                writer.assign(node)
                outer.append(nodes)
                nodes = _object_nodes(node)
                break
            elif isinstance(node, JavaArray):
                write(b"\x75")
                writer.class_desc(node.desc)
                writer.assign(node)
                if isinstance(node.values, bytes):
                    width = PRIMITIVE_SIZES[node.desc.name[1]]
                    write(_I32.pack(len(node.values) // width) + node.values)
                else:
                    write(_I32.pack(len(node.values)))
                    outer.append(nodes)
                    nodes = iter(node.values)
                    break
            elif isinstance(node, _Raw):
                write(node.data)
            elif isinstance(node, JavaEnum):
                write(b"\x7e")
                writer.class_desc(node.desc)
                writer.assign(node)
                writer.string(node.constant)
            else:
                write(b"\x76")
                writer.class_desc(node.desc)
                writer.assign(node)
        else:
            if not outer:
                return b"".join(writer.pieces)
            nodes = outer.pop()


def _object_nodes(node: JavaObject) -> Iterator[Content | _Raw]:
    parts: list[Iterable[Content | _Raw]] = []
    for data in node.data:
        if data.primitives:
            parts.append((_Raw(data.primitives),))
        if data.references:
            parts.append(data.references)
        if data.contents is not None:
            parts.append(data.contents)
            parts.append(_END_BLOCK)
    return chain.from_iterable(parts)
