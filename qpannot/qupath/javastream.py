"""Java's object serialisation stream: bytes to a tree of objects.

The grammar is the "Java Object Serialization Specification", chapter 6 (protocol version 2), as
``java.io.ObjectOutputStream`` writes it. Nothing here knows what the objects mean.

`parse` gives the contents of a stream, `javaemit.emit` writes them: a stream that `parse` accepts
comes out byte for byte. Neither recurses, and no length in a stream makes `parse` allocate
more than the stream itself could fill. What only subclasses of ObjectOutputStream write (class
annotations, resets, exceptions, dynamic proxies) never is in a QuPath file and is refused.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from qpannot.errors import FormatError
from qpannot.qupath.javatypes import (
    PRIMITIVE_SIZES,
    SC_BLOCK_DATA,
    SC_EXTERNALIZABLE,
    SC_SERIALIZABLE,
    ClassData,
    ClassDesc,
    Content,
    Field,
    JavaArray,
    JavaClass,
    JavaEnum,
    JavaObject,
    JavaString,
    decode_utf,
)

MAGIC: Final = b"\xac\xed\x00\x05"
FIRST_HANDLE: Final = 0x7E0000

_TC_NULL: Final = 0x70
_TC_REFERENCE: Final = 0x71
_TC_CLASSDESC: Final = 0x72
_TC_OBJECT: Final = 0x73
_TC_STRING: Final = 0x74
_TC_ARRAY: Final = 0x75
_TC_CLASS: Final = 0x76
_TC_BLOCKDATA: Final = 0x77
_TC_ENDBLOCKDATA: Final = 0x78
_TC_BLOCKDATALONG: Final = 0x7A
_TC_LONGSTRING: Final = 0x7C
_TC_ENUM: Final = 0x7E

# Java's own chains are a handful long; without a bound a short object could claim a long one.
_MAX_SUPERCLASSES: Final = 64

_U16 = struct.Struct(">H")
_I32 = struct.Struct(">i")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class _Reader:
    """Cursor-free helpers over the bytes: each takes a position and returns the next one."""

    def __init__(self, data: bytes, source: Path | str) -> None:
        self.data = data
        self.source = source
        self.handles: list[Content | ClassDesc] = []

    def fail(self, reason: str, offset: int) -> NoReturn:
        raise FormatError(
            self.source,
            reason,
            offset=offset,
            hint="Restore the file from a snapshot or from QuPath's backup, or open it in QuPath.",
        )

    def take(self, offset: int, length: int, what: str) -> bytes:
        piece = self.data[offset : offset + length]
        if length < 0 or len(piece) != length:
            self.fail(f"{what} is longer than the file", offset)
        return piece

    def handle(self, offset: int) -> Content | ClassDesc:
        number: int = _U32.unpack_from(self.data, offset + 1)[0] - FIRST_HANDLE
        if not 0 <= number < len(self.handles):
            self.fail("a reference to an object that does not exist", offset)
        return self.handles[number]

    def utf(self, offset: int) -> tuple[str, int]:
        length = _U16.unpack_from(self.data, offset)[0]
        return self.text(self.take(offset + 2, length, "a name"), offset), offset + 2 + length

    def text(self, raw: bytes, offset: int) -> str:
        try:
            return decode_utf(raw)
        except UnicodeError:
            self.fail("text that is not Java's modified UTF-8", offset)

    def string(self, offset: int) -> tuple[JavaString, int]:
        """Read a string object that is new or referred to."""
        code = self.data[offset]
        if code == _TC_REFERENCE:
            known = self.handle(offset)
            if not isinstance(known, JavaString):
                self.fail("a reference to something that should be a string", offset)
            return known, offset + 5
        if code == _TC_STRING:
            length, start = _U16.unpack_from(self.data, offset + 1)[0], offset + 3
        elif code == _TC_LONGSTRING:
            length, start = _U64.unpack_from(self.data, offset + 1)[0], offset + 9
            if length > len(self.data):
                self.fail("a string is longer than the file", offset)
        else:
            self.fail(f"a string was expected, not type code {code:#04x}", offset)
        raw = self.take(start, length, "a string")
        if not raw.isascii() or b"\0" in raw:
            self.text(raw, offset)
        new = JavaString(raw, is_long=code == _TC_LONGSTRING)
        self.handles.append(new)
        return new, start + length

    def class_desc(self, offset: int) -> tuple[ClassDesc, int]:
        if self.data[offset] == _TC_REFERENCE:
            known = self.handle(offset)
            if type(known) is ClassDesc:
                return known, offset + 5
        desc, end = self.class_desc_or_null(offset)
        if desc is None:
            self.fail("an object without a class", offset)
        return desc, end

    def class_desc_or_null(self, offset: int) -> tuple[ClassDesc | None, int]:
        """Read a class descriptor and the superclasses that follow it."""
        data = self.data
        unfinished: list[tuple[int, str, int, int, tuple[Field, ...]]] = []
        desc: ClassDesc | None = None
        while True:
            code = data[offset]
            if code == _TC_NULL:
                offset += 1
                break
            if code == _TC_REFERENCE:
                known = self.handle(offset)
                if not isinstance(known, ClassDesc):
                    self.fail("a reference to something that should be a class", offset)
                desc = known
                offset += 5
                break
            if code != _TC_CLASSDESC:
                self.fail(f"a class was expected, not type code {code:#04x}", offset)
            start = offset
            name, offset = self.utf(offset + 1)
            uid = _U64.unpack_from(data, offset)[0]
            flags = data[offset + 8]
            count = _U16.unpack_from(data, offset + 9)[0]
            offset += 11
            # The place in the table is taken now; nothing may refer to it before it is finished.
            place = len(self.handles)
            self.handles.append(None)
            fields: list[Field] = []
            for _ in range(count):
                field, offset = self.field(offset, after=fields[-1] if fields else None)
                fields.append(field)
            self.check_flags(flags, start)
            if data[offset] != _TC_ENDBLOCKDATA:
                self.fail(f"class {name} carries annotations, which QuPath never writes", offset)
            offset += 1
            unfinished.append((place, name, uid, flags, tuple(fields)))
            if len(unfinished) > _MAX_SUPERCLASSES:
                self.fail("a class with too many superclasses", start)
        for place, name, uid, flags, known_fields in reversed(unfinished):
            desc = ClassDesc(name, uid, flags, known_fields, desc)
            if desc.depth > _MAX_SUPERCLASSES:
                self.fail("a class with too many superclasses", offset)
            self.handles[place] = desc
        return desc, offset

    def field(self, offset: int, after: Field | None) -> tuple[Field, int]:
        code = chr(self.data[offset])
        name, end = self.utf(offset + 1)
        if code in PRIMITIVE_SIZES:
            if after is not None and after.signature is not None:
                self.fail("a class whose primitive fields do not come first", offset)
            return Field(code, name), end
        if code not in "L[":
            self.fail(f"a field of the unknown type {code!r}", offset)
        signature, end = self.string(end)
        return Field(code, name, signature), end

    def check_flags(self, flags: int, offset: int) -> None:
        if flags & SC_EXTERNALIZABLE and (flags & SC_SERIALIZABLE or not flags & SC_BLOCK_DATA):
            self.fail("a class of an old or impossible kind of serialisation", offset)


class JavaStream(NamedTuple):
    """The contents of a stream in order, and the descriptors of its classes by name."""

    contents: list[Content]
    classes: dict[str, ClassDesc]


def parse(data: bytes, source: Path | str = "stream") -> JavaStream:
    """Return the contents of a serialisation stream.

    Parameters
    ----------
    data
        The whole stream, with its header.
    source
        Named in errors.

    Raises
    ------
    FormatError
        If the bytes are not a stream that ObjectOutputStream writes, with the offset.
    """
    reader = _Reader(data, source)
    if data[:4] != MAGIC:
        reader.fail("not a Java serialisation stream", 0)
    contents: list[Content] = []
    try:
        _parse_contents(reader, contents)
    except (IndexError, struct.error):
        reader.fail("the file ends in the middle of an object", len(data))
    classes: dict[str, ClassDesc] = {}
    for known in reader.handles:
        if type(known) is ClassDesc:
            classes.setdefault(known.name, known)
    return JavaStream(contents, classes)


# How many more contents a list expects, where that is not a number of them.
_UNTIL_END_BLOCK: Final = -1
_UNTIL_END_OF_FILE: Final = -2


def _parse_contents(reader: _Reader, top: list[Content]) -> None:
    data, handles = reader.data, reader.handles
    size = len(data)
    offset = 4
    # The list being filled, how many contents it still expects, and the object it belongs to.
    target, expected = top, _UNTIL_END_OF_FILE
    current: JavaObject | None = None
    outer: list[tuple[list[Content], int, JavaObject | None]] = []
    read_u32 = _U32.unpack_from
    while True:
        if offset == size and expected == _UNTIL_END_OF_FILE:
            return
        code = data[offset]
        opened: JavaObject | None = None
        if code == _TC_REFERENCE:
            number = read_u32(data, offset + 1)[0] - FIRST_HANDLE
            if not 0 <= number < len(handles):
                reader.fail("a reference to an object that does not exist", offset)
            known = handles[number]
            if type(known) is ClassDesc or known is None:
                reader.fail("a reference to a class where an object was expected", offset)
            target.append(known)
            offset += 5
        elif code == _TC_NULL:
            target.append(None)
            offset += 1
        elif code == _TC_OBJECT:
            start = offset
            desc, offset = reader.class_desc(offset + 1)
            if not desc.flags & (SC_SERIALIZABLE | SC_EXTERNALIZABLE):
                reader.fail(f"an object of {desc.name}, which is not serialisable", start)
            opened = JavaObject(desc, [], start)
            handles.append(opened)
            target.append(opened)
            outer.append((target, expected, current))
            current = opened
            target, expected = [], 0
        elif code == _TC_STRING or code == _TC_LONGSTRING:
            string, offset = reader.string(offset)
            target.append(string)
        elif code == _TC_BLOCKDATA or code == _TC_BLOCKDATALONG:
            if expected >= 0:
                reader.fail("a block of data where an object was expected", offset)
            if code == _TC_BLOCKDATA:
                length, start = data[offset + 1], offset + 2
            else:
                length, start = _I32.unpack_from(data, offset + 1)[0], offset + 5
            if (length > 0xFF) != (code == _TC_BLOCKDATALONG) or not length:
                reader.fail("a block of data of an impossible length", offset)
            target.append(reader.take(start, length, "a block of data"))
            offset = start + length
            continue
        elif code == _TC_ENDBLOCKDATA:
            if expected != _UNTIL_END_BLOCK:
                reader.fail("the end of a block where there is none", offset)
            offset += 1
            expected = 1  # completed below
        elif code == _TC_ARRAY:
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
        elif code == _TC_ENUM:
            desc, offset = reader.class_desc(offset + 1)
            place = len(handles)
            handles.append(None)
            constant, offset = reader.string(offset)
            enum = JavaEnum(desc, constant)
            handles[place] = enum
            target.append(enum)
        elif code == _TC_CLASS:
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
            target, expected, current = outer.pop()
            if expected < 0:
                break
            expected -= 1
