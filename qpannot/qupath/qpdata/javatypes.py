"""The objects of a Java serialisation stream, as a tree that can be edited.

Sharing is part of the data: an object that occurs twice in a stream is one Python object in the
tree, and is written as a back-reference where it occurs again.
"""

from __future__ import annotations

import re
import struct
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

SC_WRITE_METHOD: Final = 0x01
SC_SERIALIZABLE: Final = 0x02
SC_EXTERNALIZABLE: Final = 0x04
SC_BLOCK_DATA: Final = 0x08
SC_ENUM: Final = 0x10

PRIMITIVE_FORMATS: Final = {
    "B": "b", "C": "H", "D": "d", "F": "f", "I": "i", "J": "q", "S": "h", "Z": "?",
}  # fmt: skip
"""`struct` format characters (big-endian) of Java's primitive type codes."""

PRIMITIVE_SIZES: Final = {code: struct.calcsize(">" + f) for code, f in PRIMITIVE_FORMATS.items()}
"""Sizes in bytes of Java's primitive type codes."""

_BLOCK_SIZE: Final = 1024
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


def encode_utf(text: str) -> bytes:
    """Return ``text`` in Java's modified UTF-8: surrogate pairs, NUL as ``C0 80``."""
    if text.isascii() and "\0" not in text:
        return text.encode("ascii")
    paired = _ASTRAL.sub(lambda match: _surrogates(match[0]), text)
    return paired.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")


def _surrogates(character: str) -> str:
    above = ord(character) - 0x10000
    return chr(0xD800 + (above >> 10)) + chr(0xDC00 + (above & 0x3FF))


def decode_utf(raw: bytes) -> str:
    """Return the text of Java's modified UTF-8.

    Raises
    ------
    UnicodeError
        If the bytes are not what Java itself would write for any text.
    """
    if raw.isascii() and b"\0" not in raw:
        return raw.decode("ascii")
    text = raw.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    text = text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
    if encode_utf(text) != raw:
        raise UnicodeError("not as Java encodes text")
    return text


def is_utf(raw: bytes) -> bool:
    """Return whether bytes are text in Java's modified UTF-8."""
    if raw.isascii() and b"\0" not in raw:
        return True
    try:
        decode_utf(raw)
    except UnicodeError:
        return False
    return True


class UnexpectedError(ValueError):
    """An object of a stream is not what its meaning requires.

    ``offset`` is where in the stream it began, -1 if it never was in one.
    """

    def __init__(self, reason: str, node: object = None) -> None:
        self.offset = node.offset if isinstance(node, JavaObject) else -1
        super().__init__(reason)


class JavaString:
    """A string object; its identity matters, as the stream refers back to it."""

    __slots__ = ("is_long", "raw")

    def __init__(self, raw: bytes, *, is_long: bool = False) -> None:
        self.raw = raw
        self.is_long = is_long

    @classmethod
    def of(cls, text: str) -> JavaString:
        """Return a new string object holding ``text``."""
        raw = encode_utf(text)
        return cls(raw, is_long=len(raw) > 0xFFFF)

    @property
    def value(self) -> str:
        """The text."""
        return decode_utf(self.raw)

    def __repr__(self) -> str:
        return f"JavaString({self.value!r})"


class Field(NamedTuple):
    """A field of a class: its type code, its name and, for references, its type's signature."""

    code: str
    name: str
    signature: JavaString | None = None


class ClassDesc:
    """A class descriptor: what the stream says of a class.

    Parameters
    ----------
    name
        The Java name, as ``qupath.lib.objects.PathObject`` or ``[F``.
    uid
        The serialVersionUID, unsigned.
    flags
        ``SC_*`` bits.
    fields
        Primitives first, as the stream requires.
    superclass
        The descriptor of the nearest serialisable superclass.
    """

    def __init__(
        self,
        name: str,
        uid: int,
        flags: int,
        fields: tuple[Field, ...] = (),
        superclass: ClassDesc | None = None,
    ) -> None:
        self.name = name
        self.uid = uid
        self.flags = flags
        self.fields = fields
        self.superclass = superclass
        self.depth: int = 1 + (superclass.depth if superclass else 0)
        self.places: dict[str, tuple[str, int]] = {}
        offset = index = 0
        for field in fields:
            if field.signature is None:
                self.places[field.name] = (">" + PRIMITIVE_FORMATS[field.code], offset)
                offset += PRIMITIVE_SIZES[field.code]
            else:
                self.places[field.name] = ("", index)
                index += 1

    @cached_property
    def lineage(self) -> list[ClassDesc]:
        """The descriptors whose data an object carries one after the other, superclass first."""
        if self.flags & SC_EXTERNALIZABLE:
            return [self]
        lineage: list[ClassDesc] = []
        desc: ClassDesc | None = self
        while desc is not None:
            if desc.fields or desc.flags & SC_WRITE_METHOD:
                lineage.append(desc)
            desc = desc.superclass
        return lineage[::-1]

    @cached_property
    def layout(self) -> tuple[tuple[int, int, bool], ...]:
        """Per class of `lineage`: bytes of primitives, number of references, free contents."""
        if self.flags & SC_EXTERNALIZABLE:
            return ((0, 0, True),)
        return tuple(
            (
                sum(PRIMITIVE_SIZES[f.code] for f in desc.fields if f.signature is None),
                sum(f.signature is not None for f in desc.fields),
                bool(desc.flags & SC_WRITE_METHOD),
            )
            for desc in self.lineage
        )

    def __repr__(self) -> str:
        return f"ClassDesc({self.name!r})"


class ClassData:
    """What one class of an object's lineage wrote: primitives, references, free contents."""

    __slots__ = ("contents", "primitives", "references")

    def __init__(
        self, primitives: bytes, references: list[Content], contents: list[Content] | None
    ) -> None:
        self.primitives = primitives
        self.references = references
        self.contents = contents


class JavaObject:
    """An object: its class and what each class of its lineage wrote.

    ``offset`` is where in the parsed stream it began, -1 for a new object.
    """

    __slots__ = ("data", "desc", "offset")

    def __init__(self, desc: ClassDesc, data: list[ClassData], offset: int = -1) -> None:
        self.desc = desc
        self.data = data
        self.offset = offset

    @property
    def contents(self) -> list[Content]:
        """The free contents that its most derived class wrote.

        Raises
        ------
        UnexpectedError
            If it wrote none.
        """
        contents = self.data[-1].contents if self.data else None
        if contents is None:
            raise UnexpectedError(f"a {self.desc.name} without contents", self)
        return contents

    def get(self, field: str) -> bool | int | float | Content:
        """Return a field's value; a derived class hides its superclasses' fields.

        Raises
        ------
        UnexpectedError
            If no class of the lineage has the field.
        """
        for desc, data in zip(reversed(self.desc.lineage), reversed(self.data), strict=True):
            if field in desc.places:
                form, place = desc.places[field]
                if not form:
                    return data.references[place]
                value: bool | int | float = struct.unpack_from(form, data.primitives, place)[0]
                return value
        raise UnexpectedError(f"a {self.desc.name} without the field {field!r}", self)

    def expect(self, field: str, kind: type[T]) -> T:
        """Return a field's value, which must be a ``kind``.

        Raises
        ------
        UnexpectedError
            If there is no such field, or it holds something else.
        """
        value = self.get(field)
        if not isinstance(value, kind):
            raise UnexpectedError(f"the field {field!r} of a {self.desc.name} is {value!r}", self)
        return value

    def primitives(self, field: str, array: str) -> bytes:
        """Return the bytes of the primitive array (``[F``) that a field holds.

        Raises
        ------
        UnexpectedError
            If it holds something else.
        """
        value = self.expect(field, JavaArray)
        if value.desc.name != array or not isinstance(value.values, bytes):
            raise UnexpectedError(f"the field {field!r} of a {self.desc.name} is no {array}", self)
        return value.values

    def __repr__(self) -> str:
        return f"JavaObject({self.desc.name!r}, offset={self.offset})"


class JavaArray:
    """An array: big-endian bytes for primitives, a list of objects otherwise."""

    __slots__ = ("desc", "values")

    def __init__(self, desc: ClassDesc, values: bytes | list[Content]) -> None:
        self.desc = desc
        self.values = values


class JavaEnum:
    """A constant of an enum."""

    __slots__ = ("constant", "desc")

    def __init__(self, desc: ClassDesc, constant: JavaString) -> None:
        self.desc = desc
        self.constant = constant


class JavaClass:
    """A ``java.lang.Class`` object."""

    __slots__ = ("desc",)

    def __init__(self, desc: ClassDesc) -> None:
        self.desc = desc


Content: TypeAlias = JavaString | JavaObject | JavaArray | JavaEnum | JavaClass | bytes | None
"""What a stream consists of; ``bytes`` is one block of data, ``None`` is Java's null."""


def blocks(data: bytes) -> list[Content]:
    """Return ``data`` cut as ObjectOutputStream's block buffer does."""
    return [data[i : i + _BLOCK_SIZE] for i in range(0, len(data), _BLOCK_SIZE)]
