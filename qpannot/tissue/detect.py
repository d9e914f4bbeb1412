"""AN1: tissue told from glass.

Source: H2G-Net sec. 2.1; QuPath 0.6 ``SimpleTissueDetection2``, whose results the method
``threshold`` reproduces; on request with what gets lost in them on some Javas (see
`qpannot.tissue.javaarea`).
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from qpannot.geometry import Mpp, Region
from qpannot.recipe import TissueSettings
from qpannot.slide import Slide
from qpannot.tissue import javaarea, masks
from qpannot.tissue.javaarea import Area
from qpannot.tissue.otsu import saturation, tissue_threshold
from qpannot.tissue.outlines import Ring, filled_parts
from qpannot.tissue.reading import read_working_image
from qpannot.tissue.simplify import Points, simplify_points, smooth_points

MAX_WORKING_PX = 4000
"""The longest side of the working image, whatever pixel size is requested."""


def detect_tissue(slide: Slide, settings: TissueSettings) -> list[Area]:
    """Return where a slide has tissue.

    Parameters
    ----------
    slide
        Read at low resolution. Without a known pixel size the ``requested_downsample`` and
        ``_px2`` settings count.
    settings
        The numbers of the method.

    Returns
    -------
    list of Polygon or MultiPolygon
        In full-resolution pixels of QuPath's frame: one item if ``settings.single_annotation``,
        else one for each part of the tissue; none where no tissue was found. Valid, on QuPath's
        grid of 0.01 pixels. As the working image has whole pixels, an outline may reach beyond
        the slide by half of one, in QuPath as well.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    downsample = working_downsample(slide, settings)
    if settings.method == "otsu":
        whole = Region(0, 0, slide.size.width, slide.size.height)
        rgb = slide.read_downsampled(whole, downsample)
    else:
        rgb = read_working_image(slide, downsample)
    return detect_in_rgb(rgb, downsample=downsample, mpp=slide.mpp_or_none, settings=settings)


def working_downsample(slide: Slide, settings: TissueSettings) -> float:
    """Return the downsample at which tissue is looked for."""
    longest = max(slide.size.width, slide.size.height)
    if settings.method == "otsu":
        return max(1.0, longest / settings.otsu_size_px)
    mpp = slide.mpp_or_none
    if mpp is None:
        requested = settings.requested_downsample
    else:
        requested = settings.requested_pixel_size_um / mpp.mean
    return requested if longest / requested <= MAX_WORKING_PX else longest / MAX_WORKING_PX


def detect_in_rgb(
    rgb: NDArray[np.uint8],
    *,
    downsample: float,
    mpp: Mpp | None,
    settings: TissueSettings,
) -> list[Area]:
    """Return where an image has tissue.

    Parameters
    ----------
    rgb
        Working image, shape [height, width, 3].
    downsample
        Full-resolution pixels per pixel of ``rgb``.
    mpp
        Micrometres per full-resolution pixel, ``None`` if unknown.
    settings
        The numbers of the method.

    Returns
    -------
    list of Polygon or MultiPolygon
        As `detect_tissue`.
    """
    mask = _mask(rgb, settings)
    if settings.exclude_on_boundary:
        mask = masks.without_boundary(mask)
    if mpp is None:
        min_area, max_hole_area = settings.min_area_px2, settings.max_hole_area_px2
        pixel_area = downsample * downsample
    else:
        min_area, max_hole_area = settings.min_area_um2, settings.max_hole_area_um2
        pixel_area = mpp.mean * mpp.mean * downsample * downsample
    parts = filled_parts(
        mask, min_area / pixel_area, exclude_on_boundary=settings.exclude_on_boundary
    )
    holes: list[Ring] = []
    if max_hole_area > 0:
        holes = filled_parts(parts.filled & ~mask, max_hole_area / pixel_area).rings

    def finished(rings: list[Ring]) -> list[Area]:
        outlines = (_outline(ring, downsample, settings.smooth_coordinates) for ring in rings)
        return [javaarea.filled(outline) for outline in outlines]

    tissue = _with_holes(finished(parts.rings), finished(holes), settings.java_cuts)
    tissue = [area for area in tissue if not area.is_empty]
    if settings.single_annotation and len(tissue) > 1:
        return [javaarea.union(tissue)]
    return tissue


def _mask(rgb: NDArray[np.uint8], settings: TissueSettings) -> masks.Mask:
    is_otsu = settings.method == "otsu"
    image = saturation(rgb) if is_otsu else masks.grey(rgb)
    if settings.smooth_image:
        image = masks.smooth(image)
    if is_otsu:
        mask = image > tissue_threshold(image)
    elif settings.dark_background:
        mask = image > settings.threshold
    else:
        mask = image < settings.threshold
    if settings.median_cleanup:
        mask = masks.median(mask)
    if settings.dilate_boundaries:
        mask = masks.dilate(mask)
    return mask


def _outline(ring: Ring, downsample: float, is_smooth: bool) -> Points:
    """Return an outline in full-resolution pixels, rounded to float32 as QuPath keeps it."""
    points = (ring * downsample).astype(np.float32).astype(np.float64)
    return simplify_points(smooth_points(points), downsample / 2) if is_smooth else points


def _with_holes(parts: list[Area], holes: list[Area], java_cuts: bool) -> list[Area]:
    """Return the parts, each without the holes that lie in it.

    Smoothing and simplifying may have pushed a hole over its part's edge, and `javaarea` may have
    dropped the piece it lay in: QuPath leaves such a hole filled.
    """

    def cuts(area: Area, operands: list[float] | None = None) -> list[float]:
        return javaarea.cuts(area, operands) if java_cuts else []

    part_cuts = [cuts(part) for part in parts]
    shown = [javaarea.remaining(part, at) for part, at in zip(parts, part_cuts, strict=True)]
    if not holes:
        return shown
    hole_cuts = [cuts(hole) for hole in holes]
    tree = shapely.STRtree(
        [javaarea.remaining(hole, at) for hole, at in zip(holes, hole_cuts, strict=True)]
    )
    inside: list[list[int]] = [[] for _ in parts]
    is_taken = [False] * len(holes)
    for part, hole in sorted(tree.query(shown, predicate="covers").T.tolist()):
        if not is_taken[hole]:
            is_taken[hole] = True
            inside[part].append(hole)
    for index, chosen in enumerate(inside):
        if not chosen:
            continue
        hole_union = javaarea.polygonal(shapely.union_all([holes[hole] for hole in chosen]))
        rest = javaarea.polygonal(shapely.difference(parts[index], hole_union))
        at_holes = [y for hole in chosen for y in hole_cuts[hole]]
        at = [*at_holes, *part_cuts[index], *cuts(hole_union, at_holes)]
        shown[index] = javaarea.remaining(rest, cuts(rest, at))
    return shown
