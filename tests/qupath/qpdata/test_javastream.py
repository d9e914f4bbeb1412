from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.errors import FormatError
from qpannot.qupath.qpdata.javaclasses import ClassTable
from qpannot.qupath.qpdata.javaemit import emit
from qpannot.qupath.qpdata.javastream import MAGIC, parse
from qpannot.qupath.qpdata.javatypes import (
    SC_SERIALIZABLE,
    ClassData,
    ClassDesc,
    Content,
    Field,
    JavaArray,
    JavaEnum,
    JavaObject,
    JavaString,
    blocks,
    decode_utf,
    encode_utf,
)

# What java.io.ObjectOutputStream (OpenJDK 17) writes for writeObject(new Integer[]{5, 5})
# with one Integer object in both places.
SHARED_INTEGERS = bytes.fromhex(
    "aced0005"
    "75" "72" "0014" + b"[Ljava.lang.Integer;".hex() + "fe97ada00183e21b" "02" "0000" "78" "70"
    "00000002"
    "73" "72" "0011" + b"java.lang.Integer".hex() + "12e2a0a4f7818738" "02" "0001"
    "49" "0005" + b"value".hex() + "78"
    "72" "0010" + b"java.lang.Number".hex() + "86ac951d0b94e08b" "02" "0000" "78" "70"
    "00000005"
    "71" "007e0004"
)  # fmt: skip


def test_every_real_file_comes_out_byte_for_byte(shared_data: Path) -> None:
    files = sorted((shared_data / "qupath").rglob("data.qpdata"))
    assert files
    for file in files:
        data = file.read_bytes()
        assert emit(parse(data, file).contents) == data, file


def test_an_object_written_twice_is_one_object_in_the_tree() -> None:
    contents, classes = parse(SHARED_INTEGERS)
    (array,) = contents
    assert isinstance(array, JavaArray) and isinstance(array.values, list)
    first, second = array.values
    assert first is second
    assert isinstance(first, JavaObject) and first.get("value") == 5
    assert classes["java.lang.Number"] is first.desc.superclass
    assert emit(contents) == SHARED_INTEGERS


@given(st.text(st.characters(exclude_categories=())))
def test_text_survives_javas_modified_utf8(text: str) -> None:
    raw = encode_utf(text)
    assert b"\0" not in raw and max(raw, default=0) < 0xF0
    joined = text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
    assert decode_utf(raw) == joined


def test_text_is_encoded_as_java_does() -> None:
    assert encode_utf("a\0é😀") == b"a\xc0\x80\xc3\xa9\xed\xa0\xbd\xed\xb8\x80"


@pytest.mark.parametrize("raw", [b"\xf0\x9f\x98\x80", b"a\0", b"\xe0\x80\x80", b"\xc3"])
def test_text_that_java_does_not_write_is_refused(raw: bytes) -> None:
    with pytest.raises(UnicodeError):
        decode_utf(raw)


@pytest.mark.parametrize("length", [0, 65_535, 65_536, 70_000])
def test_strings_beyond_65535_bytes_are_long_strings(length: int) -> None:
    stream = emit([JavaString.of("x" * length)])
    assert stream[4] == (0x74 if length <= 65_535 else 0x7C)
    (back,) = parse(stream).contents
    assert isinstance(back, JavaString) and back.value == "x" * length


@pytest.mark.parametrize("length", [1, 255, 256, 1024, 1025, 5000])
def test_data_is_cut_into_blocks_as_javas_buffer_does(length: int) -> None:
    data = bytes(i % 251 for i in range(length))
    stream = emit(blocks(data))
    contents = parse(stream).contents
    assert [len(block) for block in contents if isinstance(block, bytes)] == [
        *[1024] * (length // 1024),
        *[length % 1024][: length % 1024],
    ]
    first = min(length, 1024)
    header = b"\x77" + bytes([first]) if first <= 255 else b"\x7a" + struct.pack(">i", first)
    assert stream[4 : 4 + len(header)] == header
    assert b"".join(block for block in contents if isinstance(block, bytes)) == data


def test_fields_of_all_classes_of_an_object_are_found_by_name() -> None:
    base = ClassDesc("Base", 1, SC_SERIALIZABLE, (Field("I", "a"), Field("D", "b")))
    derived = ClassDesc(
        "Derived",
        2,
        SC_SERIALIZABLE,
        (Field("Z", "c"), Field("L", "d", JavaString.of("LX;"))),
        base,
    )
    name = JavaString.of("hello")
    made = JavaObject(
        derived, [ClassData(struct.pack(">id", 7, 0.5), [], None), ClassData(b"\1", [name], None)]
    )
    (back,) = parse(emit([made])).contents
    assert isinstance(back, JavaObject)
    assert (back.get("a"), back.get("b"), back.get("c")) == (7, 0.5, True)
    assert back.expect("d", JavaString).value == "hello"


def test_enums_and_classes_are_shared_by_all_who_name_them() -> None:
    table = ClassTable({})
    kind = "qupath.lib.images.ImageData$ImageType"
    contents: list[Content] = [table.enum(kind, "OTHER"), table.enum(kind, "UNSET")]
    one, other = parse(emit(contents)).contents
    assert isinstance(one, JavaEnum) and isinstance(other, JavaEnum)
    assert (one.constant.value, other.constant.value) == ("OTHER", "UNSET")
    assert one.desc is other.desc


def test_objects_nested_a_hundred_thousand_deep_need_no_recursion() -> None:
    table = ClassTable({})
    node: Content = None
    for _ in range(100_000):
        node = table.array("[Ljava.lang.Object;", [node])
    stream = emit([node])
    assert emit(parse(stream).contents) == stream


def _array(length: int, kind: bytes = b"[F") -> bytes:
    desc = b"\x72" + struct.pack(">H", len(kind)) + kind + bytes(8) + b"\x02\0\0\x78\x70"
    return MAGIC + b"\x75" + desc + struct.pack(">i", length)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "not a Java"),
        (b"PK\x03\x04", "not a Java"),
        (MAGIC + b"\x74\xff\xff" + b"abc", "longer than the file"),
        (MAGIC + b"\x7c" + b"\xff" * 8 + b"abc", "longer than the file"),
        (MAGIC + b"\x7a\x7f\xff\xff\xff", "longer than the file"),
        (MAGIC + b"\x7a\xff\xff\xff\xff", "impossible length"),
        (_array(2**31 - 1), "longer than the file"),
        (_array(-1), "impossible"),
        (_array(2**31 - 1, b"[LX;"), "longer than the file"),
        (MAGIC + b"\x71\x00\x7e\x00\x00", "does not exist"),
        (MAGIC + b"\x73\x70", "without a class"),
        (MAGIC + b"\x79", "never writes"),
        (MAGIC + b"\x78", "no"),
        (SHARED_INTEGERS[:-1], "middle of an object"),
        (SHARED_INTEGERS[:-5], "middle of an object"),
        # a class that is its own superclass
        (
            MAGIC + b"\x73\x72\0\x01A" + bytes(8) + b"\x02\0\0\x78\x71\0\x7e\0\0",
            "should be a class",
        ),
    ],
)
def test_broken_streams_are_refused_with_the_place(stream: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        parse(stream, "x.qpdata")
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= len(stream)


@given(st.data())
def test_a_stream_that_is_accepted_is_written_as_it_was(data: st.DataObject) -> None:
    stream = bytearray(SHARED_INTEGERS)
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(4, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        contents = parse(bytes(stream)).contents
    except FormatError:
        return
    assert emit(contents) == stream
