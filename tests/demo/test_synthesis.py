"""What tells tumour from other tissue on a demo slide: texture, and not colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hed, rgb2hsv

from qpannot.demo import DemoSlide, make_demo_slides

SIZE_PX = 4096
STEP_PX = 32
"""Pixels of 1 micrometre between two places where texture is described."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[DemoSlide]:
    return make_demo_slides(tmp_path_factory.mktemp("demo"), count=6, size_px=SIZE_PX)


def dice(found: Mask, truth: Mask) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def pixels_at(slide: DemoSlide, level: int) -> NDArray[np.uint8]:
    with openslide.OpenSlide(slide.path) as opened:
        size = opened.level_dimensions[level]
        return np.asarray(opened.read_region((0, 0), level, size).convert("RGB"))


def blocks(values: Floats, step: int) -> Floats:
    side = values.shape[0] // step
    cut = values[: side * step, : side * step].reshape(side, step, side, step, -1)
    return np.asarray(cut.mean((1, 3)).squeeze())


def truth_at(slide: DemoSlide, places: int, spacing_px: float) -> NDArray[np.uint8]:
    mask = tifffile.imread(slide.mask_path)
    index = ((np.arange(places) + 0.5) * spacing_px / 16).astype(int).clip(0, len(mask) - 1)
    return np.asarray(mask[np.ix_(index, index)])


def test_no_colour_threshold_finds_the_tumour(slides: list[DemoSlide]) -> None:
    best: dict[str, list[float]] = {}
    for slide in slides:
        quarter = pixels_at(slide, 1) / 255
        colour = blocks(quarter, 10)  # 20 micrometres
        channels = dict(zip("RGB", np.moveaxis(colour, 2, 0), strict=True))
        channels |= dict(zip("HSV", np.moveaxis(rgb2hsv(colour), 2, 0), strict=True))
        channels["haematoxylin"] = blocks(rgb2hed(quarter)[..., 0], 10)
        truth = truth_at(slide, len(colour), 40)
        tissue, tumour = truth > 0, truth[truth > 0] == 2
        for name, values in channels.items():
            inside = values[tissue]
            limits = np.quantile(inside, np.linspace(0.01, 0.99, 50))
            scores = [dice(side, tumour) for x in limits for side in (inside > x, inside < x)]
            best.setdefault(name, []).append(max(scores))
    means = {name: float(np.mean(values)) for name, values in best.items()}
    assert max(means.values()) < 0.75, means


def texture(slide: DemoSlide) -> tuple[Floats, Mask]:
    """Return how much of the red channel's optical density lies in dark spots of each size.

    Averaged over about 100 micrometres, relative to the density there, so that the strength of
    the stain does not matter.
    """
    with openslide.OpenSlide(slide.path) as opened:
        full = opened.read_region((0, 0), 0, opened.dimensions).convert("RGB").reduce(2)
    density = -np.log((np.asarray(full)[..., 0].astype(np.float32) + 1) / 246)

    def around(values: Floats) -> Floats:
        return np.asarray(ndimage.gaussian_filter(blocks(values, STEP_PX), 45 / STEP_PX))

    mean, features, before = around(density) + 0.02, [], density
    for side in (3, 5, 7, 9, 11, 15):
        opened_density = ndimage.grey_opening(density, size=(side, side))
        features.append(np.log(np.maximum(around(before - opened_density) / mean, 0) + 1e-3))
        before = opened_density
    truth = truth_at(slide, len(mean), 2 * STEP_PX)
    return np.stack(features, axis=-1)[truth > 0], truth[truth > 0] == 2


def quadratic(values: Floats, mean: Floats, deviation: Floats) -> Floats:
    scaled = np.clip((values - mean) / deviation, -4, 4)
    first, second = np.triu_indices(scaled.shape[1])
    ones = np.ones((len(scaled), 1))
    return np.hstack([ones, scaled, scaled[:, first] * scaled[:, second]])


def test_texture_learned_on_other_patients_finds_the_tumour(slides: list[DemoSlide]) -> None:
    described = [texture(slide) for slide in slides]
    scores = []
    for slide, (features, tumour) in zip(slides, described, strict=True):
        others = [
            pair
            for other, pair in zip(slides, described, strict=True)
            if other.patient != slide.patient
        ]
        known = np.concatenate([pair[0] for pair in others])
        labels = np.concatenate([pair[1] for pair in others]) * 2.0 - 1
        scale = known.mean(0), known.std(0)
        design = quadratic(known, *scale)
        ridge = 20 * np.eye(design.shape[1])
        weights = np.linalg.solve(design.T @ design + ridge, design.T @ labels)
        scores.append(dice(quadratic(features, *scale) @ weights > 0, tumour))
    assert np.mean(scores) > 0.9, scores


def test_stains_differ_between_patients_more_than_within_one(slides: list[DemoSlide]) -> None:
    colours: dict[str, list[Floats]] = {}
    for slide in slides:
        truth = truth_at(slide, SIZE_PX // 16, 16)
        tissue = pixels_at(slide, 2)[truth == 2] / 255
        colours.setdefault(slide.patient, []).append(np.median(tissue, axis=0))
    first, second = next(pair for pair in colours.values() if len(pair) == 2)
    firsts = np.array([pair[0] for pair in colours.values()])
    assert firsts.std(0).max() > 0.02
    assert np.abs(first - second).max() < np.ptp(firsts, axis=0).max()


def test_making_slides_needs_no_other_folder(slides: list[DemoSlide]) -> None:
    folders: set[Path] = {slide.path.parent for slide in slides}
    names = {path.name for folder in folders for path in folder.iterdir()}
    assert names == {f"demo-0{n}{end}" for n in range(1, 7) for end in (".svs", ".mask.tif")}
