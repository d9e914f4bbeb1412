from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import box, shape

from qpannot.geometry import Mpp
from qpannot.recipe import TissueSettings
from qpannot.slide import open_slide
from qpannot.tissue import detect_in_rgb, detect_tissue

QUPATH_NAMES = {
    "threshold": "threshold",
    "requestedPixelSizeMicrons": "requested_pixel_size_um",
    "minAreaMicrons": "min_area_um2",
    "maxHoleAreaMicrons": "max_hole_area_um2",
    "darkBackground": "dark_background",
    "smoothImage": "smooth_image",
    "medianCleanup": "median_cleanup",
    "dilateBoundaries": "dilate_boundaries",
    "smoothCoordinates": "smooth_coordinates",
    "excludeOnBoundary": "exclude_on_boundary",
    "singleAnnotation": "single_annotation",
}
ONE_UM = Mpp.square(1.0)
PLAIN = TissueSettings(
    threshold=128,
    min_area_um2=0,
    max_hole_area_um2=0,
    smooth_image=False,
    median_cleanup=False,
    smooth_coordinates=False,
    single_annotation=False,
)
"""Nothing but the threshold: outlines along pixels, all holes filled."""

Rgb = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def glass(width: int, height: int, *tissue: tuple[int, int, int, int], grey: int = 50) -> Rgb:
    """Return a white image with grey rectangles (left, top, right, bottom)."""
    rgb = np.full((height, width, 3), 255, np.uint8)
    for left, top, right, bottom in tissue:
        rgb[top:bottom, left:right] = grey
    return rgb


def with_hole(rgb: Rgb, left: int, top: int, right: int, bottom: int) -> Rgb:
    rgb[top:bottom, left:right] = 255
    return rgb


def detect(rgb: Rgb, downsample: float = 1, mpp: Mpp | None = ONE_UM, **changes: Any) -> list[Any]:
    settings = TissueSettings.model_validate(PLAIN.model_dump() | changes)
    return detect_in_rgb(rgb, downsample=downsample, mpp=mpp, settings=settings)


def iou(one: list[Any], other: list[Any]) -> float:
    a, b = shapely.union_all(one), shapely.union_all(other)
    return float(a.intersection(b).area / a.union(b).area)


@pytest.mark.parametrize("name", ["CMU-1-paper", "CMU-1-fine"])
def test_the_result_is_that_of_qupath(shared_data: Path, name: str) -> None:
    reference = shared_data / "qupath" / "an1-reference"
    params = json.loads((reference / f"{name}.params.json").read_text())
    settings = TissueSettings(**{QUPATH_NAMES[key]: value for key, value in params.items()})
    features = json.loads((reference / f"{name}.geojson").read_text())["features"]
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        found = detect_tissue(slide, settings)
    assert len(found) == len(features)
    assert iou(found, [shape(feature["geometry"]) for feature in features]) > 0.9999


def test_without_java_cuts_nothing_large_goes_missing(shared_data: Path) -> None:
    settings = TissueSettings(
        threshold=210, requested_pixel_size_um=5, min_area_um2=2000, max_hole_area_um2=1500
    )
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        (cut,) = detect_tissue(slide, settings)
        (whole,) = detect_tissue(slide, settings.model_copy(update={"java_cuts": False}))
    assert cut.area / whole.area == pytest.approx(0.517, abs=0.001)
    assert cut.difference(whole).area < 1


def test_tissue_is_what_is_darker_than_the_threshold() -> None:
    rgb = glass(20, 10, (2, 2, 6, 6), grey=128)
    assert detect(rgb) == []
    assert detect(rgb, threshold=129)[0].equals(box(2, 2, 6, 6))


def test_on_a_dark_background_tissue_is_brighter() -> None:
    rgb = 255 - glass(20, 10, (2, 2, 6, 6), grey=127)
    assert detect(rgb, dark_background=True) == []
    assert detect(rgb, dark_background=True, threshold=127)[0].area == 16


def test_coordinates_are_full_resolution_pixels() -> None:
    (area,) = detect(glass(20, 10, (2, 3, 6, 7)), downsample=10.5)
    assert area.bounds == (21, 31.5, 63, 73.5)


def test_the_smallest_area_is_in_square_micrometres() -> None:
    rgb = glass(30, 10, (2, 2, 4, 4), (10, 2, 13, 5))
    mpp = Mpp(0.4, 0.6)  # QuPath takes the mean of both, 0.5: at downsample 4 a pixel is 4 um2
    assert len(detect(rgb, 4, mpp, min_area_um2=16)) == 2
    assert len(detect(rgb, 4, mpp, min_area_um2=17)) == 1


def test_without_a_pixel_size_areas_are_in_full_resolution_pixels() -> None:
    rgb = with_hole(glass(30, 10, (2, 2, 4, 4), (10, 2, 18, 8)), 12, 4, 14, 6)
    small: dict[str, Any] = {"min_area_um2": 1e9, "max_hole_area_um2": 1e9, "max_hole_area_px2": 64}
    found = detect(rgb, 4, None, min_area_px2=64, **small)
    assert [area.area for area in found] == [64, 44 * 16]
    assert len(detect(rgb, 4, None, min_area_px2=65, **small)) == 1
    assert len(detect(rgb, 4, None, min_area_px2=65, **small | {"max_hole_area_px2": 65})) == 1


@pytest.mark.parametrize(("largest", "area"), [(0, 64), (-1, 64), (4, 60), (4.5, 64)])
def test_holes_smaller_than_the_limit_are_filled(largest: float, area: float) -> None:
    rgb = with_hole(glass(12, 12, (2, 2, 10, 10)), 4, 4, 6, 6)
    (found,) = detect(rgb, max_hole_area_um2=largest)
    assert found.area == area
    assert len(found.interiors) == (area < 64)


def test_tissue_inside_a_hole_goes_with_the_hole() -> None:
    rgb = with_hole(glass(12, 12, (1, 1, 11, 11)), 3, 3, 9, 9)
    rgb[5:7, 5:7] = 50
    (found,) = detect(rgb, max_hole_area_um2=10)
    assert found.area == 100 - 36


def test_the_image_is_smoothed_only_if_asked() -> None:
    rgb = glass(12, 12, (5, 5, 6, 6), grey=0)
    assert len(detect(rgb, threshold=250)) == 1
    assert detect(rgb, threshold=250)[0].area == 1
    assert detect(rgb, threshold=250, smooth_image=True)[0].area == 9


def test_the_median_removes_single_pixels_only_if_asked() -> None:
    rgb = glass(20, 12, (5, 5, 6, 6), (10, 4, 15, 9))
    assert len(detect(rgb)) == 2
    (found,) = detect(rgb, median_cleanup=True)
    assert found.area == 25 - 4


def test_boundaries_grow_by_a_pixel_only_if_asked() -> None:
    (found,) = detect(glass(12, 12, (4, 4, 6, 6)), dilate_boundaries=True)
    assert found.bounds == (3, 3, 7, 7)


def test_smooth_coordinates_cut_the_corners() -> None:
    (found,) = detect(glass(12, 12, (3, 3, 9, 9)), smooth_coordinates=True)
    assert found.bounds == (5, 5, 7, 7)


def test_parts_at_the_boundary_are_excluded_only_if_asked() -> None:
    rgb = glass(30, 12, (0, 2, 4, 6), (8, 4, 12, 8), (20, 5, 29, 9))
    assert len(detect(rgb)) == 3
    # The last part ends a pixel before the border, which QuPath takes for touching it.
    assert [area.bounds for area in detect(rgb, exclude_on_boundary=True)] == [(8, 4, 12, 8)]


def test_a_single_annotation_is_the_union_of_the_separate_ones() -> None:
    rgb = glass(30, 12, (1, 2, 4, 6), (8, 4, 12, 8), (12, 8, 14, 10))
    separate = detect(rgb)
    (single,) = detect(rgb, single_annotation=True)
    assert len(separate) == 3
    assert single.geom_type == "MultiPolygon"
    assert single.equals(shapely.union_all(separate))


@pytest.mark.parametrize("single", [True, False])
def test_an_empty_slide_gives_nothing(single: bool) -> None:
    assert detect(glass(20, 10), single_annotation=single) == []


def test_a_slide_full_of_tissue_gives_all_of_it() -> None:
    assert detect(glass(20, 10, (0, 0, 20, 10)))[0].equals(box(0, 0, 20, 10))
    assert detect(glass(20, 10, (0, 0, 20, 10)), exclude_on_boundary=True) == []


def test_otsu_finds_coloured_tissue_whatever_the_threshold() -> None:
    rgb = glass(40, 30)
    rgb[10:20, 10:25] = (220, 160, 200)
    assert detect(rgb) == []
    (found,) = detect(rgb, method="otsu", median_cleanup=True)
    assert iou([found], [box(10, 10, 25, 20)]) > 0.97
    assert detect(glass(40, 30), method="otsu") == []


def test_otsu_works_on_an_image_of_its_own_size(tmp_path: Path) -> None:
    rgb = np.full((300, 600, 3), 245, np.uint8)
    rgb[100:200, 100:400] = (200, 120, 180)
    Image.fromarray(rgb).save(tmp_path / "slide.png")
    settings = TissueSettings(
        method="otsu", otsu_size_px=60, min_area_px2=0, smooth_image=False, median_cleanup=False
    )
    with open_slide(tmp_path / "slide.png") as slide:
        (found,) = detect_tissue(
            slide, TissueSettings.model_validate(settings.model_dump() | {"smooth_coordinates": 0})
        )
    assert found.equals(box(100, 100, 400, 200))


def test_the_working_image_has_4000_pixels_at_most(tmp_path: Path) -> None:
    rgb = np.full((40, 8000, 3), 255, np.uint8)
    rgb[10:30, 100:7900] = 50
    Image.fromarray(rgb).save(tmp_path / "long.png")
    settings = TissueSettings.model_validate(
        PLAIN.model_dump() | {"requested_downsample": 1, "min_area_px2": 0, "max_hole_area_px2": 0}
    )
    with open_slide(tmp_path / "long.png") as slide:
        (found,) = detect_tissue(slide, settings)
    assert set(shapely.get_coordinates(found).ravel() % 2) == {0}
    assert found.equals(box(100, 10, 7900, 30))


@given(
    st.integers(0, 2**32 - 1),
    st.floats(1, 60),
    st.floats(0, 30),
    st.floats(-1, 12),
    st.booleans(),
)
@hypothesis_settings(deadline=None, max_examples=60)
def test_any_result_is_valid_within_the_slide_and_the_same_in_one_or_several(
    seed: int, downsample: float, min_area: float, hole_area: float, is_smooth: bool
) -> None:
    rng = np.random.default_rng(seed)
    rgb = np.repeat(rng.integers(0, 256, (24, 31, 1), dtype=np.uint8), 3, axis=2)
    pixel = downsample * downsample
    changes: dict[str, Any] = {
        "min_area_um2": min_area * pixel,
        "max_hole_area_um2": hole_area * pixel,
        "smooth_coordinates": is_smooth,
        "median_cleanup": bool(seed % 2),
    }
    separate = detect(rgb, downsample, **changes)
    together = detect(rgb, downsample, single_annotation=True, **changes)
    slide = box(0, 0, 31 * downsample, 24 * downsample).buffer(0.01)
    assert all(area.is_valid and not area.is_empty and slide.covers(area) for area in separate)
    assert len(together) == min(1, len(separate))
    if separate:
        assert together[0].is_valid
        difference = together[0].symmetric_difference(shapely.union_all(separate))
        assert difference.area < 1e-3 * together[0].area + 1
    if not is_smooth and hole_area <= 0:
        tolerance = 0.02 * shapely.union_all(separate).length
        assert all(area.area >= min_area * pixel - tolerance for area in separate)
