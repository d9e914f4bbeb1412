"""Demo slides on disk: Aperio-style pyramids, their truth, and who they belong to."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry.base import BaseGeometry

from qpannot.demo.grid import GRID_PX, MPP
from qpannot.demo.layout import Layout, lay_out
from qpannot.demo.synthesis import draw_stain, render
from qpannot.errors import QpannotError, SlideError, UsageError

SIZE_PX = 10_240
TILE_PX = 256
JPEG_QUALITY = 85
PYRAMID = (1, 4, 16)
MASK_DOWNSAMPLE = 16
BACKGROUND, TISSUE, TUMOUR = 0, 1, 2

GENERATOR = "qpannot demo 1"
"""Written into every slide. The number goes up when the same seed gives other pixels."""

_PATIENTS = ((1, "1"), (2, "3"), (3, "2"), (3, "2"), (4, "1"), (5, "3"))


@dataclass(frozen=True)
class DemoSlide:
    """One synthetic slide and what is true of it.

    Parameters
    ----------
    path
        The slide, an SVS.
    mask_path
        The truth at downsample ``MASK_DOWNSAMPLE``, a tiled TIFF: 0 background, 1 tissue without
        tumour, 2 tumour.
    patient
        Two slides may be of one patient.
    grade
        "1", "2" or "3".
    mpp
        Micrometres per pixel at full resolution.
    name
        The file's name without its ending.
    tumour
        The tumour of the mask, in full-resolution pixels.
    """

    path: Path
    mask_path: Path
    patient: str
    grade: str
    mpp: float
    name: str
    tumour: BaseGeometry

    def dice(self, geometry: BaseGeometry) -> float:
        """Return the Dice coefficient of a geometry against the known tumour; 1 for two nothings.

        Parameters
        ----------
        geometry
            Polygons in full-resolution pixels.
        """
        total: float = geometry.area + self.tumour.area
        return 2 * geometry.intersection(self.tumour).area / total if total else 1.0


def make_demo_slides(
    folder: Path,
    *,
    count: int = 6,
    seed: int = 0,
    size_px: int = SIZE_PX,
    progress: Callable[[DemoSlide], None] | None = None,
    processes: int = 1,
) -> list[DemoSlide]:
    """Write synthetic H&E slides with known tumours; keep those that are there already.

    A slide depends on ``seed``, ``size_px`` and its own index alone, not on ``count``.

    Parameters
    ----------
    folder
        Where to; made if missing.
    count
        Number of slides. Every six are of five patients.
    seed
        Another seed gives other slides.
    size_px
        Side of the square slides at full resolution, a multiple of 256 of at least 1,024.
    progress
        Called with each slide, in order, once it is on disk.
    processes
        Among which slides are divided. A script that asks for several has to guard its main
        module with ``if __name__ == "__main__":``.

    Returns
    -------
    The slides, in order.

    Raises
    ------
    UsageError
        If a number makes no sense, or a file of a slide's name is not this very slide.
    SlideError
        If a slide cannot be written.
    """
    if count < 1:
        raise UsageError(f"cannot make {count} demo slides.", hint="Ask for at least one.")
    if seed < 0:
        raise UsageError(f"the seed is {seed}.", hint="Give a seed of 0 or more.")
    if size_px < 1024 or size_px % TILE_PX:
        raise UsageError(
            f"a demo slide cannot be {size_px} pixels wide.",
            hint="Give a multiple of 256 of at least 1,024, for example 10240.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    make = partial(_one_slide, folder, seed=seed, size_px=size_px)
    missing = sum(not (folder / f"{_name(index)}.svs").exists() for index in range(count))
    slides = []
    for slide in _mapped(make, count, min(processes, missing)):
        slides.append(slide)
        if progress is not None:
            progress(slide)
    return slides


def mask_to_geometry(mask: NDArray[np.bool_], pixel_size_px: float) -> BaseGeometry:
    """Return the outline of a mask, exactly along the edges of its pixels.

    Parameters
    ----------
    mask
        Rows and columns, boolean.
    pixel_size_px
        Side of a mask pixel in full-resolution pixels.

    Returns
    -------
    A valid Polygon or MultiPolygon in full-resolution pixels; empty where the mask is.
    """
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    runs = shapely.box(starts, rows, ends, rows + 1)
    outline = shapely.simplify(shapely.union_all(runs), 0)
    return shapely.transform(outline, lambda points: points * pixel_size_px)


def averaged(pixels: NDArray[np.uint8], downsample: int) -> NDArray[np.uint8]:
    """Return an image whose every pixel is the mean of ``downsample`` squared.

    Parameters
    ----------
    pixels
        ``(height, width, 3)`` uint8; sides a multiple of ``downsample``.
    downsample
        A divisor of ``TILE_PX``.
    """
    strips = [  # strip by strip, because Pillow copies what it is given
        np.asarray(Image.fromarray(pixels[top : top + TILE_PX]).reduce(downsample))
        for top in range(0, pixels.shape[0], TILE_PX)
    ]
    return np.concatenate(strips)


def _mapped(make: Callable[[int], DemoSlide], count: int, processes: int) -> Iterator[DemoSlide]:
    if processes <= 1:
        yield from map(make, range(count))
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks of other threads
    try:
        with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
            yield from pool.map(make, range(count))
    except BrokenProcessPool as error:
        raise QpannotError(
            "A process that was making demo slides was ended from outside, most likely because "
            "the memory was full.",
            hint="Free some, or ask for smaller slides (--size 6144), and run again; the slides "
            "that are there are kept.",
        ) from error


def _name(index: int) -> str:
    return f"demo-{index + 1:02d}"


def _one_slide(folder: Path, index: int, seed: int, size_px: int) -> DemoSlide:
    """Make the slide of an index, or find it made."""
    block, place = divmod(index, len(_PATIENTS))
    patient_in_block, grade = _PATIENTS[place]
    number = patient_in_block + 5 * block
    name = _name(index)
    path, mask_path = folder / f"{name}.svs", folder / f"{name}.mask.tif"
    origin = f"{GENERATOR}, seed {seed}, slide {index + 1}, {size_px} px"
    # The mask is written first, so a slide that is there has its mask.
    if not (_is_written(path, origin) and _is_written(mask_path, origin)):
        fraction = 0.18 + 0.40 * math.modf(0.45 + index * 0.618034)[0]
        rng = np.random.default_rng([seed, index])
        layout = lay_out(rng, size_px, grade=grade, tumour_fraction=fraction, soiled=index % 2 == 1)
        stain = draw_stain(np.random.default_rng([seed, 1_000_000 + number]), rng)
        pixels = render(layout, stain, rng, grade=grade)
        _write_mask(mask_path, _truth(layout), origin)
        _write_svs(path, pixels, origin)
    mask = tifffile.imread(mask_path)
    tumour = mask_to_geometry(mask == TUMOUR, MASK_DOWNSAMPLE)
    return DemoSlide(path, mask_path, f"P{number}", grade, MPP, name, tumour)


def _truth(layout: Layout) -> NDArray[np.uint8]:
    """Return the mask of a plan at ``MASK_DOWNSAMPLE``."""
    step = MASK_DOWNSAMPLE // GRID_PX
    side = layout.tissue.shape[0] // step

    def share(cover: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.asarray(cover.reshape(side, step, side, step).mean((1, 3)))

    truth = np.where(share(layout.tissue > 0) >= 0.5, TISSUE, BACKGROUND)
    return np.where(share(layout.tumour) >= 0.5, TUMOUR, truth).astype(np.uint8)


def _is_written(path: Path, origin: str) -> bool:
    """Say whether a file is there and is what would be written; raise if it is another."""
    try:
        with tifffile.TiffFile(path) as tiff:
            description = str(tiff.pages.first.description)
    except FileNotFoundError:
        return False
    except (OSError, tifffile.TiffFileError):
        description = ""
    if description.rpartition("|")[2] == origin:
        return True
    raise UsageError(
        f"{path} is there already and is not the demo slide that was asked for.",
        hint="Choose another folder, or delete the file if it is not needed.",
    )


def _write_svs(path: Path, pixels: NDArray[np.uint8], origin: str) -> None:
    """Write a pyramid as Aperio's scanners do: full resolution, thumbnail, smaller levels."""
    height, width = pixels.shape[:2]
    thumbnail = averaged(pixels, 16)
    encoding: dict[str, Any] = {
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": JPEG_QUALITY},
        "metadata": None,
        "software": False,
    }
    header = f"Aperio Image Library v11.2.1 \r\n{width}x{height}"
    first = (
        f"{header} [0,0 {width}x{height}] ({TILE_PX}x{TILE_PX}) JPEG/RGB Q={JPEG_QUALITY}"
        f"|AppMag = {10 / MPP:g}|MPP = {MPP:.4f}|Filename = {path.stem}|{origin}"
    )

    def write(temporary: Path) -> None:
        with tifffile.TiffWriter(temporary, bigtiff=False) as tiff:
            for downsample in PYRAMID:
                level = pixels if downsample == 1 else averaged(pixels, downsample)
                size = f"{level.shape[1]}x{level.shape[0]}"
                description = first if downsample == 1 else f"{header} -> {size} - |{origin}"
                tiff.write(
                    level,
                    tile=(TILE_PX, TILE_PX),
                    description=description,
                    subfiletype=int(downsample > 1),
                    **encoding,
                )
                if downsample == 1:
                    tiff.write(
                        thumbnail,
                        rowsperstrip=thumbnail.shape[0],
                        description=f"{header} -> {width // 16}x{height // 16} - |{origin}",
                        **encoding,
                    )

    _write_whole(path, write)


def _write_mask(path: Path, mask: NDArray[np.uint8], origin: str) -> None:
    """Write the truth."""

    def write(temporary: Path) -> None:
        tifffile.imwrite(
            temporary,
            mask,
            tile=(TILE_PX, TILE_PX),
            compression="lzw",
            description=f"0 background, 1 tissue, 2 tumour|{origin}",
            metadata=None,
            software=False,
        )

    _write_whole(path, write)


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let a file appear under its name only once it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise SlideError(
            path,
            f"cannot be written: {error}",
            hint="Check the folder's permissions and the free space, then run again.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
