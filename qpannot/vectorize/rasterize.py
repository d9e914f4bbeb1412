"""Polygons back to pixels: which class a pixel's middle has, and how much of a cell is covered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.vectorize.runs import ranges

BLOCK_PX = 1 << 22
"""Pixels worked on at a time: a few 8-byte arrays of as many."""


def class_mask(
    classes: Sequence[Sequence[BaseGeometry]], affine: Affine, shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the class of each pixel: that of the last one to have its middle inside.

    A polygon is filled by the even-odd rule, exactly: a middle on a left or upper edge is inside,
    on a right or lower one it is not, so that neighbours share no pixel and leave none out.

    Parameters
    ----------
    classes
        Areas of each class in full-resolution pixels, the lowest layer first; up to 255. Polygons
        and what is made of them; lines and points cover nothing. Areas of one class may overlap.
    affine
        Where the pixels lie on the slide.
    shape
        Height and width of the mask. What lies outside of it is cut off.

    Returns
    -------
    uint8 array, shape [height, width]
        1 for the first of ``classes``, 0 for none.
    """
    if len(classes) > 255:
        raise ValueError(f"a mask has room for 255 classes, not {len(classes)}")
    mask = np.zeros(shape, np.uint8)
    for index, areas in enumerate(classes):
        edges, owner = _edges(_polygons(areas), affine)
        # A middle at y + 1/2 is crossed by the edges from y_0 <= y + 1/2 to y_1 > y + 1/2.
        edges = edges - 0.5
        edges, owner = _downwards(edges, owner)
        for rows, chosen in _by_rows(edges, shape):
            _fill(mask[rows], edges[chosen] - (0, rows.start), owner[chosen], index + 1)
    return mask


@dataclass(frozen=True)
class Spans:
    """Pixels of many areas that may overlap, as parts of rows; ordered by areas.

    Parameters
    ----------
    areas
        Shape [n], int64: of which area each is.
    rows, starts, stops
        Shape [n], int64: the row, the first column and the one after the last. Those of an invalid
        area may overlap.
    """

    areas: NDArray[np.int64]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


def spans_of(areas: Sequence[BaseGeometry], affine: Affine, shape: tuple[int, int]) -> Spans:
    """Return the pixels that have their middle inside of each area by itself, as `class_mask` does.

    Parameters
    ----------
    areas
        Polygons and what is made of them, in full-resolution pixels.
    affine, shape
        As for `class_mask`.
    """
    parts, own = shapely.get_parts(np.array(list(areas), object), return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)
    is_polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    own = own[inner][is_polygon]
    edges, owner = _edges(parts[is_polygon], affine)
    edges, owner = _downwards(edges - 0.5, owner)
    found = [np.zeros((4, 0), np.int64)]
    for rows, chosen in _by_rows(edges, shape):
        block = rows.stop - rows.start, shape[1]
        part, row, start, stop = _runs(edges[chosen] - (0, rows.start), owner[chosen], block)
        found.append(np.stack([own[part], row + rows.start, start, stop]))
    spans = np.concatenate(found, axis=1)
    order = np.argsort(spans[0], kind="stable")
    return Spans(*spans[:, order])


def coverage(
    areas: Sequence[BaseGeometry], affine: Affine, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return which part of each cell of a grid is covered, from the areas themselves.

    Parameters
    ----------
    areas
        In full-resolution pixels; what several of them cover counts once.
    affine
        Where the cells lie on the slide: patches without overlap, or pixels of a low resolution.
    shape
        Height and width of the grid in cells.

    Returns
    -------
    float32 array, shape [height, width]
        0 to 1.
    """
    covered = np.zeros(shape, np.float32)
    polygons = _polygons(areas)
    is_valid = shapely.is_valid(polygons)
    even_odd = shapely.make_valid(polygons[~is_valid], method="linework")
    merged = shapely.disjoint_subset_union_all([*polygons[is_valid], *_polygons(even_odd.tolist())])
    edges, _ = _edges(shapely.orient_polygons(_polygons([merged])), affine)
    for rows, chosen in _by_rows(edges, shape):
        _cover(covered[rows], edges[chosen] - (0, rows.start))
    return covered


def _polygons(areas: Sequence[BaseGeometry]) -> NDArray[np.object_]:
    parts = shapely.get_parts(shapely.get_parts(np.array(list(areas), object)))
    chosen: NDArray[np.object_] = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return chosen


def _edges(
    polygons: NDArray[np.object_], affine: Affine
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return all edges in pixels, shape [n, 2 ends, 2], and the index of the polygon of each."""
    rings, polygon_of_ring = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    points = affine.from_slide(points)
    is_edge = ring[1:] == ring[:-1]
    edges = np.stack([points[:-1], points[1:]], axis=1)[is_edge]
    return edges, polygon_of_ring[ring[1:][is_edge]]


def _downwards(
    edges: NDArray[np.float64], owner: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    is_up = edges[:, 0, 1] > edges[:, 1, 1]
    edges[is_up] = edges[is_up, ::-1]
    is_slanted = edges[:, 0, 1] != edges[:, 1, 1]
    return edges[is_slanted], owner[is_slanted]


def _by_rows(
    edges: NDArray[np.float64], shape: tuple[int, int]
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Yield blocks of rows with the indices of the edges that reach into each."""
    if len(edges) == 0:
        return
    top, bottom = edges[:, :, 1].min(axis=1), edges[:, :, 1].max(axis=1)
    order = np.argsort(top)
    tops = top[order]
    step = max(1, BLOCK_PX // max(1, shape[1]))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        above = order[: np.searchsorted(tops, stop)]
        chosen = above[bottom[above] >= start]
        if len(chosen):
            yield slice(start, stop), chosen


def _fill(
    mask: NDArray[np.uint8], edges: NDArray[np.float64], owner: NDArray[np.int64], value: int
) -> None:
    """Fill polygons into rows of a mask; integers are the middles of pixels here."""
    height, width = mask.shape
    _, rows, starts, stops = _runs(edges, owner, (height, width))
    steps = np.bincount(rows * (width + 1) + starts, minlength=height * (width + 1))
    steps -= np.bincount(rows * (width + 1) + stops, minlength=height * (width + 1))
    inside = np.cumsum(steps.reshape(height, width + 1), axis=1)[:, :-1] > 0
    mask[inside] = value


def _runs(
    edges: NDArray[np.float64], owner: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return owner, row, start and stop of the runs of pixels inside of each polygon."""
    height, width = shape
    (x0, y0), (x1, y1) = edges[:, 0].T, edges[:, 1].T
    first = np.clip(np.ceil(y0), 0, height).astype(np.int64)
    last = np.clip(np.ceil(y1), 0, height).astype(np.int64)
    counts = np.maximum(last - first, 0)
    rows = ranges(first, counts)
    slope = (x1 - x0) / (y1 - y0)
    crossing = np.repeat(x0, counts) + (rows - np.repeat(y0, counts)) * np.repeat(slope, counts)
    columns = np.clip(np.ceil(crossing), 0, width).astype(np.int64)
    owners = np.repeat(owner, counts)
    order = np.lexsort((columns, rows, owners))
    begins = order[0::2]
    return owners[begins], rows[begins], columns[begins], columns[order[1::2]]


def _cover(covered: NDArray[np.float32], edges: NDArray[np.float64]) -> None:
    """Add the parts of cells at the right of edges, those upwards positive.

    Cut at the lines between cells, an edge lies in one column of each row it crosses: it covers the
    cells further right by its height, and its own by the part at its right.
    """
    height, width = covered.shape
    pieces = _cut(_cut(_within_rows(edges, height), 1, height), 0, width)
    middle = pieces.mean(axis=1)
    rise = pieces[:, 0, 1] - pieces[:, 1, 1]
    row = np.clip(np.floor(middle[:, 1]), 0, height - 1).astype(np.int64)
    column = np.clip(np.floor(middle[:, 0]), -1, width).astype(np.int64)
    in_cell = np.where(column < 0, 1.0, np.clip(1 - (middle[:, 0] - column), 0, 1))
    cell = row * (width + 2) + column + 1
    size = height * (width + 2)
    own = np.bincount(cell, weights=rise * in_cell, minlength=size)
    further = np.bincount(cell, weights=rise, minlength=size)
    further = np.cumsum(further.reshape(height, width + 2), axis=1)
    area = own.reshape(height, width + 2)[:, 1:-1] + further[:, :-2]
    covered += np.clip(area, 0, 1).astype(np.float32)


def _within_rows(edges: NDArray[np.float64], height: int) -> NDArray[np.float64]:
    """Return what of edges lies between the first row and the last."""
    (x0, y0), (x1, y1) = edges[:, 0].T, edges[:, 1].T
    slope = (x1 - x0) / np.where(y0 == y1, np.inf, y1 - y0)
    top, bottom = np.clip(y0, 0, height), np.clip(y1, 0, height)
    left = np.where(top == y0, x0, x0 + (top - y0) * slope)
    right = np.where(bottom == y1, x1, x0 + (bottom - y0) * slope)
    inner = np.stack([left, top, right, bottom], axis=1).reshape(-1, 2, 2)
    return np.asarray(inner[top != bottom])


def _cut(edges: NDArray[np.float64], axis: int, last: int) -> NDArray[np.float64]:
    """Return edges cut where they cross the whole numbers of an axis from 0 to the last."""
    start, stop = edges[:, 0, axis], edges[:, 1, axis]
    low, high = np.minimum(start, stop), np.maximum(start, stop)
    first = np.clip(np.floor(low) + 1, 0, last + 1).astype(np.int64)
    counts = np.maximum(np.clip(np.ceil(high), 0, last + 1).astype(np.int64) - first, 0)
    if not counts.any():
        return edges
    step = ranges(np.zeros_like(counts), counts)
    forward = np.repeat(stop > start, counts)
    line = np.where(
        forward, np.repeat(first, counts) + step, np.repeat(first + counts - 1, counts) - step
    )
    index = np.repeat(np.arange(len(edges)), counts)
    part = (line - start[index]) / (stop - start)[index]
    points = edges[index, 0] + part[:, None] * (edges[index, 1] - edges[index, 0])
    points[:, axis] = line
    place = np.cumsum(counts + 1)
    before = place - counts - 1
    cut = np.empty((place[-1], 2, 2))
    cut[before, 0] = edges[:, 0]
    cut[place - 1, 1] = edges[:, 1]
    at = before[index] + step
    cut[at, 1] = cut[at + 1, 0] = points
    return cut
