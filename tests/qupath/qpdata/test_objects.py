"""Objects of all kinds: read, added, and carried through edits of others."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import shapely
from shapely.geometry import shape

from qpannot.errors import FormatError, QpannotError
from qpannot.linking import describe_slide
from qpannot.qupath import open_project
from qpannot.qupath.annotation import (
    Annotation,
    Detection,
    ObjectKind,
    PathClass,
    PathObject,
    RoiType,
    TMACore,
    differences,
)
from qpannot.qupath.qpdata.datafile import QpData, as_stored
from qpannot.qupath.qpdata.javaclasses import OBJECTS, ROIS
from qpannot.qupath.qpdata.javaemit import emit
from qpannot.qupath.qpdata.javastream import parse
from qpannot.qupath.qpdata.javatypes import ClassDesc, Content, JavaArray, JavaObject

SQUARE = shapely.box(10, 10, 60, 60)
HOLED = shapely.Polygon(SQUARE.exterior, [shapely.box(20, 20, 30, 30).exterior])
TUMOR = PathClass("Tumor", (200, 0, 0))
COSCIA = "qupath/coscia-0.6.0/demo_Qupath_project"
SAMPLES = "qupath/written-by-qupath"


def load(file: Path) -> QpData:
    return QpData.parse(file.read_bytes(), source=file)


def reread(data: QpData) -> QpData:
    return QpData.parse(data.to_bytes(), source="reread.qpdata")


def detections() -> list[Detection]:
    cell = Detection(
        SQUARE,
        TUMOR,
        name="cell",
        measurements={"Cell: Area": 1 / 3, "nan": math.nan, "µ": math.inf},
        metadata={"k": "v"},
        kind=ObjectKind.CELL,
        nucleus=HOLED,
    )
    return [
        cell,
        cell.with_changes(id=UUID(int=1), nucleus=shapely.box(1, 1, 2, 2), measurements={}),
        cell.with_changes(id=UUID(int=2), nucleus=None, geometry=HOLED),
        Detection(shapely.Point(5, 6), kind=ObjectKind.DETECTION, measurements={"Cell: Area": 2}),
        Detection(SQUARE, TUMOR, roi=RoiType.RECTANGLE, kind=ObjectKind.TILE, parent_id=cell.id),
    ]


def same(one: PathObject, other: PathObject) -> bool:
    return (
        not differences(one, other)
        and (one.kind, one.roi, one.parent_id) == (other.kind, other.roi, other.parent_id)
        and getattr(one, "nucleus", None) == getattr(other, "nucleus", None)
    )


def features(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for each in node:
            yield from features(each)
    elif isinstance(node, dict):
        if node.get("type") == "Feature":
            yield node
        for key in ("features", "root", "childObjects", "properties"):
            yield from features(node.get(key))


@pytest.mark.parametrize(
    ("project", "image", "export"),
    [
        (COSCIA, "1", f"{COSCIA}/Single_cells.geojson"),
        (f"{SAMPLES}/0.6.0/project", "1", f"{SAMPLES}/0.6.0/project_hierarchy_image1.geojson"),
        (f"{SAMPLES}/0.6.0/project", "2", f"{SAMPLES}/0.6.0/project_hierarchy_image2_tma.json"),
        (f"{SAMPLES}/0.7.0/project", "1", f"{SAMPLES}/0.7.0/project_hierarchy_image1.geojson"),
        (f"{SAMPLES}/0.7.0/project", "2", f"{SAMPLES}/0.7.0/project_hierarchy_image2_tma.json"),
    ],
)
def test_objects_are_those_of_qupaths_own_export(
    project: str, image: str, export: str, shared_data: Path
) -> None:
    data = load(shared_data / project / "data" / image / "data.qpdata")
    exported = json.loads((shared_data / export).read_text("utf-8"))
    expected = {
        UUID(feature["id"]): feature
        for feature in features(exported)
        if feature["properties"]["objectType"] != "root"
    }
    ours = {each.id: each for each in data.objects()}
    assert ours.keys() == expected.keys()
    for key, each in ours.items():
        properties = expected[key]["properties"]
        assert each.kind == properties["objectType"]
        assert each.name == properties.get("name")
        classified = properties.get("classification") or {}
        names = classified.get("names") or [classified.get("name")]
        assert each.class_name == (": ".join(names) if names != [None] else None)
        # the export has two decimals
        assert shapely.hausdorff_distance(each.geometry, shape(expected[key]["geometry"])) < 0.011
        numbers = {name: float(value) for name, value in properties.get("measurements", {}).items()}
        assert dict(each.measurements) == pytest.approx(numbers, rel=1e-6, nan_ok=True)
        nucleus = getattr(each, "nucleus", None)
        assert (nucleus is not None) == ("nucleusGeometry" in expected[key])
        if nucleus is not None:
            theirs = shape(expected[key]["nucleusGeometry"])
            assert shapely.hausdorff_distance(nucleus, theirs) < 0.011
        if isinstance(each, TMACore):
            assert each.missing == properties.get("isMissing", False)


def test_parents_come_before_their_children(shared_data: Path) -> None:
    for file in sorted((shared_data / "qupath").rglob("data.qpdata")):
        seen: set[UUID | None] = {None}
        for each in load(file).objects():
            assert each.parent_id in seen
            seen.add(each.id)


def test_annotations_are_the_same_among_all_objects(shared_data: Path) -> None:
    for file in sorted((shared_data / "qupath").rglob("data.qpdata")):
        data = load(file)
        annotations = data.annotations()
        found = [each for each in data.objects() if isinstance(each, Annotation)]
        assert all(map(same, annotations, found)) and len(annotations) == len(found)
        assert data.to_bytes() == file.read_bytes()


def test_everything_of_a_detection_survives() -> None:
    given = detections()
    data = QpData.new(qupath_version="0.6.0")
    promised = data.add(given)
    back = reread(data)
    assert back.digests(only_annotations=False) == promised
    assert back.annotations() == ()
    assert Counter(each.kind for each in back.objects()) == {"cell": 3, "tile": 1, "detection": 1}
    by_id = {each.id: each for each in back.objects()}
    for wanted in given:
        found = by_id[wanted.id]
        assert isinstance(found, Detection)
        assert same(found, as_stored(wanted))
        assert (found.kind, found.name, found.class_name) == (
            wanted.kind,
            wanted.name,
            wanted.class_name,
        )
        assert repr(list(found.measurements.items())) == repr(
            [(name, float(value)) for name, value in wanted.measurements.items()]
        )
        assert dict(found.metadata) == dict(wanted.metadata)
        assert found.geometry.equals(wanted.geometry)
        if wanted.nucleus is None:
            assert found.nucleus is None
        else:
            assert found.nucleus is not None and found.nucleus.equals(wanted.nucleus)


def test_thousands_of_cells_share_the_names_of_their_measurements() -> None:
    measurements = {f"Nucleus: channel {i} mean": float(i) for i in range(50)}
    one, many = (QpData.new(qupath_version="0.6.0") for _ in range(2))
    cell = Detection(SQUARE, measurements=measurements, kind=ObjectKind.CELL)
    one.add([cell])
    many.add([cell, *(cell.with_changes(id=UUID(int=i)) for i in range(100))])
    added = (len(many.to_bytes()) - len(one.to_bytes())) / 100
    assert added < 50 * 8 + 300
    assert dict(reread(many).objects()[-1].measurements) == measurements


def test_what_is_no_cell_has_no_nucleus_and_a_core_needs_a_grid() -> None:
    data = QpData.new(qupath_version="0.6.0")
    old = data.to_bytes()
    for wrong in (
        Detection(SQUARE, kind=ObjectKind.TILE, nucleus=HOLED, name="the bad one"),
        Detection(SQUARE, kind=ObjectKind.CELL, nucleus=shapely.Polygon(), name="the bad one"),
        TMACore(SQUARE, name="the bad one"),
    ):
        with pytest.raises(QpannotError, match="the bad one"):
            data.add([Detection(SQUARE), wrong])
    assert data.to_bytes() == old


def test_a_detection_cannot_take_the_id_of_another_object(shared_data: Path) -> None:
    data = load(shared_data / SAMPLES / "0.6.0/project/data/1/data.qpdata")
    taken = [each for each in data.objects() if isinstance(each, Detection)]
    assert taken
    for each in taken:
        with pytest.raises(QpannotError, match="taken"):
            data.add([Detection(SQUARE, id=each.id)])


def test_an_annotation_cannot_take_the_id_of_a_detection() -> None:
    around = Annotation(HOLED)
    inside = Detection(SQUARE, parent_id=around.id)
    data = QpData.new(qupath_version="0.6.0")
    data.add([around, inside, Detection(SQUARE)])
    old = data.to_bytes()
    for edited in (data, QpData.parse(old, source="again.qpdata")):
        for each in edited.objects():
            with pytest.raises(QpannotError, match=f"ID {each.id} is taken"):
                edited.add([Annotation(SQUARE), Annotation(SQUARE, id=each.id)])
        assert edited.to_bytes() == old


def test_detections_go_into_the_project_once(
    tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    holder = Annotation(SQUARE)
    cells = [each.with_changes(parent_id=holder.id) for each in detections()]
    with open_project(tmp_path / "study", "x", backend="builtin") as project:
        (image,) = project.add_images([describe_slide(make_slide(tmp_path / "one.svs"))])
        image.write_annotations(add=[holder, *cells])
        returned = image.annotations()
        assert [each.id for each in returned] == [holder.id]
        before = image.fingerprint()
        image.write_annotations(add=cells)
        assert image.fingerprint() == before
        assert Counter(each.kind for each in image.objects()) == {
            "annotation": 1, "cell": 3, "tile": 1, "detection": 1
        }  # fmt: skip
        assert {each.parent_id for each in image.objects()} == {None, holder.id}
        image.write_annotations(remove=returned)
        assert len(image.objects()) == 5


def sample_files(shared_data: Path) -> list[Path]:
    files = sorted((shared_data / "qupath").rglob("data.qpdata"))
    assert files
    return files


def everything_but_annotations(data: QpData) -> tuple[list[bytes], Counter[bytes]]:
    """The top-level parts but the hierarchy, and every object that is no annotation, as bytes."""
    contents = parse(data.to_bytes()).contents
    parts: list[bytes] = []
    objects: Counter[bytes] = Counter()
    pending: list[Content] = []
    for node in contents:
        if isinstance(node, JavaObject) and node.desc.name.endswith("PathObjectHierarchy"):
            pending.append(node.expect("rootObject", JavaObject))
            grid = node.get("tmaGrid")
            parts.append(emit([grid] if isinstance(grid, JavaObject) else [None]))
        else:
            parts.append(emit([node]))
    while pending:
        node = pending.pop()
        if not isinstance(node, JavaObject):
            continue
        if node.desc.name.startswith(OBJECTS) and node.desc.name.endswith("Object"):
            children = [each for each in node.contents if _is_path_object(each)]
            pending += children
            if node.desc.name.endswith(("RootObject", "AnnotationObject")):
                continue
            assert not children
            objects[emit([node])] += 1
    return parts, objects


def _is_path_object(node: Content) -> bool:
    return (
        isinstance(node, JavaObject)
        and node.desc.name.startswith(OBJECTS + "Path")
        and (node.desc.name.endswith("Object"))
    )


@pytest.mark.parametrize("edit", ["add", "rename", "reshape", "remove", "add cell"])
def test_all_that_is_no_annotation_is_carried_through_edits_untouched(
    edit: str, shared_data: Path
) -> None:
    for file in sample_files(shared_data):
        data = load(file)
        before = everything_but_annotations(data)
        assert sum(before[1].values()) >= 3 or "TMA cores" in data.summary()["objectTypeCounts"]
        annotations = data.annotations()
        added: list[Detection] = []
        if edit == "add":
            data.add([Annotation(HOLED, TUMOR, metadata={"a": "b"}, measurements={"m": 1})])
        elif edit == "add cell":
            data.add(added := [Detection(SQUARE, kind=ObjectKind.CELL, nucleus=HOLED)])
        for annotation in annotations:
            if edit == "rename":
                data.replace(annotation.with_changes(name="renamed", locked=True))
            elif edit == "reshape":
                data.replace(annotation.with_changes(geometry=HOLED, path_class=TUMOR))
        if edit == "remove":
            data.remove([annotation.id for annotation in annotations])
        after = everything_but_annotations(reread(data))
        assert after[0] == before[0]
        assert sum((after[1] - before[1]).values()) == len(added)
        assert not before[1] - after[1]


def _break_regions(data: bytes) -> bytes:
    """Give the annotations named so no region, one with a NaN, and one of an unknown kind."""
    contents = parse(data).contents
    pending: list[Any] = list(contents)
    while pending:
        node = pending.pop()
        if not isinstance(node, JavaObject):
            continue
        for piece in node.data:
            pending += [*piece.references, *(piece.contents or ())]
        if node.desc.name != OBJECTS + "PathAnnotationObject":
            continue
        name, roi = getattr(node.contents[0], "value", None), node.contents[-2]
        assert isinstance(roi, JavaObject)
        if name == "without":
            node.contents[-2] = None
        elif name == "nan":
            x = roi.get("x")
            assert isinstance(x, JavaArray) and isinstance(x.values, bytes)
            x.values = struct.pack(">f", math.nan) + x.values[4:]
        elif name == "unknown":
            desc = roi.desc
            star = ClassDesc(ROIS + "StarROI$SerializationProxy", 1, desc.flags, desc.fields)
            node.contents[-2] = JavaObject(star, roi.data)
    return emit(contents)


@pytest.fixture
def with_broken_regions() -> QpData:
    data = QpData.new(qupath_version="0.6.0")
    names = ["good", "without", "nan", "unknown", "also good"]
    data.add([Annotation(SQUARE, TUMOR, name=name) for name in names])
    return QpData.parse(_break_regions(data.to_bytes()), source="broken.qpdata")


def test_annotations_with_impossible_regions_harm_no_others(with_broken_regions: QpData) -> None:
    empty = {each.name: each.geometry.is_empty for each in with_broken_regions.annotations()}
    assert empty == {
        "good": False, "without": True, "nan": True, "unknown": True, "also good": False
    }  # fmt: skip


def test_impossible_regions_keep_their_bytes(with_broken_regions: QpData) -> None:
    data = with_broken_regions
    broken = {each.name: each for each in data.annotations() if each.geometry.is_empty}
    for each in data.annotations():
        promised = data.replace(each.with_changes(path_class=None, name=f"{each.name}!"))
        assert reread(data).digests(only_annotations=True)[each.id.int] == promised
    data.add([Annotation(HOLED)])
    back = reread(data)
    after = {each.name: each for each in back.annotations()}
    assert set(after) == {"good!", "without!", "nan!", "unknown!", "also good!", None}
    assert all(after[f"{name}!"].geometry.is_empty for name in broken)
    stream = data.to_bytes()
    assert struct.pack(">f", math.nan) in stream and b"StarROI" in stream


@pytest.mark.parametrize("name", ["nan", "unknown"])
def test_edits_that_would_lose_a_region_we_cannot_read_are_refused(
    name: str, with_broken_regions: QpData
) -> None:
    data = with_broken_regions
    old = data.to_bytes()
    (broken,) = (each for each in data.annotations() if each.name == name)
    for attempt in (
        lambda: data.replace(broken.with_changes(geometry=SQUARE)),
        lambda: data.remove([broken.id]),
    ):
        with pytest.raises(QpannotError, match="cannot be read") as caught:
            attempt()
        assert caught.value.hint
    assert data.to_bytes() == old


def test_an_annotation_without_a_region_can_be_given_one_or_removed(
    with_broken_regions: QpData,
) -> None:
    data = with_broken_regions
    (without,) = (each for each in data.annotations() if each.name == "without")
    data.replace(without.with_changes(geometry=SQUARE))
    (mended,) = (each for each in reread(data).annotations() if each.name == "without")
    assert mended.geometry.equals(SQUARE)
    data.remove([without.id])
    assert "without" not in {each.name for each in reread(data).annotations()}


def test_objects_of_unknown_kinds_are_left_out_and_stay_in_the_file() -> None:
    data = QpData.new(qupath_version="0.6.0")
    data.add([Annotation(SQUARE), *(Detection(SQUARE, name=f"{i}") for i in range(3))])
    old, new = b"PathDetectionObject", b"PathFutureProjObject"[:19]
    stream = data.to_bytes().replace(old, new)
    future = QpData.parse(stream, source="future.qpdata")
    assert [each.kind for each in future.objects()] == ["annotation"]
    assert future.to_bytes() == stream
    future.add([Annotation(HOLED)])
    assert len(reread(future).annotations()) == 2
    assert reread(future).summary()["nObjects"] == 6


@pytest.mark.parametrize(
    "text",
    ["😀" * 3, "\0", "a\0b", "ü" * 40_000, "x" * 65_535, "x" * 65_536, "", " "],
    ids=[
        "emoji",
        "nul",
        "nul within",
        "80 KB",
        "65,535",
        "65,536",
        "empty",
        "blank",
    ],
)
def test_unusual_texts_survive(text: str) -> None:
    annotations = [
        Annotation(SQUARE, name=text, metadata={f"k{text}": text, "id": str(i)}) for i in range(4)
    ]
    data = QpData.new(qupath_version="0.6.0")
    data.add(annotations)
    back = reread(data)
    assert [each.name for each in back.annotations()] == [text] * 4
    assert [dict(each.metadata) for each in back.annotations()] == [
        dict(each.metadata) for each in annotations
    ]
    assert back.is_same(data)
    back.add([Annotation(HOLED, name=text)])
    assert len(reread(back).annotations()) == 5


def test_half_a_character_in_a_file_is_kept_by_edits_of_others() -> None:
    data = QpData.new(qupath_version="0.6.0")
    data.add([Annotation(SQUARE, name="???", metadata={"k": "v"}) for _ in range(3)])
    stream = data.to_bytes().replace(b"???", "\ud83d".encode("utf-8", "surrogatepass"))
    cut = QpData.parse(stream, source="cut.qpdata")
    cut.add([Annotation(HOLED, name="ours")])
    cut.remove([cut.annotations()[0].id])
    assert [each.name for each in reread(cut).annotations()] == ["\ud83d", "\ud83d", "ours"]


def test_a_large_file_comes_out_byte_for_byte_when_read_and_edited_back() -> None:
    outline = shapely.Point(500, 500).buffer(400, quad_segs=4_000)
    data = QpData.new(qupath_version="0.6.0")
    data.add([Annotation(outline, TUMOR, name=f"{i}") for i in range(280)])
    stream = data.to_bytes()
    assert len(stream) > 35_000_000
    large = QpData.parse(stream, source="large.qpdata")
    added = Annotation(SQUARE)
    large.add([added])
    large.remove([added.id])
    assert large.to_bytes() == stream


def test_deep_nesting_of_cells_and_annotations_needs_no_recursion() -> None:
    chain: list[PathObject] = []
    for i in range(10_000):
        parent = chain[-1].id if chain else None
        chain.append(
            Detection(SQUARE, id=UUID(int=i + 1), parent_id=parent)
            if i % 2
            else Annotation(SQUARE, id=UUID(int=i + 1), parent_id=parent)
        )
    data = QpData.new(qupath_version="0.6.0")
    data.add(chain)
    back = reread(data)
    assert [each.parent_id for each in back.objects()] == [each.parent_id for each in chain]
    assert back.is_same(data)


def test_a_broken_geometry_is_an_error_that_says_where() -> None:
    data = QpData.new(qupath_version="0.6.0")
    data.add([Annotation(HOLED)])
    stream = data.to_bytes()
    wkb = shapely.to_wkb(HOLED, byte_order=0)
    place = stream.index(wkb)
    broken = stream[:place] + b"\0\0\0\0\x63" + stream[place + 5 :]
    with pytest.raises(FormatError, match="unknown kind 99") as caught:
        QpData.parse(broken, source="broken.qpdata").annotations()
    assert caught.value.offset is not None
