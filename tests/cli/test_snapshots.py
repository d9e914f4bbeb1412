from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import box

from qpannot.qupath import Annotation, PathClass, open_project

FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]
Qpannot = Callable[..., Any]


def square(x: float, class_name: str) -> Annotation:
    return Annotation(box(x, 0, x + 50, 50), PathClass(class_name))


@pytest.fixture
def study(project_folder: Path) -> Path:
    """A project whose first image was written to three times, so that two snapshots are kept."""
    with open_project(project_folder, "r+") as project:
        image = project.images[0]
        added = [square(0, "Stroma"), square(100, "Tumor")]
        image.write_annotations(add=added)
        stroma, tumor = image.annotations()
        image.write_annotations(add=[square(200, "Tumor")])
        image.write_annotations(remove=[stroma], replace=[(tumor, tumor.with_changes(name="x"))])
    return project_folder


def test_what_each_snapshot_holds_and_what_restoring_it_changes_is_listed(
    study: Path, qpannot: Qpannot, files_below: FilesBelow
) -> None:
    before = files_below(study)
    rows = [line.split("\t") for line in qpannot("snapshots", study).out.splitlines()]
    assert rows[0] == ["image", "number", "there until", "size", "annotations", "restoring changes"]
    images = [row for row in rows if row[0] == "one.svs"]
    assert [row[1] for row in images] == ["1", "2"]
    assert [row[4] for row in images] == ["2 (Stroma 1, Tumor 1)", "3 (Tumor 2, Stroma 1)"]
    assert [row[5] for row in images] == ["1 come back, 1 go, 1 change", "1 come back, 1 change"]
    files = {row[0]: row[5] for row in rows if row[0].startswith("--file")}
    assert files == {"--file project": "3 go"}
    assert files_below(study) == before


def test_a_snapshot_is_put_back_said_so_and_that_undone(study: Path, qpannot: Qpannot) -> None:
    restored = qpannot("snapshots", study, "--image", "one", "--restore", 1, "--json").json
    assert restored["kept_as"] == 3
    assert (restored["annotations"], restored["state"]) == (2, "reviewed")
    status = qpannot("status", study, "--json").json
    assert status["images"][0]["annotations"] == 2
    said = qpannot("snapshots", study, "--image", "one", "--restore", 3).out
    assert "one.svs: 2 annotations, as there until" in said
    assert "What was there is snapshot 4; to undo this: qpannot snapshots" in said
    with open_project(study) as project:
        assert {a.name for a in project.images[0].annotations()} == {None, "x"}


def test_data_that_cannot_be_read_is_said_to_be_and_restored_over(
    study: Path, qpannot: Qpannot
) -> None:
    data = study / "data" / "1" / "data.qpdata"
    damaged = data.read_bytes()[:-200] + bytes(200)
    data.write_bytes(damaged)
    told = qpannot("status", study, code=3).out
    assert f"qpannot snapshots {study / 'project.qpproj'} --image NAME" in told
    rows = qpannot("snapshots", study, "-i", "one", "--json").json
    assert [row["annotations"] for row in rows] == [2, 3]
    assert {row["restoring_changes"] for row in rows} == {"what is there now cannot be read"}
    qpannot("snapshots", study, "-i", "one", "--restore", 2)
    rows = qpannot("snapshots", study, "-i", "one", "--json", code=3).json
    assert [row["annotations"] for row in rows] == [2, 3, None]
    assert Path(rows[-1]["path"]).read_bytes() == damaged
    refused = qpannot("snapshots", study, "-i", "one", "--restore", 3, code=1)
    assert "cannot be restored" in refused.err
    assert qpannot("status", study, "--json").json["images"][0]["annotations"] == 3


@pytest.mark.parametrize("trouble", ["damaged", "gone"])
def test_a_project_file_that_was_lost_is_restored(
    study: Path, qpannot: Qpannot, trouble: str
) -> None:
    file = study / "project.qpproj"
    with open_project(study, "r+") as project:
        project.set_classes([PathClass("Tumor")])
        project.set_classes([PathClass("Other")])
        project.add_images([])
    qpannot("approve", "one", "--project", study)
    whole = file.read_text()
    if trouble == "gone":
        file.unlink()
    else:
        file.write_text(whole[:100])
    listed = qpannot("snapshots", study, "--json", code=3)
    assert {row["file"] for row in listed.json} == {"project", "classes"}
    assert "project.qpproj" in listed.err
    number = max(row["number"] for row in listed.json if row["file"] == "project")
    said = qpannot("snapshots", study, "--file", "project", "--restore", number).out
    assert "project.qpproj: 3 images, as there until" in said
    assert ("to undo this" in said) is (trouble == "damaged")
    assert qpannot("status", study, "--json").json["states"]["reviewed"] == 1


def test_the_list_of_classes_is_restored(study: Path, qpannot: Qpannot) -> None:
    for names in (["Tumor", "Stroma"], ["Other"]):
        with open_project(study, "r+") as project:
            project.set_classes([PathClass(name) for name in names])
    rows = qpannot("snapshots", study, "--file", "classes", "--json").json
    assert [row["restoring_changes"] for row in rows] == ["2 come back, 1 go"]
    said = qpannot("snapshots", study, "--file", "classes", "--restore", 1).out
    assert "2 classes" in said and "Back: Tumor, Stroma." in said and "Gone: Other." in said
    with open_project(study) as project:
        assert [each.name for each in project.classes] == ["Tumor", "Stroma"]


def test_images_that_go_with_an_older_project_file_are_named_and_come_back(
    study: Path, qpannot: Qpannot
) -> None:
    arguments = ("snapshots", study, "--backend", "builtin", "--file", "project")
    said = qpannot(*arguments, "--restore", 1).out
    assert "Gone: one.svs, two.svs, glass.svs. Their annotations lie in" in said
    number = said.rsplit("--restore ", 1)[1].split()[0]
    back = qpannot(*arguments, "--restore", number, "--json").json
    assert back["come_back"] == ["one.svs", "two.svs", "glass.svs"] and back["gone"] == []
    assert qpannot("status", study, "--json").json["images"][0]["annotations"] == 2


def test_a_word_that_a_restore_takes_back_is_named(study: Path, qpannot: Qpannot) -> None:
    qpannot("approve", "one", "-p", study, "--by", "AB")
    arguments = ("snapshots", study, "--image", "one", "--restore")
    assert "Taken back: reviewed by AB on 20" in qpannot(*arguments, 1).out
    assert "Taken back" not in qpannot(*arguments, 2).out


def test_the_times_of_a_copied_project_are_those_of_the_writes(
    study: Path, qpannot: Qpannot, tmp_path: Path
) -> None:
    copy = shutil.copytree(study, tmp_path / "copy", copy_function=shutil.copyfile)
    for file in copy.rglob("*"):
        os.utime(file, (10**9, 10**9))
    assert qpannot("snapshots", copy).out == qpannot("snapshots", study).out.replace(
        str(study), str(copy)
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--restore", "1"], "--image NAME"),
        (["--image", "one", "--restore", "9"], "There are: 1, 2"),
        (["--image", "*", "--restore", "1"], "Name one image"),
        (["--file", "slides"], "Use project or classes"),
        (["--image", "one", "--file", "project"], "one, then another"),
    ],
)
def test_what_cannot_be_meant_is_explained_and_changes_nothing(
    study: Path, qpannot: Qpannot, files_below: FilesBelow, arguments: list[str], says: str
) -> None:
    before = files_below(study)
    assert says in qpannot("snapshots", study, *arguments, code=2).err
    assert files_below(study) == before


def test_too_much_to_read_at_once_is_listed_unread(
    study: Path,
    qpannot: Qpannot,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from qpannot.cli import snapshots

    monkeypatch.setattr(snapshots, "QUICKLY_READ", 100)
    snapshots.snapshots(study)
    said = capsys.readouterr().out
    assert "\t?\t" in said
    assert "--image NAME" in said
    snapshots.snapshots(study, images=["one"])
    assert "2 (Stroma 1, Tumor 1)" in capsys.readouterr().out
