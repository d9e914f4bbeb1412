from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as PillowImage

from qpannot.errors import SlideError
from qpannot.geometry import Mpp, Region, Size
from qpannot.slide import Slide, open_slide
from qpannot.slide.image import over_background
from qpannot.slide.openslide_reader import image_from_properties

Image = NDArray[np.uint8]
Noise = Callable[..., Image]
WriteSlide = Callable[..., Path]


def everything(slide: Slide) -> Image:
    return slide.read_downsampled(Region(0, 0, slide.size.width, slide.size.height), 1)


def test_an_ome_tiff_is_read_with_its_pyramid_and_pixel_size(
    write_ome: WriteSlide, noise: Noise
) -> None:
    levels = [noise(200, 130), noise(100, 65, seed=1), noise(50, 32, seed=2)]
    path = write_ome(
        *levels,
        PhysicalSizeX=250,
        PhysicalSizeXUnit="nm",
        PhysicalSizeY=0.0003,
        PhysicalSizeYUnit="mm",
    )
    with open_slide(path) as slide:
        assert (slide.format, slide.vendor) == ("tiff", "ome-tiff")
        assert slide.mpp.x == pytest.approx(0.25)
        assert slide.mpp.y == pytest.approx(0.3)
        assert [level.size for level in slide.levels] == [
            Size(200, 130),
            Size(100, 65),
            Size(50, 32),
        ]
        assert np.array_equal(everything(slide), levels[0])
        assert np.array_equal(
            slide.read_downsampled(Region(20, 40, 80, 60), 2), levels[1][20:50, 10:50]
        )
        assert np.array_equal(slide.read_downsampled(Region(0, 0, 200, 128), 4), levels[2])


@pytest.mark.parametrize(
    ("metadata", "mpp"),
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, Mpp(0.5, 0.5)),
        ({"PhysicalSizeX": 0.5}, None),
        ({"PhysicalSizeX": 2, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 2}, None),
        ({}, None),
    ],
)
def test_an_ome_pixel_size_needs_both_axes_and_a_length(
    write_ome: WriteSlide, noise: Noise, metadata: dict[str, Any], mpp: Mpp | None
) -> None:
    with open_slide(write_ome(noise(64, 64), **metadata)) as slide:
        assert slide.mpp_or_none == mpp


@pytest.mark.parametrize(
    ("dtype", "shape", "channels"),
    [(np.uint16, (4, 64, 64), 4), (np.uint8, (2, 64, 64), 2), (np.float32, (64, 64), 1)],
)
def test_an_image_that_is_not_rgb_opens_but_its_pixels_are_refused(
    write_ome: WriteSlide, dtype: type, shape: tuple[int, ...], channels: int
) -> None:
    axes = "CYX"[-len(shape) :]
    path = write_ome(np.zeros(shape, dtype), axes=axes, PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    with open_slide(path) as slide:
        assert slide.size == Size(64, 64)
        assert slide.mpp == Mpp(0.5, 0.5)
        assert not slide.is_rgb
        assert (slide.n_channels, slide.pixel_type) == (channels, np.dtype(dtype).name.upper())
        with pytest.raises(SlideError, match="no RGB image"):
            slide.thumbnail(Size(10, 10))


def test_grey_is_served_as_rgb(tmp_path: Path, noise: Noise) -> None:
    grey = noise(90, 70)[..., 0]
    for photometric, stored in [("minisblack", grey), ("miniswhite", 255 - grey)]:
        path = tmp_path / f"{photometric}.tif"
        tifffile.imwrite(path, stored, photometric=photometric, tile=(64, 64), compression="zlib")
        with open_slide(path) as slide:
            assert not slide.is_rgb
            assert slide.n_channels == 1
            assert np.array_equal(everything(slide), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 70},
        {"planarconfig": "separate", "rowsperstrip": 16},
        {"planarconfig": "separate", "tile": (32, 48), "compression": "zlib"},
        {"tile": (32, 48)},
    ],
)
def test_every_layout_of_a_tiff_is_read(
    tmp_path: Path, noise: Noise, options: dict[str, Any]
) -> None:
    pixels = noise(90, 70)
    stored = pixels.transpose(2, 0, 1) if "planarconfig" in options else pixels
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, stored, photometric="rgb", ome="tile" in options, **options)
    with open_slide(path) as slide:
        assert slide.format == "tiff"
        assert slide.is_rgb
        assert np.array_equal(everything(slide), pixels)
        assert np.array_equal(
            slide.read_downsampled(Region(50, 30, 33, 20), 1), pixels[30:50, 50:83]
        )


def test_jpeg_tiles_keep_their_colours(tmp_path: Path) -> None:
    pixels = np.full((128, 128, 3), (200, 60, 120), np.uint8)
    path = tmp_path / "jpeg.ome.tif"
    tifffile.imwrite(path, pixels, ome=True, tile=(64, 64), photometric="rgb", compression="jpeg")
    with open_slide(path) as slide:
        assert np.abs(everything(slide).astype(int) - pixels).max() <= 3


@pytest.mark.parametrize(
    ("per_cm", "mpp"), [(20_000, Mpp(0.5, 0.5)), (28.34, None), (118.11, None), (236.22, None)]
)
@pytest.mark.parametrize("tiled", [False, True])
def test_a_print_resolution_is_not_taken_for_a_pixel_size(
    tmp_path: Path, noise: Noise, per_cm: float, mpp: Mpp | None, tiled: bool
) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(
        path,
        noise(64, 64),
        photometric="rgb",
        tile=(64, 64) if tiled else None,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )
    with open_slide(path) as slide:
        assert slide.format == ("openslide" if tiled else "tiff")
        if mpp is None:
            assert slide.mpp_or_none is None
        else:
            assert slide.mpp.x == pytest.approx(mpp.x, rel=1e-6)


def test_imagej_says_its_unit(tmp_path: Path, noise: Noise) -> None:
    path = tmp_path / "imagej.tif"
    tifffile.imwrite(path, noise(64, 64), imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    with open_slide(path) as slide:
        assert slide.mpp == Mpp(0.25, 0.5)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_flat_images_are_slides_of_one_level(tmp_path: Path, noise: Noise, suffix: str) -> None:
    pixels = noise(90, 70)
    path = tmp_path / f"flat.{suffix}"
    PillowImage.fromarray(pixels).save(path, dpi=(40_000, 40_000))
    with open_slide(path) as slide:
        assert slide.size == Size(90, 70)
        assert len(slide.levels) == 1
        assert np.array_equal(everything(slide), pixels)
        if suffix != "tif":
            assert slide.mpp_or_none is None


def test_transparent_pixels_of_a_png_lie_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 100
    rgba[0, :, 3] = 0, 128, 255
    PillowImage.fromarray(rgba).save(tmp_path / "alpha.png")
    with open_slide(tmp_path / "alpha.png") as slide:
        np.testing.assert_array_equal(
            everything(slide)[0], [[255, 255, 255], [177, 127, 127], [100, 0, 0]]
        )


def test_compositing_rounds_and_uses_the_background() -> None:
    rgba = np.array([[[10, 20, 30, 51]]], np.uint8)
    np.testing.assert_array_equal(over_background(rgba, (110, 120, 130)), [[[90, 100, 110]]])


def test_a_16_bit_png_is_no_rgb_image(tmp_path: Path) -> None:
    PillowImage.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    with open_slide(tmp_path / "deep.png") as slide:
        assert slide.pixel_type == "UINT16"
        with pytest.raises(SlideError, match="no RGB image"):
            everything(slide)


BOUNDS = {
    "openslide.bounds-x": "30",
    "openslide.bounds-y": "40",
    "openslide.bounds-width": "200",
    "openslide.bounds-height": "100",
}


@pytest.mark.parametrize(
    ("changes", "bounds"),
    [
        ({}, (30, 40, 200, 100)),
        ({"openslide.bounds-x": ""}, None),
        ({"openslide.bounds-width": "5000"}, None),
        ({"openslide.bounds-height": "0"}, None),
    ],
)
def test_bounds_count_only_when_they_make_sense(
    changes: dict[str, str], bounds: tuple[int, int, int, int] | None
) -> None:
    image = image_from_properties({**BOUNDS, **changes}, [Size(400, 300)], "mirax")
    assert image.bounds == bounds


@pytest.mark.parametrize("bad", ["", "nan", "0", "-1", "inf", "0,25"])
def test_a_senseless_pixel_size_of_a_scanner_is_none(bad: str) -> None:
    properties = {"openslide.mpp-x": bad, "openslide.mpp-y": "0.25"}
    assert image_from_properties(properties, [Size(9, 9)], "aperio").mpp is None


def test_levels_out_of_order_are_left_out() -> None:
    sizes = [Size(400, 400), Size(100, 100), Size(200, 200), Size(0, 1), Size(25, 25)]
    image = image_from_properties({}, sizes, "aperio")
    assert [level.scale_x for level in image.levels] == [1, 4, 16]
    assert all(math.isclose(level.scale_y, level.scale_x) for level in image.levels)


def test_missing_tiles_of_a_tiff_are_white(tmp_path: Path) -> None:
    def tiles() -> Iterator[Image | None]:
        yield np.full((64, 64, 3), 9, np.uint8)
        yield None

    path = tmp_path / "sparse.ome.tif"
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(tiles(), shape=(64, 128, 3), dtype=np.uint8, **options)
    with open_slide(path) as slide:
        pixels = everything(slide)
        assert pixels[:, :64].max() == 9
        assert pixels[:, 64:].min() == 255
