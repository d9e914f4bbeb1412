"""Whole slides as small images: the slide, its heatmap and its truth, pixel on pixel.

An image is red, green and blue, then the heatmap of each class but the rest, all from 0 to 255. The
truth is the class of each pixel, the rest 0; where nobody can tell, it is `UNKNOWN`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.errors import QpannotError, UsageError
from qpannot.geometry import Region, Size
from qpannot.heatmap import Heatmap
from qpannot.qupath import Annotation
from qpannot.qupath.files import write_atomically
from qpannot.recipe import Recipe
from qpannot.recipe.settings import LabelSettings
from qpannot.sampling.areas import Areas, is_drawn, looked_through, polygonal, resolve_areas
from qpannot.sampling.frame import Frame, into_frame
from qpannot.sampling.store import DAMAGED, index_key
from qpannot.slide import Slide
from qpannot.vectorize.rasterize import coverage

VERSION = 1
"""To be raised when the same slide, heatmap and annotations give another image or truth."""

UNKNOWN = -1
"""In place of a class where nobody can tell; nothing is learned there."""

WHITE = 255

Image = NDArray[np.uint8]
"""Shape [size, size, 3 + classes but the rest]."""

Labels = NDArray[np.int8]
"""Shape [size, size]."""


@dataclass(frozen=True, eq=False)
class WholeSlide:
    """A slide to learn from; see the module."""

    image: Image
    labels: Labels


@dataclass(frozen=True)
class StoredSlide:
    """The file of a `WholeSlide`.

    Parameters
    ----------
    key
        Digest of all that it was made from.
    """

    path: Path
    key: str


def image_of(slide: Slide, frame: Frame, heatmap: Heatmap | None, classes: Sequence[str]) -> Image:
    """Return a slide and its heatmap as an image.

    Parameters
    ----------
    heatmap
        Of this slide; counts as 0 where nothing was predicted. None: the slide alone.
    classes
        Whose probabilities follow on the colours.

    Raises
    ------
    SlideError
        The slide cannot be read.
    UsageError
        The heatmap has no such class.
    """
    affine, side = frame.affine, frame.size_px
    region = Region(affine.x, affine.y, side * affine.dx, side * affine.dy)
    pixels = slide.read_downsampled(region, (affine.dx, affine.dy), Size(side, side))
    if heatmap is None:
        return pixels
    if missing := [name for name in classes if name not in heatmap.classes]:
        raise UsageError(
            f"The heatmap of {heatmap.slide or slide.path.name} has no {' and '.join(missing)}; "
            f"it has {', '.join(heatmap.classes)}.",
            hint="Predict the slide with a model that was trained for these classes.",
        )
    chosen = np.stack([heatmap.channel(name) for name in classes], axis=2)
    known = into_frame(np.nan_to_num(chosen, nan=0.0), heatmap.affine, frame)
    scaled = np.zeros(known.shape, np.uint8)
    scaled[frame.inner] = np.rint(known[frame.inner].clip(0, 1) * 255).astype(np.uint8)
    return np.concatenate([pixels, scaled], axis=2)


def labels_of(areas: Areas, settings: LabelSettings, frame: Frame) -> Labels:
    """Return the class of each pixel: the one that covers most of it, exactly measured.

    Truth holds as for patches (see `sampling.areas` and `sampling.index`), where more than half of
    a pixel is known: not in ``Ignore*``, not in a proposal nobody reviewed, not beside the slide;
    where coverage is partial, only within the classes, the rest by its name, and ``Region*`` but
    for classes the recipe does not know.

    Returns
    -------
    ndarray of int8, shape [size_px, size_px]
        `UNKNOWN` where truth does not hold.
    """
    ignored = areas.ignored
    classes = np.stack(
        [_covered(polygonal(area.difference(ignored)), frame) for area in areas.classes]
    )
    if settings.coverage == "partial":
        part_known = _covered(polygonal(looked_through(areas).difference(ignored)), frame)
    else:
        part_known = 1 - _covered(ignored, frame)
    rest = part_known - classes.sum(axis=0)
    labels = np.concatenate([rest[None], classes]).argmax(axis=0)
    inside = np.zeros(frame.shape, bool)
    inside[frame.inner] = True
    found: Labels = np.where(inside & (part_known > 0.5), labels, UNKNOWN).astype(np.int8)
    return found


def _covered(area: BaseGeometry, frame: Frame) -> NDArray[np.float32]:
    return coverage([area], frame.affine, frame.shape)


def stored_whole(
    folder: Path,
    slide_id: str,
    slide: Slide,
    heatmap: Heatmap | None,
    annotations: Sequence[Annotation],
    recipe: Recipe,
    *,
    is_truth: Callable[[Annotation], bool] = is_drawn,
) -> StoredSlide:
    """Return the file of a slide to learn from, made anew only where it no longer fits.

    Parameters
    ----------
    folder
        Where the files lie; made where it is missing.
    slide_id
        What the slide is known by; names the file.
    heatmap
        Of this slide; left alone, and not needed, where ``refinement.use_heatmap`` is false.
    annotations, recipe, is_truth
        As for `index_slide`; the recipe's ``refinement`` says how large the image is.

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        The slide cannot be read.
    UsageError
        There is no heatmap, or it has other classes.
    ProjectError
        The file cannot be written.
    """
    settings = recipe.refinement
    if not settings.use_heatmap:
        heatmap = None
    elif heatmap is None:
        raise UsageError(
            f"{slide.path.name} has no heatmap to refine.",
            hint="Predict it first, or set refinement.use_heatmap to false.",
        )
    said = index_key(slide, annotations, recipe, is_truth=is_truth)
    shown = [VERSION, settings.size_px, settings.fit, heatmap and heatmap.model, said]
    key = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
    path = folder / f"{quote(slide_id, safe=' ')}.npz"
    if _read(path, key) is None:
        frame = Frame.of(slide.size, slide.mpp, settings.size_px, settings.fit)
        areas = resolve_areas(annotations, recipe.labels, is_truth=is_truth)
        image = image_of(slide, frame, heatmap, recipe.labels.classes)
        return store_whole(path, WholeSlide(image, labels_of(areas, recipe.labels, frame)), key)
    return StoredSlide(path, key)


def load_whole(stored: StoredSlide) -> WholeSlide:
    """Return a slide to learn from.

    Raises
    ------
    QpannotError
        Its file was changed, damaged or removed meanwhile.
    """
    found = _read(stored.path, stored.key)
    if found is None:
        raise QpannotError(
            f"{stored.path} was removed or changed while it was learned from.",
            hint="Run the command again; the file is made anew.",
        )
    return found


def store_whole(path: Path, whole: WholeSlide, key: str) -> StoredSlide:
    """Write a slide to learn from; a crash leaves the old file or the new one.

    Raises
    ------
    ProjectError
        The file cannot be written.
    """
    file = io.BytesIO()
    np.savez_compressed(file, key=np.array(key), image=whole.image, labels=whole.labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, file.getvalue())
    return StoredSlide(path, key)


def _read(path: Path, key: str) -> WholeSlide | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            return WholeSlide(file["image"], file["labels"])
    except DAMAGED:
        return None  # it is made anew
