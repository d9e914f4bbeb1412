from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from qpannot.errors import QpannotError
from qpannot.qupath.annotation import Annotation, Plane, RoiType
from qpannot.qupath.qpdata.javaclasses import ROIS, ClassTable
from qpannot.qupath.qpdata.javatypes import Content, UnexpectedError
from qpannot.qupath.qpdata.roi import (
    Corners,
    Vertices,
    Wkb,
    geometries_of,
    shapes_of,
)
from qpannot.qupath.qpdata.roinodes import read_shape, roi_object

HOLED = shapely.Polygon(
    [(0, 0), (0, 100), (100, 100), (100, 0)],
    [[(10, 10), (20, 10), (20, 20)], [(50, 50), (60, 50), (60, 60)]],
)
SQUARE = shapely.Polygon([(1, 2), (31, 2), (31, 42), (1, 42)])
LINE = shapely.LineString([(0.5, 1.25), (3, 4)])

coordinates = st.floats(-200_000, 200_000, allow_nan=False, width=64)


def stored(geometry: BaseGeometry, roi: RoiType | None = None) -> tuple[BaseGeometry, RoiType]:
    (shape,) = shapes_of([Annotation(geometry, roi=roi)])
    return geometries_of([shape])[0], shape.roi


def ellipse(x: float, y: float, width: float, height: float, points: int = 100) -> shapely.Polygon:
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return shapely.Polygon(
        np.column_stack(
            [
                x + width / 2 * (1 + np.cos(angles)).round(12),
                y + height / 2 * (1 + np.sin(angles)).round(12),
            ]
        )
    )


@pytest.mark.parametrize(
    ("geometry", "wanted", "roi"),
    [
        (SQUARE, None, RoiType.POLYGON),
        (SQUARE, RoiType.RECTANGLE, RoiType.RECTANGLE),
        (SQUARE, RoiType.ELLIPSE, RoiType.ELLIPSE),
        (SQUARE, RoiType.GEOMETRY, RoiType.GEOMETRY),
        (SQUARE, RoiType.POINTS, RoiType.POLYGON),
        (ellipse(0, 0, 40, 20), RoiType.ELLIPSE, RoiType.ELLIPSE),
        (ellipse(0, 0, 40, 20), RoiType.RECTANGLE, RoiType.POLYGON),
        (shapely.Polygon([(0, 0), (40, 0), (0, 40)]), RoiType.RECTANGLE, RoiType.POLYGON),
        (shapely.Polygon([(0, 0), (40, 0), (0, 40)]), RoiType.ELLIPSE, RoiType.POLYGON),
        (HOLED, None, RoiType.GEOMETRY),
        (HOLED, RoiType.POLYGON, RoiType.GEOMETRY),
        (shapely.MultiPolygon([SQUARE]), None, RoiType.GEOMETRY),
        (LINE, None, RoiType.POLYLINE),
        (LINE, RoiType.LINE, RoiType.LINE),
        (shapely.LineString([(0, 0), (1, 1), (2, 0)]), RoiType.LINE, RoiType.POLYLINE),
        (shapely.MultiLineString([LINE, [(5, 5), (6, 6)]]), None, RoiType.GEOMETRY),
        (shapely.Point(1.5, 2.5), None, RoiType.POINTS),
        (shapely.MultiPoint([(1, 2), (3, 4)]), None, RoiType.POINTS),
        (shapely.GeometryCollection([SQUARE, LINE]), None, RoiType.GEOMETRY),
    ],
)
def test_the_geometry_decides_the_region_where_the_wanted_one_cannot_hold_it(
    geometry: BaseGeometry, wanted: RoiType | None, roi: RoiType
) -> None:
    back, kind = stored(geometry, wanted)
    assert kind is roi
    if roi is RoiType.ELLIPSE:
        assert back.bounds == geometry.bounds
    else:
        assert back.equals_exact(geometry, 1e-5)


def test_an_ellipse_keeps_its_bounds_and_is_as_round_as_qupaths() -> None:
    back, _ = stored(ellipse(700.37, 250.11, 20.3, 11.7), RoiType.ELLIPSE)
    assert back.bounds == pytest.approx((700.37, 250.11, 720.67, 261.81), abs=1e-9)
    again, kind = stored(back, RoiType.ELLIPSE)
    assert kind is RoiType.ELLIPSE and again.equals_exact(back, 0)
    assert len(shapely.get_coordinates(back)) == 101
    assert back.area == pytest.approx(math.pi * 10.15 * 5.85, rel=1e-3)


@given(
    st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=30, unique=True),
    st.sampled_from([shapely.Polygon, shapely.LineString, shapely.MultiPoint]),
)
def test_vertices_are_kept_to_float32_in_their_order(
    points: list[tuple[float, float]],
    make: Callable[[list[tuple[float, float]]], BaseGeometry],
) -> None:
    geometry = make(points)
    back, kind = stored(geometry)
    rounded = shapely.transform(geometry, lambda xy: xy.astype(np.float32).astype(np.float64))
    assert back.equals_exact(rounded, 0)
    assert stored(back, kind)[0].equals_exact(back, 0)


@given(st.lists(st.tuples(st.integers(0, 9_999_999), st.integers(0, 9_999_999)), min_size=4))
def test_geometries_on_qupaths_grid_are_kept_to_float32(points: list[tuple[int, int]]) -> None:
    on_grid = [(x * 0.01, y * 0.01) for x, y in points]
    geometry = shapely.MultiPolygon([shapely.Polygon(on_grid), shapely.Polygon(on_grid[::-1])])
    back, kind = stored(geometry)
    rounded = shapely.transform(geometry, lambda xy: xy.astype(np.float32).astype(np.float64))
    assert kind is RoiType.GEOMETRY and back.equals_exact(rounded, 0)
    assert stored(back)[0].equals_exact(back, 0)


def test_what_qupath_made_of_a_geometry_far_out_is_what_we_store() -> None:
    # real QuPath 0.6.0 saved 140000.18 as 140000.1875 and 346.67 as 346.6700134277344
    ring = shapely.box(346.67, 100, 140000.18, 200).difference(shapely.box(400, 120, 500, 150))
    back, _ = stored(ring)
    assert {x for x, _ in shapely.get_coordinates(back)[:5]} == {346.6700134277344, 140000.1875}


def test_ring_order_and_orientation_are_kept() -> None:
    flipped = shapely.Polygon(
        HOLED.exterior.coords[::-1], [r.coords[::-1] for r in HOLED.interiors]
    )
    for geometry in (HOLED, flipped, shapely.MultiPolygon([flipped, shapely.box(200, 0, 300, 9)])):
        back, _ = stored(geometry)
        assert shapely.to_wkb(back) == shapely.to_wkb(geometry)


def test_geometries_off_the_grid_are_stored_as_qupath_would_save_them() -> None:
    back, _ = stored(shapely.transform(HOLED, lambda xy: xy + np.array([0.123456, 0.666])))
    x, y = shapely.get_coordinates(back).T
    # QuPath 0.6.0 rounds 0.123456 to 12 * 0.01, and that to float32
    assert set(x[:5]) == {float(np.float32(12 * 0.01)), float(np.float32(10012 * 0.01))}
    assert set(y[:5]) == {float(np.float32(67 * 0.01)), float(np.float32(10067 * 0.01))}


def test_rounding_never_makes_a_valid_geometry_invalid() -> None:
    sliver = [(10, 10.001), (20, 10.004), (20, 10.002)]
    valid = shapely.Polygon(HOLED.exterior.coords, [sliver])
    assert valid.is_valid
    back, _ = stored(valid)
    assert back.is_valid and not back.is_empty
    assert back.area == pytest.approx(valid.area, abs=0.1)
    assert stored(back)[0].equals_exact(back, 0)


def test_a_third_dimension_is_dropped() -> None:
    back, _ = stored(shapely.force_3d(HOLED, 5.0))
    assert not back.has_z and back.equals_exact(HOLED, 0)


@pytest.mark.parametrize(
    ("geometry", "why"),
    [
        (shapely.Polygon(), "is empty"),
        (shapely.MultiPoint(), "is empty"),
        (shapely.from_wkt("MULTIPOLYGON (((0 0, 9 0, 9 9, 0 0)), EMPTY)"), "empty part"),
        (shapely.transform(SQUARE, lambda xy: xy + math.inf), "not finite"),
        (shapely.transform(LINE, lambda xy: xy * math.nan), "not finite"),
        (shapely.LineString([(0, 0), (1e39, 0)]), "not finite"),
    ],
)
def test_what_qupath_cannot_hold_is_refused_by_name(geometry: BaseGeometry, why: str) -> None:
    good = Annotation(SQUARE)
    bad = Annotation(geometry, name="the bad one")
    with pytest.raises(QpannotError, match=f"the bad one.*{why}"):
        shapes_of([good, bad, good])


@pytest.mark.parametrize("geometry", [SQUARE, HOLED, LINE, shapely.MultiPoint([(1, 2), (3, 4)])])
@pytest.mark.parametrize("plane", [Plane(), Plane(2, 3, 4)])
def test_regions_are_read_as_they_were_written(geometry: BaseGeometry, plane: Plane) -> None:
    for roi in (None, RoiType.RECTANGLE, RoiType.LINE):
        (shape,) = shapes_of([Annotation(geometry, roi=roi)])
        assert read_shape(roi_object(shape, plane, ClassTable({}))) == (shape, plane)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("roi", [RoiType.POLYGON, RoiType.POLYLINE, RoiType.POINTS])
def test_unfinished_drawings_in_a_file_can_be_read(count: int, roi: RoiType) -> None:
    x = np.arange(count, dtype=">f4").tobytes()
    (geometry,) = geometries_of([Vertices(roi, x, x)])
    assert geometry.is_empty == (count == 0)
    if count:
        assert geometry.bounds == (0, 0, count - 1, count - 1)


def test_a_ring_that_closes_itself_can_be_read() -> None:
    x, y = struct.pack(">3f", 0, 9, 0), struct.pack(">3f", 0, 5, 0)
    (geometry,) = geometries_of([Vertices(RoiType.POLYGON, x, y)])
    assert geometry.bounds == (0, 0, 9, 5)


@pytest.mark.parametrize(
    "broken",
    [
        Vertices(RoiType.POLYGON, *[struct.pack(">5f", math.nan, 1, math.inf, 3, 4)] * 2),
        Vertices(RoiType.POLYGON, *[struct.pack(">3f", math.nan, 1, 3)] * 2),
        Vertices(RoiType.POLYLINE, *[struct.pack(">2f", -math.inf, 1)] * 2),
        Vertices(RoiType.POINTS, *[struct.pack(">f", math.nan)] * 2),
        Corners(RoiType.RECTANGLE, 1, math.nan, 2, 3),
        Corners(RoiType.ELLIPSE, 1, 2, math.inf, 3),
        Wkb(shapely.to_wkb(shapely.transform(HOLED, lambda xy: xy + math.inf), byte_order=0)),
    ],
)
def test_regions_with_vertices_that_are_no_numbers_are_empty_and_harm_no_others(
    broken: Vertices | Corners | Wkb,
) -> None:
    x, y = struct.pack(">4f", 1, 31, 31, 1), struct.pack(">4f", 2, 2, 42, 42)
    square = Vertices(RoiType.POLYGON, x, y)
    before, empty, after = geometries_of([square, broken, square])
    assert empty.is_empty
    assert before.equals(SQUARE) and after.equals(SQUARE)


def test_no_region_is_an_empty_geometry() -> None:
    assert geometries_of([None])[0].is_empty


def test_corners_in_any_order_are_a_rectangle() -> None:
    (geometry,) = geometries_of([Corners(RoiType.RECTANGLE, 31, 1, 42, 2)])
    assert geometry.equals(SQUARE)


def test_areas_of_old_files_have_their_holes() -> None:
    table = ClassTable({})
    table.classes["[[F"] = table.desc("[F")

    def floats(*values: float) -> Content:
        return table.array("[F", struct.pack(f">{len(values)}f", *values))

    x: list[Content] = [floats(0, 100, 100, 0), floats(10, 20, 20, 10)]
    y: list[Content] = [floats(0, 0, 100, 100), floats(10, 10, 20, 20)]
    polygon = table.desc(ROIS + "PolygonROI$SerializationProxy")
    table.classes[ROIS + "AreaROI$SerializationProxy"] = type(polygon)(
        ROIS + "AreaROI$SerializationProxy", 1, polygon.flags, polygon.fields
    )
    node = table.new(
        ROIS + "AreaROI$SerializationProxy", x=table.array("[[F", x), y=table.array("[[F", y)
    )
    shape, _ = read_shape(node)
    assert isinstance(shape, Wkb)
    assert geometries_of([shape])[0].area == 100 * 100 - 10 * 10


@pytest.mark.parametrize(
    "wkb",
    [
        b"",
        b"\0",
        shapely.to_wkb(HOLED, byte_order=0)[:-1],
        b"\0\0\0\0\x02\xff\xff\xff\xff",
        b"\0\0\0\0\x03\xff\xff\xff\xff",
        b"\0\0\0\0\x07\xff\xff\xff\xff",
        b"\0\0\0\0\x63",
        b"\0\0\0\0\x07\0\0\0\x01" * 200_000 + b"\0\0\0\0\x07\0\0\0\0",
        b"\0\0\0\0\x03\0\0\0\x01\0\0\0\x02" + bytes(32),
    ],
)
def test_broken_wkb_is_refused(wkb: bytes) -> None:
    with pytest.raises(UnexpectedError):
        geometries_of([Wkb(wkb)])


def test_a_region_of_an_unknown_kind_is_refused_by_name() -> None:
    table = ClassTable({})
    line = table.desc(ROIS + "LineROI$SerializationProxy")
    name = ROIS + "StarROI$SerializationProxy"
    table.classes[name] = type(line)(name, 1, line.flags, line.fields)
    with pytest.raises(UnexpectedError, match="StarROI"):
        read_shape(table.new(name))
