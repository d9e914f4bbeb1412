"""The network over the tissue of one slide."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import shapely
import torch
from pydantic import JsonValue
from shapely.geometry.base import BaseGeometry

from qpannot.errors import QpannotError
from qpannot.heatmap import Heatmap
from qpannot.inference.choosing import COMPARED, Compared, Engines, Precision
from qpannot.inference.engines import Engine, Probabilities
from qpannot.inference.grid import Cells, HeatmapGrid, choose, probabilities_of
from qpannot.inference.reading import in_portions, read_patches
from qpannot.models import Bundle
from qpannot.recipe import Recipe
from qpannot.slide import Slide
from qpannot.slide.fingerprint import fingerprint_slide
from qpannot.tissue import detect_tissue

VERSION = 1
"""To be raised when the same slide, model and recipe give another heatmap than before."""

ShowPatches = Callable[[int, int], None]
"""Told how many patches of how many are done."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """A heatmap and how it came about.

    Parameters
    ----------
    patches
        How many the network saw; 0 where no tissue was found.
    engine
        What ran it, empty where there was nothing to run.
    difference
        The largest by which a probability differed from torch's in 32 bit, on some patches of this
        slide; None where torch in 32 bit was what ran.
    """

    heatmap: Heatmap
    patches: int
    engine: str
    difference: float | None


def show_nothing(done: int, total: int) -> None:
    """Show no progress."""


def predict_heatmap(
    slide: Slide,
    bundle: Bundle,
    recipe: Recipe,
    *,
    slide_id: str = "",
    tissue: Sequence[BaseGeometry] | None = None,
    engines: Engines | None = None,
    show: ShowPatches = show_nothing,
) -> Prediction:
    """Return how probable each class is in each place of the tissue of a slide.

    As many threads as there are cores read patches, each with its own handle, and give them to the
    engine, so that reading overlaps with calculating and memory does not depend on the slide.

    Parameters
    ----------
    slide
        Of known pixel size.
    bundle
        The model; says at which resolution, and how large, patches are read.
    recipe
        Says what tissue is (``tissue``, ``labels.min_tissue``) and how wide a pixel of the heatmap
        (``heatmap``).
    slide_id
        What the project knows the slide by; by default the name of its file.
    tissue
        Areas in full-resolution pixels of QuPath's frame; by default what AN1 finds.
    engines
        What runs the network, to be shared among slides.

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        A part of the slide cannot be read. There is no heatmap then: one with a hole would say of
        tissue nobody looked at that there is nothing in it.
    UsageError
        The stride is larger than the patches.
    QpannotError
        The network does not give numbers, or the memory of a GPU does not suffice.
    """
    grid = _grid(slide, bundle, recipe)
    areas = detect_tissue(slide, recipe.tissue) if tissue is None else tissue
    choice = choose(grid, areas, recipe.labels.min_tissue)
    classes = bundle.card.architecture.classes
    answers = np.zeros((0, len(classes)), np.float32)
    compared = None
    if len(choice.cells):
        engines = engines or Engines(bundle, batch_size=recipe.heatmap.batch_size)
        name = slide_id or slide.path.name
        compared = _compared(slide, grid, choice.cells, engines, name)
        answers = _answers(
            slide, grid, choice.cells, compared.engine, len(classes), engines.threads, show
        )
    precision = engines.precision if engines else "auto"
    heatmap = Heatmap(
        probabilities_of(answers, choice, grid),
        classes,
        grid.affine,
        slide.mpp,
        slide=slide_id or slide.path.name,
        model=heatmap_key(slide, bundle, recipe, tissue=tissue, precision=precision),
    )
    return Prediction(
        heatmap,
        len(answers),
        compared.engine.name if compared else "",
        compared.difference if compared else None,
    )


def heatmap_key(
    slide: Slide,
    bundle: Bundle,
    recipe: Recipe,
    *,
    tissue: Sequence[BaseGeometry] | None = None,
    precision: Precision = "auto",
) -> str:
    """Return what a heatmap is known by: the beginning of its model's digest, and one of the rest.

    A heatmap of the same key (``Heatmap.model``) need not be predicted again. Which engine ran is
    no part of it, for all of them agree; nor where the slide lies. Reads half a megabyte at most.

    Parameters
    ----------
    slide, bundle, recipe, tissue
        As for `predict_heatmap`.
    precision
        As for `Engines`.

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        Its file cannot be read.
    """
    card = bundle.card
    image = image_identity(slide)
    model = (card.architecture.model_dump(mode="json"), card.mpp)
    settings = (
        recipe.tissue.model_dump(mode="json") if tissue is None else None,
        recipe.labels.min_tissue,
        recipe.heatmap.stride_px,
        precision,
    )
    digest = hashlib.sha256(json.dumps([VERSION, image, model, settings], sort_keys=True).encode())
    for area in tissue or ():
        digest.update(shapely.to_wkb(area, byte_order=1))
    return f"{card.weights_sha256[:12]}-{digest.hexdigest()[:12]}"


def image_identity(slide: Slide) -> tuple[JsonValue, ...]:
    """Return what tells the pixels of a slide, and where they lie, from all others'.

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        Its file cannot be read.
    """
    return (
        fingerprint_slide(slide.path).digest,
        list(slide.bounds_origin),
        [slide.size.width, slide.size.height],
        [slide.mpp.x, slide.mpp.y],
        slide.quarter_turns,
    )


def _grid(slide: Slide, bundle: Bundle, recipe: Recipe) -> HeatmapGrid:
    return HeatmapGrid.of(
        slide.size,
        slide.mpp,
        patch_mpp=bundle.card.mpp,
        size_px=bundle.card.architecture.size_px,
        stride_px=recipe.heatmap.stride_px,
    )


def _compared(
    slide: Slide, grid: HeatmapGrid, cells: Cells, engines: Engines, name: str
) -> Compared:
    some = np.unique(np.linspace(0, len(cells) - 1, COMPARED).round().astype(int))
    return engines.compared(np.stack(list(read_patches(slide, grid, cells[some]))), name)


def _answers(
    slide: Slide,
    grid: HeatmapGrid,
    cells: Cells,
    engine: Engine,
    n_classes: int,
    threads: int,
    show: ShowPatches,
) -> Probabilities:
    """Return the probabilities of patches, in the order of their cells."""
    portions = in_portions(cells, grid, engine.batch_size)
    found = np.full((*grid.shape, n_classes), np.nan, np.float32)
    done = 0

    def predicted(portion: Cells) -> Probabilities:
        patches = read_patches(slide, grid, portion)
        batches = []
        while batch := list(islice(patches, engine.batch_size)):
            batches.append(engine.predict(np.stack(batch)))
        return np.concatenate(batches)

    with _one_core_each(), ThreadPoolExecutor(threads, "predict") as pool:
        futures = {pool.submit(predicted, portion): portion for portion in portions}
        try:
            show(done, len(cells))
            for future in as_completed(futures):
                portion = futures.pop(future)
                found[portion[:, 0], portion[:, 1]] = future.result()
                done += len(portion)
                show(done, len(cells))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    answers: Probabilities = found[cells[:, 0], cells[:, 1]]
    if not np.isfinite(answers).all():
        raise QpannotError(
            f"{slide.path}: the network gives no numbers for some of its patches.",
            hint="The training went wrong; train again, or take another model.",
        )
    return answers


@contextmanager
def _one_core_each() -> Iterator[None]:
    """Let each thread that is started within calculate on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
