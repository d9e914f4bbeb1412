"""Banks of periodic texture, and nuclei to stamp: made once, used by every demo slide.

All lengths are in full-resolution pixels of 0.5 micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from qpannot.demo.noise import FloatArray, smoothstep

PERIOD_PX = 1024
"""Every bank repeats after this many pixels, in both directions."""

ORIENTATIONS = 16
NUCLEAR_OD_SCALE = 100.0
"""Haematoxylin optical densities of nuclei are kept as this many steps per unit, in 8 bits."""


def periodic_noise(rng: np.random.Generator, sigma: float) -> FloatArray:
    """Return ``PERIOD_PX`` square noise of unit deviation, smooth over ``sigma`` pixels."""
    noise = rng.standard_normal((PERIOD_PX, PERIOD_PX), dtype=np.float32)
    down = np.fft.fftfreq(PERIOD_PX).astype(np.float32)[:, None]
    across = np.fft.rfftfreq(PERIOD_PX).astype(np.float32)[None, :]
    blur = np.exp(-2 * (np.pi * sigma) ** 2 * (down**2 + across**2))
    blur[0, 0] = 0
    smooth = np.fft.irfft2(np.fft.rfft2(noise) * blur, s=noise.shape)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


@dataclass(frozen=True)
class Fibres:
    """A periodic bank of wavy collagen.

    Parameters
    ----------
    density
        Eosin relative to its mean, ``(PERIOD_PX, PERIOD_PX)`` float32; low values are clefts.
    angle
        Direction of the fibres in radians from the x axis, same shape.
    """

    density: FloatArray
    angle: FloatArray


@lru_cache(maxsize=4)
def fibres(bank: int) -> Fibres:
    """Return one of the banks of fibres: noise smeared along a winding direction.

    Line integral convolution (Cabral & Leedom 1993), by doubling: each step averages the image
    with itself carried along the flow, then doubles the flow.
    """
    rng = np.random.default_rng([11, bank])
    angle = np.float32(0.4 + 1.3 * bank) + 0.45 * periodic_noise(rng, 110)
    angle = angle + 0.30 * periodic_noise(rng, 24) + 0.22 * periodic_noise(rng, 9)
    noise = 0.7 * periodic_noise(rng, 2.6) + 0.45 * periodic_noise(rng, 1.2)
    noise = noise + 0.3 * periodic_noise(rng, 8)
    rows, cols = np.mgrid[:PERIOD_PX, :PERIOD_PX].astype(np.float32)

    def carried(image: FloatArray) -> FloatArray:
        moved = ndimage.map_coordinates(image, [rows + dy, cols + dx], order=1, mode="grid-wrap")
        return np.asarray(moved, dtype=np.float32)

    dx, dy = np.cos(angle), np.sin(angle)
    for _ in range(5):
        noise = (noise + carried(noise)) / 2
        dx, dy = dx + carried(dx), dy + carried(dy)
    noise = (noise - noise.mean()) / noise.std()
    # What the knife and drying add across the fibres keeps them from looking brushed.
    noise = 0.92 * noise + 0.24 * periodic_noise(rng, 1.6) + 0.25 * periodic_noise(rng, 4)
    density = np.clip(1 + 0.28 * noise, 0.12, 1.9)
    cleft = smoothstep(noise, -2.0, -1.3)
    return Fibres(density=(density * cleft).astype(np.float32), angle=angle.astype(np.float32))


@lru_cache(maxsize=2)
def granules(bank: int) -> FloatArray:
    """Return the grain of cytoplasm: mean 1, ``(PERIOD_PX, PERIOD_PX)`` float32."""
    rng = np.random.default_rng([12, bank])
    grain = 0.08 * periodic_noise(rng, 1.4) + 0.08 * periodic_noise(rng, 3.5)
    return np.asarray(1 + grain + 0.06 * periodic_noise(rng, 14), dtype=np.float32)


@lru_cache(maxsize=1)
def sensor_noise() -> NDArray[np.float32]:
    """Return the noise of the scanner in grey levels, ``(3, PERIOD_PX, PERIOD_PX)`` float32.

    Its mean is one half, so that cutting off the decimals rounds.
    """
    rng = np.random.default_rng(13)
    return rng.normal(0.5, 0.7, (3, PERIOD_PX, PERIOD_PX)).astype(np.float32)


@dataclass(frozen=True)
class Cells:
    """A periodic sheet of cells.

    Parameters
    ----------
    x, y
        Centres, in pixels below ``PERIOD_PX``.
    membrane
        1 on the borders between cells, 0 inside, ``(PERIOD_PX, PERIOD_PX)`` float32.
    to_centre
        From every second pixel to the centre of its cell, x and y,
        ``(2, PERIOD_PX / 2, PERIOD_PX / 2)`` float32.
    """

    x: FloatArray
    y: FloatArray
    membrane: FloatArray
    to_centre: FloatArray


def tumour_sheet(grade: str) -> Cells:
    """Return the sheet of cells of a tumour of grade "1", "2" or "3"."""
    return cells({"1": 22.0, "2": 26.0, "3": 32.0}[grade], 2.0, 0.12)


def adipocytes() -> Cells:
    """Return fat cells: large, with thin walls."""
    return cells(120.0, 3.2, 0.16)


@lru_cache(maxsize=8)
def cells(spacing_px: float, width_px: float, jitter: float, bank: int = 0) -> Cells:
    """Return a sheet of cells about ``spacing_px`` apart with borders ``width_px`` wide."""
    rng = np.random.default_rng([14, bank])
    x, y = jittered_hexagons(rng, PERIOD_PX, PERIOD_PX, spacing_px, jitter)
    x, y = x % PERIOD_PX, y % PERIOD_PX
    tree = cKDTree(np.column_stack([x, y]), boxsize=np.full(2, float(PERIOD_PX)))
    half = np.arange(0, PERIOD_PX, 2, dtype=np.float32) + 0.5
    columns, rows = np.meshgrid(half, half)
    found = tree.query(np.column_stack([columns.ravel(), rows.ravel()]), k=2)
    near, owner = (np.asarray(part).reshape(*columns.shape, 2) for part in found)
    first = owner[..., 0]
    to_centre = np.stack([x[first] - columns, y[first] - rows])
    to_centre = (to_centre + PERIOD_PX / 2) % PERIOD_PX - PERIOD_PX / 2
    gap = (near[..., 1] - near[..., 0]).astype(np.float32)
    gap = ndimage.zoom(np.pad(gap, 2, mode="wrap"), 2, order=1)[4:-4, 4:-4]
    gap = gap[:PERIOD_PX, :PERIOD_PX]
    wobble = periodic_noise(rng, 6) * (0.25 * width_px)
    membrane = 1 - smoothstep(gap + wobble, 0.5 * width_px, 1.6 * width_px)
    return Cells(
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        membrane=membrane,
        to_centre=to_centre.astype(np.float32),
    )


def jittered_hexagons(
    rng: np.random.Generator, width: float, height: float, spacing: float, jitter: float
) -> tuple[FloatArray, FloatArray]:
    """Return the x and y of a hexagonal lattice filling a box, each point moved at random.

    Parameters
    ----------
    rng
        Source of randomness.
    width, height, spacing
        In any one unit.
    jitter
        Deviation of the displacement relative to the spacing.
    """
    nx = max(round(width / spacing), 1)
    ny = max(2 * round(height / (spacing * 0.866) / 2), 2)  # even, so that the lattice is periodic
    row, column = np.mgrid[:ny, :nx].astype(np.float32)
    x = (column + 0.25 + 0.5 * (row % 2)) * (width / nx)
    y = (row + 0.5) * (height / ny)
    shift = rng.standard_normal((2, ny, nx), dtype=np.float32) * (jitter * spacing)
    return (x + shift[0]).ravel(), (y + shift[1]).ravel()


@dataclass(frozen=True)
class NucleusKind:
    """How a population of nuclei looks.

    Parameters
    ----------
    radius_px
        Mean radius along the longer axis, at full resolution.
    spread
        Deviation of the radius between nuclei, relative (pleomorphism).
    aspect
        Longer over shorter axis.
    irregularity
        Deviation of the outline from an ellipse, relative.
    density
        Mean haematoxylin optical density inside.
    clumping
        Contrast of the chromatin, relative.
    rim
        How much darker the nuclear membrane is, relative; vesicular nuclei have a clear rim.
    nucleolus
        Optical density added at a nucleolus.
    """

    radius_px: float
    spread: float
    aspect: float
    irregularity: float
    density: float
    clumping: float
    rim: float
    nucleolus: float = 0.0


KINDS: dict[str, NucleusKind] = {
    "spindle": NucleusKind(12.0, 0.24, 3.2, 0.10, 1.05, 0.28, 0.05),
    "lymphocyte": NucleusKind(6.7, 0.11, 1.16, 0.07, 1.28, 0.42, 0.05),
    "epithelial": NucleusKind(8.2, 0.11, 1.35, 0.06, 1.02, 0.28, 0.10),
    "tumour-1": NucleusKind(9.4, 0.14, 1.25, 0.08, 0.90, 0.34, 0.15, 0.15),
    "tumour-2": NucleusKind(11.0, 0.21, 1.30, 0.11, 0.84, 0.42, 0.20, 0.40),
    "tumour-3": NucleusKind(13.2, 0.30, 1.38, 0.15, 0.78, 0.50, 0.28, 0.70),
    "mitosis": NucleusKind(8.0, 0.25, 2.2, 0.30, 1.75, 0.20, 0.0),
}


@lru_cache(maxsize=len(KINDS))
def nuclei(kind: str) -> NDArray[np.uint8]:
    """Return stamps of one kind of nucleus.

    Returns
    -------
    Array ``(ORIENTATIONS, variants, side, side)``, uint8: haematoxylin optical density times
    ``NUCLEAR_OD_SCALE``. Stamp ``[i]`` lies with its longer axis at ``i * pi / ORIENTATIONS``.
    """
    look = KINDS[kind]
    rng = np.random.default_rng([15, list(KINDS).index(kind)])
    variants, reach = 24, int(look.radius_px * (1 + 2 * look.spread) * 1.2) + 2
    shape = (ORIENTATIONS, variants, 1, 1)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    angle = (np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS).reshape(-1, 1, 1, 1)
    radius = look.radius_px * np.clip(rng.normal(1, look.spread, shape), 0.5, 1 + 2 * look.spread)
    aspect = 1 + (look.aspect - 1) * np.clip(rng.normal(1, 0.3, shape), 0.1, 2)
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) * aspect
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for harmonic in (2, 3, 4, 5):
        amount = rng.normal(0, look.irregularity / np.sqrt(harmonic), shape)
        outline += amount * np.cos(harmonic * theta + rng.uniform(0, 2 * np.pi, shape))
    inside = (1 - np.hypot(along, across) / (radius * outline)) * radius / np.sqrt(aspect)
    cover = smoothstep(inside.astype(np.float32), -1.3, 1.7)

    grain = rng.standard_normal((*shape[:2], *dx.shape)).astype(np.float32)
    grain = ndimage.gaussian_filter(grain, (0, 0, 1.5, 1.5))
    grain /= grain.std()
    tone = rng.normal(1, 0.17, shape)
    chromatin = tone + look.clumping * 0.5 * grain + look.rim * np.exp(-(((inside - 1) / 1.8) ** 2))
    chromatin -= look.rim * 0.5 * np.clip(inside / look.radius_px, 0, 1)
    spot = rng.normal(0, 0.25 * look.radius_px / look.aspect, (2, *shape))
    nucleolus = np.exp(-((dx - spot[0]) ** 2 + (dy - spot[1]) ** 2) / (2 * 1.7**2))
    nucleolus = nucleolus * rng.uniform(0.2, 1.2, shape)
    density = cover * (look.density * np.clip(chromatin, 0.25, 2) + look.nucleolus * nucleolus)
    stamps: NDArray[np.uint8] = np.clip(density * NUCLEAR_OD_SCALE, 0, 255).astype(np.uint8)
    return stamps
