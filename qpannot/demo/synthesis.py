"""From the plan of a demo slide to its pixels, through a stain model.

Light through the section falls off as ``exp(-(H * h + E * e))`` with the optical densities H and E
of haematoxylin and eosin and their colours h and e (Ruifrok and Johnston 2001, Macenko 2009).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpannot.demo.grid import GRID_PX, enlarge
from qpannot.demo.layout import Layout
from qpannot.demo.noise import FloatArray, smoothstep, value_noise
from qpannot.demo.textures import (
    NUCLEAR_OD_SCALE,
    ORIENTATIONS,
    PERIOD_PX,
    adipocytes,
    cells,
    fibres,
    granules,
    nuclei,
    sensor_noise,
    tumour_sheet,
)

HAEMATOXYLIN = (0.58, 0.72, 0.38)
EOSIN = (0.17, 0.83, 0.53)
BLOOD = (0.05, 0.80, 0.60)
DUST = (0.9, 1.0, 1.15)
INKS = ((1.35, 0.75, 0.18), (1.3, 0.35, 1.0), (1.2, 1.2, 1.1))
"""Optical density per channel of blue, green and black pen."""

TILE_PX = 512
"""Side of the squares rendered at a time: small enough for a processor's cache."""


@dataclass(frozen=True)
class Stain:
    """How one slide was stained and scanned.

    Parameters
    ----------
    haematoxylin, eosin
        Optical density per unit of stain in R, G, B.
    haematoxylin_gain, eosin_gain
        Concentrations relative to the average laboratory.
    glass
        R, G, B of empty glass.
    ink
        Optical density of the pen in R, G, B.
    """

    haematoxylin: FloatArray
    eosin: FloatArray
    haematoxylin_gain: float
    eosin_gain: float
    glass: FloatArray
    ink: FloatArray


def draw_stain(patient: np.random.Generator, slide: np.random.Generator) -> Stain:
    """Return a stain: mostly the patient's laboratory day, a little the slide's own.

    Parameters
    ----------
    patient, slide
        Sources of randomness; slides of one patient share the first's state.
    """

    def colour(mean: tuple[float, ...], spread: float) -> FloatArray:
        values = np.asarray(mean) + patient.normal(0, spread, 3) + slide.normal(0, spread / 4, 3)
        values = np.clip(values, 0.02, None)
        return (values / np.linalg.norm(values)).astype(np.float32)

    haematoxylin, eosin = colour(HAEMATOXYLIN, 0.035), colour(EOSIN, 0.04)
    gains = np.exp(patient.normal(0, 0.13, 2) + slide.normal(0, 0.04, 2))
    glass = np.array([243, 242, 243]) + patient.normal(0, 1.2, 3)
    ink = np.array(INKS[patient.integers(len(INKS))], dtype=np.float32)
    return Stain(
        haematoxylin, eosin, float(gains[0]), float(gains[1]), glass.astype(np.float32), ink
    )


def render(
    layout: Layout, stain: Stain, rng: np.random.Generator, *, grade: str
) -> NDArray[np.uint8]:
    """Return the pixels of a planned slide at full resolution.

    Parameters
    ----------
    layout
        The plan, on a grid of ``GRID_PX`` pixels.
    stain
        Colours and concentrations.
    rng
        Source of randomness, for uneven light and for which stamp a nucleus gets.
    grade
        The tumour's, for the size of its cells.

    Returns
    -------
    Array ``(size, size, 3)``, uint8, RGB.
    """
    size_px = layout.tissue.shape[0] * GRID_PX
    nuclear = _stamp_nuclei(layout, rng, size_px)
    light = 1 + 0.008 * value_noise(rng, layout.tissue.shape, layout.tissue.shape[0] / 2.5)
    pixels = np.empty((size_px, size_px, 3), np.uint8)

    def draw(corner: tuple[int, int]) -> None:
        y, x = corner
        window = (slice(y, y + TILE_PX), slice(x, x + TILE_PX))
        pixels[window] = _tile(layout, stain, light, nuclear[window], x, y, grade)

    corners = [(y, x) for y in range(0, size_px, TILE_PX) for x in range(0, size_px, TILE_PX)]
    for bank in (0, 1):  # made before the threads start, so that none is made twice
        fibres(bank)
    tumour_sheet(grade), adipocytes()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(draw, corners))
    return pixels


def _stamp_nuclei(layout: Layout, rng: np.random.Generator, size_px: int) -> NDArray[np.uint8]:
    """Return the haematoxylin of all nuclei; where two overlap the darker one counts."""
    canvas = np.zeros((size_px, size_px), np.uint8)
    for population in layout.nuclei:
        stamps = nuclei(population.kind)
        side = stamps.shape[-1]
        top = population.y.astype(int) - side // 2
        left = population.x.astype(int) - side // 2
        inside = (top >= 0) & (left >= 0) & (top + side <= size_px) & (left + side <= size_px)
        turn = np.rint(population.angle * (ORIENTATIONS / np.pi)).astype(int) % ORIENTATIONS
        which = rng.integers(stamps.shape[1], size=turn.shape)
        for y, x, orientation, variant in zip(
            top[inside].tolist(),
            left[inside].tolist(),
            turn[inside].tolist(),
            which[inside].tolist(),
            strict=True,
        ):
            window = canvas[y : y + side, x : x + side]
            np.maximum(window, stamps[orientation, variant], out=window)
    return canvas


def _tile(
    layout: Layout,
    stain: Stain,
    light: FloatArray,
    nuclear: NDArray[np.uint8],
    x: int,
    y: int,
    grade: str,
) -> NDArray[np.uint8]:
    """Return the pixels of the tile at ``x``, ``y``."""
    height, width = nuclear.shape
    row, col = y % PERIOD_PX, x % PERIOD_PX
    bank = (slice(row, row + height), slice(col, col + width))

    def part(values: FloatArray, *, smooth: bool = False) -> FloatArray:
        return enlarge(values, x, y, width, height, GRID_PX, smooth=smooth)

    tissue = part(layout.tissue, smooth=True)
    dyes: list[tuple[FloatArray, FloatArray]] = []
    if tissue.max() > -0.1:
        haematoxylin, eosin, blood = _stains(layout, part, nuclear, tissue, bank, grade)
        dyes += [
            (haematoxylin, stain.haematoxylin * np.float32(stain.haematoxylin_gain)),
            (eosin, stain.eosin * np.float32(stain.eosin_gain)),
        ]
        if blood is not None:
            dyes.append((blood, np.array(BLOOD, np.float32)))
    ink, dirt = part(layout.ink), part(layout.dirt)
    if ink.any():
        dyes.append((ink, stain.ink))
    if dirt.any():
        dyes.append((dirt * granules(0)[bank] ** 3, np.array(DUST, np.float32)))
    brightness, noise = part(light), sensor_noise()
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        density = np.zeros((height, width), np.float32)
        for amount, colour in dyes:
            density -= amount * colour[channel]
        shade = np.exp(density, out=density)
        shade *= brightness * stain.glass[channel]
        shade += noise[channel][bank]
        pixels[..., channel] = np.clip(shade, 0, 255, out=shade)
    return pixels


def _stains(
    layout: Layout,
    part: Callable[..., FloatArray],
    nuclear: NDArray[np.uint8],
    tissue: FloatArray,
    bank: tuple[slice, slice],
    grade: str,
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """Return the haematoxylin, the eosin and, where there is any, the blood of a tile."""
    grain = granules(0)[bank]
    first, second = fibres(0).density[bank], fibres(1).density[bank]
    texture = first + part(layout.fibre_bank) * (second - first)
    epithelium = part(layout.epithelium, smooth=True)
    if epithelium.any():
        sheet = tumour_sheet(grade).membrane[bank]
        cytoplasm = grain * (np.float32(0.96) + np.float32(0.22) * sheet)
        texture += smoothstep(epithelium, 0.3, 0.7) * (cytoplasm - texture)
    # Fibres fray at the tissue's edge: where they are thin the section ends earlier.
    cover = smoothstep(tissue + 0.10 * (texture - 1), -0.015, 0.03)
    lumen = part(layout.lumen, smooth=True)
    if lumen.any():
        cover *= 1 - smoothstep(lumen + 0.08 * (grain - 1), 0.35, 0.65)
    fat = part(layout.fat)
    if fat.any():
        walls = adipocytes().membrane[bank]
        ground = cover * (1 - smoothstep(fat, 0.2, 0.6) * (1 - 0.9 * walls))
    else:
        ground = cover
    nuclei_od = nuclear * np.float32(1 / NUCLEAR_OD_SCALE)
    eosin = part(layout.eosin) * texture * ground
    eosin *= 1 - 0.45 * np.minimum(nuclei_od, 1)
    haematoxylin = part(layout.haematoxylin) * (0.4 + 0.6 * texture) * grain * ground
    # A faint piece is thin, nuclei and all.
    strength = np.minimum(part(layout.thickness), 1)
    haematoxylin += nuclei_od * (cover * strength)
    red_cells = part(layout.red_cells)
    if not red_cells.any():
        return haematoxylin, eosin, None
    discs = 1 - cells(11.0, 3.0, 0.15).membrane[bank]
    return haematoxylin, eosin, red_cells * discs * grain
