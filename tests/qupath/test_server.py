from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qpannot.geometry import Mpp, Region, Size
from qpannot.qupath import server
from qpannot.qupath.server import Crop, ImageSource, Rotation


def uri_builder(**metadata: Any) -> dict[str, Any]:
    return {
        "builderType": "uri",
        "providerClassName": server.OPENSLIDE,
        "uri": "file:/data/a%20slide.svs",
        "args": ["--no-crop"],
        "metadata": {"width": 4000, "height": 3000, **metadata},
    }


def calibration(value: float, unit: str = "µm") -> dict[str, Any]:
    side = {"value": value, "unit": unit}
    return {"pixelWidth": side, "pixelHeight": {**side, "value": value * 2}}


def test_an_entry_of_real_qupath_is_understood(shared_data: Path) -> None:
    path = shared_data / "qupath/written-by-qupath/0.6.0/project/project.qpproj"
    entry = json.loads(path.read_text())["images"][0]
    info = server.read_builder(entry["serverBuilder"])
    assert info.uris == ("file:///data/slides/CMU-1-Small-Region.svs",)
    assert (info.size, info.mpp, info.magnification) == (Size(2220, 2967), Mpp(0.499, 0.499), 20)
    assert info.crop_to_bounds and info.is_rgb and not info.transforms


def test_no_crop_and_series_are_read_from_the_arguments() -> None:
    info = server.read_builder({**uri_builder(), "args": ["--series", "3", "--no-crop"]})
    assert (info.series, info.crop_to_bounds) == (3, False)


@pytest.mark.parametrize("unit", ["µm", "μm", "um"])
def test_the_resolution_is_read_in_micrometres(unit: str) -> None:
    info = server.read_builder(uri_builder(pixelCalibration=calibration(0.25, unit)))
    assert info.mpp == Mpp(0.25, 0.5)


@pytest.mark.parametrize(
    "bad",
    [
        calibration(1.0, "px"),
        calibration(0.0),
        calibration(float("nan")),
        {},
        {"pixelWidth": {"value": "x", "unit": "µm"}},
        None,
    ],
)
def test_pixels_and_nonsense_are_no_resolution(bad: Any) -> None:
    assert server.read_builder(uri_builder(pixelCalibration=bad)).mpp is None


def test_rotated_and_cropped_entries_have_the_frame_that_is_shown() -> None:
    rotated = {
        "builderType": "rotated",
        "rotation": "ROTATE_90",
        "builder": uri_builder(pixelCalibration=calibration(0.25)),
    }
    info = server.read_builder(rotated)
    assert (info.size, info.mpp) == (Size(3000, 4000), Mpp(0.5, 0.25))
    region = {"x": 10, "y": 20, "width": 300, "height": 400, "z": 0, "t": 0}
    cropped = server.read_builder({"builderType": "cropped", "builder": rotated, "region": region})
    assert cropped.size == Size(300, 400)
    assert cropped.transforms == (Rotation(1), Crop(Region(10, 20, 300, 400)))


def test_the_outer_metadata_goes_before_the_inner() -> None:
    outer = {
        "builderType": "pyramidize",
        "builder": uri_builder(),
        "metadata": {"width": 7, "height": 8},
    }
    assert server.read_builder(outer).size == Size(7, 8)


@pytest.mark.parametrize("kind", ["affine", "color_deconvolved", "sparse", "of-a-later-qupath"])
def test_transforms_we_cannot_follow_are_named(kind: str) -> None:
    info = server.read_builder({"builderType": kind, "builder": uri_builder()})
    assert info.unsupported == kind
    assert info.uris == ("file:/data/a%20slide.svs",)


def test_the_builder_of_a_new_image_is_what_qupath_wrote_for_it(shared_data: Path) -> None:
    path = shared_data / "qupath/written-by-qupath/0.6.0/project/data/1/server.json"
    written = json.loads(path.read_text())
    made = server.build(
        ImageSource(
            path=Path("/data/slides/CMU-1-Small-Region.svs"),
            reader="openslide",
            size=Size(2220, 2967),
            level_sizes=[Size(2220, 2967)],
            mpp=Mpp(0.499, 0.499),
            magnification=20,
            tile_size=Size(240, 240),
            thumbnail=np.zeros((1, 1, 3), np.uint8),
        )
    )
    assert made == written


def levels_of(full: Size, *levels: Size, size: Size | None = None) -> list[tuple[float, int, int]]:
    source = ImageSource(
        path=Path("/a.svs"),
        reader="openslide",
        size=size or full,
        level_sizes=[full, *levels],
        uncropped_size=full,
    )
    return [
        (level["downsample"], level["width"], level["height"])
        for level in server.build(source)["metadata"]["levels"]
    ]


def test_downsamples_are_estimated_as_qupath_does() -> None:
    full = Size(100_000, 80_000)
    assert [d for d, _, _ in levels_of(full, Size(25_000, 20_000), Size(6_249, 4_999))] == [
        1,
        4,
        16,
    ]
    # CAMELYON16's level that is no power of two stays what it is
    assert levels_of(Size(97_792, 221_184), Size(1_704, 3_855))[1][0] == pytest.approx(
        57.38, abs=0.01
    )


def test_levels_of_a_slide_cropped_to_its_bounds_follow_the_crop() -> None:
    levels = levels_of(Size(1000, 800), Size(250, 200), size=Size(401, 403))
    assert levels == [(1, 401, 403), (4, 100, 100)]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:/data/a%20b.svs", "/data/a b.svs"),
        ("file:///data/%C3%A4.svs", "/data/ä.svs"),
        ("file://server/share/a.svs", "//server/share/a.svs"),
        ("/data/a.svs", "/data/a.svs"),
    ],
)
def test_file_uris_become_paths(uri: str, path: str) -> None:
    assert server.path_from_uri(uri) == Path(path)


def test_other_uris_are_no_paths() -> None:
    assert server.path_from_uri("https://example.org/a.svs") is None
    assert server.path_from_uri("omero://host/1") is None


@pytest.mark.parametrize(
    "uri", ["file:/C:/slides/a%20b.svs", "C:\\slides\\a b.svs", "file:///x/y/a%20b.svs"]
)
def test_the_name_is_found_whichever_system_wrote_it(uri: str) -> None:
    assert server.name_from_uri(uri) == "a b.svs"


def test_relinking_replaces_the_uri_wherever_it_lies() -> None:
    builder: dict[str, Any] = {
        "builderType": "rotated",
        "builder": uri_builder(),
        "uri": "file:/other",
    }
    moved = server.replace_uris(builder, {"file:/data/a%20slide.svs": "file:/new/a.svs"})
    assert server.read_builder(moved).uris == ("file:/new/a.svs",)
    assert moved["uri"] == "file:/other"
    assert moved["builder"]["metadata"] == builder["builder"]["metadata"]


@pytest.mark.parametrize(
    "damaged",
    [
        uri_builder(width=None),
        uri_builder(height="tall"),
        {"builderType": "cropped", "builder": uri_builder(), "region": {"x": 1}},
        {
            "builderType": "cropped",
            "builder": uri_builder(),
            "region": {"x": 0, "y": 0, "width": 0, "height": 5},
        },
    ],
)
def test_a_damaged_entry_is_said_to_be_so(damaged: dict[str, Any]) -> None:
    info = server.read_builder(damaged)
    assert info.unsupported == "damaged" and info.uris == ("file:/data/a%20slide.svs",)


def test_uris_that_are_none_are_no_paths() -> None:
    assert server.path_from_uri("file://[x/a") is None
    assert server.name_from_uri("file://[x/a") == "a"
    assert not server.is_there(Path("/" + "x" * 5000))
    assert not server.is_there(None)


def test_names_in_any_encoding_lead_back_to_their_files(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.svs"))
    assert server.path_from_uri(server.uri_from_path(path)) == path


def test_what_a_file_must_measure_is_known_under_a_crop() -> None:
    region = {"x": 10, "y": 20, "width": 300, "height": 400}
    cropped = {"builderType": "cropped", "builder": uri_builder(), "region": region}
    info = server.read_builder({**cropped, "metadata": {"width": 300, "height": 400}})
    assert (info.size, info.file_size) == (Size(300, 400), Size(4000, 3000))
