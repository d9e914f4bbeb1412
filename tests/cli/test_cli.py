from __future__ import annotations

import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapely import box
from shapely.geometry import mapping

from qpannot.bootstrap.ledger import Ledger
from qpannot.linking import describe_slide
from qpannot.qupath import open_project
from qpannot.recipe import load_recipe

COMMANDS = ("init", "bootstrap", "status", "approve", "relink", "demo", "doctor")
HEAVY = ("torch", "jpype", "napari", "lightning", "dask", "openslide", "scipy", "skimage", "numpy")


def test_help_names_every_command_and_gives_examples(qpannot: Any) -> None:
    shown = qpannot("--help").out
    assert all(command in shown for command in COMMANDS)
    for command in COMMANDS:
        assert "qpannot " + command in qpannot(command, "--help").out.replace("\n", " ")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['qpannot', '--help']\n"
        "from qpannot.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(','.join(sorted(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ended.stderr.strip().splitlines()[-1].split(",")}
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


def test_version_is_the_packages(qpannot: Any) -> None:
    assert qpannot("--version").out.strip() == f"qpannot {importlib.metadata.version('qpannot')}"


def test_the_first_round_from_slides_to_review(
    qpannot: Any, slide_file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    assert "1 slide added" in qpannot("init", slide_file.parent, "-o", study).out
    assert qpannot("init", slide_file.parent, "-o", study, "--json").json["added"] == []
    first = qpannot("bootstrap", study, "--set", "tissue.min_area_um2=10000", "--json").json
    assert [each["name"] for each in first["proposed"]] == ["one.svs"]
    assert first["states"]["proposed"] == 1 and "QuPath" in first["next"][0]
    again = qpannot("bootstrap", "project.qpproj", cwd=study)
    assert "Nothing to propose" in again.out
    qpannot("approve", study, "one*", "--by", "AB")
    (image,) = qpannot("status", study, "--json").json["images"]
    assert (image["state"], image["annotations"], image["mpp"]) == ("reviewed", 1, [0.5, 0.5])
    assert image["size_px"] == [2048, 1536] and image["slide_found"]
    assert (
        qpannot("status", study / "project.qpproj").out.splitlines()[1].split("\t")[2] == "reviewed"
    )


def test_status_draws_pictures_and_changes_nothing(
    qpannot: Any, project_folder: Path, files_below: Any, tmp_path: Path
) -> None:
    qpannot("bootstrap", project_folder, "--set", "tissue.min_area_um2=10000")
    before = files_below(project_folder)
    shown = qpannot("status", project_folder, "--pictures", tmp_path / "look", "--json").json
    assert files_below(project_folder) == before
    pictures = [Path(image["picture"]) for image in shown["images"]]
    assert all(picture.is_file() for picture in pictures)
    assert (tmp_path / "look" / "overview.png").is_file()
    outlined, glass = (np.asarray(Image.open(pictures[index]).convert("RGB")) for index in (0, 2))
    assert (outlined == (200, 0, 0)).all(axis=-1).any()
    assert not (glass == (200, 0, 0)).all(axis=-1).any()


def test_missing_slides_are_named_skipped_and_relinked(
    qpannot: Any, project_folder: Path, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "slides" / "two.svs", tmp_path / "two.svs")
    options = ("--set", "tissue.min_area_um2=10000")
    ended = qpannot("bootstrap", project_folder, *options, code=3)
    assert "Skipped two.svs" in ended.err and "qpannot relink" in ended.err
    assert "one.svs: 1 annotation" in ended.out
    assert "the slide is missing" in qpannot("status", project_folder).out
    (tmp_path / "archive" / "deep").mkdir(parents=True)
    shutil.copy(tmp_path / "slides" / "one.svs", tmp_path / "archive" / "two.svs")
    assert (
        "not 1,536 x 2,048 px"
        in qpannot("relink", project_folder, tmp_path / "archive", code=3).out
    )
    shutil.move(tmp_path / "two.svs", tmp_path / "archive" / "deep" / "two.svs")
    assert "1 of 1" in qpannot("relink", project_folder, tmp_path / "archive").out
    assert "two.svs: 1 annotation" in qpannot("bootstrap", project_folder, *options).out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("bootstrap", "nowhere"), 1, "no QuPath project is there"),
        (("bootstrap", ".", "--recipe", "h2gnt"), 2, "Did you mean h2gnet"),
        (("bootstrap", ".", "--set", "tissue.treshold=2"), 2, "did you mean tissue.threshold"),
        (("bootstrap", ".", "--mpp", "-1"), 2, "must be positive"),
        (("bootstrap", ".", "--image", "three"), 2, "no image 'three'"),
        (("bootstrap", ".", "--backend", "java"), 2, "no backend 'java'"),
        (("approve", "three"), 2, "no image 'three'"),
        (("approve", "one.svs"), 2, "No annotations on one.svs"),
        (("init", "nowhere", "-o", "x"), 2, "no such file"),
        (("init", "data", "-o", "x"), 2, "no slides"),
        (("init", "classes.txt", "-o", "x", "--image-type", "pas"), 2, "no such type"),
        (("relink", ".", "nowhere"), 2, "no such file"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_a_mistake_ends_in_a_message_and_an_exit_code(
    qpannot: Any, project_folder: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (project_folder / "data.txt").touch()
    (project_folder / "classifiers").mkdir(exist_ok=True)
    shutil.rmtree(project_folder / "data" / "3")
    for thumbnail in project_folder.rglob("thumbnail.jpg"):
        thumbnail.unlink()
    ended = qpannot(*arguments, code=code, cwd=project_folder)
    assert says in ended.err.replace("\n", " ")


@pytest.mark.parametrize(
    "command", ["bootstrap", "train", "predict", "evaluate", "ablation", "demo"]
)
def test_a_mistyped_set_is_told_as_such_before_anything_is_done(
    qpannot: Any, project_folder: Path, files_below: Any, command: str
) -> None:
    with open_project(project_folder) as project:
        Ledger.of(project).save_recipe(load_recipe("quick"))
    before = files_below(project_folder)
    ended = qpannot(command, "--set", "trainig.epoch=5", cwd=project_folder, code=2)
    assert ended.err.startswith("Error: --set trainig.epoch=5: no such key")
    assert "Next: Correct it, as in --set training.epochs=5\n" in ended.err
    assert "recipe.json" not in ended.err and files_below(project_folder) == before


def test_a_slide_that_cannot_be_read_is_skipped_and_named(
    qpannot: Any, shared_data: Path, slide_file: Path, tmp_path: Path
) -> None:
    broken = shared_data / "slides" / "bad" / "broken.svs"
    ended = qpannot("init", slide_file, broken, "-o", tmp_path / "study", code=3)
    assert "broken.svs" in ended.err and "1 slide added" in ended.out
    with open_project(tmp_path / "study") as project:
        assert [image.name for image in project.images] == ["one.svs"]


def test_a_folder_of_dicom_parts_is_one_slide(
    qpannot: Any, shared_data: Path, tmp_path: Path
) -> None:
    result = qpannot(
        "init", shared_data / "slides" / "dicom", "-o", tmp_path / "study", "--json"
    ).json
    assert len(result["added"]) == 1 and not result["failed"]
    with open_project(tmp_path / "study") as project:
        size = project.images[0].server.size
        assert size is not None and (size.width, size.height) == (2220, 2967)


def test_doctor_says_what_is_there_and_what_absences_mean(qpannot: Any, tmp_path: Path) -> None:
    found = {each["what"]: each for each in qpannot("doctor", "--json").json}
    assert {
        "QuPath",
        "project backend",
        "OpenSlide",
        "torch",
        "GPU",
        "OpenVINO",
        "napari",
        "disk",
    } <= set(found)
    assert found["OpenSlide"]["verdict"] == "ok"
    assert all(each["meaning"] for each in found.values() if each["verdict"] == "absent")
    assert "OpenSlide" in qpannot("doctor").out


def test_doctor_names_a_place_without_a_qupath_that_it_is_told_of(
    qpannot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "gone"))
    found = {each["what"]: each for each in qpannot("doctor", "--json").json}
    assert found["QuPath"]["verdict"] == found["project backend"]["verdict"] == "absent"
    assert str(tmp_path / "gone") in found["QuPath"]["found"]
    assert found["project backend"]["found"].startswith("builtin")


def test_a_folder_may_hold_the_project_and_pictures_of_it(
    qpannot: Any, slide_file: Path, tmp_path: Path
) -> None:
    slides = slide_file.parent
    qpannot("init", slides, "-o", slides / "study")
    qpannot("status", slides / "study", "--pictures", slides / "look")
    again = qpannot("init", slides, "-o", slides / "study", "--json").json
    assert (again["added"], again["known"], again["failed"]) == ([], 1, {})


def test_no_project_is_made_of_nothing(qpannot: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.svs").write_bytes(b"nothing")
    ended = qpannot("init", tmp_path / "broken.svs", "-o", tmp_path / "study", code=1)
    assert "no project was made" in ended.err
    assert not (tmp_path / "study").exists()


def test_images_with_damaged_data_are_named_and_the_exit_code_says_so(
    qpannot: Any, project_folder: Path
) -> None:
    (project_folder / "data" / "1" / "data.qpdata").write_bytes(b"damaged")
    ended = qpannot("bootstrap", project_folder, "--set", "tissue.min_area_um2=10000", code=3)
    assert "Skipped one.svs" in ended.err and "two.svs: 1 annotation" in ended.out
    assert "cannot be read (one.svs)" in qpannot("status", project_folder, code=3).out


def test_a_file_that_was_cut_off_is_not_relinked(
    qpannot: Any, project_folder: Path, slide_file: Path, tmp_path: Path
) -> None:
    data = slide_file.read_bytes()
    slide_file.unlink()
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "one.svs").write_bytes(data[: len(data) // 2])
    assert "0 of 1" in qpannot("relink", project_folder, archive, code=3).out


def test_slides_are_found_by_their_names_without_ending(qpannot: Any, project_folder: Path) -> None:
    qpannot("bootstrap", project_folder, "--set", "tissue.min_area_um2=10000")
    assert "reviewed" in qpannot("approve", "ONE", "-p", project_folder).out
    ended = qpannot("approve", "tow.svs", "-p", project_folder, code=2)
    assert "Did you mean two.svs" in ended.err


def test_names_of_other_scripts_are_no_trouble_in_a_plain_terminal(
    qpannot: Any, slide_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide_file.rename(slide_file.with_name("käse 標本 🔬.svs"))
    qpannot("init", slide_file.parent, "-o", tmp_path / "study")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    ended = subprocess.run(
        [sys.executable, "-m", "qpannot", "status", tmp_path / "study"], capture_output=True
    )
    assert ended.returncode == 0 and b"unannotated" in ended.stdout
    look = tmp_path / "look"
    qpannot("status", tmp_path / "study", "--pictures", look)
    assert (look / "1-kase_.png").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_files_that_cannot_be_written_end_in_a_message(qpannot: Any, project_folder: Path) -> None:
    (project_folder / "look").touch()
    ended = qpannot("status", project_folder, "--pictures", project_folder / "look", code=1)
    assert "look: File exists" in ended.err


def test_brackets_in_names_are_no_markup(qpannot: Any, slide_file: Path, tmp_path: Path) -> None:
    slide_file.rename(slide_file.with_name("case [b] 1.svs"))
    study = tmp_path / "study [v2]"
    said = qpannot("init", slide_file.parent, "-o", study).out
    assert f"qpannot bootstrap {shlex.quote(str(study))}" in said
    ended = qpannot("bootstrap", study, "--set", "tissue.min_area_um2=10000")
    assert "case [b] 1.svs: 1 annotation" in ended.out
    shutil.move(slide_file.parent, tmp_path / "archive")
    assert "case [b] 1.svs: " in qpannot("relink", study, tmp_path / "archive").out


def test_flags_that_contradict_each_other_are_refused(qpannot: Any, project_folder: Path) -> None:
    arguments = ("approve", "one", "-p", project_folder, "--take-back", "--second-reader")
    assert "goes with neither" in qpannot(*arguments, code=2).err


def test_who_is_first_and_second_reader_of_a_slide_is_told(
    qpannot: Any, project_folder: Path
) -> None:
    qpannot("bootstrap", project_folder, "--set", "tissue.min_area_um2=10000")
    qpannot("approve", "one.svs", "two.svs", "-p", project_folder, "--by", "AB")
    second = ("-p", project_folder, "--second-reader", "--by")
    assert "same person" not in qpannot("approve", "two.svs", *second, "CD").err
    told = qpannot("approve", "one.svs", *second, "AB").err
    assert "first and second reader are the same person: one.svs (AB)" in told


def test_of_a_pattern_slides_without_annotations_are_skipped_and_named(
    qpannot: Any, project_folder: Path
) -> None:
    qpannot("bootstrap", project_folder, "--set", "tissue.min_area_um2=10000")
    ended = qpannot("approve", "*.svs", "-p", project_folder, "--backend", "builtin", code=3)
    assert "Skipped glass.svs: No annotations" in ended.err and "--empty" in ended.err
    shown = qpannot("status", project_folder, "--json").json["images"]
    assert [image["state"] for image in shown] == ["reviewed", "reviewed", "unannotated"]
    result = qpannot("approve", "*.svs", "-p", project_folder, "--json", code=3).json
    assert [each["name"] for each in result["skipped"]] == ["glass.svs"]
    assert [each["state"] for each in result["images"]] == ["reviewed", "reviewed"]


def test_small_rounds_go_on_by_the_commands_that_are_shown(
    qpannot: Any, project_folder: Path
) -> None:
    options = ("--recipe", "quick", "--set", "round.slides=1")
    first = qpannot("bootstrap", project_folder, *options).out
    assert "recipe quick (no more than 1 wait at one time)" in first
    assert "the recipe lets 1 wait for a person" in first
    told = qpannot("status", project_folder).out
    assert "the recipe lets 1 wait for a person" in told
    qpannot("approve", "one", "-p", project_folder)
    again = qpannot("bootstrap", project_folder, "--json").json
    assert again["recipe"] == "quick" and [each["name"] for each in again["proposed"]] == [
        "two.svs"
    ]
    everything = "--set round.slides=null".split()
    assert everything[1] in told
    assert "two.svs" not in (said := qpannot("bootstrap", project_folder, *everything).out)
    assert "1 earlier proposal stayed as made" in said and "--image NAME" in said


def test_images_of_one_name_are_asked_for_by_their_ids(qpannot: Any, project_folder: Path) -> None:
    with open_project(project_folder, "r+") as project:
        path = project.images[0].path
        assert path is not None
        project.add_images([describe_slide(path)])
    ended = qpannot("bootstrap", project_folder, "--image", "one.svs", code=2)
    assert "2 images are called 'one.svs'" in ended.err and "1, 4" in ended.err
    options = ("--set", "tissue.min_area_um2=10000")
    assert (
        "one.svs (ID 4): 1 annotation"
        in qpannot("bootstrap", project_folder, "--image", "4", *options).out
    )
    states = [i["state"] for i in qpannot("status", project_folder, "--json").json["images"]]
    assert states == ["unannotated", "unannotated", "unannotated", "proposed"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("bootstrap", "nowhere"), 1),
        (("approve", "three"), 2),
        (("init", "broken.svs", "-o", "new"), 1),
        (("snapshots", ".", "--restore", "1"), 2),
    ],
)
def test_a_script_that_asked_for_json_gets_its_error_as_json(
    qpannot: Any, project_folder: Path, arguments: tuple[str, ...], code: int
) -> None:
    (project_folder / "broken.svs").write_bytes(b"nothing")
    ended = qpannot(*arguments, "--json", code=code, cwd=project_folder)
    told = json.loads(ended.out)
    assert told["error"] and told["error"] in ended.err.replace("\n", " ")
    assert told["exit_code"] == code


def test_pictures_show_the_slide_that_is_linked_now_and_without_it_the_thumbnail(
    qpannot: Any, make_slide: Any, project_folder: Path, tmp_path: Path
) -> None:
    def picture() -> np.ndarray[Any, Any]:
        (path, *_) = (
            Path(image["picture"])
            for image in qpannot(
                "status", project_folder, "--pictures", tmp_path / "look", "--json"
            ).json["images"]
        )
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    before = picture()
    slide = tmp_path / "slides" / "one.svs"
    make_slide(slide, tissue=False)
    assert np.abs(picture() - before).max() > 50
    slide.unlink()
    assert np.abs(picture() - before).mean() < 5


@pytest.mark.parametrize("command", ["init", "approve", "relink", "bootstrap", "status"])
def test_the_backend_can_be_chosen_in_every_command_on_a_project(
    qpannot: Any, project_folder: Path, tmp_path: Path, command: str
) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "init": (tmp_path / "slides", "-o", project_folder),
        "approve": ("one.svs", "-p", project_folder, "--empty"),
        "relink": (project_folder, tmp_path / "slides"),
    }
    given = (command, *arguments.get(command, (project_folder,)))
    qpannot(*given, "--backend", "builtin")
    assert "no backend 'java'" in qpannot(*given, "--backend", "java", code=2).err


def test_a_slide_that_a_person_made_wait_waits_on_through_a_second_import(
    qpannot: Any, project_folder: Path, tmp_path: Path
) -> None:
    files = []
    for number in range(2):
        feature = {
            "type": "Feature",
            "geometry": mapping(box(number * 300, 0, number * 300 + 200, 200)),
            "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}},
        }
        files.append(tmp_path / f"{number}.geojson")
        files[-1].write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    qpannot("import", "geojson", project_folder, files[0], "--image", "one.svs")
    qpannot("approve", "one.svs", "-p", project_folder, "--take-back")
    qpannot("import", "geojson", project_folder, files[1], "--image", "one.svs")
    (image, *_) = qpannot("status", project_folder, "--json").json["images"]
    assert (image["annotations"], image["state"]) == (2, "proposed")
