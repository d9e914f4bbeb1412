from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from qpannot.errors import FormatError, ProjectError
from qpannot.qupath import Annotation, Detection, ObjectKind, PathObject, Plane, TMACore
from qpannot.qupath.annotation import RoiType
from qpannot.qupath.geojson.reading import Geojson, read_geojson
from qpannot.qupath.geojson.validity import Fault

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}
ID = "272da60f-ae0b-47b4-b767-96171fdb66b2"


def read(content: Any) -> Geojson:
    return read_geojson(json.dumps(content).encode())


def feature(geometry: Any = SQUARE, *, id: Any = None, **properties: Any) -> dict[str, Any]:
    made = {"type": "Feature", "geometry": geometry, "properties": properties}
    return made if id is None else {**made, "id": id}


def only(content: Any) -> PathObject:
    result = read(content)
    assert not result.left_out and len(result.objects) == 1
    return result.objects[0]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature()]},
        feature(),
        [feature()],
        [[feature()], []],
        [{"type": "FeatureCollection", "features": [feature()]}],
        SQUARE,
        {
            "root": {
                "type": "Feature",
                "geometry": {},
                "properties": {"objectType": "root", "childObjects": [feature()]},
            }
        },
        {"type": "Feature", "geometry": SQUARE},
        {"type": "Feature", "geometry": SQUARE, "properties": None},
    ],
)
def test_every_container_holds_the_same_annotation(content: Any) -> None:
    (annotation,) = read(content).objects
    assert isinstance(annotation, Annotation)
    assert annotation.geometry.area == 100 and annotation.roi is RoiType.RECTANGLE
    assert annotation.path_class is None and annotation.parent_id is None


def test_compressed_files_are_told_by_their_content(tmp_path: Path) -> None:
    data = json.dumps(feature(id=ID)).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("readme.txt", "none of these")
        writer.writestr("case.geojson", data)
    for packed in (gzip.compress(data), archive.getvalue(), b"\xef\xbb\xbf" + data, data):
        path = tmp_path / "objects.geojson"
        path.write_bytes(packed)
        assert [str(each.id) for each in read_geojson(path).objects] == [ID]


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        ({"objectType": "detection"}, ObjectKind.DETECTION),
        ({"object_type": "cell"}, ObjectKind.CELL),
        ({"type": "tile"}, ObjectKind.TILE),
        ({"objectType": "PathCellObject"}, ObjectKind.CELL),
        ({"objectType": "tma_core"}, ObjectKind.TMA_CORE),
        ({"objectType": "cell", "type": "tile"}, ObjectKind.CELL),
        ({}, ObjectKind.ANNOTATION),
    ],
)
def test_every_name_of_a_type_is_known(properties: Any, kind: ObjectKind) -> None:
    assert only(feature(**properties)).kind is kind


def test_qupath_0_2_kept_the_type_in_the_id() -> None:
    detection = only(feature(id="PathDetectionObject"))
    assert detection.kind is ObjectKind.DETECTION


def test_an_unknown_type_becomes_an_annotation_as_in_qupath_and_is_told() -> None:
    result = read(feature(objectType="blob"))
    assert result.objects[0].kind is ObjectKind.ANNOTATION
    assert "'blob'" in result.remarks[0].text


@pytest.mark.parametrize(
    ("classification", "name", "color"),
    [
        ("Tumor", "Tumor", None),
        ("Tumor: Positive", "Tumor: Positive", None),
        ("Tumor:Positive", "Tumor: Positive", None),
        ({"name": "Tumor", "color": [200, 0, 1]}, "Tumor", (200, 0, 1)),
        ({"name": "Tumor"}, "Tumor", None),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3, 128]}, "Tumor: Positive", (1, 2, 3)),
        ({"name": "Tumor", "color": -3670016}, "Tumor", (200, 0, 0)),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor", (200, 0, 0)),
        (
            {"name": "Positive", "colorRGB": -3670016, "parentClass": {"name": "Tumor"}},
            "Tumor: Positive",
            (200, 0, 0),
        ),
        ({}, None, None),
        (None, None, None),
        (" ", None, None),
    ],
)
def test_every_spelling_of_a_class_is_known(classification: Any, name: Any, color: Any) -> None:
    found = only(feature(classification=classification)).path_class
    assert (found and found.name) == name
    assert (found and found.color) == color


def test_all_values_of_an_object_are_read() -> None:
    annotation = only(
        feature(
            {**SQUARE, "plane": {"c": 1, "z": 2, "t": 3}},
            id=ID,
            name="gland ä",
            color=[1, 2, 3],
            isLocked=True,
            measurements={"a": 1, "b": "NaN", "c": "Infinity", "d": "-inf", "e": None, "f": "2.5"},
            metadata={"k": "v", "n": 3, "b": True, "nested": {}, "none": None},
        )
    )
    assert annotation.id == UUID(ID)
    assert (annotation.name, annotation.color, annotation.locked) == ("gland ä", (1, 2, 3), True)
    assert annotation.plane == Plane(1, 2, 3)
    assert (
        str(dict(annotation.measurements)) == "{'a': 1.0, 'b': nan, 'c': inf, 'd': -inf, 'f': 2.5}"
    )
    assert annotation.metadata == {"k": "v", "n": "3", "b": "true"}


def test_old_measurement_lists_and_bare_nan_are_read() -> None:
    text = json.dumps(feature(measurements=[{"name": "a", "value": 0}])).replace("0}]", "NaN}]")
    (annotation,) = read_geojson(text.encode()).objects
    assert str(annotation.measurements) == "{'a': nan}"


def test_an_ellipse_is_that_of_its_bounds() -> None:
    ellipse = only(feature({**SQUARE, "isEllipse": True}))
    assert ellipse.roi is RoiType.ELLIPSE
    assert list(ellipse.geometry.bounds) == [0, 0, 10, 10]
    assert ellipse.geometry.area == pytest.approx(78.5, abs=0.1)


def test_a_cell_has_its_nucleus_and_loses_one_without_extent() -> None:
    inner = {"type": "Polygon", "coordinates": [[[2, 2], [4, 2], [4, 4], [2, 2]]]}
    cell = only({**feature(objectType="cell"), "nucleusGeometry": inner})
    assert isinstance(cell, Detection) and cell.nucleus is not None and cell.nucleus.area == 2
    flat = {"type": "Polygon", "coordinates": [[[2, 2], [4, 2], [2, 2]]]}
    result = read({**feature(objectType="cell"), "nucleusGeometry": flat})
    (bare,) = result.objects
    assert isinstance(bare, Detection) and bare.nucleus is None
    assert Fault.NUCLEUS in result.repairs[0].repair.faults


def test_a_tma_core_is_the_ellipse_of_its_bounds() -> None:
    core = only(feature(objectType="tmaCore", isMissing=True, name="A-1"))
    assert isinstance(core, TMACore) and core.missing and core.roi is RoiType.ELLIPSE


def test_objects_within_objects_know_their_parents() -> None:
    grandchild = feature(name="c")
    wrong = feature({"type": "Nothing"}, childObjects=[grandchild])
    child = feature(name="b", childObjects=[])
    result = read(feature(name="a", id=ID, childObjects=[child, wrong]))
    assert [each.name for each in result.objects] == ["a", "b", "c"]
    assert [each.parent_id for each in result.objects] == [None, UUID(ID), UUID(ID)]
    assert result.left_out[0].where == "childObjects[1]"


def test_nesting_as_deep_as_qupath_reads_it_needs_no_deep_stack() -> None:
    content = feature(name="innermost")
    for _ in range(84):  # QuPath's JSON reader stops at 255 brackets
        content = feature(childObjects=[content])
    objects = read(content).objects
    assert len(objects) == 85 and objects[-1].name == "innermost"
    assert len({each.id for each in objects}) == 85


def test_objects_without_an_id_get_the_same_one_each_time() -> None:
    contents = [feature(name="a"), feature(name="a"), feature(id=17), feature(id="cell-1")]
    one, other = (read(contents).objects for _ in range(2))
    assert [each.id for each in one] == [each.id for each in other]
    assert len({each.id for each in one}) == 4
    assert read(contents[::-1]).objects[0].id in {each.id for each in one}


def test_an_id_used_twice_is_told_and_replaced() -> None:
    result = read([feature(id=ID, name="a"), feature(id=ID, name="b")])
    assert str(result.objects[0].id) == ID and str(result.objects[1].id) != ID
    assert result.remarks[0].where == "[1]" and "[0]" in result.remarks[0].text


@pytest.mark.parametrize(
    ("geometry", "faults", "area"),
    [
        ([[0, 0], [10, 0], [10, 10], [0, 10]], [Fault.OPEN], 100),
        ([[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]], [Fault.CROSSING], 50),
        ([[0, 0], [10, 0], [10, 10], [0, 10], [None, 4], [0, 0]], [Fault.VERTICES], 100),
        ([[0, 0, 7], [10, 0, 7], [10, 10, 7], [0, 10, 7], [0, 0, 7]], [], 100),
        ([[0, 0, 7], [10, 0], [10, 10, 7], [0, 10, 7], [0, 0]], [], 100),
    ],
)
def test_broken_rings_are_repaired_and_told(geometry: Any, faults: Any, area: float) -> None:
    result = read(feature({"type": "Polygon", "coordinates": [geometry]}, name="mine"))
    assert result.objects[0].geometry.is_valid and result.objects[0].geometry.area == area
    assert [list(each.repair.faults) for each in result.repairs] == ([faults] if faults else [])
    if faults:
        told = result.repairs[0]
        assert (told.where, told.label) == ("the feature", "mine")
        assert told.repair.area_after_px2 == area


def test_a_collection_of_geometries_becomes_its_areas() -> None:
    collection = {
        "type": "GeometryCollection",
        "geometries": [{"type": "Point", "coordinates": [1, 1]}, SQUARE],
    }
    for content in (feature(collection), collection):
        result = read(content)
        assert result.objects[0].geometry.area == 100
        assert result.repairs[0].repair.faults == (Fault.MIXED,)


@pytest.mark.parametrize(
    "wrong",
    [
        feature(None),
        feature({}),
        feature({"type": "Circle", "coordinates": [1, 2]}),
        feature({"type": "Polygon"}),
        feature({"type": "Polygon", "coordinates": [[1, 2], [3, 4]]}),
        feature({"type": "Polygon", "coordinates": [[["a", "b"]]]}),
        feature({"type": "Polygon", "coordinates": [[[10**400, 1], [0, 0], [1, 1]]]}),
        feature({"type": "Polygon", "coordinates": []}),
        feature({"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [1, 1]]]}),
        feature({"type": "Point", "coordinates": [None, 3]}),
        feature({"type": "Point", "coordinates": []}),
        feature({"type": "LineString", "coordinates": [[1, 1]]}),
        feature({"type": "GeometryCollection", "geometries": 3}),
        feature({**SQUARE, "plane": {"z": -1}}),
        feature(classification=5),
        feature(classification={"color": [1, 2, 3]}),
        feature(classification={"name": ["x"]}),
        feature(color=[1, 2, 300]),
        feature(color="red"),
        feature(name={}),
        feature(measurements={"a": "many"}),
        feature(measurements=[3]),
        feature(measurements={"a": 10**400}),
        {"type": "Feature", "geometry": SQUARE, "properties": [1]},
        {"type": "Blob"},
        {"type": ["Feature"]},
        feature({"type": ["Polygon"]}),
        "text",
        None,
    ],
)
def test_a_wrong_feature_is_left_out_with_the_reason_and_the_rest_is_read(wrong: Any) -> None:
    result = read({"type": "FeatureCollection", "features": [feature(), wrong, feature(id=ID)]})
    assert [each.geometry.area for each in result.objects] == [100, 100]
    (left_out,) = result.left_out
    assert left_out.where == "features[1]" and left_out.text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b'{"type": "FeatureCollection"}',
        b'{"type": "FeatureCollection", "features": 3}',
        b'{"some": "json"}',
        b"3",
        b"[1, 2]",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" + b"9" * 5000 + b"]",
        gzip.compress(b"[]", mtime=0)[:-9],
        b"\x1f\x8bnonsense",
        b"PK\x03\x04nonsense",
    ],
)
def test_what_is_no_geojson_is_a_format_error_naming_the_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wrong.geojson"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"wrong\.geojson") as caught:
        read_geojson(path)
    assert caught.value.hint


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot be read"):
        read_geojson(tmp_path / "absent.geojson")


def test_an_empty_collection_holds_nothing() -> None:
    assert read({"type": "FeatureCollection", "features": []}).objects == []
    assert read([]).objects == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "coordinates", "geometry", "name", "color", "c", "z", "features"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"type": st.just("Feature")},
        optional={
            "id": JSON,
            "geometry": st.fixed_dictionaries(
                {"type": st.sampled_from(["Polygon", "Point", "MultiLineString", "MultiPolygon"])},
                optional={"coordinates": JSON, "plane": JSON, "isEllipse": JSON},
            ),
            "nucleusGeometry": JSON,
            "properties": JSON
            | st.fixed_dictionaries(
                {},
                optional={
                    key: JSON
                    for key in (
                        *("name", "color", "classification", "measurements", "metadata"),
                        *("isLocked", "objectType", "childObjects"),
                    )
                },
            ),
        },
    )
)
def test_whatever_is_in_a_feature_it_is_read_or_left_out(content: Any) -> None:
    result = read([content, feature(id=ID)])
    assert UUID(ID) in {each.id for each in result.objects}
    assert all(each.geometry.is_valid and not each.geometry.is_empty for each in result.objects)
    assert len(result.objects) + len(result.left_out) >= 2


def test_real_files_of_qupath_0_2_to_0_6_are_read_whole(shared_data: Path) -> None:
    expected = {
        "geojson/dlup/tests/files/qupath05.geojson": {"annotation": 3},
        "geojson/pjl54/example_annotations/TCGA-EJ-5519-01Z-00-DX1.json": {"annotation": 3},
        "qupath/coscia-0.6.0/demo_Qupath_project/Single_cells.geojson": {
            "annotation": 10,
            "cell": 121,
        },
    }
    drawn = shared_data / "geojson/wsidicom/tests/testdata/annotation/qupath_geojson"
    types = {}
    for path in sorted(drawn.glob("*.json")):
        (annotation,) = read_geojson(path).objects
        types[path.stem.removeprefix("qupath-")] = str(annotation.roi)
    assert types == {
        "brush": "Polygon",
        "ellipse": "Polygon",  # QuPath 0.2 did not mark ellipses
        "line": "Line",
        "multipoint": "Points",
        "point": "Points",
        "polygon": "Polygon",
        "polyline": "Polyline",
        "rectangle": "Rectangle",
        "wand": "Polygon",
    }
    for name, kinds in expected.items():
        result = read_geojson(shared_data / name)
        assert Counter(str(each.kind) for each in result.objects) == kinds
        assert not result.repairs and not result.left_out


def test_the_same_polygons_as_in_the_aperio_file_beside_it(shared_data: Path) -> None:
    from xml.etree import ElementTree

    folder = shared_data / "geojson/pjl54/example_annotations"
    ours = read_geojson(folder / "TCGA-EJ-5519-01Z-00-DX1.json").objects
    tree = ElementTree.parse(folder / "TCGA-EJ-5519-01Z-00-DX1.xml")
    theirs = [
        shapely.Polygon(
            [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
        )
        for region in tree.iter("Region")
    ]
    for each in ours:
        overlaps = [
            shapely.intersection(each.geometry, shapely.make_valid(other)).area
            / shapely.union(each.geometry, shapely.make_valid(other)).area
            for other in theirs
        ]
        assert max(overlaps) > 0.99


def test_it_is_told_what_a_file_states_and_of_what_frame() -> None:
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [90, 90], [0, 0]]]}
    stated = {"name": None, "isLocked": False}
    features = [
        {"type": "Feature", "geometry": triangle, "properties": stated},
        {"type": "Feature", "geometry": triangle},
    ]
    crs = {"type": "name", "properties": {"name": "EPSG:4326"}}
    collection = {"type": "FeatureCollection", "features": features}
    read = read_geojson(json.dumps({**collection, "crs": crs}).encode())
    assert [read.stated[each.id] for each in read.objects] == [{"name", "isLocked"}, set()]
    assert read.crs == "EPSG:4326"
    assert read_geojson(json.dumps(collection).encode()).crs is None
    assert read_geojson(json.dumps({**collection, "crs": None}).encode()).crs is None
