"""Files of real scanners and of OpenSlide's own tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from qpannot.errors import SlideError
from qpannot.geometry import Mpp, Region, Size
from qpannot.slide import open_slide


def test_svs_and_dicom_of_one_slide_agree(shared_data: Path) -> None:
    svs = open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs")
    dicom = open_slide(next((shared_data / "slides" / "dicom").glob("*.dcm")))
    with svs, dicom:
        assert svs.size == dicom.size == Size(2220, 2967)
        assert svs.mpp == dicom.mpp == Mpp(0.499, 0.499)
        assert svs.objective_power == 20
        assert dicom.objective_power is None
        assert dicom.magnification == pytest.approx(20, rel=0.01)
        # The two files are compressed differently, so single pixels at full resolution do differ.
        tissue = Region(896, 1536, 512, 512)
        one, other = (slide.read(tissue, 0.499).astype(int) for slide in (svs, dicom))
        apart = np.abs(one - other).mean()
        assert apart < 8
        for shift, axis in [(-1, 0), (1, 0), (-1, 1), (1, 1)]:
            assert apart < 0.7 * np.abs(np.roll(one, shift, axis) - other).mean()

        whole = Region(0, 0, 2220, 2967)
        one, other = (slide.read(whole, 3.7).astype(int) for slide in (svs, dicom))
        assert np.abs(one - other).mean() < 1
        assert np.abs(one - other).max() <= 12


def test_boxes_levels_lie_on_each_other(shared_data: Path) -> None:
    path = shared_data / "slides" / "openslide-fixtures" / "boxes.tiff"
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        assert [level.downsample for level in slide.levels] == [1, 2, 4, 8]
        whole = Region(0, 0, 300, 250)
        fine = slide.read_downsampled(whole, 1)
        assert np.array_equal(fine, tiff.series[0].levels[0].asarray())
        for downsample, level in zip((2, 4, 8), tiff.series[0].levels[1:], strict=True):
            height, width = level.shape[:2]
            region = Region(0, 0, width * downsample, height * downsample)
            assert np.array_equal(slide.read_downsampled(region, downsample), level.asarray())


def test_boxes_have_a_print_resolution_and_hence_no_pixel_size(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "openslide-fixtures" / "boxes.tiff") as slide:
        assert slide.mpp_or_none is None


@pytest.mark.parametrize(
    "name",
    ["bad/broken.svs", "openslide-fixtures/unopenable.tiff", "openslide-fixtures/unreadable.svs"],
)
def test_broken_slides_are_named_with_a_reason(shared_data: Path, name: str) -> None:
    path = shared_data / "slides" / name
    with pytest.raises(SlideError, match=path.name) as caught:
        open_slide(path).thumbnail(Size(64, 64))
    assert caught.value.hint
