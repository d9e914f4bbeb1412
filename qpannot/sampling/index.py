"""The patches of a slide: where they are and what they are called, never their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.geometry import Region
from qpannot.qupath import Annotation
from qpannot.recipe import Recipe
from qpannot.recipe.settings import LabelSettings
from qpannot.sampling.areas import Areas, is_drawn, looked_through, polygonal, resolve_areas
from qpannot.sampling.coverage import PatchGrid, covered
from qpannot.sampling.labels import LeftOut, class_names, label_patches
from qpannot.slide import Slide
from qpannot.tissue import detect_tissue


@dataclass(frozen=True, eq=False)
class PatchTable:
    """The labelled patches of one slide.

    Parameters
    ----------
    x, y
        Upper left corners in full-resolution pixels of QuPath's frame, float64, shape [n]. They
        lie between pixels where the downsample is not whole.
    label
        Index of ``classes``, int16, shape [n].
    tissue
        Part of each patch that is tissue, float32, shape [n].
    fractions
        Part of each patch that is of each class but the rest, float32, shape [n, classes - 1].
    classes
        Names of the labels, the rest first.
    size_px, mpp
        The patches' size in pixels, and micrometres per pixel.
    width, height
        The patches' size in full-resolution pixels.
    left_out
        How many patches of the grid have no label, by reason.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    label: NDArray[np.int16]
    tissue: NDArray[np.float32]
    fractions: NDArray[np.float32]
    classes: tuple[str, ...]
    size_px: int
    mpp: float
    width: float
    height: float
    left_out: Mapping[LeftOut, int]

    def __len__(self) -> int:
        return len(self.x)

    def region(self, row: int) -> Region:
        """Return where a patch lies."""
        return Region(float(self.x[row]), float(self.y[row]), self.width, self.height)

    @property
    def counts(self) -> dict[str, int]:
        """How many patches there are of each class, the rest first."""
        numbers = np.bincount(self.label, minlength=len(self.classes))
        return dict(zip(self.classes, numbers.tolist(), strict=True))


def index_slide(
    slide: Slide,
    annotations: Sequence[Annotation],
    recipe: Recipe,
    *,
    is_truth: Callable[[Annotation], bool] = is_drawn,
) -> PatchTable:
    """Return the labelled patches of a slide (H2G-Net sec. 2.2).

    Tissue is what AN1 finds, together with what is annotated as a class: a person's tumour is
    tissue, however pale. Where coverage is partial, tissue counts only within annotated areas:
    the classes, the rest by its name, and ``Region*`` but for classes the recipe does not know.

    Parameters
    ----------
    slide
        Read at low resolution, for its tissue.
    annotations
        Of a slide that was reviewed, in QuPath's order.
    is_truth
        Whether an annotation may be learned from. This room cannot know what a person said of a
        proposal, so by default only what is no proposal counts; a caller who knows passes, for
        instance, every annotation of a slide a person called reviewed, or those that were
        corrected. Patches that touch any other are left out.

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        The slide cannot be read.
    """
    grid = PatchGrid.of(slide.size, slide.mpp, recipe.patches)
    areas = resolve_areas(annotations, recipe.labels, is_truth=is_truth)
    tissue = _tissue(_united(detect_tissue(slide, recipe.tissue)), areas, recipe.labels)
    tissue_part = covered(tissue, grid).ravel()
    class_parts = np.stack([covered(area, grid).ravel() for area in areas.classes], axis=1)
    labels = label_patches(
        tissue_part, class_parts, covered(areas.ignored, grid).ravel(), recipe.labels
    )
    x, y = (corners.ravel() for corners in np.meshgrid(grid.x, grid.y))
    kept = labels >= 0
    return PatchTable(
        x=x[kept],
        y=y[kept],
        label=labels[kept],
        tissue=tissue_part[kept].astype(np.float32),
        fractions=class_parts[kept].astype(np.float32),
        classes=class_names(recipe.labels),
        size_px=recipe.patches.size_px,
        mpp=recipe.patches.mpp,
        width=grid.width,
        height=grid.height,
        left_out={reason: int(np.count_nonzero(labels == reason)) for reason in LeftOut},
    )


def _tissue(found: BaseGeometry, areas: Areas, settings: LabelSettings) -> BaseGeometry:
    if settings.coverage == "partial":
        found = polygonal(found.intersection(looked_through(areas)))
    return _united([found, *areas.classes])


def _united(parts: Iterable[BaseGeometry]) -> BaseGeometry:
    united: BaseGeometry = shapely.union_all([polygonal(part) for part in parts])
    return united


def describe_patches(tables: Mapping[str, PatchTable]) -> str:
    """Return in words how many patches of which class slides have, and what is missing.

    Parameters
    ----------
    tables
        By slide, all made with one recipe; at least one.
    """
    classes = next(iter(tables.values())).classes
    counts = {name: sum(table.counts[name] for table in tables.values()) for name in classes}
    n_slides = {name: sum(table.counts[name] > 0 for table in tables.values()) for name in classes}
    lines = [
        f"{name}: {count:,} patches from {n_slides[name]} of {len(tables)} slides"
        if count
        else f"{name}: no patches"
        for name, count in counts.items()
    ]
    why = {
        LeftOut.GLASS: "with too little tissue",
        LeftOut.MIXED: "of several kinds",
        LeftOut.IGNORED: "to be ignored or not reviewed",
    }
    numbers = {
        reason: sum(table.left_out[reason] for table in tables.values()) for reason in LeftOut
    }
    left_out = [f"{numbers[reason]:,} {words}" for reason, words in why.items() if numbers[reason]]
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    if missing := [name for name, count in counts.items() if not count]:
        lines.append(
            f"There is nothing to learn {' and '.join(missing)} from. Annotate some, compare the "
            "names with labels.classes and labels.rest of the recipe, or take smaller patches "
            "(patches.size_px)."
        )
    return "\n".join(lines)
