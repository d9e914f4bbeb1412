"""The refinement network over slides and their heatmaps (H2G-Net sec. 2.6)."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from qpannot.errors import QpannotError, UsageError
from qpannot.heatmap import Heatmap, load_heatmap, save_heatmap
from qpannot.inference.predict import image_identity
from qpannot.inference.slides import Color, SlideProgress, SlideResult, each_slide, no_progress
from qpannot.inference.slides import no_result as ignore
from qpannot.models import predict_probabilities
from qpannot.models.refinement import RefinementBundle
from qpannot.sampling import Opener
from qpannot.sampling.frame import Frame
from qpannot.sampling.whole import image_of
from qpannot.slide import Slide

logger = logging.getLogger(__name__)

VERSION = 1
"""To be raised when the same slide, heatmap and model give another result than before."""


def refine_heatmap(
    slide: Slide, heatmap: Heatmap | None, bundle: RefinementBundle, *, slide_id: str = ""
) -> Heatmap:
    """Return how probable each class is in each place of a slide, seen as a whole.

    Parameters
    ----------
    slide
        Of known pixel size.
    heatmap
        The patch network's; left alone by a network that takes none.
    bundle
        The model; its network calculates where it is, on the GPU if it was moved there.
    slide_id
        What the project knows the slide by; by default what the heatmap says, or the file's name.

    Returns
    -------
    Heatmap
        From the slide's corner on, without the padding; the last pixels may reach beyond the
        slide. On glass too, as the paper's: nothing in it is NaN. Outlines are cut at the tissue,
        and calibration is measured within it. Its ``model`` is `refined_key`.

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        The slide cannot be read.
    UsageError
        There is no heatmap, or it lacks a class of the network's.
    QpannotError
        The network does not give numbers, or the memory does not suffice.
    """
    card = bundle.card
    name = slide_id or (heatmap.slide if heatmap else "") or slide.path.name
    if not card.takes_heatmap:
        heatmap = None
    elif heatmap is None:
        raise UsageError(
            f"{name} has no heatmap to refine.", hint="Predict it first: qpannot predict"
        )
    frame = Frame.of(slide.size, slide.mpp, card.architecture.size_px, card.fit)
    image = torch.from_numpy(image_of(slide, frame, heatmap, card.classes[1:]))
    try:
        found = predict_probabilities(bundle.network, image.permute(2, 0, 1)[None])
    except torch.OutOfMemoryError as error:
        raise QpannotError(
            f"{name}: the memory of the GPU does not suffice to refine it.",
            hint="End what else uses the GPU, or refine without it.",
        ) from error
    inner = found[0].permute(1, 2, 0)[frame.inner].cpu().contiguous().numpy()
    if not bool(torch.isfinite(found).all()):
        raise QpannotError(
            f"{name}: the network {bundle.folder} gives no numbers for it.",
            hint="The training went wrong; train again, or take another model.",
        )
    return Heatmap(
        inner.clip(0, 1),
        card.classes,
        frame.inner_affine,
        slide.mpp,
        slide=name,
        model=refined_key(slide, heatmap.model if heatmap else None, bundle),
    )


def refined_key(slide: Slide, heatmap: str | None, bundle: RefinementBundle) -> str:
    """Return what a refined heatmap is known by: the beginning of its model's digest, and a rest.

    Parameters
    ----------
    slide, bundle
        As for `refine_heatmap`.
    heatmap
        What the heatmap that is refined is known by (`heatmap_key`).

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        Its file cannot be read.
    """
    card = bundle.card
    refined = heatmap if card.takes_heatmap else None
    shown = [VERSION, image_identity(slide), card.architecture.model_dump(), card.fit, refined]
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
    return f"{card.weights_sha256[:12]}-{digest[:12]}"


def refine_slides(
    slides: Mapping[str, Opener],
    heatmaps: Mapping[str, Path],
    bundle: RefinementBundle,
    folder: Path,
    *,
    colors: Mapping[str, Color] | None = None,
    each: Callable[[SlideResult], None] = ignore,
    show: Callable[[SlideProgress], None] = no_progress,
) -> list[SlideResult]:
    """Refine the heatmaps of slides and save them; resumed as `predict_slides` is.

    Parameters
    ----------
    slides
        What opens them, by id.
    heatmaps
        The patch network's files, by id; not needed by a network that takes none.
    bundle
        The model.
    folder
        Where refined heatmaps are saved, as ``<id>.ome.tif``; another one than the heatmaps'.
    colors, each, show
        As for `predict_slides`; a slide counts as one patch.

    Returns
    -------
    list of SlideResult
        One for each slide, in their order. Whether some failed is for the caller to tell.

    Raises
    ------
    UsageError
        The heatmaps to be refined lie in that very folder, and would be overwritten.
    """
    if any(path.parent.resolve() == folder.resolve() for path in heatmaps.values()):
        raise UsageError(
            f"{folder} holds the heatmaps that are to be refined.",
            hint="Name another folder for what comes of them.",
        )
    is_told = False

    def heatmap_of(slide_id: str) -> Heatmap | None:
        nonlocal is_told
        if not bundle.card.takes_heatmap or slide_id not in heatmaps:
            return None
        heatmap = load_heatmap(heatmaps[slide_id])
        own = (bundle.card.patch_model_sha256 or "")[:12]
        if not heatmap.model.startswith(own) and not is_told:
            logger.warning(
                "The heatmaps are of another patch network than those %s was trained on.",
                bundle.folder,
            )
            is_told = True
        return heatmap

    def key_of(slide: Slide, slide_id: str) -> str:
        heatmap = heatmap_of(slide_id)
        return refined_key(slide, heatmap.model if heatmap else None, bundle)

    def make(slide: Slide, slide_id: str, path: Path, number: int) -> SlideResult:
        start = time.monotonic()
        show(SlideProgress(slide_id, number, len(slides), 0, 1))
        found = refine_heatmap(slide, heatmap_of(slide_id), bundle, slide_id=slide_id)
        save_heatmap(path, found, colors=colors)
        show(SlideProgress(slide_id, number, len(slides), 1, 1))
        seconds = time.monotonic() - start
        return SlideResult(slide_id, "predicted", path, patches=1, engine="torch", seconds=seconds)

    return each_slide(slides, folder, key_of, make, each)
