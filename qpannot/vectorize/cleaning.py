"""Gaps closed, bridges cut, holes filled and fragments removed, in micrometres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.recipe.settings import OutlineSettings
from qpannot.vectorize.runs import Runs, areas, components, pixels, runs_of, surroundings

Mask = NDArray[np.bool_]

TILE_PX = 1024
"""Side of the squares in which distances are measured, if they are not to reach farther."""


def cleaned(
    labels: NDArray[np.uint8], pixel_um: tuple[float, float], settings: OutlineSettings
) -> NDArray[np.uint8]:
    """Return a mask without narrow gaps and bridges, small holes and fragments.

    No class takes a pixel from another, but what is removed may be filled by its surroundings.

    Parameters
    ----------
    labels
        Class of each pixel, shape [height, width]; 0 is no class.
    pixel_um
        Width and height of a pixel.
    settings
        ``closing_um``, ``opening_um``, ``min_hole_area_um2`` and ``min_area_um2``, in this order.

    Returns
    -------
    array
        A new one. Parts are 4-connected, and their holes are those of their polygons.
    """
    labels = labels.copy()
    classes = np.unique(runs_of(labels).values)
    for value in classes:
        if settings.closing_um > 0:
            closed = closing(labels == value, settings.closing_um, pixel_um)
            labels[closed & (labels == 0)] = value
        if settings.opening_um > 0:
            own = labels == value
            labels[own & ~opening(own, settings.opening_um, pixel_um)] = 0
    pixel_area = pixel_um[0] * pixel_um[1]
    min_hole = settings.min_hole_area_um2 / pixel_area
    _fill_holes(labels, min_hole)
    if _remove_fragments(labels, settings.min_area_um2 / pixel_area) and len(classes) > 1:
        _fill_holes(labels, min_hole)  # those that had fragments of other classes in them
    return labels


def closing(mask: Mask, radius_um: float, pixel_um: tuple[float, float]) -> Mask:
    """Return a mask with the gaps closed that no disc fits into.

    Beyond its border a mask goes on as it ends there. Linear in pixels for any radius.

    Parameters
    ----------
    mask
        Shape [height, width].
    radius_um
        Radius of the disc. Straight gaps that are not wider than twice this are closed.
    pixel_um
        Width and height of a pixel.
    """
    dx, dy = pixel_um
    reach = np.array([radius_um / dy, radius_um / dx])
    halo = 2 * np.ceil(reach).astype(int) + 1
    closed = mask.copy()
    tile = np.maximum(TILE_PX, 2 * halo)
    for y in range(0, mask.shape[0], tile[0]):
        for x in range(0, mask.shape[1], tile[1]):
            inner, window = _window(mask, (y, x), tile, halo)
            if window.any() and not window.all():
                near = _within(window, radius_um, (dy, dx))
                far_from_gaps = ~_within(~near, radius_um, (dy, dx))
                closed[y : y + tile[0], x : x + tile[1]] = far_from_gaps[inner]
    return closed


def opening(mask: Mask, radius_um: float, pixel_um: tuple[float, float]) -> Mask:
    """Return a mask without the parts that no disc fits into; otherwise as `closing`."""
    return np.logical_not(closing(~mask, radius_um, pixel_um))


def _window(
    mask: Mask, corner: tuple[int, int], tile: NDArray[np.int64], halo: NDArray[np.int64]
) -> tuple[tuple[slice, slice], Mask]:
    """Return the part of a mask around a tile, and where the tile lies in it."""
    inner, outer, padding = [], [], []
    for start, step, around, size in zip(corner, tile, halo, mask.shape, strict=True):
        stop = min(start + step, size)
        low, high = start - around, stop + around
        outer.append(slice(max(low, 0), min(high, size)))
        padding.append((max(-low, 0), max(high - size, 0)))
        inner.append(slice(around, around + stop - start))
    return (inner[0], inner[1]), np.pad(mask[outer[0], outer[1]], padding, mode="edge")


def _within(mask: Mask, radius_um: float, sampling: tuple[float, float]) -> Mask:
    """Return which pixels lie within a distance of those of a mask, from middle to middle."""
    if not mask.any():
        return mask
    distance = ndimage.distance_transform_edt(~mask, sampling)
    near: Mask = distance <= radius_um * (1 + 1e-9)
    return near


def _fill_holes(labels: NDArray[np.uint8], min_pixels: float) -> None:
    """Fill the holes of each class that are too small, but for what another class has in them."""
    if min_pixels <= 1:
        return
    runs = runs_of(labels)
    flat = labels.reshape(-1)
    for value in np.unique(runs.values):
        around, n, component = surroundings(runs[runs.values == value])
        is_small = areas(around, component, n) < min_pixels
        is_small[component[_at_border(around)]] = False
        for index in pixels(around[is_small[component]]):
            flat[index[flat[index] == 0]] = value


def _at_border(runs: Runs) -> NDArray[np.bool_]:
    height, width = runs.shape
    at_side = (runs.starts == 0) | (runs.stops == width)
    at_end = (runs.rows == 0) | (runs.rows == height - 1)
    return np.asarray(at_side | at_end)


def _remove_fragments(labels: NDArray[np.uint8], min_pixels: float) -> bool:
    """Remove the parts that are too small; return whether there were any."""
    if min_pixels <= 1:
        return False
    runs = runs_of(labels)
    n, component = components(runs)
    is_small = areas(runs, component, n) < min_pixels
    flat = labels.reshape(-1)
    for index in pixels(runs[is_small[component]]):
        flat[index] = 0
    return bool(is_small.any())
