from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely.geometry import shape

from qpannot.errors import FormatError, QpannotError
from qpannot.qupath.annotation import (
    Annotation,
    Detection,
    PathClass,
    PathObject,
    Plane,
    RoiType,
    differences,
)
from qpannot.qupath.qpdata.datafile import IMAGE_TYPES, QpData, all_as_stored, as_stored
from qpannot.qupath.qpdata.javaclasses import BOOLEAN, METADATA_MAP, PATH_CLASS
from qpannot.qupath.qpdata.javaemit import emit
from qpannot.qupath.qpdata.javastream import parse
from qpannot.qupath.qpdata.javatypes import Content, JavaObject, JavaString

TUMOR = PathClass("Tumor", (200, 0, 0))
STROMA = PathClass("Stroma", (150, 200, 150))
SQUARE = shapely.box(10, 10, 60, 60)
HOLED = shapely.Polygon(SQUARE.exterior, [shapely.box(20, 20, 30, 30).exterior])


def new(annotations: Sequence[PathObject] | None = None) -> QpData:
    data = QpData.new(qupath_version="0.6.0", image_type="BRIGHTFIELD_H_E")
    data.add(annotations or [])
    return data


def reread(data: QpData) -> QpData:
    return QpData.parse(data.to_bytes(), source="reread.qpdata")


def every_kind() -> list[Annotation]:
    top = Annotation(SQUARE, TUMOR, roi=RoiType.RECTANGLE, name="rect äöü 😀\0", locked=True)
    return [
        top,
        Annotation(HOLED, PathClass("Tumor: Positive: 1+", (1, 2, 3)), parent_id=top.id),
        Annotation(
            shapely.Polygon([(0.1, 0.2), (99_999.3, 7), (5, 1e5)]),
            STROMA,
            color=(9, 8, 7),
            measurements={"Area µm": 1.5, "nan": math.nan, "inf": -math.inf},
            metadata={"qpannot.round": "2", "ü": ""},
            plane=Plane(c=1, z=2, t=3),
        ),
        Annotation(shapely.MultiPolygon([HOLED, shapely.box(99, 99, 120, 120)])),
        Annotation(SQUARE, roi=RoiType.ELLIPSE),
        Annotation(shapely.LineString([(0, 0), (3, 4)]), roi=RoiType.LINE),
        Annotation(shapely.LineString([(0, 0), (3, 4), (9, 0)])),
        Annotation(shapely.Point(3, 4)),
        Annotation(shapely.MultiPoint([(3, 4), (5, 6)])),
    ]


def same(one: Annotation, other: Annotation) -> bool:
    return not differences(one, other) and (one.roi, one.parent_id) == (other.roi, other.parent_id)


def objects_of(data: QpData, class_name: str) -> list[JavaObject]:
    """All objects of a class in the file, by a walk of our own."""
    found: dict[int, JavaObject] = {}
    seen: set[int] = set()
    pending: list[Any] = list(parse(data.to_bytes()).contents)
    while pending:
        node = pending.pop()
        if id(node) in seen or isinstance(node, (bytes, JavaString, type(None))):
            continue
        seen.add(id(node))
        if isinstance(node, JavaObject):
            if node.desc.name == class_name:
                found[id(node)] = node
            for piece in node.data:
                pending += [*piece.references, *(piece.contents or ())]
        elif not isinstance(getattr(node, "values", b""), bytes):
            pending += node.values
    return list(found.values())


@pytest.fixture(
    params=[
        "coscia-0.6.0/demo_Qupath_project",
        "written-by-qupath/0.6.0/project",
        "written-by-qupath/0.7.0/project",
    ]
)
def project(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    return shared_data / "qupath" / str(request.param)


def load(project: Path, image: str = "1") -> QpData:
    file = project / "data" / image / "data.qpdata"
    return QpData.parse(file.read_bytes(), source=file)


def test_a_file_nothing_was_changed_in_comes_out_byte_for_byte(project: Path) -> None:
    for file in sorted(project.rglob("data.qpdata")):
        data = QpData.parse(file.read_bytes(), source=file)
        for annotation in data.annotations():
            data.replace(annotation)
        data.add([])
        data.remove([])
        data.summary()
        assert data.to_bytes() == file.read_bytes()


def test_counts_are_those_of_qupaths_own_summary(project: Path) -> None:
    for file in sorted(project.rglob("summary.json")):
        summary = json.loads(file.read_text("utf-8"))
        data = load(project, file.parent.name)
        assert data.summary() == summary["hierarchy"]
        assert data.image_type == summary["imageType"]


def test_the_version_is_the_one_that_wrote_the_file(project: Path) -> None:
    version = json.loads((project / "project.qpproj").read_text("utf-8"))["version"]
    assert load(project).qupath_version == version


def _features(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for each in node:
            yield from _features(each)
    elif isinstance(node, dict):
        if node.get("type") == "Feature":
            yield node
        for key in ("features", "root", "childObjects", "properties"):
            yield from _features(node.get(key))


@pytest.mark.parametrize("version", ["0.6.0", "0.7.0"])
def test_annotations_say_what_qupaths_own_geojson_export_says(
    version: str, shared_data: Path
) -> None:
    folder = shared_data / "qupath/written-by-qupath" / version
    exported = folder / "project_hierarchy_image1.geojson"
    features = {
        UUID(feature["id"]): feature
        for feature in _features(json.loads(exported.read_text("utf-8")))
        if feature["properties"]["objectType"] == "annotation"
    }
    ours = {annotation.id: annotation for annotation in load(folder / "project").annotations()}
    assert ours and ours.keys() == features.keys()
    for key, annotation in ours.items():
        feature = features[key]
        properties = feature["properties"]
        theirs = shape(feature["geometry"])
        # the export has two decimals
        assert annotation.geometry.geom_type == theirs.geom_type
        assert shapely.hausdorff_distance(annotation.geometry, theirs) < 0.011
        assert annotation.name == properties.get("name")
        assert annotation.locked == properties.get("isLocked", False)
        assert dict(annotation.metadata) == properties.get("metadata", {})
        assert list(annotation.color or []) == properties.get("color", [])
        assert (annotation.roi is RoiType.ELLIPSE) == feature["geometry"].get("isEllipse", False)
        classified = properties.get("classification")
        if classified is None:
            assert annotation.path_class is None
        else:
            assert annotation.path_class is not None
            names = classified.get("names") or [classified["name"]]
            assert annotation.path_class.name == ": ".join(names)
            assert list(annotation.path_class.color or []) == classified["color"]
        numbers = {name: float(value) for name, value in properties.get("measurements", {}).items()}
        assert repr(dict(annotation.measurements)) == repr(numbers)


def test_annotations_within_annotations_name_their_parent(shared_data: Path) -> None:
    data = load(shared_data / "qupath/written-by-qupath/0.6.0/project")
    by_name = {annotation.name: annotation for annotation in data.annotations()}
    assert by_name["single point"].parent_id == by_name["rect äöü 😀"].id
    assert by_name["rect äöü 😀"].parent_id is None


def test_what_is_read_is_stored_as_it_is(project: Path) -> None:
    for annotation in load(project).annotations():
        assert same(as_stored(annotation), annotation)


def test_what_is_not_edited_stays_when_something_is(project: Path) -> None:
    data = load(project)
    before = {annotation.id: annotation for annotation in data.annotations()}
    chosen = next(iter(before))
    data.replace(before[chosen].with_changes(name="renamed"))
    added = Annotation(HOLED, TUMOR)
    data.add([added])
    back = reread(data)
    after = {annotation.id: annotation for annotation in back.annotations()}
    assert after.pop(added.id).class_name == "Tumor"
    assert after.pop(chosen).name == "renamed"
    assert all(same(annotation, before[key]) for key, annotation in after.items())
    assert len(after) == len(before) - 1
    assert (
        back.summary()["detectionClassificationCounts"]
        == (load(project).summary()["detectionClassificationCounts"])
    )
    for name in ("qupath.lib.plugins.workflow.Workflow", "java.util.HashMap", "java.util.Locale"):
        assert [_bytes(node) for node in objects_of(back, name)] == [
            _bytes(node) for node in objects_of(load(project), name)
        ]


def _bytes(node: Content) -> bytes:
    return emit([node])


def test_adding_and_removing_again_gives_the_old_bytes(project: Path) -> None:
    data = load(project)
    old = data.to_bytes()
    annotation = Annotation(SQUARE, PathClass("Never seen"))
    data.add([annotation])
    assert data.to_bytes() != old
    data.remove([annotation.id])
    assert data.to_bytes() == old


def test_tma_cores_stay_the_same_objects_in_grid_and_hierarchy(shared_data: Path) -> None:
    data = load(shared_data / "qupath/written-by-qupath/0.6.0/project", "2")
    data.add([Annotation(SQUARE)])
    assert len(objects_of(data, "qupath.lib.objects.TMACoreObject")) == 6
    assert reread(data).summary()["objectTypeCounts"] == {
        "Root objects": 1,
        "TMA cores": 6,
        "Annotations": 1,
    }


@pytest.mark.parametrize("image_type", IMAGE_TYPES)
def test_a_new_file_is_empty_and_says_what_it_is(image_type: str) -> None:
    data = reread(
        QpData.new(qupath_version="0.5.1", image_type=image_type, server_json='{"uri":"ü"}')
    )
    assert (data.qupath_version, data.image_type) == ("0.5.1", image_type)
    assert data.annotations() == ()
    assert data.summary() == {
        "nObjects": 1,
        "objectTypeCounts": {"Root objects": 1},
        "annotationClassificationCounts": {},
        "detectionClassificationCounts": {},
    }
    header = parse(data.to_bytes()).contents[1]
    assert isinstance(header, JavaString)
    assert json.loads(header.value)["server"] == {"uri": "ü"}


def test_a_new_file_has_the_layout_of_qupaths_own(shared_data: Path) -> None:
    theirs = load(shared_data / "qupath/written-by-qupath/0.6.0/project")
    ours = new(list(theirs.annotations()))
    their_classes, our_classes = (parse(data.to_bytes()).classes for data in (theirs, ours))
    for name, desc in our_classes.items():
        their = their_classes[name]
        assert (desc.uid, desc.flags) == (their.uid, their.flags), name
        assert [(f.code, f.name, f.signature and f.signature.value) for f in desc.fields] == [
            (f.code, f.name, f.signature and f.signature.value) for f in their.fields
        ], name
    kinds = [
        [getattr(node, "desc", node).__class__ for node in parse(data.to_bytes()).contents]
        for data in (theirs, ours)
    ]
    # but for the stains, which are theirs alone
    assert kinds[0][:4] == kinds[1][:4] and kinds[0][5:] == kinds[1][5:]


@pytest.mark.parametrize("wrong", [{"image_type": "BRIGHT"}, {"server_json": "{"}])
def test_a_new_file_refuses_what_qupath_could_not_read(wrong: dict[str, str]) -> None:
    with pytest.raises(QpannotError):
        QpData.new(qupath_version="0.6.0", **wrong)


def test_everything_of_an_annotation_survives() -> None:
    annotations = every_kind()
    data = new(annotations)
    stored = all_as_stored(annotations)
    back = reread(data)
    by_id = {annotation.id: annotation for annotation in back.annotations()}
    assert len(by_id) == len(annotations)
    for before, after in zip(annotations, stored, strict=True):
        assert same(by_id[before.id], after)
        assert same(as_stored(before), after)
        assert by_id[before.id].name == before.name
        assert dict(by_id[before.id].metadata) == dict(before.metadata)
        assert shapely.hausdorff_distance(by_id[before.id].geometry, before.geometry) < (
            11 if before.roi is RoiType.ELLIPSE else 0.01
        )
    assert all(same(*pair) for pair in zip(data.annotations(), back.annotations(), strict=True))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_values_of_all_kinds_read_back_as_stored(draw: st.DataObject) -> None:
    text = st.text(st.characters(exclude_categories=()), max_size=20)
    corners = st.tuples(st.floats(0, 2e5), st.floats(0, 2e5))
    annotations = [
        Annotation(
            shapely.Polygon(draw.draw(st.lists(corners, min_size=3, max_size=12))),
            name=draw.draw(st.none() | text),
            path_class=draw.draw(st.sampled_from([None, TUMOR, STROMA, PathClass("A: B")])),
            locked=draw.draw(st.booleans()),
            metadata=draw.draw(st.dictionaries(text.filter(lambda key: key != "Object ID"), text)),
            measurements=draw.draw(st.dictionaries(text, st.floats())),
        )
        for _ in range(draw.draw(st.integers(1, 4)))
    ]
    # a lone pair of surrogates is a character of its own in Java
    paired = json.loads(json.dumps([annotation.name for annotation in annotations]))
    data = new(annotations)
    back = reread(data).annotations()
    assert back == data.annotations() or all(map(same, back, data.annotations()))
    assert [annotation.name for annotation in back] == paired
    for annotation, stored in zip(back, all_as_stored(annotations), strict=True):
        assert annotation.geometry.equals_exact(stored.geometry, 0)


def test_an_annotation_goes_where_its_parent_is() -> None:
    parent = Annotation(SQUARE)
    data = new([parent])
    child = Annotation(SQUARE, parent_id=parent.id)
    grandchild = Annotation(SQUARE, parent_id=child.id)
    lost = Annotation(SQUARE, parent_id=uuid4())
    last = Annotation(SQUARE, parent_id=parent.id)
    data.add([child, grandchild, lost, last])
    assert [(each.id, each.parent_id) for each in reread(data).annotations()] == [
        (parent.id, None),
        (child.id, parent.id),
        (grandchild.id, child.id),
        (last.id, parent.id),
        (lost.id, None),
    ]


def test_what_lies_in_a_removed_annotation_moves_up_in_its_place() -> None:
    a, b, c, d, e = (uuid4() for _ in range(5))
    parents = {a: None, b: a, c: b, d: a, e: None}
    data = new([Annotation(SQUARE, id=key, parent_id=parent) for key, parent in parents.items()])
    data.remove([a, b])
    after = [(each.id, each.parent_id) for each in reread(data).annotations()]
    assert after == [(c, None), (d, None), (e, None)]
    data.remove([d])
    assert [each.id for each in data.annotations()] == [c, e]


def test_replacing_keeps_the_place_and_what_lies_within() -> None:
    first, parent, last = (Annotation(SQUARE, TUMOR) for _ in range(3))
    child = Annotation(SQUARE, parent_id=parent.id)
    data = new([first, parent, last, child])
    changed = Annotation(
        HOLED,
        STROMA,
        name="changed",
        locked=True,
        color=(1, 2, 3),
        measurements={"m": 2.0},
        metadata={"k": "v"},
        plane=Plane(z=1),
        id=parent.id,
    )
    data.replace(changed)
    back = reread(data)
    assert [each.id for each in back.annotations()] == [first.id, parent.id, child.id, last.id]
    assert same(back.annotations()[1], as_stored(changed))
    assert back.annotations()[2].parent_id == parent.id
    bare = Annotation(SQUARE, id=parent.id)
    back.replace(bare)
    assert same(reread(back).annotations()[1], as_stored(bare))


def test_replacing_writes_only_what_differs() -> None:
    data = new(every_kind())
    target = data.annotations()[0]
    regions = [_bytes(each) for each in objects_of(data, _RECTANGLE)]
    data.replace(target.with_changes(name="other"))
    assert [_bytes(each) for each in objects_of(data, _RECTANGLE)] == regions
    data.replace(target.with_changes(geometry=shapely.box(0, 0, 5, 5)))
    assert [_bytes(each) for each in objects_of(data, _RECTANGLE)] != regions


_RECTANGLE = "qupath.lib.roi.RectangleROI$SerializationProxy"


def test_objects_of_one_class_share_it() -> None:
    other_color = PathClass("Tumor", (0, 0, 255))
    data = new([Annotation(SQUARE, each) for each in (TUMOR, TUMOR, STROMA, other_color)])
    data = reread(data)
    data.add([Annotation(SQUARE, PathClass("Tumor: Positive")), Annotation(SQUARE, STROMA)])
    assert len(objects_of(data, PATH_CLASS)) == 3
    assert len(objects_of(data, BOOLEAN)) == 1
    assert data.annotations()[3].path_class == TUMOR
    # the class is Tumor's, so is its colour
    assert data.annotations()[3].path_class.color == (200, 0, 0)  # type: ignore[union-attr]
    (stored,) = data.all_as_stored([Annotation(SQUARE, other_color)])
    assert stored.path_class is not None and stored.path_class.color == (200, 0, 0)


def test_class_names_are_derived_as_qupath_does() -> None:
    stored = as_stored(Annotation(SQUARE, PathClass(" Tumor:Positive :  1+")))
    assert stored.path_class is not None
    assert stored.path_class.parts == ("Tumor", "Positive", "1+")
    (back,) = reread(new([Annotation(SQUARE, PathClass("Tumor:Positive"))])).annotations()
    assert back.class_name == "Tumor: Positive"


BAD: list[dict[str, Any]] = [
    {"geometry": shapely.Polygon()},
    {"geometry": shapely.transform(SQUARE, lambda xy: xy + math.inf)},
    {"plane": Plane(z=-1)},
    {"plane": Plane(c=-2)},
    {"color": (0, 0, 256)},
    {"path_class": PathClass("x", (-1, 0, 0))},
    {"path_class": PathClass(":")},
    {"path_class": PathClass("one\ntwo")},
    {"path_class": PathClass("Tumor: \ud83d")},
    {"metadata": {"k": 1}},
    {"metadata": {"\ude00": "v"}},
    {"metadata": {"k": "cut \ud83d"}},
    {"measurements": {"\ud83d": 1.0}},
    {"name": "the bad one \ud83d"},
    {"geometry": shapely.box(0, 0, 1e39, 1)},
    {"geometry": shapely.box(-1e39, 0, 1, 1).difference(shapely.box(0.1, 0.1, 0.2, 0.2))},
    {"geometry": shapely.Point(math.nan, 1)},
]


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_stored_changes_nothing(bad: dict[str, Any]) -> None:
    good = Annotation(SQUARE)
    data = new([good])
    old = data.to_bytes()
    wrong = Annotation(**{"geometry": SQUARE, "name": "the bad one", **bad})
    for attempt in (
        lambda: data.add([Annotation(SQUARE), wrong]),
        lambda: data.replace(wrong.with_changes(id=good.id)),
        lambda: as_stored(wrong),
    ):
        with pytest.raises(QpannotError, match="the bad one") as caught:
            attempt()
        assert caught.value.hint
    assert data.to_bytes() == old


def test_ids_are_unique_and_known() -> None:
    annotation = Annotation(SQUARE)
    data = new([annotation])
    old = data.to_bytes()
    twice = Annotation(SQUARE)
    with pytest.raises(QpannotError, match="taken"):
        data.add([annotation])
    with pytest.raises(QpannotError, match="taken"):
        data.add([twice, twice])
    with pytest.raises(QpannotError, match="no annotation"):
        data.remove([annotation.id, uuid4()])
    with pytest.raises(QpannotError, match="no annotation"):
        data.replace(twice)
    assert data.to_bytes() == old


@pytest.fixture
def without_ids() -> bytes:
    parent = Annotation(SQUARE, metadata={"k": "v"})
    data = new([parent, Annotation(HOLED, parent_id=parent.id, measurements={"m": 1})])
    data.add([Annotation(SQUARE, name="last")])
    return _without_ids(data)


def _without_ids(data: QpData) -> bytes:
    """Return a file as QuPath before 0.4 wrote it."""
    contents = parse(data.to_bytes()).contents
    pending: list[Any] = list(contents)
    while pending:
        node = pending.pop()
        if isinstance(node, JavaObject):
            for piece in node.data:
                pending += [*piece.references, *(piece.contents or ())]
            if node.desc.name in (
                "qupath.lib.objects.PathAnnotationObject",
                "qupath.lib.objects.PathDetectionObject",
            ):
                metadata = node.contents[2]
                assert isinstance(metadata, JavaObject) and metadata.desc.name == METADATA_MAP
                del node.contents[2]
    return emit(contents)


def test_objects_without_ids_get_the_same_ones_each_time(without_ids: bytes) -> None:
    one, other = (QpData.parse(without_ids, source="old.qpdata") for _ in range(2))
    assert [each.id for each in one.annotations()] == [each.id for each in other.annotations()]
    assert len({each.id for each in one.annotations()}) == 3
    assert one.annotations()[1].parent_id == one.annotations()[0].id
    assert one.annotations()[1].measurements == {"m": 1}
    assert one.to_bytes() == without_ids


def test_an_edit_keeps_the_ids_that_were_made(without_ids: bytes) -> None:
    data = QpData.parse(without_ids, source="old.qpdata")
    first, second, last = (each.id for each in data.annotations())
    data.remove([first])
    assert [each.id for each in reread(data).annotations()] == [second, last]
    data.replace(data.annotations()[0].with_changes(metadata={"new": "yes"}, measurements={}))
    changed = reread(data).annotations()[0]
    assert (changed.id, dict(changed.metadata), dict(changed.measurements)) == (
        second,
        {"new": "yes"},
        {},
    )


def test_a_removal_keeps_the_ids_that_were_made_of_detections() -> None:
    first, around = Annotation(SQUARE, name="first"), Annotation(HOLED, name="around")
    inside = [Detection(SQUARE, name=f"inside {i}", parent_id=around.id) for i in range(3)]
    beside = [Detection(SQUARE, name=f"beside {i}") for i in range(3)]
    left = Annotation(SQUARE, name="left")
    deeper = [Detection(SQUARE, name=f"deeper {i}", parent_id=left.id) for i in range(2)]
    old = _without_ids(new([first, around, *inside, *beside, left, *deeper]))
    data = QpData.parse(old, source="old.qpdata")
    before = {each.name: each.id for each in QpData.parse(old, source="old.qpdata").objects()}
    data.remove([before["first"], before["around"]])
    after = {each.name: each.id for each in reread(data).objects()}
    assert after == {key: before[key] for key in before if key not in ("first", "around")}
    data.add([Detection(SQUARE, name="new")])
    assert {each.name: each.id for each in reread(data).objects()}.items() >= after.items()


def test_copies_that_share_an_id_can_be_told_apart() -> None:
    one, other = Annotation(SQUARE, name="one"), Annotation(HOLED, name="other")
    copied = new([one, other]).to_bytes().replace(str(other.id).encode(), str(one.id).encode())
    data = QpData.parse(copied, source="copies.qpdata")
    first, second = data.annotations()
    assert first.id == one.id != second.id
    data.remove([first.id])
    assert [each.id for each in reread(data).annotations()] == [second.id]


def test_ten_thousand_levels_of_nesting_are_no_trouble() -> None:
    annotations: list[Annotation] = []
    for _ in range(10_000):
        parent = annotations[-1].id if annotations else None
        annotations.append(Annotation(SQUARE, parent_id=parent))
    data = reread(new(annotations))
    assert [each.parent_id for each in data.annotations()] == [
        each.parent_id for each in annotations
    ]
    data.remove([each.id for each in annotations[::2]])
    assert len(reread(data).annotations()) == 5_000


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"\xac\xed\0\5", emit([b"\0\5hello"]), emit([b"\0\x15Data file version 3", None])],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        QpData.parse(data, source="other.bin")
    assert caught.value.offset is not None and "other.bin" in str(caught.value)


def test_a_file_cut_short_anywhere_is_refused() -> None:
    data = new(every_kind()).to_bytes()
    for length in range(0, len(data), 7):
        with pytest.raises(FormatError) as caught:
            QpData.parse(data[:length], source="short.qpdata")
        assert caught.value.offset is not None and caught.value.offset <= length


SAMPLE = new(every_kind()).to_bytes()


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(4, len(SAMPLE) - 1), st.binary(max_size=3), st.integers(0, 3)),
        min_size=1,
        max_size=5,
    )
)
def test_damaged_files_are_read_or_refused_and_nothing_else(
    damages: list[tuple[int, bytes, int]],
) -> None:
    damaged = bytearray(SAMPLE)
    for offset, replacement, length in damages:
        damaged[offset : offset + length] = replacement
    try:
        data = QpData.parse(bytes(damaged), source="damaged.qpdata")
        assert data.to_bytes() == damaged
        annotations = data.annotations()
        data.summary()
        if annotations:
            data.remove([annotations[0].id])
        data.add([Annotation(SQUARE, TUMOR, metadata={"a": "b"})])
    except FormatError:
        return
    assert len(reread(data).annotations()) == max(len(annotations), 1)


def test_ten_thousand_annotations_come_back_in_their_order() -> None:
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    ring = 30 * np.column_stack([np.cos(angles), np.sin(angles)])
    annotations = [
        Annotation(shapely.Polygon(ring + np.array([i % 100, i // 100]) * 70), TUMOR)
        for i in range(10_000)
    ]
    back = reread(new(annotations)).annotations()
    assert [each.id for each in back] == [each.id for each in annotations]
