"""What was painted becomes annotations, and what was not painted stays as it was drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from qpannot.geometry import Mpp
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.qpdata import all_as_stored
from qpannot.recipe.settings import OutlineSettings
from qpannot.review.canvas import Canvas, Footprint, Labels, footprints, is_editable
from qpannot.review.erasing import wholly_erased
from qpannot.review.sharing import AROUND, Mask, Place, Share, shares_of
from qpannot.review.windows import windows_of
from qpannot.vectorize import class_mask, outlines_of_labels
from qpannot.vectorize.dividing import divided

SMOOTHED_PX, SIMPLIFIED_PX = 0.7, 0.1
"""How far a traced outline may lie from the edges of pixels, in pixels of the canvas."""

FINEST, FINE_PX, ALL_FINE_PX = 4, 1 << 22, 1 << 24
"""In a window pixels are divided by so many, as far as it then has no more pixels than this, and
all windows together no more than that: an outline that goes on into the window is met where it is,
and not at the next edge of a pixel."""

TILE_VERTICES = 2000
"""What is cut off annotations is cut off in tiles of no more, so that small ones are quick."""

SLIVER_PX = 0.2
"""What is thinner and smaller than a pixel is no more than the error of a seam."""

_OUTSIDE, _NONE = 0, 255
_NAMES = tuple(str(value) for value in range(1, _NONE + 1))
_AS_PIXELS = Mpp(1, 1)


@dataclass(frozen=True)
class Edits:
    """What to change of annotations.

    Parameters
    ----------
    add
        New ones.
    replace
        Pairs of one as it is and as it shall be, with the same ID.
    remove
        Those of which nothing is left.
    """

    add: tuple[Annotation, ...] = ()
    replace: tuple[tuple[Annotation, Annotation], ...] = ()
    remove: tuple[Annotation, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.replace or self.remove)

    def applied_to(self, annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
        """Return annotations as they are after the change, in their order, new ones last."""
        new = {old.id: changed for old, changed in self.replace}
        gone = {each.id for each in self.remove}
        kept = (new.get(each.id, each) for each in annotations if each.id not in gone)
        return (*kept, *self.add)


def edits_between(before: Sequence[Annotation], after: Sequence[Annotation]) -> Edits:
    """Return what makes of some annotations the others; what is the same object is unchanged."""
    old = {each.id: each for each in before}
    kept = {each.id for each in after}
    return Edits(
        add=tuple(each for each in after if each.id not in old),
        replace=tuple(
            (old[each.id], each) for each in after if each.id in old and old[each.id] is not each
        ),
        remove=tuple(each for each in before if each.id not in kept),
    )


def merged(
    annotations: Sequence[Annotation],
    before: Labels,
    after: Labels,
    canvas: Canvas,
    classes: Sequence[PathClass],
    *,
    metadata: Mapping[str, str] | None = None,
) -> Edits:
    """Return what is to be changed of annotations so that they show what was painted.

    Each pixel that was painted is then of its new class and no other. Around these pixels
    (`WINDOW_PX`) the outlines of the annotations that gained or lost some are traced anew; beyond,
    they keep their vertices, but for the rounding that QuPath needs of an area with holes or of
    several parts. All other annotations are left as they are.

    What was an annotation's stays its own: those of one class are never joined, also where they
    overlap or a stroke joins them. A new area becomes part of the one of its class that it touches
    longest, an annotation of its own if there is none. Of what is erased in two, both parts stay
    one annotation. A changed annotation keeps all but its outline.

    Parameters
    ----------
    annotations
        All of the image.
    before, after
        Class of each pixel of the canvas, as drawn (`canvas.draw`) and as painted.
    classes
        The class of value 1, of value 2, and so on.
    metadata
        Of new annotations.
    """
    changed = before != after
    editable = [each for each in annotations if is_editable(each, classes)]
    value_of = {each.name: value for value, each in enumerate(classes, 1)}
    values = [value_of[each.class_name or ""] for each in editable]
    areas = [_mended(each.geometry) for each in editable]
    tree = shapely.STRtree(areas)
    gone = wholly_erased(areas, values, changed, after, canvas)
    gained: defaultdict[int, list[shapely.Polygon]] = defaultdict(list)
    lost: defaultdict[int, list[shapely.Polygon]] = defaultdict(list)
    new: list[tuple[int, list[shapely.Polygon]]] = []
    rest = np.delete(np.array(areas, object), gone).tolist()
    is_traced = changed & ((after > 0) | _covered(rest, canvas)) if len(gone) else changed
    windows = windows_of(changed, is_traced)
    n_pixels = sum(window.mask.size for window in windows)
    for window in windows:
        part = canvas.part(*window.place)
        box = shapely.box(part.region.x, part.region.y, part.region.right, part.region.bottom)
        near = np.setdiff1d(tree.query(box), gone).tolist()
        found = footprints([areas[index] for index in near], part)
        drawn = {index: (values[index], each) for index, each in zip(near, found, strict=True)}
        painted = changed[window.place] & window.mask
        shares = shares_of(drawn, painted, after[window.place])
        if not shares:
            continue
        finer = _finer(window.mask.size, n_pixels)
        for share, own, others in _traced(shares, areas, drawn, painted, window.mask, part, finer):
            if share.owner is None:
                new.append((share.value, own))
            else:
                gained[share.owner] += own
                lost[share.owner] += others
    pixel = canvas.downsample
    removed = set(gone.tolist())
    changes: list[tuple[Annotation, Annotation]] = []
    for index in sorted(lost.keys() | gained.keys()):
        area = _redrawn(areas[index], lost[index], gained[index], pixel)
        if area is None:
            removed.add(index)
        else:
            changes.append((editable[index], editable[index].with_changes(geometry=area, roi=None)))
    add = []
    for value, polygons in new:
        area = polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)
        made = Annotation(area, path_class=classes[value - 1], metadata=dict(metadata or {}))
        add.append(made)
    replaced = _storable([changed_one for _, changed_one in changes])
    return Edits(
        tuple(_storable(add)),
        tuple((old, each) for (old, _), each in zip(changes, replaced, strict=True)),
        tuple(editable[index] for index in sorted(removed)),
    )


def _covered(areas: Sequence[BaseGeometry], canvas: Canvas) -> Mask:
    return class_mask([areas], canvas.affine, canvas.shape).astype(bool)


def _storable(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Return annotations with their outlines as QuPath will have them."""
    return [
        each.with_changes(geometry=stored.geometry, roi=stored.roi)
        for each, stored in zip(annotations, all_as_stored(annotations), strict=True)
    ]


def _traced(
    shares: Sequence[Share],
    areas: Sequence[BaseGeometry],
    drawn: Mapping[int, tuple[int, Footprint]],
    painted: Mask,
    window: Mask,
    canvas: Canvas,
    finer: int,
) -> Iterator[tuple[Share, list[shapely.Polygon], list[shapely.Polygon]]]:
    """Yield for each share what is its own within a window, and what is not.

    Shares that do not overlap are traced together, so that neighbours have one border.
    """
    fine = canvas.part(slice(0, canvas.shape[0]), slice(0, canvas.shape[1]), finer=finer)
    is_coarse = ndimage.binary_dilation(painted, AROUND)
    is_beside = window & is_coarse & ~painted
    is_fine = _divided(window & ~is_coarse, finer)
    blank = np.where(_divided(window, finer), np.uint8(_NONE), np.uint8(_OUTSIDE))
    owned = [areas[share.owner] for share in shares if share.owner is not None]
    finely = footprints(owned, fine)
    layers = [(blank.copy(), 0)]
    placed: list[tuple[Share, int, int]] = []
    for share in shares:
        spots = list(share.spots)
        if share.owner is not None:
            found = drawn[share.owner][1]
            is_left = found.inside & is_beside[found.place]
            spots.append((found.place, is_left))
        spots = [(_finer_place(place, finer), _divided(mask, finer)) for place, mask in spots]
        if share.owner is not None:
            found = next(finely)
            spots.append((found.place, found.inside & is_fine[found.place]))
        spots = [(place, mask) for place, mask in spots if mask.any()]
        if not spots:
            placed.append((share, 0, _NONE))
            continue
        free = [
            number
            for number, (labels, n) in enumerate(layers)
            if n < _NONE - 1 and all((labels[place][mask] == _NONE).all() for place, mask in spots)
        ]
        if not free:
            free = [len(layers)]
            layers.append((blank.copy(), 0))
        layer = free[0]
        labels, n = layers[layer]
        layers[layer] = (labels, n + 1)
        placed.append((share, layer, n + 1))
        for place, mask in spots:
            labels[place][mask] = n + 1
    pixel = canvas.downsample
    settings = OutlineSettings(
        min_area_um2=0,
        min_hole_area_um2=0,
        smoothing_um=SMOOTHED_PX * pixel,
        simplify_um=SIMPLIFIED_PX * pixel,
        max_vertices=2**31,
    )
    for layer, (labels, _) in enumerate(layers):
        outlines = outlines_of_labels(labels, fine.affine, _AS_PIXELS, _NAMES, settings)
        parts = [(int(each.class_name), each.polygon) for each in outlines]
        tiles = [(of, tile) for of, each in parts for tile in divided(each, TILE_VERTICES)]
        tree = shapely.STRtree([tile for _, tile in tiles])
        for share, own_layer, value in placed:
            if own_layer != layer:
                continue
            own = [polygon for of, polygon in parts if of == value != _NONE]
            near = [] if share.owner is None else tree.query(areas[share.owner]).tolist()
            met = [tiles[index] for index in near]
            yield share, own, [tile for of, tile in met if of != value or of == _NONE]


def _finer(n_pixels: int, n_all_pixels: int) -> int:
    """Return into how many the pixels of a window are divided, of all windows as many as told."""
    finer = FINEST
    while finer > 1 and (n_pixels * finer**2 > FINE_PX or n_all_pixels * finer**2 > ALL_FINE_PX):
        finer //= 2
    return finer


def _finer_place(place: Place, finer: int) -> Place:
    rows, columns = place
    return (
        slice(rows.start * finer, rows.stop * finer),
        slice(columns.start * finer, columns.stop * finer),
    )


def _divided(mask: Mask, finer: int) -> Mask:
    return mask.repeat(finer, axis=0).repeat(finer, axis=1)


def _redrawn(
    area: BaseGeometry,
    lost: Sequence[shapely.Polygon],
    gained: Sequence[shapely.Polygon],
    pixel: float,
) -> BaseGeometry | None:
    """Return an area without some polygons and with others, or ``None`` where nothing is left.

    Slivers and pinholes that arise where these meet the area are left out.
    """
    left = shapely.difference(area, shapely.union_all(lost))
    polygons = shapely.get_parts(shapely.union_all([left, *gained]))
    polygons = polygons[shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON]
    rings, owner = shapely.get_rings(polygons, return_index=True)
    size, length = shapely.area(shapely.polygons(rings)), shapely.length(rings)
    is_sliver = (size < pixel**2) & (2 * size < SLIVER_PX * pixel * length)
    if is_sliver.any():
        window = shapely.buffer(shapely.union_all([*lost, *gained]), pixel)
        old = set(shapely.to_wkb(shapely.normalize(shapely.get_rings(shapely.get_parts(area)))))
        is_old = [each in old for each in shapely.to_wkb(shapely.normalize(rings))]
        is_sliver &= shapely.covers(window, rings) & ~np.array(is_old)
        is_shell = np.diff(owner, prepend=-1) > 0
        is_gone = is_sliver | np.isin(owner, owner[is_sliver & is_shell])
        kept = rings[~is_gone]
        own = np.unique(owner[~is_gone], return_inverse=True)[1]
        polygons = np.asarray(shapely.polygons(kept, indices=own) if len(kept) else [], object)
    if len(polygons) == 0:
        return None
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons.tolist())


def _mended(area: BaseGeometry) -> BaseGeometry:
    """Return a valid area, by the even-odd rule as QuPath fills it."""
    if area.is_valid:
        return area
    parts = shapely.make_valid(shapely.get_parts(area), method="linework")
    return shapely.union_all([each for each in shapely.get_parts(parts) if each.area > 0])
