from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qpannot.geometry import Mpp
from qpannot.linking import add_slides, open_image, state_mpp
from qpannot.qupath import Project, open_project


@pytest.fixture
def project(make_slide: Callable[..., Path], tmp_path: Path) -> Project:
    """A project of silent.svs, which tells no resolution, and telling.svs, which has 0.25."""
    folder = tmp_path / "slides"
    files = [
        make_slide(folder / "silent.svs", mpp=None),
        make_slide(folder / "telling.svs", mpp=0.25),
    ]
    add_slides(tmp_path / "study", files)
    return open_project(tmp_path / "study", "r+")


def test_a_resolution_is_stated_where_qupath_keeps_it_and_nobody_told_it(project: Project) -> None:
    silent, _ = project.images
    assert state_mpp(project, project.images, Mpp(0.5, 0.6)) == [silent.id]
    again = open_project(project.folder)
    assert [image.server.mpp for image in again.images] == [Mpp(0.5, 0.6), Mpp.square(0.25)]
    entry = json.loads(project.path.read_text(encoding="utf-8"))["images"][0]
    calibration = entry["serverBuilder"]["metadata"]["pixelCalibration"]
    assert calibration["pixelWidth"] == {"value": 0.5, "unit": "µm"}
    assert calibration["timeUnit"] == "SECONDS"
    copy = json.loads((project.folder / "data" / silent.id / "server.json").read_text("utf-8"))
    assert copy["metadata"]["pixelCalibration"] == calibration
    with open_image(again.images[0]) as slide:
        assert slide.mpp_or_none == Mpp(0.5, 0.6)


def test_what_a_person_set_before_stays(project: Project, files_below: Any) -> None:
    assert state_mpp(project, project.images, Mpp.square(0.5))
    before = files_below(project.folder)
    assert state_mpp(project, project.images, Mpp.square(0.7)) == []
    assert files_below(project.folder) == before


def test_what_the_file_tells_and_the_project_does_not_is_not_overruled(project: Project) -> None:
    document = json.loads(project.path.read_text(encoding="utf-8"))
    for entry in document["images"]:
        for side in ("pixelWidth", "pixelHeight"):
            calibration = entry["serverBuilder"]["metadata"]["pixelCalibration"]
            calibration[side] = {"value": 1.0, "unit": "px"}
    project.path.write_text(json.dumps(document), encoding="utf-8")
    project = open_project(project.path, "r+")
    assert state_mpp(project, project.images, Mpp.square(0.5)) == [project.images[0].id]


def test_a_slide_that_is_missing_gets_no_resolution(project: Project, tmp_path: Path) -> None:
    (tmp_path / "slides" / "silent.svs").unlink()
    assert state_mpp(project, project.images, Mpp.square(0.5)) == []


def test_adding_slides_again_with_a_resolution_states_it(project: Project, tmp_path: Path) -> None:
    files = sorted((tmp_path / "slides").iterdir())
    result = add_slides(tmp_path / "study", files, mpp=Mpp.square(0.5))
    assert (len(result.known), result.stated, result.added) == (2, 1, [])
    assert open_project(tmp_path / "study").images[0].server.mpp == Mpp.square(0.5)
