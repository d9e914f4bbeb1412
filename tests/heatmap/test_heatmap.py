from __future__ import annotations

import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.affine import Affine
from qpannot.errors import QpannotError
from qpannot.geometry import Mpp
from qpannot.heatmap import Heatmap, load_heatmap, save_heatmap
from qpannot.heatmap.files import _DECODED, _encoded

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
ROUNDED = 1 / 508 + 1e-6


def make_heatmap(
    shape: tuple[int, int] = (83, 101), classes: tuple[str, ...] = ("Rest", "Tumor")
) -> Heatmap:
    """Return smooth probabilities that sum to one, with a part that was not predicted."""
    rng = np.random.default_rng(0)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 6) for _ in classes]
    powers = np.exp(40 * np.stack(noise, axis=-1))
    probabilities = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    probabilities[: shape[0] // 3, : shape[1] // 4] = np.nan
    return Heatmap(
        probabilities,
        classes,
        Affine(1024.7, 1000, x=3, y=-4.5),
        Mpp(0.25, 0.251),
        slide="Größe <1> & 'more'",
        model="round 2",
    )


@pytest.mark.parametrize(
    ("shape", "classes"),
    [((83, 101), ("Tumor",)), ((1, 1), ("a", "b")), ((1030, 700), ("Rest", "Tumor", "Stroma <é>"))],
)
def test_a_heatmap_comes_back_as_it_was_saved(
    tmp_path: Path, shape: tuple[int, int], classes: tuple[str, ...]
) -> None:
    saved = make_heatmap(shape, classes)
    save_heatmap(tmp_path / "new" / "slide.ome.tif", saved)
    loaded = load_heatmap(tmp_path / "new" / "slide.ome.tif")
    assert np.array_equal(np.isnan(loaded.probabilities), np.isnan(saved.probabilities))
    assert np.nanmax(np.abs(loaded.probabilities - saved.probabilities), initial=0) <= ROUNDED
    for name in ("classes", "affine", "mpp", "slide", "model", "shape", "pixel_um"):
        assert getattr(loaded, name) == getattr(saved, name)


def test_saving_what_was_loaded_changes_nothing(tmp_path: Path) -> None:
    save_heatmap(tmp_path / "one.ome.tif", make_heatmap())
    once = load_heatmap(tmp_path / "one.ome.tif")
    save_heatmap(tmp_path / "two.ome.tif", once)
    twice = load_heatmap(tmp_path / "two.ome.tif")
    assert np.array_equal(once.probabilities, twice.probabilities, equal_nan=True)


@hypothesis_settings(max_examples=60)
@given(st.lists(st.floats(0, 1, width=32) | st.just(float("nan")), min_size=1))
def test_a_byte_keeps_a_probability_to_one_in_508(values: list[float]) -> None:
    probabilities = np.array(values, np.float32)
    decoded = _DECODED[_encoded(probabilities)]
    assert np.array_equal(np.isnan(decoded), np.isnan(probabilities))
    assert np.all((np.abs(decoded - probabilities) <= ROUNDED) | np.isnan(decoded))


def test_nothing_predicted_is_black_and_is_not_probability_zero(tmp_path: Path) -> None:
    values = np.array([[[np.nan], [0], [0.5], [1]]], np.float32)
    path = tmp_path / "slide.ome.tif"
    save_heatmap(path, Heatmap(values, ("Tumor",), Affine(1, 1), Mpp.square(1)))
    assert tifffile.imread(path).ravel().tolist() == [0, 1, 128, 255]
    assert np.array_equal(load_heatmap(path).probabilities, values, equal_nan=True)


def test_programs_are_told_names_colours_and_pixel_sizes(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    save_heatmap(path, make_heatmap(), colors={"Tumor": (200, 0, 16)})
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome and tiff.is_bigtiff
        pixels = ElementTree.fromstring(tiff.ome_metadata or "").find(f"{OME}Image/{OME}Pixels")
    assert pixels is not None
    assert (pixels.get("Type"), pixels.get("SizeC")) == ("uint8", "2")
    assert float(pixels.get("PhysicalSizeX", "")) == pytest.approx(256.175)
    assert float(pixels.get("PhysicalSizeY", "")) == pytest.approx(251)
    assert pixels.get("PhysicalSizeXUnit") == pixels.get("PhysicalSizeYUnit") == "µm"
    channels = pixels.findall(f"{OME}Channel")
    assert [channel.get("Name") for channel in channels] == ["Rest", "Tumor"]
    packed = int(channels[1].get("Color", "")) & 0xFFFFFFFF
    assert packed.to_bytes(4, "big") == bytes((200, 0, 16, 255))


def test_the_pyramid_lies_in_sub_ifds_and_averages_what_was_predicted(tmp_path: Path) -> None:
    heatmap = make_heatmap((1100, 2300))
    path = tmp_path / "slide.ome.tif"
    save_heatmap(path, heatmap)
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        assert len(tiff.pages) == 2
        assert [level.shape for level in levels] == [(2, 1100, 2300), (2, 275, 575), (2, 69, 144)]
        fourth, sixteenth = levels[1].asarray(), levels[2].asarray()
    for level, step in ((fourth, 4), (sixteenth, 16)):
        rows, columns = (size // step for size in heatmap.shape)
        whole = heatmap.probabilities[: rows * step, : columns * step]
        squares = whole.reshape(rows, step, columns, step, 2)
        known = np.isfinite(squares).any(axis=(1, 3))
        found = np.moveaxis(_DECODED[level][:, :rows, :columns], 0, -1)
        assert np.array_equal(np.isfinite(found), known)
        expected = np.nansum(squares, axis=(1, 3)) / np.isfinite(squares).sum(axis=(1, 3)).clip(1)
        assert np.abs(found - expected)[known].max() <= 2 * ROUNDED


@pytest.mark.parametrize(
    ("classes", "expected"), [(("Tumor",), [1, 1]), (("Rest", "Tumor"), [None] * 4)]
)
def test_fastpathology_is_given_a_pyramid_of_one_class_only(
    tmp_path: Path, classes: tuple[str, ...], expected: list[int | None]
) -> None:
    # FAST 4.18 opens pyramids whose SampleFormat is said, and mixes up levels and channels.
    path = tmp_path / "slide.ome.tif"
    save_heatmap(path, make_heatmap((600, 600), classes))
    said = []
    with tifffile.TiffFile(path) as tiff:
        for page in (page for level in tiff.series[0].levels for page in level.pages):
            assert page is not None
            tag = page.aspage().tags.get(339)
            said.append(tag.value if tag else None)
            assert 340 not in page.aspage().tags
    assert said == expected


def test_another_reader_of_tiff_sees_the_same_pixels(tmp_path: Path) -> None:
    heatmap = make_heatmap()
    path = tmp_path / "slide.ome.tif"
    save_heatmap(path, heatmap)
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (101, 83)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(256.175)
        seen = np.asarray(slide.read_region((0, 0), 0, (101, 83)))[..., 0]
    assert np.array_equal(seen, _encoded(heatmap.channel("Rest")))


def test_a_memory_mapped_heatmap_is_saved_in_little_memory(tmp_path: Path) -> None:
    shape = (3000, 4000, 2)
    values: NDArray[np.float32] = np.memmap(tmp_path / "raw", np.float32, "w+", shape=shape)
    values[::7] = 0.25
    heatmap = Heatmap(values, ("a", "b"), Affine(16, 16), Mpp.square(0.25))
    tracemalloc.start()
    try:
        save_heatmap(tmp_path / "slide.ome.tif", heatmap)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < values.nbytes / 2
    with tifffile.TiffFile(tmp_path / "slide.ome.tif") as tiff:
        assert np.array_equal(tiff.series[0].asarray()[1], _encoded(np.asarray(values[..., 1])))


def test_a_heatmap_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    save_heatmap(path, make_heatmap())
    before = path.read_bytes()
    broken = make_heatmap((700, 700))
    broken.probabilities[-1, -1, -1] = 1.5
    with pytest.raises(ValueError, match="not from 0 to 1"):
        save_heatmap(path, broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(QpannotError, match=r"cannot be written[\s\S]*Check free space"):
        save_heatmap(tmp_path / "file" / "slide.ome.tif", make_heatmap())


def test_files_that_are_no_heatmaps_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    with pytest.raises(QpannotError, match=r"no such file[\s\S]*Predict the slide"):
        load_heatmap(path)
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), ome=True, metadata={"Description": "[1]"})
    with pytest.raises(QpannotError, match=r"no heatmap of this version[\s\S]*predict .* again"):
        load_heatmap(path)
    path.write_bytes(b"no TIFF at all")
    with pytest.raises(QpannotError, match=r"damaged heatmap[\s\S]*predict .* again"):
        load_heatmap(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_half_a_file_is_an_error(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "slide.ome.tif"
    save_heatmap(path, make_heatmap((600, 600)))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(QpannotError, match="predict the slide again"):
        load_heatmap(path)


def test_parts_that_do_not_fit_are_refused() -> None:
    values, place = np.zeros((2, 3, 2), np.float32), (Affine(1, 1), Mpp.square(1))
    with pytest.raises(ValueError, match="as many names"):
        Heatmap(values, ("a",), *place)
    with pytest.raises(ValueError, match="as many names"):
        Heatmap(values, ("a", "a"), *place)
    with pytest.raises(ValueError, match="float32"):
        Heatmap(values[..., 0], ("a", "b", "c"), *place)
    with pytest.raises(KeyError, match="'c' is none of a, b"):
        Heatmap(values, ("a", "b"), *place).channel("c")
