from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from qpannot.qupath import Annotation, Detection, PathClass, open_project

BOW_TIE = shapely.Polygon([(100, 100), (200, 200), (200, 100), (100, 200)])


@pytest.fixture
def study(project_folder: Path) -> Path:
    """A project whose first image has an annotation that crosses itself, and a detection."""
    with open_project(project_folder, "r+") as project:
        crossing = Annotation(BOW_TIE, PathClass("Tumor", (200, 0, 0)), name="mine")
        project.images[0].write_annotations(add=[crossing, Detection(shapely.box(1, 1, 5, 5))])
    return project_folder


def test_out_and_in_again_is_said_to_change_nothing(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shown = qpannot("export", "geojson", study, "-o", out, "--gzip").out
    assert "mine" in shown and "crosses itself" in shown and "3 images exported." in shown
    assert sorted(path.name for path in out.iterdir()) == [
        "glass.geojson.gz",
        "one.geojson.gz",
        "two.geojson.gz",
    ]
    again = qpannot("import", "geojson", study, out).out
    assert "one.svs: 0 added, 2 there already" in again


def test_export_tells_scripts_what_it_repaired(qpannot: Any, study: Path, tmp_path: Path) -> None:
    file = tmp_path / "case.geojson"
    told = qpannot(
        "export", "geojson", study, "-o", file, "--image", "one", "--annotations-only", "--json"
    ).json
    (exported,) = told["exported"]
    assert exported["objects"] == 1 and exported["file"] == str(file)
    (repaired,) = exported["repaired"]
    assert (repaired["label"], repaired["area_before_px2"], repaired["area_after_px2"]) == (
        "mine",
        0,
        5000,
    )
    (feature,) = json.loads(file.read_bytes())["features"]
    assert shapely.geometry.shape(feature["geometry"]).is_valid


def test_import_reports_repairs_conflicts_and_what_it_left_out(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    with open_project(study) as project:
        (known,) = project.images[0].annotations()
    ring = [[300, 300], [400, 400], [400, 300], [300, 400]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"name": "theirs"},
        },
        {"type": "Feature", "geometry": None, "properties": {}},
        {
            "type": "Feature",
            "id": str(known.id),
            "geometry": {"type": "Point", "coordinates": [5, 5]},
            "properties": {},
        },
    ]
    file = tmp_path / "one.svs.geojson"
    file.write_text(json.dumps(features))
    planned = qpannot("import", "geojson", study, file, "--dry-run", "--json", code=3).json
    assert planned["dry_run"] and planned["images"][0]["added"] == 1
    with open_project(study) as project:
        assert len(project.images[0].annotations()) == 1
    done = qpannot("import", "geojson", study, file, code=3)
    assert "theirs" in done.out and "not closed" in done.out
    assert "[1] has no geometry" in done.err
    assert f"mine ({known.id})" in done.err and "--replace" in done.out
    with open_project(study) as project:
        assert {each.name for each in project.images[0].annotations()} == {"mine", "theirs"}
    qpannot("import", "geojson", study, file, "--replace", code=3)
    with open_project(study) as project:
        assert {each.name for each in project.images[0].annotations()} == {None, "theirs"}


def test_a_file_that_is_no_geojson_fails_with_a_message(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    file = tmp_path / "one.geojson"
    file.write_text("nonsense")
    assert "no JSON" in qpannot("import", "geojson", study, file, code=1).err
    assert "no such file" in qpannot("import", "geojson", study, tmp_path / "absent", code=2).err
    file.write_text('{"type": "FeatureCollection", "features": []}')
    ended = qpannot("import", "geojson", study, file, "--image", "*", code=2)
    assert "3 images" in ended.err


def test_an_image_that_cannot_be_read_is_skipped_and_named(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    with open_project(study) as project:
        data = study / "data" / project.images[0].id / "data.qpdata"
    data.write_bytes(b"damaged")
    ended = qpannot("export", "geojson", study, "-o", tmp_path / "out", code=3)
    assert "Skipped one.svs" in ended.err and "2 images exported, 1 skipped." in ended.out


@pytest.mark.parametrize("verb", ["export", "import"])
def test_help_gives_examples(qpannot: Any, verb: str) -> None:
    assert f"qpannot {verb} geojson study" in qpannot(verb, "geojson", "--help").out
    assert "geojson" in qpannot(verb, "--help").out
