"""Outlines on a demo slide's planning grid: tissue, tumour, and the dirt on the glass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.demo.grid import GRID_UM
from qpannot.demo.noise import FloatArray, fractal_noise, smoothstep, value_noise

UNITS = 51.2
"""Outlines are sized in this fraction of the slide's side, 100 micrometres on a full-sized one."""


def draw_tissue(
    rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the signed tissue field and which of it is faint."""
    side = shape[0]
    unit = side / UNITS
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    swirl = 0.06 * np.stack([value_noise(rng, shape, side / 4) for _ in range(2)])
    x, y = x + swirl[0], y + swirl[1]
    turn = int(rng.integers(4))
    # Centre x, y, half axes, tilt; the last piece is the faint one.
    plans = [
        [
            (0.36, 0.50, 0.30, 0.42, 0.2),
            (0.78, 0.33, 0.16, 0.24, -0.3),
            (0.80, 0.80, 0.12, 0.11, 0),
        ],
        [
            (0.50, 0.34, 0.42, 0.26, 0.1),
            (0.40, 0.79, 0.30, 0.15, -0.1),
            (0.85, 0.80, 0.09, 0.12, 0),
        ],
        [(0.30, 0.34, 0.24, 0.28, 0.5), (0.70, 0.62, 0.25, 0.32, 0.4), (0.24, 0.84, 0.14, 0.09, 0)],
    ]
    rough = fractal_noise(rng, shape, 9 * unit, octaves=7, gain=0.58)
    layers = []
    for cx, cy, rx, ry, tilt in plans[rng.integers(len(plans))]:
        dx, dy = x - cx + rng.normal(0, 0.01), y - cy + rng.normal(0, 0.01)
        along, across = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
        radius = min(rx, ry) * rng.uniform(0.95, 1.05)
        layers.append((1.0 - np.hypot(along / rx, across / ry)) * radius * side / unit)
    steps = np.minimum(np.arange(side), np.arange(side)[::-1]).astype(np.float32)
    margin = np.minimum(steps[:, None], steps[None, :]) / unit
    faint_piece = layers.pop() + 0.7 * rough
    tissue = np.maximum.reduce(layers) + 0.9 * rough
    faint = faint_piece > tissue
    tissue = np.minimum(np.maximum(tissue, faint_piece), 1.3 * margin - 2.6 + 1.1 * rough)
    tears = np.abs(fractal_noise(rng, shape, 6 * unit, octaves=4)) * 3.0
    torn = value_noise(rng, shape, 7 * unit) < 1.1
    tissue = np.minimum(tissue, np.where(torn, 9, tears - 0.35)).astype(np.float32)
    tissue = _without_specks(tissue, 25 * unit**2)
    tissue = -_without_specks(-tissue, 3 * unit**2)
    tissue, faint = np.rot90(tissue, turn).copy(), np.rot90(faint, turn).copy()
    return tissue, faint


def draw_tumour(
    rng: np.random.Generator, solid: NDArray[np.bool_], fraction: float
) -> NDArray[np.bool_]:
    """Return the tumour: a few smooth-edged regions making up ``fraction`` of the tissue."""
    side = solid.shape[0]
    unit = side / UNITS
    scale = min(1100 / GRID_UM, side / 3)
    values = fractal_noise(rng, solid.shape, scale, octaves=4, gain=0.45)
    values = ndimage.gaussian_filter(values, 25 / GRID_UM)
    tumour = np.zeros_like(solid)
    wanted = fraction
    for _ in range(3):  # dropping specks and filling gaps moves the area; aim again
        tumour = solid & (highest(values, solid, wanted, softness=1e-3) > 0.5)
        tumour = _without_specks(tumour - np.float32(0.5), 9 * unit**2) > 0
        gaps = -_without_specks(np.float32(0.5) - tumour, 6 * unit**2) > 0
        tumour = gaps & solid
        wanted = float(
            np.clip(wanted * fraction / max(tumour.sum() / solid.sum(), 0.02), 0.05, 0.9)
        )
    return tumour


def highest(
    values: FloatArray, where: NDArray[np.bool_], share: float, *, softness: float
) -> FloatArray:
    """Return a soft mask of the ``share`` of ``where`` with the highest values."""
    if not where.any():
        return np.zeros(values.shape, np.float32)
    limit = float(np.quantile(values[where], 1 - share))
    return smoothstep(values, limit - softness, limit + softness)


def _without_specks(values: FloatArray, min_area: float) -> FloatArray:
    """Return the field with components above 0 of few grid steps pressed just below 0."""
    labels, _ = ndimage.label(values > 0)
    areas = np.bincount(labels.ravel())
    small: NDArray[np.bool_] = areas < min_area
    small[0] = False
    specks = small[labels]
    # The slope around a speck goes too, or its rim would stay just below 0.
    slope = ndimage.binary_dilation(specks, iterations=8) & (specks | (values <= 0))
    return np.where(slope, np.minimum(values, np.float32(-0.3)), values)


def draw_pen(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Return the optical density of a pen stroke along one side of the slide."""
    side = shape[0]
    t = np.linspace(0, 1, 80)
    start, bend, end = rng.uniform((0.05, 0, 0.5), (0.4, 1, 0.95))
    wave = 0.08 * (1 - t) ** 2 + 0.13 * bend * 2 * t * (1 - t) + 0.07 * t**2
    path = np.column_stack([start + (end - start) * t, wave]) * side
    if rng.random() < 0.5:
        path = path[:, ::-1]
    coarse = np.mgrid[0:side:4, 0:side:4].astype(np.float32)
    distance = np.full(coarse.shape[1:], np.inf, np.float32)
    for x, y in path:
        distance = np.minimum(distance, np.hypot(coarse[1] - x, coarse[0] - y))
    distance = ndimage.zoom(distance, 4, order=1)[:side, :side] * GRID_UM
    distance += 12 * value_noise(rng, shape, 60 / GRID_UM)
    streaks = 0.85 + 0.15 * fractal_noise(rng, shape, 200 / GRID_UM, octaves=4, gain=0.7)
    width = rng.uniform(60, 110)
    return ((1 - smoothstep(distance, width - 12, width + 12)) * streaks).astype(np.float32)


def draw_dust(rng: np.random.Generator, shape: tuple[int, int], count: int) -> FloatArray:
    """Return the optical density of specks of dust."""
    dirt = np.zeros(shape, np.float32)
    for _ in range(count):
        x, y = rng.uniform(12, shape[0] - 12, 2).astype(int)
        ry, rx = np.mgrid[-12:13, -12:13].astype(np.float32)
        angle = rng.uniform(0, np.pi)
        along, across = (
            rx * np.cos(angle) + ry * np.sin(angle),
            ry * np.cos(angle) - rx * np.sin(angle),
        )
        d = np.hypot(along / rng.uniform(2, 8), across / rng.uniform(1, 4))
        d += 0.2 * value_noise(rng, (25, 25), 5)
        spot = dirt[y - 12 : y + 13, x - 12 : x + 13]
        np.maximum(spot, (1 - smoothstep(d, 0.7, 1.1)) * rng.uniform(0.4, 1.1), out=spot)
    return dirt
