from __future__ import annotations

import json
import shlex
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
        replaced = {each.name: each.geometry for each in project.images[0].annotations()}
    assert replaced["mine"] == shapely.Point(5, 5) and set(replaced) == {"mine", "theirs"}


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


def areas(folder: Path, *names: str) -> list[Path]:
    """Files of one Polygon each, as another program writes them."""
    ring = [[300, 300], [400, 300], [400, 400], [300, 300]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    files = [folder / f"{name}.geojson" for name in names]
    for file in files:
        file.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))
    return files


def advice(shown: str, word: str) -> list[list[str]]:
    """The commands that a person is advised to run, as a shell takes them apart."""
    return [shlex.split(line.split(": ")[-1]) for line in shown.splitlines() if word in line]


def test_it_is_said_once_that_imports_count_as_a_persons_work_and_how_to_undo_that(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    study = study.rename(tmp_path / "a person's study")
    ended = qpannot("import", "geojson", study, *areas(tmp_path, "one", "two"))
    (command,) = advice(ended.out, "count as a person's work")
    assert command[:4] == ["qpannot", "approve", "one.svs", "two.svs"]
    qpannot(*command[1:])
    told = qpannot("status", study, "--json").json["images"]
    assert [image["state"] for image in told] == ["proposed", "proposed", "unannotated"]
    point = {"type": "Point", "coordinates": [5, 5]}
    (tmp_path / "glass.geojson").write_text(json.dumps(point))
    ended = qpannot("import", "geojson", study, tmp_path / "glass.geojson")
    assert "1 added" in ended.out and "Next" not in ended.out


def test_predictions_are_imported_as_proposals_and_not_among_what_is_reviewed(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    files = areas(tmp_path, "two", "glass")
    ended = qpannot("import", "geojson", study, *files, "--as-proposals")
    assert "Next" not in ended.out
    states = {
        each["name"]: each["state"] for each in qpannot("status", study, "--json").json["images"]
    }
    assert (states["two.svs"], states["glass.svs"]) == ("proposed", "proposed")
    qpannot("approve", "two.svs", "-p", study)
    (new,) = areas(tmp_path, "new")
    new.write_text(new.read_text().replace("400", "500"))
    refused = qpannot(
        "import", "geojson", study, new, "--image", "two.svs", "--as-proposals", code=1
    )
    assert "it is reviewed" in refused.err
    (command,) = advice(refused.err, "--take-back")
    qpannot(*command[1:])
    qpannot("import", "geojson", study, new, "--image", "two.svs", "--as-proposals")
    states = {
        each["name"]: each["state"] for each in qpannot("status", study, "--json").json["images"]
    }
    assert states["two.svs"] == "proposed"


def test_what_lies_outside_is_counted_and_the_way_back_can_be_pasted(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    rings = [shapely.box(x, 10, x + 50, 60) for x in (10, 100, 5000)]
    features = [{"type": "Feature", "geometry": shapely.geometry.mapping(each)} for each in rings]
    file = tmp_path / "two.geojson"
    file.write_text(json.dumps(features))
    ended = qpannot("import", "geojson", study, file)
    assert "1 object outside the image (1,536 x 2,048 px)" in ended.err
    file.write_text(json.dumps(features[2:]))
    ended = qpannot("import", "geojson", study, file, "--image", "one", code=3)
    (command,) = advice(ended.out, "undo it")
    assert "one.svs" in qpannot(*command[1:]).out


def test_replace_is_advised_only_where_it_would_help(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    with open_project(study) as project:
        drawn, detected = project.images[0].objects()
    file = tmp_path / "one.geojson"
    point = {"type": "Point", "coordinates": [5, 5]}

    def conflict_with(each: Any, kind: str) -> None:
        properties = {"objectType": kind}
        made = {"type": "Feature", "id": str(each.id), "geometry": point, "properties": properties}
        file.write_text(json.dumps(made))

    conflict_with(detected, "detection")
    assert "--replace" not in qpannot("import", "geojson", study, file, code=3).out
    assert "--replace" not in qpannot("import", "geojson", study, file, "--replace", code=3).out
    conflict_with(drawn, "annotation")
    assert "--replace" in qpannot("import", "geojson", study, file, code=3).out


def test_several_images_are_not_exported_into_one_file(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    ended = qpannot("export", "geojson", study, "-o", tmp_path / "all.geojson", code=2)
    assert "cannot hold 3 images" in ended.err and not (tmp_path / "all.geojson").exists()


def test_export_says_that_what_persons_said_stays_in_the_project(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    assert "reviewed" not in qpannot("export", "geojson", study, "-o", tmp_path / "a").err
    qpannot("approve", "one.svs", "-p", study)
    assert "1 slide is reviewed" in qpannot("export", "geojson", study, "-o", tmp_path / "b").err


def test_a_persons_annotations_are_imported_as_a_reading_of_their_own(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    file = tmp_path / "one.geojson"
    qpannot("export", "geojson", study, "-o", file, "--image", "one", "--annotations-only")
    shown = qpannot("import", "geojson", study, file, "--by", "Bee").out
    assert "1 added" in shown and "--take-back" not in shown
    told = qpannot("status", study, "--json").json["images"][0]
    assert told["state"] == "reviewed" and told["independent_readers"] == ["Bee"]
    with open_project(study) as project:
        first, second = project.images[0].annotations()
    assert not first.metadata and second.metadata == {"qpannot.annotator": "Bee"}
    again = qpannot("import", "geojson", study, file, "--by", "Bee").out
    assert "0 added" in again
    back = ("approve", "one", "-p", study, "--take-back", "--by", "Bee", "--independent")
    assert "Bee not finished" in qpannot(*back).out


def test_a_file_is_a_persons_or_a_programs(qpannot: Any, study: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.geojson"
    file.write_text("[]")
    both = qpannot("import", "geojson", study, file, "--by", "Bee", "--as-proposals", code=2)
    assert "--as-proposals" in both.err
    nobody = qpannot("import", "geojson", study, file, "--by", "Bee", code=3)
    assert "No annotations of Bee" in nobody.err and "--empty" in nobody.err
