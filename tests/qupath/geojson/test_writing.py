from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from qpannot.errors import ProjectError, QpannotError
from qpannot.qupath import (
    Annotation,
    Detection,
    ObjectKind,
    PathClass,
    PathObject,
    Plane,
    RoiType,
    TMACore,
    open_project,
)
from qpannot.qupath.geojson.fitting import differences, fit
from qpannot.qupath.geojson.reading import read_geojson
from qpannot.qupath.geojson.validity import Fault
from qpannot.qupath.geojson.writing import feature, to_geojson, write_geojson

SQUARE = shapely.box(1, 2, 11, 12)
BOW_TIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])

OBJECTS: tuple[PathObject, ...] = (
    Annotation(
        SQUARE,
        PathClass("Tumor: Positive", (200, 0, 0)),
        name='gland "ä" 😀',
        locked=True,
        color=(1, 2, 3),
        measurements={"a": 1.5, "b": math.nan, "c": math.inf, "d": -math.inf},
        metadata={"k": "v", "k 2": "ü"},
        plane=Plane(-1, 2, 1),
    ),
    Annotation(
        shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4.333, 4)), PathClass("Stroma")
    ),
    Annotation(shapely.MultiPolygon([SQUARE, shapely.box(20, 20, 30, 30.5)])),
    Annotation(shapely.Point(5, 5).buffer(4, quad_segs=25), roi=RoiType.ELLIPSE),
    Annotation(shapely.LineString([(0, 0), (3, 4.567)])),
    Annotation(shapely.LineString([(0, 0), (3, 4), (9, 9)])),
    Annotation(shapely.MultiLineString([[(0, 0), (3, 4)], [(9, 9), (8, 8)]])),
    Annotation(shapely.Point(3.3, 4.4)),
    Annotation(shapely.MultiPoint([(3.3, 4.4), (1, 2)])),
    Detection(SQUARE, kind=ObjectKind.CELL, nucleus=shapely.box(3, 3, 5, 5), measurements={"m": 2}),
    Detection(SQUARE),
    Detection(SQUARE, kind=ObjectKind.TILE),
    TMACore(
        shapely.Point(50, 50).buffer(20, quad_segs=25),
        name="A-1",
        missing=True,
        roi=RoiType.ELLIPSE,
    ),
)


def test_a_feature_has_qupaths_keys_in_qupaths_order() -> None:
    made = feature(OBJECTS[0])
    assert made == {
        "type": "Feature",
        "id": str(OBJECTS[0].id),
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[11, 2], [11, 12], [1, 12], [1, 2], [11, 2]]],
            "plane": {"c": -1, "z": 2, "t": 1},
        },
        "properties": {
            "objectType": "annotation",
            "name": 'gland "ä" 😀',
            "color": [1, 2, 3],
            "classification": {"names": ["Tumor", "Positive"], "color": [200, 0, 0]},
            "isLocked": True,
            "measurements": {"a": 1.5, "b": "NaN", "c": "Infinity", "d": "-Infinity"},
            "metadata": {"k": "v", "k 2": "ü"},
        },
    }
    order = "objectType name color classification isLocked measurements metadata"
    assert list(made["properties"]) == order.split()


def test_what_is_not_set_is_not_written() -> None:
    made = feature(Annotation(SQUARE))
    assert made["properties"] == {"objectType": "annotation"}
    assert set(made["geometry"]) == {"type", "coordinates"}


def test_a_class_without_a_colour_is_a_text_because_qupath_refuses_it_otherwise() -> None:
    assert feature(OBJECTS[1])["properties"]["classification"] == "Stroma"


@pytest.mark.parametrize("pretty", [False, True])
def test_what_is_written_is_read_back_the_same(pretty: bool) -> None:
    back = read_geojson(to_geojson(fit(OBJECTS).objects, pretty=pretty))
    assert not back.repairs and not back.left_out
    assert [each.id for each in back.objects] == [each.id for each in OBJECTS]
    for one, other in zip(OBJECTS, back.objects, strict=True):
        assert differences(one, other) == ()
        assert type(one) is type(other)
        assert one.path_class is None or one.path_class.color == other.path_class.color  # type: ignore[union-attr]
    core = back.objects[-1]
    assert isinstance(core, TMACore) and core.missing


def test_pretty_is_readable_and_has_points_on_one_line() -> None:
    text = to_geojson(fit(OBJECTS[:1]).objects, pretty=True).decode()
    assert "            [11, 2],\n" in text and '"color": [200, 0, 0]' in text


def test_files_are_compressed_by_their_names_and_the_same_each_time(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.geojson", tmp_path / "a.geojson.gz"
    write_geojson(plain, OBJECTS)
    write_geojson(packed, OBJECTS)
    first = packed.read_bytes()
    assert gzip.decompress(first) == plain.read_bytes()
    write_geojson(packed, OBJECTS)
    assert packed.read_bytes() == first
    assert len(read_geojson(packed).objects) == len(OBJECTS)


def test_every_line_is_a_feature(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", OBJECTS)
    lines = (tmp_path / "a.geojson").read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line.rstrip(","))["id"] for line in lines[1:-1]]
    assert ids == [str(each.id) for each in OBJECTS]


def test_broken_outlines_are_repaired_in_the_file_only(tmp_path: Path) -> None:
    drawn = Annotation(BOW_TIE, name="mine")
    fitted = write_geojson(tmp_path / "a.geojson", [drawn, Annotation(shapely.Polygon())])
    assert drawn.geometry is BOW_TIE
    (told,) = fitted.repairs
    assert (told.id, told.label, told.repair.faults) == (drawn.id, "mine", (Fault.CROSSING,))
    assert "has no geometry" in fitted.left_out[0].text
    (written,) = json.loads((tmp_path / "a.geojson").read_bytes())["features"]
    assert shapely.geometry.shape(written["geometry"]).area == 50
    with pytest.raises(QpannotError, match="as it is"):
        feature(drawn)


def test_giants_become_pieces_with_ids_of_their_own_the_same_each_time() -> None:
    angles = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    ring = 5000 + np.column_stack([np.cos(angles), np.sin(angles)]) * 4000
    giant = Annotation(shapely.Polygon(ring), PathClass("Tumor"), name="all", metadata={"k": "v"})
    child = Annotation(SQUARE, parent_id=giant.id)
    fitted = fit([giant, child], max_vertices=1000)
    pieces = fitted.objects[:-1]
    (told,) = fitted.splits
    assert told.id == giant.id and told.vertices == 3001
    assert told.pieces == tuple(piece.id for piece in pieces) and len(set(told.pieces)) >= 4
    assert giant.id not in told.pieces
    assert {(p.name, p.class_name, p.metadata["k"]) for p in pieces} == {("all", "Tumor", "v")}
    assert sum(p.geometry.area for p in pieces) == pytest.approx(giant.geometry.area, rel=1e-6)
    assert fitted.objects[-1].parent_id is None
    assert [p.id for p in fit([giant], max_vertices=1000).objects] == [p.id for p in pieces]
    assert not fit(fitted.objects, max_vertices=1000).splits
    assert not fit([giant]).splits


def test_the_smallest_ellipse_keeps_its_bounds() -> None:
    dot = Annotation(shapely.Point(5, 5).buffer(0.02, quad_segs=25), roi=RoiType.ELLIPSE)
    made = feature(dot)["geometry"]
    assert made["isEllipse"] and shapely.geometry.shape(made).bounds == (4.98, 4.98, 5.02, 5.02)


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ProjectError, match="cannot be written"):
        write_geojson(tmp_path / "file" / "a.geojson", OBJECTS)


def test_objects_differ_by_what_a_person_would_change() -> None:
    one = OBJECTS[0]
    turned = shapely.Polygon([(1, 12), (11, 12), (11, 2), (6, 2), (1, 2)])
    assert differences(one, one.with_changes(geometry=turned)) == ()
    moved = shapely.Polygon([(1, 2), (11, 2), (11, 12.1), (1, 12)])
    assert differences(one, one.with_changes(geometry=moved)) == ("geometry",)
    assert differences(one, one.with_changes(path_class=PathClass("Tumor: Positive"))) == ()
    changed = one.with_changes(path_class=None, name=None, measurements={"a": 1.5})
    assert differences(one, changed) == ("class_name", "name", "measurements")
    cell = OBJECTS[9]
    assert differences(cell, cell.with_changes(nucleus=None)) == ("nucleus",)


def normalized(content: Any) -> Any:
    for key in ("geometry", "nucleusGeometry"):
        if key in content:
            shape = shapely.normalize(shapely.geometry.shape(content[key]))
            content[key]["coordinates"] = shapely.to_wkt(shape)
    return content


@pytest.mark.parametrize(
    ("project", "image", "export"),
    [
        (
            "coscia-0.6.0/demo_Qupath_project",
            0,
            "coscia-0.6.0/demo_Qupath_project/Single_cells.geojson",
        ),
        (
            "written-by-qupath/0.6.0/project",
            0,
            "written-by-qupath/0.6.0/project_featurecollection_image1.geojson",
        ),
        (
            "written-by-qupath/0.7.0/project",
            0,
            "written-by-qupath/0.7.0/project_featurecollection_image1.geojson",
        ),
        (
            "written-by-qupath/0.6.0/project",
            1,
            "written-by-qupath/0.6.0/project_hierarchy_image2_tma.json",
        ),
    ],
)
def test_our_export_says_what_qupaths_own_says(
    shared_data: Path, project: str, image: int, export: str
) -> None:
    with open_project(shared_data / "qupath" / project) as opened:
        fitted = fit(opened.images[image].objects())
    ours = {each["id"]: each for each in json.loads(to_geojson(fitted.objects))["features"]}
    content = json.loads((shared_data / "qupath" / export).read_bytes())
    theirs = (
        content["features"]
        if "features" in content
        else content["root"]["properties"]["childObjects"]
    )
    assert ours.keys() == {each["id"] for each in theirs}
    assert not fitted.repairs and not fitted.left_out
    for each in theirs:
        mine = ours[each["id"]]
        assert list(mine) == list(each)
        assert list(mine["properties"]) == list(each["properties"])
        assert normalized(mine) == normalized(each)
