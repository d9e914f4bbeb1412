from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.affine import Affine
from qpannot.geometry import Mpp
from qpannot.recipe.settings import OutlineSettings
from qpannot.vectorize import (
    Outline,
    class_mask,
    outlines_of,
    outlines_of_labels,
    polygons_of,
    smoothing,
)

CLASSES = ("Tumor", "Stroma", "Necrosis")
ROUNDED_UM = 0.02
"""What QuPath's grid of 0.01 pixels adds to a bound at 1 mpp."""


def settings_of(**changes: float) -> OutlineSettings:
    """Return settings that leave the mask itself as it is."""
    exact = {"min_area_um2": 0, "min_hole_area_um2": 0, "smoothing_um": 0, "simplify_um": 0}
    return OutlineSettings.model_validate({**exact, **changes})


def polygons(outlines: list[Outline]) -> NDArray[np.object_]:
    return np.array([outline.polygon for outline in outlines], object)


def boundary(areas: NDArray[np.object_]) -> shapely.Geometry:
    return shapely.union_all(shapely.boundary(areas))


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Return speckles, or smooth areas of up to three classes with specks in them."""
    shape = draw(st.tuples(st.integers(3, 40), st.integers(3, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes = draw(st.integers(1, 3))
    roughness = draw(st.sampled_from([0.4, 1.0, 3.0]))
    noise = ndimage.gaussian_filter(rng.normal(size=shape), roughness)
    steps = draw(st.sampled_from([1, 3])) * noise / noise.std()
    labels: NDArray[np.uint8] = (np.floor(steps) % (classes + 1)).astype(np.uint8)
    labels[rng.random(shape) < 0.02] = rng.integers(0, classes + 1)
    return labels


@hypothesis_settings(max_examples=60)
@given(
    masks(),
    st.sampled_from([0, 0.5, 2, 8, 30]),
    st.sampled_from([0, 0.3, 1, 5]),
    st.sampled_from([Affine(1, 1), Affine(57.375, 57.375, x=0.13, y=7)]),
)
def test_outlines_stay_near_the_mask_and_fit_together(
    labels: NDArray[np.uint8], smoothing_px: float, simplify_px: float, affine: Affine
) -> None:
    settings = settings_of(
        smoothing_um=smoothing_px * affine.dx, simplify_um=simplify_px * affine.dx
    )
    found = polygons(outlines_of_labels(labels, affine, Mpp.square(1), CLASSES, settings))
    exact = np.array([polygon for _, polygon in polygons_of(labels, affine)], object)
    assert len(found) == len(exact)
    if len(exact) == 0:
        return
    assert shapely.is_valid(found).all()
    assert shapely.coverage_is_valid(found)
    assert shapely.area(shapely.union_all(found)) == pytest.approx(shapely.area(found).sum())
    farthest = shapely.hausdorff_distance(boundary(found), boundary(exact))
    assert settings.smoothing_um is not None
    assert farthest <= settings.smoothing_um + settings.simplify_um + ROUNDED_UM
    coordinates = shapely.get_coordinates(found)
    assert np.array_equal(coordinates, np.round(coordinates, 2))


@hypothesis_settings(max_examples=60)
@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)
    )
)
def test_nothing_smoothed_is_the_mask_itself(labels: NDArray[np.uint8]) -> None:
    affine = Affine(4, 8, x=3, y=-2)
    outlines = outlines_of_labels(labels, affine, Mpp.square(0.25), CLASSES, settings_of())
    layers = [
        [outline.polygon for outline in outlines if outline.class_name == name] for name in CLASSES
    ]
    assert np.array_equal(class_mask(layers, affine, labels.shape), labels)


def disc(radius: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[-radius - 2 : radius + 3, -radius - 2 : radius + 3]
    inside: NDArray[np.bool_] = np.hypot(x, y) <= radius
    return inside


def turns(polygon: shapely.Polygon) -> NDArray[np.float64]:
    """Return by how many degrees an outline turns at each vertex."""
    steps = np.diff(shapely.get_coordinates(polygon.exterior), axis=0)
    headings = np.arctan2(steps[:, 1], steps[:, 0])
    turn = np.diff(headings, append=headings[0])
    return np.abs(np.degrees((turn + np.pi) % (2 * np.pi) - np.pi))


def test_a_disc_becomes_round_keeps_its_area_and_needs_few_vertices() -> None:
    mask, affine = disc(40), Affine.downsampled(40)
    settings = OutlineSettings(smoothing_um=30, simplify_um=2)
    ((_, exact),) = polygons_of(mask, affine)
    (outline,) = outlines_of_labels(mask, affine, Mpp.square(0.25), ("Tumor",), settings)
    assert turns(exact).min() == pytest.approx(90)
    assert turns(outline.polygon).max() < 20
    assert outline.polygon.area == pytest.approx(exact.area, rel=0.01)
    assert shapely.count_coordinates(outline.polygon) < shapely.count_coordinates(exact) / 3


def test_steps_of_patches_are_smoothed_by_the_recipe() -> None:
    labels = np.tri(12, dtype=bool)
    (outline,) = outlines_of_labels(
        labels, Affine.downsampled(1024), Mpp.square(0.25), ("Tumor",), OutlineSettings()
    )
    steps = turns(outline.polygon)
    assert np.sort(steps)[-4] < 60
    assert shapely.count_coordinates(outline.polygon) < 80


def test_the_tips_of_a_comb_do_not_move_beyond_the_bound() -> None:
    labels = np.zeros((44, 70), bool)
    labels[5:38, 5:65:4] = labels[34:38, 5:62] = True
    ((_, exact),) = polygons_of(labels, Affine(1, 1))
    (found,) = outlines_of_labels(
        labels, Affine(1, 1), Mpp.square(1), CLASSES, settings_of(smoothing_um=7)
    )
    moved = shapely.hausdorff_distance(found.polygon.boundary, exact.boundary)
    assert 3 < moved <= 7 + ROUNDED_UM


def test_a_speck_in_a_notch_is_not_swallowed_when_the_notch_is_smoothed_away() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[10:50, 10:50] = 1
    labels[10:35, 29:32] = 0
    labels[33, 30] = 1
    found = outlines_of_labels(
        labels, Affine(1, 1), Mpp.square(1), ("Tumor",), settings_of(smoothing_um=20)
    )
    large, speck = polygons(found)
    assert large.disjoint(speck)
    assert speck.area > 0


def test_neighbours_have_their_border_in_common() -> None:
    labels = np.ones((40, 40), np.uint8)
    labels[np.add.outer(np.arange(40), np.arange(40)) > 40] = 2
    tumor, stroma = polygons(
        outlines_of_labels(
            labels, Affine(16, 16), Mpp.square(0.5), CLASSES, settings_of(smoothing_um=20)
        )
    )
    shared = shapely.intersection(tumor, stroma)
    assert shared.length == pytest.approx(39 * 16 * 2**0.5, rel=0.05)
    assert shared.area == 0


def test_lengths_are_in_micrometres_whatever_the_pixels_are() -> None:
    mask = disc(30)
    settings = OutlineSettings(min_area_um2=0, min_hole_area_um2=0, smoothing_um=10, simplify_um=2)
    first, second = (
        outlines_of_labels(mask, Affine.downsampled(down), Mpp.square(mpp), CLASSES, settings)
        for down, mpp in ((16, 0.25), (8, 0.5))
    )
    scaled = shapely.transform(second[0].polygon, lambda xy: xy * 2)
    assert scaled.hausdorff_distance(first[0].polygon) < 0.1


def probabilities(*areas: tuple[slice, slice, list[float]]) -> NDArray[np.float32]:
    values = np.zeros((20, 30, len(areas[0][2])), np.float32)
    for rows, columns, value in areas:
        values[rows, columns] = value
    return values


def test_each_area_is_an_outline_with_its_mean_probability() -> None:
    values = probabilities(
        (slice(2, 6), slice(2, 6), [0.1, 0.9]),
        (slice(10, 18), slice(2, 10), [0.4, 0.6]),
        (slice(2, 6), slice(15, 20), [0.8, 0.2]),
    )
    values[3, 3] = np.nan
    settings = settings_of(min_hole_area_um2=2)
    found = outlines_of(values, Affine(4, 4), Mpp.square(0.25), ("Stroma", "Tumor"), settings)
    assert [(outline.class_name, outline.polygon.area / 16) for outline in found] == [
        ("Stroma", 20),
        ("Tumor", 64),
        ("Tumor", 16),
    ]
    assert [outline.score for outline in found] == pytest.approx([0.8, 0.6, 0.9])


def test_a_channel_without_a_name_is_not_outlined_and_hides_nothing() -> None:
    values = probabilities((slice(2, 6), slice(2, 6), [0.65, 0.35]))
    settings = settings_of(threshold=0.3)
    (found,) = outlines_of(values, Affine(1, 1), Mpp.square(1), (None, "Tumor"), settings)
    assert (found.class_name, found.polygon.bounds) == ("Tumor", (2, 2, 6, 6))


def test_a_pixel_at_the_threshold_counts() -> None:
    values = np.array([[0.5, 0.4999, np.nan]], np.float32)
    (found,) = outlines_of(values, Affine(1, 1), Mpp.square(1), ("Tumor",), settings_of())
    assert found.polygon.area == 1


def test_a_heatmap_of_nothing_has_no_outlines() -> None:
    values = np.full((5, 5, 1), np.nan, np.float32)
    assert outlines_of(values, Affine(1, 1), Mpp.square(1), ("Tumor",), OutlineSettings()) == []


def test_names_that_do_not_match_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 channels, but 1 classes"):
        outlines_of(
            np.zeros((2, 2, 2), np.float32),
            Affine(1, 1),
            Mpp.square(1),
            ("Tumor",),
            OutlineSettings(),
        )


def test_large_outlines_are_divided_without_loss() -> None:
    rng = np.random.default_rng(2)
    mask = ndimage.gaussian_filter(rng.normal(size=(150, 200)), 1.5) > -0.04
    affine, mpp, names = Affine(16, 16), Mpp.square(0.5), ("Tumor",)
    whole = outlines_of_labels(mask, affine, mpp, names, settings_of(smoothing_um=6))
    parts = outlines_of_labels(
        mask, affine, mpp, names, settings_of(smoothing_um=6, max_vertices=500)
    )
    assert shapely.count_coordinates(whole[0].polygon) > 5000
    assert len(parts) > len(whole) + 10
    found = polygons(parts)
    assert shapely.is_valid(found).all()
    vertices = [
        shapely.count_coordinates(polygon) - 1 - len(polygon.interiors) for polygon in found
    ]
    assert max(vertices) <= 500
    together = shapely.union_all(polygons(whole))
    assert shapely.area(found).sum() == pytest.approx(together.area, rel=1e-6)
    lost = shapely.symmetric_difference(shapely.union_all(found), together)
    assert lost.area < 1e-5 * together.area
    coordinates = shapely.get_coordinates(found)
    assert np.array_equal(coordinates, np.round(coordinates, 2))


def test_outlines_smoothed_in_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(90, 90)), 1.5)
    labels = (np.floor(2 * noise / noise.std()) % 3).astype(np.uint8)
    settings = settings_of(smoothing_um=3, simplify_um=0.2)
    whole = outlines_of_labels(labels, Affine(2, 2), Mpp.square(1), CLASSES, settings)
    monkeypatch.setattr(smoothing, "BATCH_CORNERS", 50)
    again = outlines_of_labels(labels, Affine(2, 2), Mpp.square(1), CLASSES, settings)
    assert len(whole) > 20
    for one, other in zip(polygons(whole), polygons(again), strict=True):
        assert one.hausdorff_distance(other) <= ROUNDED_UM


def test_outlines_of_real_masks_cover_nearly_the_same(shared_data: Path) -> None:
    path = sorted((shared_data / "labelled" / "composite").glob("breast-*.mask.tif"))[0]
    mask = tifffile.imread(path).astype(np.uint8)
    affine = Affine.downsampled(16)
    settings = OutlineSettings(
        min_area_um2=0, min_hole_area_um2=0, smoothing_um=2, simplify_um=1, max_vertices=1000
    )
    names = ("Tissue", "Tumor")
    found = outlines_of_labels(mask, affine, Mpp.square(0.25), names, settings)
    assert shapely.is_valid(polygons(found)).all()
    layers = [
        [outline.polygon for outline in found if outline.class_name == name] for name in names
    ]
    again = class_mask(layers, affine, mask.shape)
    for value in (1, 2):
        both = np.count_nonzero((mask == value) & (again == value))
        dice = 2 * both / (np.count_nonzero(mask == value) + np.count_nonzero(again == value))
        assert dice > 0.99
