"""The pieces of a Java serialisation stream: strings, classes, references, and packed objects.

`javastream` puts them together.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final, NoReturn

from qpannot.errors import FormatError
from qpannot.qupath.qpdata.javaforms import Form, Matcher, PackedObject, Value
from qpannot.qupath.qpdata.javatypes import (
    PRIMITIVE_SIZES,
    SC_BLOCK_DATA,
    SC_EXTERNALIZABLE,
    SC_SERIALIZABLE,
    ClassDesc,
    Content,
    Field,
    JavaObject,
    JavaString,
    decode_utf,
)

FIRST_HANDLE: Final = 0x7E0000

TC_NULL: Final = 0x70
TC_REFERENCE: Final = 0x71
TC_CLASSDESC: Final = 0x72
TC_OBJECT: Final = 0x73
TC_STRING: Final = 0x74
TC_ARRAY: Final = 0x75
TC_CLASS: Final = 0x76
TC_BLOCKDATA: Final = 0x77
TC_ENDBLOCKDATA: Final = 0x78
TC_BLOCKDATALONG: Final = 0x7A
TC_LONGSTRING: Final = 0x7C
TC_ENUM: Final = 0x7E

# Java's own chains are a handful long; without a bound a short object could claim a long one.
_MAX_SUPERCLASSES: Final = 64

# Beyond these, learning another form costs more than it saves.
_MAX_FORMS: Final = 32
_MAX_LEARNT_HANDLES: Final = 500

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class Reader:
    """What was read so far. Methods that read take a position and return the next one."""

    def __init__(self, data: bytes, source: Path | str) -> None:
        self.data = data
        self.source = source
        self.handles: list[Content | ClassDesc] = []
        self.matchers: dict[str, list[Matcher]] = {}
        self.last_matched: Matcher | None = None

    def fail(self, reason: str, offset: int) -> NoReturn:
        """Raise the error of a broken stream."""
        raise FormatError(
            self.source,
            reason,
            offset=offset,
            hint="Put a snapshot of it back ('qpannot snapshots'), or a backup of QuPath's.",
        )

    def take(self, offset: int, length: int, what: str) -> bytes:
        """Return so many bytes, which must be there."""
        piece = self.data[offset : offset + length]
        if length < 0 or len(piece) != length:
            self.fail(f"{what} is longer than the file", offset)
        return piece

    def handle(self, offset: int) -> Content | ClassDesc:
        """Return what the reference at ``offset`` refers to."""
        number: int = _U32.unpack_from(self.data, offset + 1)[0] - FIRST_HANDLE
        if not 0 <= number < len(self.handles):
            self.fail("a reference to an object that does not exist", offset)
        known = self.handles[number]
        return self.unpacked(known, number) if type(known) is PackedObject else known

    def unpacked(self, packed: PackedObject, number: int) -> Content | ClassDesc:
        """Return what has a handle that a packed object takes, itself or something in it."""
        handles, first = self.handles, number
        while first and handles[first - 1] is packed:
            first -= 1
        if first == number:
            return packed
        nodes = packed.unpack()
        handles[first : first + len(nodes)] = nodes
        return handles[number]

    def match(self, name: str, offset: int) -> tuple[PackedObject, int] | None:
        """Return the object at ``offset`` packed, and its end, if it is of a known form."""
        matchers = self.matchers[name]
        for at, matcher in enumerate(matchers):
            found = matcher.match(offset)
            if found is not None:
                if at:
                    matchers.insert(0, matchers.pop(at))
                self.last_matched = matcher
                return self._packed(matcher.form, found, offset)
        return None

    def match_again(self, offset: int) -> tuple[PackedObject, int] | None:
        """Do what `match` does, for an object that may be like the one that it found last."""
        found = self.last_matched.match(offset) if self.last_matched is not None else None
        if self.last_matched is None or found is None:
            return None
        return self._packed(self.last_matched.form, found, offset)

    def _packed(
        self, form: Form, found: tuple[list[Value], int], offset: int
    ) -> tuple[PackedObject, int]:
        packed = PackedObject(form, found[0], offset)
        self.handles.extend([packed] * form.n_handles)
        return packed, found[1]

    def learn(self, node: JavaObject, first: int) -> None:
        """Learn the form of an object that was parsed, whose handles begin with ``first``."""
        matchers = self.matchers[node.desc.name]
        new = {id(each) for each in self.handles[first : first + _MAX_LEARNT_HANDLES + 1]}
        if len(matchers) < _MAX_FORMS and len(new) <= _MAX_LEARNT_HANDLES:
            form = Form.learn(node, lambda each: id(each) not in new)
            if form is not None:
                matchers.insert(0, Matcher(form, self.data, node.offset))

    def utf(self, offset: int) -> tuple[str, int]:
        """Read a name, which is no object."""
        length = _U16.unpack_from(self.data, offset)[0]
        return self.text(self.take(offset + 2, length, "a name"), offset), offset + 2 + length

    def text(self, raw: bytes, offset: int) -> str:
        """Decode a text."""
        try:
            return decode_utf(raw)
        except UnicodeError:
            self.fail("text that is not Java's modified UTF-8", offset)

    def string(self, offset: int) -> tuple[JavaString, int]:
        """Read a string object that is new or referred to."""
        code = self.data[offset]
        if code == TC_REFERENCE:
            known = self.handle(offset)
            if not isinstance(known, JavaString):
                self.fail("a reference to something that should be a string", offset)
            return known, offset + 5
        if code == TC_STRING:
            length, start = _U16.unpack_from(self.data, offset + 1)[0], offset + 3
        elif code == TC_LONGSTRING:
            length, start = _U64.unpack_from(self.data, offset + 1)[0], offset + 9
            if length > len(self.data):
                self.fail("a string is longer than the file", offset)
        else:
            self.fail(f"a string was expected, not type code {code:#04x}", offset)
        raw = self.take(start, length, "a string")
        if not raw.isascii() or b"\0" in raw:
            self.text(raw, offset)
        new = JavaString(raw, is_long=code == TC_LONGSTRING)
        self.handles.append(new)
        return new, start + length

    def class_desc(self, offset: int) -> tuple[ClassDesc, int]:
        """Read the class of an object, new or referred to."""
        if self.data[offset] == TC_REFERENCE:
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
            if code == TC_NULL:
                offset += 1
                break
            if code == TC_REFERENCE:
                known = self.handle(offset)
                if not isinstance(known, ClassDesc):
                    self.fail("a reference to something that should be a class", offset)
                desc = known
                offset += 5
                break
            if code != TC_CLASSDESC:
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
            if data[offset] != TC_ENDBLOCKDATA:
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
        """Read a field of a class."""
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
        """Refuse what the grammar or QuPath do not have."""
        if flags & SC_EXTERNALIZABLE and (flags & SC_SERIALIZABLE or not flags & SC_BLOCK_DATA):
            self.fail("a class of an old or impossible kind of serialisation", offset)
