from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from qpannot.errors import FormatError
from qpannot.qupath.annotation import Annotation, PathClass
from qpannot.qupath.qpdata.datafile import QpData
from qpannot.qupath.qpdata.javaclasses import OBJECTS, ClassTable
from qpannot.qupath.qpdata.javaemit import emit
from qpannot.qupath.qpdata.javaforms import Form, PackedObject
from qpannot.qupath.qpdata.javasame import is_same
from qpannot.qupath.qpdata.javastream import parse
from qpannot.qupath.qpdata.javatypes import Content, JavaArray, JavaObject, JavaString

NUMEROUS = [OBJECTS + "PathAnnotationObject"]


def alike(count: int = 6) -> bytes:
    """A file with annotations of one form, and one of another among them."""
    annotations = [
        Annotation(shapely.box(i, 0, i + 5, 5), PathClass("Tumor", (200, 0, 0)), name=f"no. {i}")
        for i in range(count)
    ]
    data = QpData.new(qupath_version="0.6.0")
    data.add([*annotations[:3], Annotation(shapely.Point(1, 2)), *annotations[3:]])
    return data.to_bytes()


ALIKE = alike()


def annotation_nodes(contents: list[Content]) -> Iterator[JavaObject]:
    (hierarchy,) = (
        node
        for node in contents
        if isinstance(node, JavaObject) and node.desc.name.endswith("PathObjectHierarchy")
    )
    root = hierarchy.expect("rootObject", JavaObject)
    for node in root.contents:
        if isinstance(node, JavaObject) and node.desc.name == NUMEROUS[0]:
            yield node


def test_objects_of_one_form_are_packed_and_all_comes_out_byte_for_byte() -> None:
    contents = parse(ALIKE, numerous=NUMEROUS).contents
    packed = [isinstance(node, PackedObject) for node in annotation_nodes(contents)]
    # the classes are described in the first, the form is learned from the second
    assert packed == [False, False, True, False, True, True, True]
    assert emit(contents) == ALIKE


def test_a_packed_object_opens_to_what_it_would_have_been() -> None:
    opened = list(annotation_nodes(parse(ALIKE).contents))
    packed = list(annotation_nodes(parse(ALIKE, numerous=NUMEROUS).contents))
    for one, other in zip(opened, packed, strict=True):
        assert other.data
        assert emit([one]) == emit([other])


def test_opening_some_of_the_objects_changes_nothing() -> None:
    contents = parse(ALIKE, numerous=NUMEROUS).contents
    for node in list(annotation_nodes(contents))[::2]:
        assert node.data
    assert emit(contents) == ALIKE


def test_when_the_objects_that_others_refer_to_go_the_others_define_them() -> None:
    contents = parse(ALIKE, numerous=NUMEROUS).contents
    root = next(
        node.expect("rootObject", JavaObject)
        for node in contents
        if isinstance(node, JavaObject) and node.desc.name.endswith("PathObjectHierarchy")
    )
    kept = list(annotation_nodes(contents))[2:]
    at = next(i for i, node in enumerate(root.contents) if node in kept) - 2
    root.contents[at - 1 : at + 2] = [struct.pack(">i", len(kept))]
    back = QpData.parse(emit(contents), source="edited.qpdata")
    assert [each.name for each in back.annotations()] == [
        "no. 2", None, "no. 3", "no. 4", "no. 5"
    ]  # fmt: skip
    assert {each.class_name for each in back.annotations()} == {"Tumor", None}


def test_references_into_packed_objects_and_to_them_find_their_way() -> None:
    contents = parse(ALIKE).contents
    nodes = list(annotation_nodes(contents))
    name = nodes[-1].contents[0]
    assert isinstance(name, JavaString)
    contents[-1:-1] = [name, nodes[-2]]
    stream = emit(contents)
    again = parse(stream, numerous=NUMEROUS).contents
    found = list(annotation_nodes(again))
    assert again[-3] is found[-1].contents[0] and again[-2] is found[-2]
    assert emit(again) == stream


def test_an_object_that_refers_to_itself_or_is_too_large_has_no_form() -> None:
    table = ClassTable({})
    text = JavaString.of("twice")
    array = table.array("[Ljava.lang.Object;", [text, text])
    for items in ([text, text], [JavaString.of(str(i)) for i in range(5_000)], [array]):
        made = table.array_list(items)
        shared = {id(node) for node in table.classes.values()}
        assert Form.learn(made, lambda node, shared=shared: id(node) in shared) is None  # type: ignore[misc]


def test_a_value_that_could_not_be_read_alone_is_not_packed_either() -> None:
    place = ALIKE.rindex(b"no. 5")
    broken = ALIKE[:place] + b"no\0 5" + ALIKE[place + 5 :]
    with pytest.raises(FormatError, match="UTF-8"):
        parse(broken, numerous=NUMEROUS)


@given(st.data())
def test_packing_never_changes_what_a_stream_means(data: st.DataObject) -> None:
    stream = bytearray(ALIKE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, len(stream) - 1))
        stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    outcomes: list[Any] = []
    for numerous in ([], NUMEROUS):
        try:
            outcomes.append(parse(bytes(stream), numerous=numerous).contents)
        except FormatError as error:
            outcomes.append(str(error))
    plain, packed = outcomes
    if isinstance(plain, str):
        assert packed == plain
    else:
        assert emit(packed) == stream
        assert is_same(packed, plain)


def test_trees_are_the_same_only_with_the_same_values_and_sharing() -> None:
    one, other = (parse(ALIKE, numerous=NUMEROUS).contents for _ in range(2))
    assert is_same(one, other)
    name = list(annotation_nodes(other))[-1].contents[0]
    assert isinstance(name, JavaString)
    name.raw = b"other"
    assert not is_same(one, other)
    text = JavaString.of("a")
    table = ClassTable({})
    shared = table.array("[Ljava.lang.Object;", [text, text])
    apart = table.array("[Ljava.lang.Object;", [text, JavaString.of("a")])
    assert not is_same([shared], [apart]) and not is_same([apart], [shared])


@pytest.mark.parametrize(
    "other",
    [
        [None],
        [JavaString.of("b")],
        [JavaString.of("a"), None],
        [b"a"],
        [ClassTable({}).integer(1)],
        [ClassTable({}).array("[B", b"a")],
        [ClassTable({}).enum("qupath.lib.images.ImageData$ImageType", "UNSET")],
    ],
)
def test_other_trees_are_not_the_same(other: list[Content]) -> None:
    one: list[Content] = [JavaString.of("a")]
    assert is_same(one, one)
    assert not is_same(one, other) and not is_same(other, one)


def test_numbers_of_another_size_are_told_apart() -> None:
    table = ClassTable({})
    assert not is_same([table.integer(1)], [table.integer(2)])
    one, other = (table.array("[B", raw) for raw in (b"ab", b"ac"))
    assert isinstance(one, JavaArray)
    assert not is_same([one], [other])
