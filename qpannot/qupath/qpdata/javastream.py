"""Java's object serialisation stream: bytes to a tree of objects.

The grammar is the "Java Object Serialization Specification", chapter 6 (protocol version 2), as
``java.io.ObjectOutputStream`` writes it. Nothing here knows what the objects mean.

`parse` gives the contents of a stream, `javaemit.emit` writes them: a stream that `parse` accepts
comes out byte for byte. Neither recurses, and no length in a stream makes `parse` allocate
more than the stream itself could fill. What only subclasses of ObjectOutputStream write (class
annotations, resets, exceptions, dynamic proxies) never is in a QuPath file and is refused.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from qpannot.errors import FormatError
from qpannot.qupath.qpdata.javaforms import PackedObject
from qpannot.qupath.qpdata.javareader import (
    FIRST_HANDLE,
    TC_ARRAY,
    TC_BLOCKDATA,
    TC_BLOCKDATALONG,
    TC_CLASS,
    TC_ENDBLOCKDATA,
    TC_ENUM,
    TC_LONGSTRING,
    TC_NULL,
    TC_OBJECT,
    TC_REFERENCE,
    TC_STRING,
    Reader,
)
from qpannot.qupath.qpdata.javatypes import (
    PRIMITIVE_SIZES,
    SC_EXTERNALIZABLE,
    SC_SERIALIZABLE,
    ClassData,
    ClassDesc,
    Content,
    JavaArray,
    JavaClass,
    JavaEnum,
    JavaObject,
)

MAGIC: Final = b"\xac\xed\x00\x05"

_I32 = struct.Struct(">i")
_U32 = struct.Struct(">I")


class JavaStream(NamedTuple):
    """The contents of a stream in order, and the descriptors of its classes by name."""

    contents: list[Content]
    classes: dict[str, ClassDesc]


def parse(
    data: bytes, source: Path | str = "stream", *, numerous: Iterable[str] = ()
) -> JavaStream:
    """Return the contents of a serialisation stream.

    Parameters
    ----------
    data
        The whole stream, with its header.
    source
        Named in errors.
    numerous
        Names of classes with so many objects that those of one form are worth packing.

    Raises
    ------
    FormatError
        If the bytes are not a stream that ObjectOutputStream writes, with the offset.
    """
    reader = Reader(data, source)
    reader.matchers = {name: [] for name in numerous}
    if data[:4] != MAGIC:
        reader.fail("not a Java serialisation stream", 0)
    contents: list[Content] = []
    try:
        with collector_paused():
            _parse_contents(reader, contents)
    except (IndexError, struct.error):
        reader.fail("the file ends in the middle of an object", len(data))
    classes: dict[str, ClassDesc] = {}
    for known in reader.handles:
        if type(known) is ClassDesc:
            classes.setdefault(known.name, known)
    return JavaStream(contents, classes)


def parse_start(data: bytes) -> list[JavaObject]:
    """Return the objects that begin in the first bytes of a stream; some end beyond them.

    Parameters
    ----------
    data
        The stream's beginning, with its header.
    """
    reader = Reader(data, "the start of a stream")
    with suppress(IndexError, struct.error, FormatError):
        _parse_contents(reader, [])
    return [known for known in reader.handles if type(known) is JavaObject]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python from looking for garbage again and again while a large tree is built."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# How many more contents a list expects, where that is not a number of them.
_UNTIL_END_BLOCK: Final = -1
_UNTIL_END_OF_FILE: Final = -2


def _parse_contents(reader: Reader, top: list[Content]) -> None:
    data, handles, matchers = reader.data, reader.handles, reader.matchers
    size = len(data)
    offset = 4
    # The list being filled, how many contents it still expects, and the object it belongs to.
    target, expected = top, _UNTIL_END_OF_FILE
    current: JavaObject | None = None
    outer: list[tuple[list[Content], int, JavaObject | None]] = []
    # The object being parsed whose form may be worth learning, and its handle. What has such
    # objects within is not.
    learning: tuple[JavaObject, int] | None = None
    read_u32 = _U32.unpack_from
    while True:
        if offset == size and expected == _UNTIL_END_OF_FILE:
            return
        code = data[offset]
        opened: JavaObject | None = None
        if code == TC_REFERENCE:
            number = read_u32(data, offset + 1)[0] - FIRST_HANDLE
            if not 0 <= number < len(handles):
                reader.fail("a reference to an object that does not exist", offset)
            known = handles[number]
            if type(known) is ClassDesc or known is None:
                reader.fail("a reference to a class where an object was expected", offset)
            if type(known) is PackedObject:
                known = reader.unpacked(known, number)
            target.append(known)
            offset += 5
        elif code == TC_NULL:
            target.append(None)
            offset += 1
        elif code == TC_OBJECT:
            start = offset
            found = reader.match_again(start)
            if found is None:
                desc, offset = reader.class_desc(offset + 1)
                if not desc.flags & (SC_SERIALIZABLE | SC_EXTERNALIZABLE):
                    reader.fail(f"an object of {desc.name}, which is not serialisable", start)
                is_numerous = desc.name in matchers
                found = reader.match(desc.name, start) if is_numerous else None
            if found is not None:
                packed, offset = found
                target.append(packed)
                learning = None
            else:
                opened = JavaObject(desc, [], start)
                if is_numerous:
                    learning = opened, len(handles)
                handles.append(opened)
                target.append(opened)
                outer.append((target, expected, current))
                current = opened
                target, expected = [], 0
        elif code == TC_STRING or code == TC_LONGSTRING:
            string, offset = reader.string(offset)
            target.append(string)
        elif code == TC_BLOCKDATA or code == TC_BLOCKDATALONG:
            if expected >= 0:
                reader.fail("a block of data where an object was expected", offset)
            if code == TC_BLOCKDATA:
                length, start = data[offset + 1], offset + 2
            else:
                length, start = _I32.unpack_from(data, offset + 1)[0], offset + 5
            if (length > 0xFF) != (code == TC_BLOCKDATALONG) or not length:
                reader.fail("a block of data of an impossible length", offset)
            target.append(reader.take(start, length, "a block of data"))
            offset = start + length
            continue
        elif code == TC_ENDBLOCKDATA:
            if expected != _UNTIL_END_BLOCK:
                reader.fail("the end of a block where there is none", offset)
            offset += 1
            expected = 1  # completed below
        elif code == TC_ARRAY:
            start = offset
            desc, offset = reader.class_desc(offset + 1)
            length = _I32.unpack_from(data, offset)[0]
            offset += 4
            kind = desc.name[1:2]
            if desc.name[:1] != "[" or not kind or length < 0:
                reader.fail("an array of an impossible kind or length", start)
            if kind in PRIMITIVE_SIZES:
                length *= PRIMITIVE_SIZES[kind]
                array = JavaArray(desc, reader.take(offset, length, "an array"))
                handles.append(array)
                target.append(array)
                offset += length
            else:
                if length > size - offset:
                    reader.fail("an array is longer than the file", start)
                values: list[Content] = []
                array = JavaArray(desc, values)
                handles.append(array)
                target.append(array)
                if length:
                    outer.append((target, expected, current))
                    target, expected, current = values, length, None
                    continue
        elif code == TC_ENUM:
            desc, offset = reader.class_desc(offset + 1)
            place = len(handles)
            handles.append(None)
            constant, offset = reader.string(offset)
            enum = JavaEnum(desc, constant)
            handles[place] = enum
            target.append(enum)
        elif code == TC_CLASS:
            desc, offset = reader.class_desc(offset + 1)
            klass = JavaClass(desc)
            handles.append(klass)
            target.append(klass)
        else:
            reader.fail(f"type code {code:#04x}, which QuPath never writes", offset)

        if opened is None:
            if expected < 0:
                continue
            expected -= 1
        # Move on to the next list of the object, or of the objects around it, that wants more.
        while expected == 0:
            if current is not None:
                layout, pieces = current.desc.layout, current.data
                if pieces and target is pieces[-1].references and layout[len(pieces) - 1][2]:
                    target, expected = [], _UNTIL_END_BLOCK
                    pieces[-1].contents = target
                    continue
                if len(pieces) < len(layout):
                    n_bytes, n_references, has_contents = layout[len(pieces)]
                    piece = ClassData(reader.take(offset, n_bytes, "an object"), [], None)
                    pieces.append(piece)
                    offset += n_bytes
                    if n_references or not has_contents:
                        target, expected = piece.references, n_references
                    else:
                        target, expected = [], _UNTIL_END_BLOCK
                        piece.contents = target
                    continue
            if learning is not None and learning[0] is current:
                reader.learn(*learning)
                learning = None
            target, expected, current = outer.pop()
            if expected < 0:
                break
            expected -= 1
