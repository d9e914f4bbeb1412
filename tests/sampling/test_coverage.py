from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from qpannot.geometry import Mpp, Size
from qpannot.recipe.settings import PatchSettings
from qpannot.sampling.areas import polygonal
from qpannot.sampling.coverage import PatchGrid, covered


def one_by_one(area: BaseGeometry, grid: PatchGrid) -> list[list[float]]:
    return [
        [
            area.intersection(shapely.box(x, y, x + grid.width, y + grid.height)).area
            / (grid.width * grid.height)
            for x in grid.x
        ]
        for y in grid.y
    ]


def on_grid(area: BaseGeometry, step: float) -> BaseGeometry:
    """Round an area's vertices, without making it round whatever is computed from it."""
    return shapely.set_precision(shapely.set_precision(area, step), 0)


@st.composite
def areas(draw: st.DrawFn) -> BaseGeometry:
    points = st.tuples(st.floats(-50, 450, width=32), st.floats(-50, 450, width=32))
    rings = draw(st.lists(st.lists(points, min_size=3, max_size=12), min_size=1, max_size=4))
    # Uneven winding gives parts, holes and corners that touch.
    result: BaseGeometry = shapely.Polygon()
    for ring in rings:
        result = result.symmetric_difference(polygonal(shapely.Polygon(ring)))
    # Where vertices lie a rounding error apart, the reference itself goes wrong: see below.
    return polygonal(on_grid(result, 1 / 64))


@given(
    area=areas(),
    mpp=st.sampled_from([0.25, 0.2527, 0.499, 1.3]),
    stride=st.sampled_from([None, 9, 31]),
)
def test_coverage_is_that_of_each_patch_by_itself(
    area: BaseGeometry, mpp: float, stride: int | None
) -> None:
    settings = PatchSettings(size_px=20, mpp=0.75, stride_px=stride)
    grid = PatchGrid.of(Size(400, 300), Mpp(mpp, mpp * 1.1), settings)
    assert covered(area, grid) == pytest.approx(np.array(one_by_one(area, grid)), abs=1e-8)


def test_vertices_a_rounding_error_apart_cost_no_patch() -> None:
    area = shapely.from_wkt(
        "MULTIPOLYGON (((1.7937101374496685 29.743146762931953, -8.28420639038086 0, "
        "-3.2531576515376512 44.5024371232015, -2.1870901584625244 53.93239974975586, "
        "73.13529968261719 240.29493713378906, 1.7937101374496687 29.743146762931953, 0 30, "
        "1.7937101374496685 29.743146762931953)), ((1.7937101374496685 29.743146762931953, "
        "1.7937101374496687 29.743146762931953, 13.598367041338458 28.052759740560248, "
        "1.7937101374496685 29.743146762931953)))"
    )
    grid = PatchGrid.of(Size(400, 300), Mpp(1.3, 1.43), PatchSettings(size_px=20, mpp=0.75))
    expected = np.array(one_by_one(on_grid(area, 1e-9), grid))
    assert covered(area, grid) == pytest.approx(expected, abs=1e-8)


@given(areas(), st.sampled_from([0.25, 0.2527, 1.3]))
def test_patches_share_out_the_area_within_their_grid(area: BaseGeometry, mpp: float) -> None:
    grid = PatchGrid.of(Size(400, 300), Mpp.square(mpp), PatchSettings(size_px=20, mpp=0.75))
    whole = shapely.box(0, 0, grid.columns * grid.width, grid.rows * grid.height)
    found = covered(area, grid).sum() * grid.width * grid.height
    assert found == pytest.approx(area.intersection(whole).area, abs=1e-3)


def test_full_and_empty_patches_are_exactly_one_and_nought() -> None:
    grid = PatchGrid.of(Size(6400, 6400), Mpp.square(0.25), PatchSettings(size_px=16, mpp=0.5))
    half = shapely.box(-100, -100, 3200, 9999)
    parts = covered(half, grid)
    assert parts.shape == (200, 200)
    assert (parts[:, :100] == 1).all()
    assert (parts[:, 100:] == 0).all()


def test_a_quarter_is_a_quarter_whatever_the_pixel_size() -> None:
    grid = PatchGrid.of(Size(5000, 5000), Mpp.square(0.2527), PatchSettings())
    corners = [(x, y) for x in grid.x for y in grid.y]
    quarters = shapely.union_all(
        [shapely.box(x, y, x + grid.width / 2, y + grid.height / 2) for x, y in corners]
    )
    assert (covered(quarters, grid) == 0.25).all()


def test_an_area_that_only_touches_a_patch_covers_nothing_of_it() -> None:
    grid = PatchGrid.of(Size(64, 64), Mpp.square(1), PatchSettings(size_px=16))
    area = shapely.box(16, 16, 32, 32)
    parts = covered(area, grid)
    assert parts[1, 1] == 1
    assert parts.sum() == 1


@pytest.mark.parametrize("mpp", [0.25, 0.2527, 0.1, 0.3, 1 / 3, 0.4990])
@pytest.mark.parametrize("stride", [None, 100])
def test_the_grid_fills_the_slide_and_stays_within_it(mpp: float, stride: int | None) -> None:
    size = Size(9973, 7000)
    grid = PatchGrid.of(size, Mpp.square(mpp), PatchSettings(stride_px=stride))
    assert grid.width == pytest.approx(256 / mpp)
    assert grid.step_x == pytest.approx((stride or 256) / mpp)
    assert grid.x[-1] + grid.width <= size.width < grid.x[-1] + grid.step_x + grid.width
    assert grid.y[-1] + grid.height <= size.height < grid.y[-1] + grid.step_y + grid.height


def test_corners_do_not_drift_across_a_slide_of_odd_pixel_size() -> None:
    grid = PatchGrid.of(Size(100_000, 80_000), Mpp.square(0.2527), PatchSettings())
    assert grid.x[90] == pytest.approx(90 * 256 / 0.2527, abs=1e-6)


def test_a_slide_that_is_just_one_patch_has_one_patch() -> None:
    grid = PatchGrid.of(Size(1024, 1024), Mpp.square(0.25), PatchSettings())
    assert (grid.columns, grid.rows) == (1, 1)


def test_a_slide_smaller_than_a_patch_has_none() -> None:
    grid = PatchGrid.of(Size(1023, 5000), Mpp.square(0.25), PatchSettings())
    assert covered(shapely.box(0, 0, 9999, 9999), grid).size == 0
