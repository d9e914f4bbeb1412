from __future__ import annotations

import shutil
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage as ndi
import shapely
import torch
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.errors import MissingMppError, QpannotError, SlideError
from qpannot.heatmap import Heatmap
from qpannot.inference import Engines, heatmap_key, predict_heatmap
from qpannot.models import Bundle
from qpannot.recipe import Recipe
from qpannot.recipe.settings import OutlineSettings, TrainingSettings
from qpannot.slide import open_slide
from qpannot.tissue import detect_tissue
from qpannot.vectorize import class_mask, outlines_of

MakeRecipe = Callable[..., Recipe]
MakeBundle = Callable[..., Bundle]
WriteTruth = Callable[..., Path]
Truth = NDArray[np.uint8]

WHOLE = [shapely.box(0, 0, 10**6, 10**6)]


def torch_engines(bundle: Bundle, threads: int = 2) -> Engines:
    return Engines(bundle, engine="torch", threads=threads)


def tumour_of(
    heatmap: Heatmap, shape: tuple[int, int], within: Sequence[BaseGeometry] | None = None
) -> NDArray[np.bool_]:
    """Return which full-resolution pixels the outlines of the tumour cover."""
    settings = OutlineSettings(min_area_um2=0, min_hole_area_um2=0, simplify_um=0)
    outlines = outlines_of(
        heatmap.probabilities,
        heatmap.affine,
        heatmap.mpp,
        (None, "Tumor"),
        settings,
        within=within,
    )
    assert outlines
    return class_mask([[outline.polygon for outline in outlines]], Affine(1, 1), shape) > 0


@pytest.mark.parametrize("stride_px", [64, 32, 16])
def test_outlines_agree_with_the_truth_as_far_as_the_stride_allows(
    stride_px: int,
    truth: Truth,
    write_slide_of: WriteTruth,
    make_bundle: MakeBundle,
    make_recipe: MakeRecipe,
) -> None:
    bundle, recipe = make_bundle(), make_recipe(stride_px)
    with open_slide(write_slide_of(truth)) as slide:
        tissue = detect_tissue(slide, recipe.tissue)
        found = predict_heatmap(slide, bundle, recipe, engines=torch_engines(bundle))
    expected = truth == 2
    unclipped = tumour_of(found.heatmap, truth.shape)
    clipped = tumour_of(found.heatmap, truth.shape, tissue)
    iou = (expected & clipped).sum() / (expected | clipped).sum()
    # A quarter of a cell along the border with other tissue, and what AN1 gets wrong of the glass.
    border_px = sum(
        np.count_nonzero(np.diff(expected, axis=axis) & (np.diff(truth > 0, axis=axis) == 0))
        for axis in (0, 1)
    )
    is_tissue = class_mask([tissue], Affine(1, 1), truth.shape) > 0
    wrong_px = (expected & ~is_tissue).sum() + (clipped & (truth == 0)).sum()
    assert iou > 1 - (border_px * stride_px / 4 + wrong_px) / expected.sum()
    # Beside the glass nothing is eaten away: whatever AN1 has of the tissue there is tumour.
    to_glass, to_rest = (ndi.distance_transform_edt(truth != value) for value in (0, 1))
    rim = expected & (to_glass < stride_px) & (to_rest > 2 * stride_px)
    assert (unclipped | ~rim).all()
    assert (clipped | ~(rim & is_tissue)).all()


def test_each_cell_has_the_probability_of_what_lies_in_it(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    truth = np.zeros((700, 900), np.uint8)
    truth[64:512, 64:640] = 1
    truth[128:192, 256:320] = 2
    truth[320:352, 448:512] = 2  # half of a cell
    bundle = make_bundle()
    with open_slide(write_slide_of(truth)) as slide:
        areas = [shapely.box(64, 64, 640, 512)]
        found = predict_heatmap(
            slide, bundle, make_recipe(), tissue=areas, engines=torch_engines(bundle)
        )
    heatmap = found.heatmap
    assert heatmap.classes == ("Non-tumor", "Tumor")
    assert heatmap.affine == Affine(64, 64)
    assert heatmap.slide == "slide.svs"
    assert heatmap.shape == (11, 15)
    assert found.patches == 7 * 9
    tumour = heatmap.channel("Tumor")
    assert np.isnan(tumour[:, 0]).all() and np.isnan(tumour[8:]).all()
    inside = tumour[1:8, 1:10]
    assert inside[1, 3] > 0.99
    assert inside[4, 6] == pytest.approx(0.5, abs=0.1)
    inside[1, 3] = inside[4, 6] = 0
    assert (inside < 0.01).all()
    assert heatmap.probabilities[1:8, 1:10].sum(axis=2).max() <= 1 + 1e-6


@pytest.mark.parametrize("mpp", [0.4, 0.7331])
def test_cells_lie_where_they_should_on_slides_of_another_resolution(
    mpp: float, write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    truth = np.ones((1400, 1700), np.uint8)
    truth[900:1200, 1000:1500] = 2
    bundle = make_bundle()
    with open_slide(write_slide_of(truth, mpp=mpp)) as slide:
        found = predict_heatmap(
            slide, bundle, make_recipe(16), tissue=WHOLE, engines=torch_engines(bundle)
        )
    assert found.heatmap.affine.dx == pytest.approx(16 / mpp)
    drawn = tumour_of(found.heatmap, truth.shape)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    bounds = np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1])
    assert np.abs(bounds - [900, 1200, 1000, 1500]).max() <= 16 / mpp
    drift = bounds.reshape(2, 2).mean(axis=1) - [1050, 1250]
    assert np.abs(drift).max() <= 8 / mpp


def test_a_turned_slide_has_a_turned_heatmap(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    truth = np.ones((640, 960), np.uint8)
    truth[100:300, 500:900] = 2
    bundle = make_bundle()
    recipe, engines = make_recipe(32), torch_engines(bundle)
    with open_slide(write_slide_of(truth)) as slide:
        upright, turned = (
            predict_heatmap(view, bundle, recipe, tissue=WHOLE, engines=engines).heatmap
            for view in (slide, slide.rotated(1))
        )
    expected = np.rot90(upright.probabilities, -1)
    assert np.allclose(turned.probabilities, expected, atol=1e-5)
    assert upright.model != turned.model


def test_one_thread_and_many_give_the_same(
    truth: Truth, write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    bundle, recipe = make_bundle(), make_recipe(32)
    with open_slide(write_slide_of(truth)) as slide:
        alone, many = (
            predict_heatmap(slide, bundle, recipe, engines=torch_engines(bundle, threads))
            for threads in (1, 5)
        )
    assert alone.patches > 500
    assert np.array_equal(alone.heatmap.probabilities, many.heatmap.probabilities, equal_nan=True)


def test_memory_does_not_grow_with_the_slide(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    truth = np.ones((4096, 4096), np.uint8)
    bundle, recipe = make_bundle(), make_recipe(64)
    peaks = []
    with open_slide(write_slide_of(truth)) as slide:
        for side in (2048, 4096):
            areas = [shapely.box(0, 0, side, side)]
            engines = torch_engines(bundle, threads=1)
            tracemalloc.start()
            predict_heatmap(slide, bundle, recipe, tissue=areas, engines=engines)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[0] > 2**20  # blocks are seen
    assert peaks[1] < 1.2 * peaks[0]


def test_a_slide_without_tissue_has_an_empty_heatmap(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    with open_slide(write_slide_of(np.zeros((600, 800), np.uint8))) as slide:
        found = predict_heatmap(slide, make_bundle(), make_recipe())
    assert (found.patches, found.engine, found.difference) == (0, "", None)
    assert np.isnan(found.heatmap.probabilities).all()
    assert found.heatmap.shape == (10, 13)


def test_a_slide_that_is_broken_in_the_middle_has_no_heatmap(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    path = write_slide_of(np.ones((2048, 2048), np.uint8))
    data = bytearray(path.read_bytes())
    middle = data.index(b"\xff\xd8", len(data) // 2)
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    bundle = make_bundle()
    engines = torch_engines(bundle)
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"slide\.svs.*cannot be read"):
        predict_heatmap(slide, bundle, make_recipe(), tissue=WHOLE, engines=engines)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict")]


def test_a_slide_of_unknown_pixel_size_is_refused(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    path = write_slide_of(np.ones((300, 300), np.uint8), mpp=None)
    with open_slide(path) as slide, pytest.raises(MissingMppError, match="slide"):
        predict_heatmap(slide, make_bundle(), make_recipe())


def test_a_network_that_gives_no_numbers_is_refused(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    bundle = make_bundle()
    with torch.no_grad():
        next(bundle.network.parameters()).fill_(torch.nan)
    with (
        open_slide(write_slide_of(np.ones((300, 300), np.uint8))) as slide,
        pytest.raises(QpannotError, match="no numbers"),
    ):
        predict_heatmap(slide, bundle, make_recipe(), tissue=WHOLE)


def test_progress_is_told_up_to_the_end_and_an_interruption_stops_all_threads(
    truth: Truth, write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    bundle, recipe = make_bundle(), make_recipe()
    engines = torch_engines(bundle)
    told: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with open_slide(write_slide_of(truth)) as slide:
        found = predict_heatmap(
            slide, bundle, recipe, engines=engines, show=lambda *n: told.append(n)
        )
        with pytest.raises(KeyboardInterrupt):
            predict_heatmap(slide, bundle, recipe, engines=engines, show=interrupt)
    assert told[0] == (0, found.patches) and told[-1] == (found.patches, found.patches)
    assert told == sorted(told) and len(told) > 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict")]


def test_torch_may_use_as_many_cores_afterwards_as_before(
    write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    bundle = make_bundle()
    own = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with open_slide(write_slide_of(np.ones((300, 300), np.uint8))) as slide:
            predict_heatmap(
                slide, bundle, make_recipe(), tissue=WHOLE, engines=torch_engines(bundle)
            )
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(own)


def test_the_key_changes_with_whatever_changes_the_heatmap(
    truth: Truth, write_slide_of: WriteTruth, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    bundle, recipe = make_bundle(), make_recipe()
    other_tissue = recipe.tissue.model_copy(update={"threshold": 210})
    with (
        open_slide(write_slide_of(truth)) as slide,
        open_slide(write_slide_of(truth[:, ::-1], name="other.svs")) as other,
        open_slide(write_slide_of(truth, name="finer.svs", mpp=0.5)) as finer,
    ):
        keys = [
            heatmap_key(slide, bundle, recipe),
            heatmap_key(other, bundle, recipe),
            heatmap_key(finer, bundle, recipe),
            heatmap_key(slide.rotated(2), bundle, recipe),
            heatmap_key(slide, make_bundle("other", gain=9), recipe),
            heatmap_key(slide, bundle, make_recipe(stride_px=32)),
            heatmap_key(slide, bundle, make_recipe(min_tissue=0.5)),
            heatmap_key(slide, bundle, recipe.model_copy(update={"tissue": other_tissue})),
            heatmap_key(slide, bundle, recipe, tissue=WHOLE),
            heatmap_key(slide, bundle, recipe, tissue=[shapely.box(0, 0, 5, 5)]),
            heatmap_key(slide, bundle, recipe, precision="bf16"),
        ]
    assert len(set(keys)) == len(keys)


def test_the_key_stays_with_whatever_does_not(
    truth: Truth,
    write_slide_of: WriteTruth,
    make_bundle: MakeBundle,
    make_recipe: MakeRecipe,
    tmp_path: Path,
) -> None:
    bundle, recipe = make_bundle(), make_recipe()
    path = write_slide_of(truth)
    moved = shutil.copy(path, tmp_path / "moved.svs")
    otherwise = recipe.model_copy(update={"training": TrainingSettings(epochs=3), "name": "x"})
    with open_slide(path) as slide, open_slide(moved) as again:
        assert heatmap_key(slide, bundle, recipe) == heatmap_key(again, bundle, otherwise)


def test_a_real_slide_has_one_heatmap_in_whichever_format(
    shared_data: Path, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> None:
    bundle, recipe = make_bundle(), make_recipe(32)
    slides = shared_data / "slides"
    paths = slides / "CMU-1-Small-Region.svs", next((slides / "dicom").glob("*.dcm"))
    found = []
    for path in paths:
        with open_slide(path) as slide:
            tissue = detect_tissue(slide, recipe.tissue)
            heatmap = predict_heatmap(slide, bundle, recipe, engines=torch_engines(bundle)).heatmap
        found.append(heatmap)
        outlines = outlines_of(
            heatmap.probabilities,
            heatmap.affine,
            heatmap.mpp,
            heatmap.classes,
            recipe.outlines,
            within=tissue,
        )
        assert outlines and all(outline.polygon.is_valid for outline in outlines)
        drawn = shapely.union_all([outline.polygon for outline in outlines])
        area = shapely.union_all(tissue)
        assert drawn.difference(area.buffer(0.1)).is_empty
        assert drawn.area > 0.95 * area.area
    svs, dicom = found
    assert np.isfinite(svs.probabilities).any()
    # The two files are compressed differently.
    assert np.count_nonzero(np.isnan(svs.probabilities) != np.isnan(dicom.probabilities)) < 10
    apart = np.abs(svs.probabilities - dicom.probabilities)
    assert np.nanmean(apart) < 0.03 and np.nanmax(apart) < 0.15
