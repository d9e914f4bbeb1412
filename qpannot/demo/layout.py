"""What lies where on a demo slide: tissue pieces, tumour, glands, fat, stain thickness and nuclei.

Fields are laid out on a grid of ``GRID_PX`` full-resolution pixels (``GRID_UM`` micrometres);
lengths in this module are micrometres unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.demo.glands import Ring, draw_rings, nuclei_along, place_lobules
from qpannot.demo.grid import GRID_PX, GRID_UM, MPP
from qpannot.demo.noise import FloatArray, fractal_noise, smoothstep, value_noise
from qpannot.demo.outlines import draw_dust, draw_pen, draw_tissue, draw_tumour, highest
from qpannot.demo.textures import PERIOD_PX, adipocytes, fibres, jittered_hexagons, tumour_sheet


@dataclass(frozen=True)
class Nuclei:
    """Where nuclei of one kind lie: full-resolution pixels and directions in radians."""

    kind: str
    x: FloatArray
    y: FloatArray
    angle: FloatArray


@dataclass
class Layout:
    """The plan of one slide.

    Parameters
    ----------
    tissue
        Above 0 where there is tissue; about one unit per fiftieth of the slide's side inwards.
    tumour
        Boolean truth, inside the tissue.
    epithelium, lumen, fat, red_cells
        Cover, 0 to 1: sheets of cells instead of fibres; empty space; fat cells; blood.
    eosin, haematoxylin
        Optical density of the ground, nuclei excluded.
    thickness
        Of the section, relative; small where tissue is faint.
    fibre_bank
        0 to 1: which of the two banks of fibres.
    ink
        Optical density of pen marks. ``dirt``: of dust.
    nuclei
        Every population of nuclei.
    """

    tissue: FloatArray
    tumour: NDArray[np.bool_]
    epithelium: FloatArray
    lumen: FloatArray
    fat: FloatArray
    red_cells: FloatArray
    eosin: FloatArray
    haematoxylin: FloatArray
    thickness: FloatArray
    fibre_bank: FloatArray
    ink: FloatArray
    dirt: FloatArray
    nuclei: list[Nuclei] = field(default_factory=list)


def lay_out(
    rng: np.random.Generator, size_px: int, *, grade: str, tumour_fraction: float, soiled: bool
) -> Layout:
    """Plan a slide.

    Parameters
    ----------
    rng
        Source of randomness.
    size_px
        Side of the square slide at full resolution, a multiple of 256.
    grade
        "1", "2" or "3": size, pleomorphism and growth of the tumour cells.
    tumour_fraction
        Share of the well-stained tissue that is tumour.
    soiled
        Whether there are pen marks and dust.

    Returns
    -------
    The plan, with fields of ``size_px / GRID_PX`` rows and columns.
    """
    side = size_px // GRID_PX
    shape = (side, side)
    tissue, faint = draw_tissue(rng, shape)
    solid = (tissue > 0) & ~faint
    tumour = draw_tumour(rng, solid, tumour_fraction)
    from_tumour = ndimage.distance_transform_edt(~tumour).astype(np.float32) * GRID_UM
    benign = solid & ~tumour

    fat_field = fractal_noise(rng, shape, 800 / GRID_UM, octaves=3)
    fat_field -= 1.5 * np.exp(-from_tumour / 60)
    fat = highest(fat_field, benign, rng.uniform(0.06, 0.16), softness=0.05) * benign
    fat = ndimage.gaussian_filter(_by_whole_cells(fat), 1.0)
    firm = benign & (fat < 0.05)

    immune_field = fractal_noise(rng, shape, 420 / GRID_UM, octaves=4, gain=0.6)
    immune_field += 0.9 * np.exp(-from_tumour / 120)
    immune = highest(immune_field, firm, rng.uniform(0.24, 0.34), softness=0.35) * firm
    cellular_field = fractal_noise(rng, shape, 500 / GRID_UM, octaves=4, gain=0.6)
    cellular = smoothstep(cellular_field, -0.6, 0.9)

    nests, gaps, flow = _nests(rng, shape, grade)
    nests, gaps = nests * tumour, gaps * tumour
    lumen = np.zeros(shape, np.float32)
    epithelium = nests.copy()
    if grade != "3":
        lumen = _tubules(rng, nests, share=0.09 if grade == "1" else 0.03)
    red_cells = np.zeros(shape, np.float32)
    rings = place_lobules(rng, firm & (immune < 0.5), GRID_UM)
    draw_rings(rings, GRID_UM, epithelium, lumen, red_cells)
    lumen = np.maximum(lumen, np.maximum(_clefts(rng, shape) * (1 - epithelium), 0.8 * gaps))

    thickness = 1 + 0.13 * fractal_noise(rng, shape, 700 / GRID_UM, octaves=5, gain=0.75)
    thickness = np.clip(thickness, 0.6, 1.5) * np.where(faint, 0.24, 1)
    thickness = ndimage.gaussian_filter(thickness, 3)
    dense = fractal_noise(rng, shape, 260 / GRID_UM, octaves=4, gain=0.7)
    # The ground of stroma is given the haematoxylin that crowded nuclei give the tumour, here and
    # there: without it the tumour would simply be the bluest tissue.
    bluish = smoothstep(fractal_noise(rng, shape, 450 / GRID_UM, octaves=4, gain=0.6), 0.0, 1.4)
    stroma_eosin = 0.50 + 0.10 * dense + 0.06 * cellular - 0.10 * immune
    eosin = stroma_eosin * (1 - epithelium) + (0.44 + 0.05 * dense) * epithelium
    haematoxylin = (0.07 + 0.18 * bluish + 0.06 * immune + 0.04 * cellular) * (1 - epithelium)
    haematoxylin += (0.12 + 0.03 * dense) * epithelium
    haematoxylin *= 1 - fat

    layout = Layout(
        tissue=tissue,
        tumour=tumour,
        epithelium=epithelium,
        lumen=lumen,
        fat=fat,
        red_cells=red_cells,
        eosin=np.clip(eosin, 0.1, None) * thickness,
        haematoxylin=np.clip(haematoxylin, 0.02, None) * thickness,
        thickness=thickness,
        fibre_bank=smoothstep(value_noise(rng, shape, 220 / GRID_UM), -0.25, 0.25),
        ink=draw_pen(rng, shape) if soiled else np.zeros(shape, np.float32),
        dirt=draw_dust(rng, shape, 8 if soiled else 2),
    )
    crowd = np.where(tumour, 0.0, immune * (0.45 + 0.5 * cellular)) + 0.03 * (~faint & solid)
    crowd += 0.10 * tumour * smoothstep(cellular_field, 0.3, 1.5)
    spindles = np.where(tumour, 0.45, 0.12 + 0.62 * cellular * (1 - 0.6 * immune))
    layout.nuclei = [
        _tumour_nuclei(rng, layout, nests, grade),
        _scattered(rng, layout, "lymphocyte", 7.4, crowd),
        _stromal_nuclei(rng, layout, spindles, flow),
        *_ring_nuclei(rng, layout, rings),
    ]
    if grade == "3":
        layout.nuclei.append(_scattered(rng, layout, "mitosis", 60.0, nests, in_sheets=True))
    return layout


def _by_whole_cells(fat: FloatArray) -> FloatArray:
    """Return the fat with every fat cell either there or not, as its centre says."""
    side = fat.shape[0]
    step = GRID_PX // 2
    offsets = adipocytes().to_centre[:, step // 2 :: step, step // 2 :: step] / GRID_PX
    repeats = -(-side // offsets.shape[1])
    dx, dy = np.tile(offsets, (1, repeats, repeats))[:, :side, :side]
    rows, cols = np.mgrid[:side, :side]
    rows = np.rint(rows + dy).astype(np.intp).clip(0, side - 1)
    cols = np.rint(cols + dx).astype(np.intp).clip(0, side - 1)
    return np.asarray(fat[rows, cols] > 0.5, dtype=np.float32)


def _nests(
    rng: np.random.Generator, shape: tuple[int, int], grade: str
) -> tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray]]:
    """Return tumour nests, the gaps beside them and a normal to them, were all tissue tumour."""
    size, septum = {"1": (55, 0.42), "2": (75, 0.36), "3": (120, 0.22)}[grade]
    values = fractal_noise(rng, shape, size / GRID_UM, octaves=3, gain=0.4)
    values += 0.3 * value_noise(rng, shape, 400 / GRID_UM)
    gradient = np.gradient(values)
    distance = np.abs(values) - septum
    cover = smoothstep(distance, -0.06, 0.10)
    # Nests shrink from their stroma: a narrow gap beside some of them.
    place = smoothstep(value_noise(rng, shape, 150 / GRID_UM), 0.6, 1.5)
    steps_away = distance / np.maximum(np.hypot(*gradient), 0.01)
    gap = np.exp(-(((steps_away + 0.5) / 0.9) ** 2)) * place
    return cover, gap.astype(np.float32), (gradient[0], gradient[1])


def _tubules(rng: np.random.Generator, nests: FloatArray, share: float) -> FloatArray:
    """Return lumens in the middle of nests: the tubules of a well-differentiated tumour."""
    inner = ndimage.distance_transform_edt(nests > 0.5).astype(np.float32) * GRID_UM
    wish = np.minimum(inner / 12, 1.4) + 0.8 * value_noise(rng, nests.shape, 45 / GRID_UM)
    wish = np.where(inner > 9, wish, -3)
    return highest(ndimage.gaussian_filter(wish, 1), nests > 0.5, share, softness=0.12)


def _clefts(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Return narrow shrinkage gaps, in some places only."""
    lines = np.abs(fractal_noise(rng, shape, 260 / GRID_UM, octaves=3))
    place = smoothstep(value_noise(rng, shape, 500 / GRID_UM), 0.7, 1.5)
    return (1 - smoothstep(lines, 0.015, 0.05)) * place


def _at(values: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the grid's values at full-resolution pixels."""
    last = values.shape[0] - 1
    rows = np.clip(y // GRID_PX, 0, last).astype(np.intp)
    return values[rows, np.clip(x // GRID_PX, 0, last).astype(np.intp)]


def _chosen(
    rng: np.random.Generator, chance: FloatArray, x: FloatArray, y: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the points kept, each with the chance its place gives it."""
    keep = rng.random(x.shape, dtype=np.float32) < _at(chance, x, y)
    return x[keep], y[keep]


def _tumour_nuclei(
    rng: np.random.Generator, layout: Layout, nests: FloatArray, grade: str
) -> Nuclei:
    """Return one nucleus in nearly every cell of the nests."""
    sheet = tumour_sheet(grade)
    size_px = layout.tissue.shape[0] * GRID_PX
    tiles = np.arange(0, size_px, PERIOD_PX, dtype=np.float32)
    x = (sheet.x[:, None, None] + tiles[None, :, None] + 0 * tiles[None, None, :]).ravel()
    y = (sheet.y[:, None, None] + 0 * tiles[None, :, None] + tiles[None, None, :]).ravel()
    chance = 0.95 * smoothstep(nests, 0.35, 0.7) * (1 - smoothstep(layout.lumen, 0.1, 0.4))
    x, y = _chosen(rng, (chance * (layout.tissue > 0.02)).astype(np.float32), x, y)
    angle = rng.uniform(0, np.pi, x.shape).astype(np.float32)
    return Nuclei(f"tumour-{grade}", x, y, angle)


def _scattered(
    rng: np.random.Generator,
    layout: Layout,
    kind: str,
    spacing_um: float,
    chance: FloatArray,
    *,
    in_sheets: bool = False,
) -> Nuclei:
    """Return nuclei of no preferred direction, outside the sheets of cells unless asked."""
    size_px = layout.tissue.shape[0] * GRID_PX
    x, y = jittered_hexagons(rng, size_px, size_px, spacing_um / MPP, 0.2)
    free = (layout.lumen < 0.3) & (layout.fat < 0.3) & (layout.tissue > 0.03)
    if not in_sheets:
        free &= layout.epithelium < 0.4
    x, y = _chosen(rng, (chance * free).astype(np.float32), x, y)
    return Nuclei(kind, x, y, rng.uniform(0, np.pi, x.shape).astype(np.float32))


def _stromal_nuclei(
    rng: np.random.Generator,
    layout: Layout,
    chance: FloatArray,
    flow: tuple[FloatArray, FloatArray],
) -> Nuclei:
    """Return elongated nuclei lying along the fibres, and along the septa inside the tumour."""
    found = _scattered(rng, layout, "spindle", 14.0, chance.astype(np.float32))
    rows, cols = (np.asarray(v, dtype=np.intp) % PERIOD_PX for v in (found.y, found.x))
    second = _at(layout.fibre_bank, found.x, found.y) > 0.5
    angle = np.where(second, fibres(1).angle[rows, cols], fibres(0).angle[rows, cols])
    across = np.arctan2(_at(flow[0], found.x, found.y), _at(flow[1], found.x, found.y))
    in_tumour = _at(layout.tumour.astype(np.float32), found.x, found.y) > 0
    angle = np.where(in_tumour, across + np.pi / 2, angle)
    angle = angle + rng.normal(0, 0.15, angle.shape)
    return Nuclei("spindle", found.x, found.y, angle.astype(np.float32))


def _ring_nuclei(rng: np.random.Generator, layout: Layout, rings: list[Ring]) -> list[Nuclei]:
    """Return the nuclei of glands and vessels."""
    x, y, angle, flat = nuclei_along(rng, rings)
    x, y = x / MPP, y / MPP
    here = _at(layout.tissue, x, y) > 0.05
    return [
        Nuclei(kind, x[chosen], y[chosen], angle[chosen])
        for kind, chosen in (("epithelial", here & ~flat), ("spindle", here & flat))
    ]
