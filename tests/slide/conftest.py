"""Small real slides, written to disk in the formats that projects hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

Image = NDArray[np.uint8]
WriteSlide = Callable[..., Path]

APERIO = (
    "Aperio Image Library v11.2.1\r\n{w}x{h} [0,0 {w}x{h}] (64x64) deflate|AppMag = 20|MPP = 0.5"
)


@pytest.fixture
def noise() -> Callable[..., Image]:
    """Make random RGB pixels: any shift or leak shows."""

    def make(width: int, height: int, seed: int = 0) -> Image:
        generator = np.random.default_rng(seed)
        return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


def halved(pixels: Image, factor: int = 2) -> Image:
    """Return the mean of blocks of pixels, dropping what does not fill one, as scanners do."""
    height, width = (side // factor * factor for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    mean: Image = np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)
    return mean


@pytest.fixture
def write_tiff(tmp_path: Path) -> WriteSlide:
    """Write a tiled TIFF of the levels given, finest first (generic-tiff to OpenSlide)."""

    def write(*levels: Image, name: str = "slide.tif", **options: Any) -> Path:
        path = tmp_path / name
        with tifffile.TiffWriter(path) as tiff:
            for index, level in enumerate(levels):
                defaults: dict[str, Any] = {
                    "tile": (64, 64),
                    "photometric": "rgb",
                    "compression": "deflate",
                    "metadata": None,
                    "subfiletype": int(index > 0),
                }
                tiff.write(level, **{**defaults, **options})
        return path

    return write


@pytest.fixture
def write_svs(tmp_path: Path) -> WriteSlide:
    """Write an Aperio-like slide at 0.5 mpp with levels 1, 4 and 16."""

    def write(pixels: Image, name: str = "slide.svs") -> Path:
        path = tmp_path / name
        height, width = pixels.shape[:2]
        description = APERIO.format(w=width, h=height)
        options: dict[str, Any] = {
            "photometric": "rgb",
            "compression": "deflate",
            "metadata": None,
            "description": description,
        }
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(pixels, tile=(64, 64), **options)
            tiff.write(halved(pixels, 16), **options)
            for factor in (4, 16):
                tiff.write(halved(pixels, factor), tile=(64, 64), **options)
        return path

    return write


SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
 <collection name="c" sizeX="{W}" sizeY="{H}">{macro}{main}</collection>
</scn>"""
SCN_IMAGE = """<image name="{name}" uuid="{name}">
 <creationDate>2020-01-01T00:00:00Z</creationDate><device model="m" version="1"/>
 <pixels sizeX="{w}" sizeY="{h}">{dimensions}</pixels>
 <view sizeX="{vw}" sizeY="{vh}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>
 <scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
 <illuminationSettings><numericalAperture>0.4</numericalAperture>
 <illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
</image>"""


@pytest.fixture
def write_scn(tmp_path: Path) -> WriteSlide:
    """Write a Leica slide at 0.5 mpp with levels 1 and 4: the scanned part, with bounds, of a
    much larger empty slide."""

    def write(pixels: Image, origin: tuple[int, int], full: tuple[int, int]) -> Path:
        path = tmp_path / "slide.scn"
        nm = 500
        height, width = pixels.shape[:2]
        coarse = halved(pixels, 4)
        macro = np.full((64, 64, 3), 200, np.uint8)

        def dimension(part: Image, index: int, ifd: int) -> str:
            h, w = part.shape[:2]
            return f'<dimension sizeX="{w}" sizeY="{h}" r="{index}" ifd="{ifd}"/>'

        whole = {"vw": full[0] * nm, "vh": full[1] * nm, "x": 0, "y": 0}
        part = {
            "vw": width * nm,
            "vh": height * nm,
            "x": origin[0] * nm,
            "y": origin[1] * nm,
        }
        description = SCN.format(
            W=full[0] * nm,
            H=full[1] * nm,
            macro=SCN_IMAGE.format(
                name="macro", w=64, h=64, dimensions=dimension(macro, 0, 0), **whole
            ),
            main=SCN_IMAGE.format(
                name="main",
                w=width,
                h=height,
                dimensions=dimension(pixels, 0, 1) + dimension(coarse, 1, 2),
                **part,
            ),
        )
        options: dict[str, Any] = {
            "tile": (64, 64),
            "photometric": "rgb",
            "compression": "deflate",
            "metadata": None,
            "resolutionunit": "CENTIMETER",
        }
        with tifffile.TiffWriter(path, bigtiff=True) as tiff:
            tiff.write(macro, description=description, **options)
            tiff.write(pixels, resolution=(1e7 / nm, 1e7 / nm), **options)
            tiff.write(coarse, resolution=(1e7 / nm / 4, 1e7 / nm / 4), **options)
        return path

    return write


@pytest.fixture
def write_ome(tmp_path: Path) -> WriteSlide:
    """Write an OME-TIFF whose pyramid is in SubIFDs, as QuPath's own export."""

    def write(*levels: NDArray[Any], name: str = "slide.ome.tif", **metadata: Any) -> Path:
        path = tmp_path / name
        rgb: dict[str, Any] = {"axes": "YXS"} if levels[0].shape[-1] == 3 else {}
        kind = "rgb" if rgb else "minisblack"
        options: dict[str, Any] = {
            "tile": (64, 64),
            "photometric": kind,
            "compression": "deflate",
        }
        with tifffile.TiffWriter(path, ome=True) as tiff:
            tiff.write(levels[0], subifds=len(levels) - 1, metadata={**rgb, **metadata}, **options)
            for level in levels[1:]:
                tiff.write(level, subfiletype=1, metadata=None, **options)
        return path

    return write
