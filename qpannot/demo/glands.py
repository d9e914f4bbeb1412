"""Benign glands, ducts and vessels of a demo slide: wavy rings with nuclei along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.demo.noise import FloatArray, smoothstep


@dataclass(frozen=True)
class Ring:
    """A closed wall around a lumen, in micrometres from the slide's corner.

    Parameters
    ----------
    x, y
        Centre.
    radius
        Mean outer radius.
    wall
        Thickness of the wall.
    waves
        Amplitudes (relative) and phases of the outline's harmonics 2, 3, 4, ``(3, 2)``.
    vessel
        Whether it is a vessel, with flat nuclei and blood, rather than a gland.
    """

    x: float
    y: float
    radius: float
    wall: float
    waves: FloatArray
    vessel: bool = False

    def outline(self, theta: FloatArray) -> FloatArray:
        """Return the outer radius in directions ``theta`` (radians)."""
        wave = np.ones_like(theta)
        for harmonic, (amount, phase) in zip((2, 3, 4), self.waves, strict=True):
            wave = wave + amount * np.cos(harmonic * theta + phase)
        return self.radius * wave


def _ring(
    rng: np.random.Generator,
    x: float,
    y: float,
    radius: float,
    wall: float,
    *,
    vessel: bool = False,
) -> Ring:
    waves = np.column_stack([rng.normal(0, (0.13, 0.07, 0.05)), rng.uniform(0, 2 * np.pi, 3)])
    return Ring(x, y, radius, wall, waves.astype(np.float32), vessel)


def place_lobules(rng: np.random.Generator, free: NDArray[np.bool_], grid_um: float) -> list[Ring]:
    """Return lobules of small glands, ducts and vessels that fit into free tissue.

    Parameters
    ----------
    rng
        Source of randomness.
    free
        Where they may lie, on a grid.
    grid_um
        Micrometres per step of the grid.
    """
    area_mm2 = free.sum() * grid_um**2 / 1e6
    coarse = 4  # finding room needs no finer steps
    free, grid_um = free[::coarse, ::coarse], grid_um * coarse
    room = ndimage.distance_transform_edt(free).astype(np.float32) * grid_um
    rings: list[Ring] = []
    for share, kind in ((4.0, "lobule"), (2.5, "duct"), (7.0, "vessel")):
        for _ in range(round(area_mm2 * share)):
            spots = np.flatnonzero(room > 45)
            if not spots.size:
                return rings
            row, col = np.unravel_index(rng.choice(spots), room.shape)
            x, y, space = col * grid_um, row * grid_um, float(room[row, col])
            if kind == "lobule":
                reach = min(space, rng.uniform(90, 260))
                rings += _acini(rng, x, y, reach)
            elif kind == "duct":
                reach = min(space * 0.8, rng.uniform(40, 110))
                rings.append(_ring(rng, x, y, reach, 16.0))
            else:
                reach = min(space * 0.7, rng.uniform(10, 38))
                rings.append(_ring(rng, x, y, reach, 3.0 + 0.12 * reach, vessel=True))
            ry, rx = (np.arange(n, dtype=np.float32) * grid_um for n in room.shape)
            np.minimum(room, np.hypot(ry[:, None] - y, rx[None, :] - x) - reach, out=room)
    return rings


def _acini(rng: np.random.Generator, x: float, y: float, reach: float) -> list[Ring]:
    """Return the glands of a lobule, close together but apart."""
    rings: list[Ring] = []
    for _ in range(int(3 + (reach / 26) ** 2 * 3)):
        angle, far = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform(0, 0.85))
        radius = rng.uniform(17, 30)
        gx, gy = x + far * np.cos(angle), y + far * np.sin(angle)
        if all(np.hypot(gx - r.x, gy - r.y) > radius + r.radius + 4 for r in rings):
            rings.append(_ring(rng, gx, gy, radius, min(12.0, radius * 0.7)))
    return rings


def draw_rings(
    rings: list[Ring],
    grid_um: float,
    epithelium: FloatArray,
    lumen: FloatArray,
    red_cells: FloatArray,
) -> None:
    """Draw walls, lumens and blood into fields of the layout's grid, in place."""
    for ring in rings:
        reach = int(ring.radius * 1.6 / grid_um) + 2
        row, col = round(ring.y / grid_um), round(ring.x / grid_um)
        top, left = max(row - reach, 0), max(col - reach, 0)
        window = (slice(top, row + reach + 1), slice(left, col + reach + 1))
        height, width = epithelium[window].shape
        dy = (np.arange(top, top + height, dtype=np.float32) + 0.5)[:, None] * grid_um - ring.y
        dx = (np.arange(left, left + width, dtype=np.float32) + 0.5)[None, :] * grid_um - ring.x
        depth = ring.outline(np.arctan2(dy, dx)) - np.hypot(dx, dy)
        hole = smoothstep(depth - ring.wall, -1.5, 2.5)
        if ring.vessel:
            np.maximum(
                red_cells[window],
                0.8 * smoothstep(depth - ring.wall, 2, 6) * (ring.radius > 16),
                out=red_cells[window],
            )
        else:
            np.maximum(epithelium[window], smoothstep(depth, -2.0, 2.0), out=epithelium[window])
        np.maximum(lumen[window], hole, out=lumen[window])


def nuclei_along(
    rng: np.random.Generator, rings: list[Ring]
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return the nuclei in the walls of rings.

    Returns
    -------
    x, y
        In micrometres.
    angle
        In radians: across the wall of a gland, along that of a vessel.
    flat
        Whether the nucleus is a vessel's or a myoepithelial cell's, thin and elongated.
    """
    parts: list[FloatArray] = []
    for ring in rings:
        # Depth below the outline and spacing along it of each row of nuclei.
        rows = [(1.5, 16.0, True)] if ring.vessel else [(5.5, 6.6, False), (0.5, 22.0, True)]
        for depth, spacing, flat in rows:
            count = max(int(2 * np.pi * (ring.radius - depth) / spacing), 3)
            places = np.arange(count) + rng.normal(0, 0.16, count)
            theta = (2 * np.pi / count * places).astype(np.float32)
            radius = ring.outline(theta) - depth + rng.normal(0, 0.15 * depth + 0.2, count)
            across = theta + rng.normal(0, 0.2, count) + (np.pi / 2 if flat else 0)
            x, y = ring.x + radius * np.cos(theta), ring.y + radius * np.sin(theta)
            parts.append(np.stack([x, y, across, np.full(count, flat)]).astype(np.float32))
    x, y, angle, thin = np.concatenate([np.zeros((4, 0), np.float32), *parts], axis=1)
    return x, y, angle, thin > 0
