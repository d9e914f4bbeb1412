"""``evaluate`` on slides that a small network learned to tell apart."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qpannot.bootstrap.ledger import Ledger

Here = Callable[..., Any]
FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]


@pytest.fixture(scope="module")
def evaluated(
    trained_study: Any, tmp_path_factory: pytest.TempPathFactory, here: Here
) -> tuple[Any, Path, Any]:
    """A study, the folder of its evaluation, and what the command said."""
    folder = tmp_path_factory.mktemp("evaluated")
    study = trained_study.copied(folder / "study")
    ended = here("evaluate", study.project, "-o", folder / "out", "--json")
    assert ended.code == 0, ended.err
    return study, folder / "out", json.loads(ended.out)


def test_the_model_is_judged_on_the_slide_it_never_saw_and_beats_the_thresholds(
    evaluated: tuple[Any, Path, Any],
) -> None:
    study, _, said = evaluated
    parts = Ledger(study.project).parts()
    assert (said["part"], said["slides"]) == ("test", 1)
    assert {each["design"]: parts[each["image_id"]] for each in said["measured"]} == {
        "otsu": "test",
        "tissue": "test",
        "round-002": "test",
    }
    dice = {name: own["metrics"]["dice"]["mean"] for name, own in said["designs"].items()}
    assert dice["round-002"] > 0.8 > dice["tissue"] > 0.5
    assert said["designs"]["round-002"]["metrics"]["ece"]["mean"] < 0.3
    assert said["designs"]["tissue"]["metrics"]["ece"]["mean"] is None
    assert any("1 slide only" in warning for warning in said["warnings"])
    assert said["runtime"] is None and said["failed"] == []


def test_the_folder_has_everything_in_every_form(evaluated: tuple[Any, Path, Any]) -> None:
    _, out, said = evaluated
    for stem in ("designs", "borders", "p-values"):
        for suffix in ("csv", "md", "tex"):
            assert (out / "tables" / f"{stem}.{suffix}").read_text(encoding="utf-8")
    for name in ("dice", "calibration-Tumor"):
        assert (out / "figures" / f"{name}.svg").read_text().startswith("<svg")
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "tables" / "runtime.md").exists(), "nothing was timed"
    mean = said["designs"]["round-002"]["metrics"]["dice"]["mean"]
    assert f"{mean:.3f}" in (out / "tables" / "designs.md").read_text()
    assert "On 1 test slide, at 4 µm per pixel" in (out / "tables" / "designs.tex").read_text(
        encoding="utf-8"
    ).replace(r"\textmu{}", "µ")
    written = json.loads((out / "results.json").read_text())
    assert written["designs"] == said["designs"]


def test_every_measurement_is_a_line_of_the_csv(evaluated: tuple[Any, Path, Any]) -> None:
    _, out, said = evaluated
    rows = list(csv.DictReader((out / "slides.csv").open(encoding="utf-8")))
    assert [row["design"] for row in rows] == ["otsu", "tissue", "round-002"]
    for row, own in zip(rows, said["measured"], strict=True):
        assert float(row["dice"]) == own["metrics"]["dice"]
        assert float(row["true_mm2"]) == own["classes"]["Tumor"]["true_mm2"]
        assert row["class"] == "Tumor" and row["part"] == "test"
    assert rows[0]["ece"] == "" and float(rows[2]["ece"]) >= 0


def test_the_report_needs_nothing_beside_it_and_pictures_the_slide(
    evaluated: tuple[Any, Path, Any],
) -> None:
    _, out, said = evaluated
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'src="data:image/png;base64,' in page and "<svg" in page
    assert "http://" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "1 test slide" in page and said["measured"][0]["name"] in page
    assert "1 slide only" in page and "The worst slides of round-002" in page


def test_the_project_is_only_read_and_a_rerun_says_the_same(
    evaluated: tuple[Any, Path, Any], here: Here, files_below: FilesBelow
) -> None:
    study, out, said = evaluated
    before, measured = files_below(study.project), files_below(out / "measured")
    ended = here("evaluate", study.project, "-o", out, "--json")
    assert ended.code == 0, ended.err
    again = json.loads(ended.out)
    assert again["designs"] == said["designs"] and again["measured"] == said["measured"]
    assert files_below(study.project) == before
    assert files_below(out / "measured") == measured, "measured once"


EVALUATE = """
import contextlib, io, os, sys
from qpannot.cli import main
first = sys.argv.pop(2)
if os.geteuid() == 0:  # who may write everywhere: become somebody who may not
    own, sys.argv = sys.argv, ["", "evaluate", first, "-o", first + "/out"]
    # loads all there is to load, which the other user may not read
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main()
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
    sys.argv = own
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights are kept otherwise there")
@pytest.mark.parametrize("kept", [True, False], ids=["heatmaps kept", "heatmaps missing"])
def test_a_project_that_may_only_be_read_is_evaluated(
    evaluated: tuple[Any, Path, Any], files_below: FilesBelow, kept: bool
) -> None:
    study, _, said = evaluated
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        copy = study.copied(Path(place) / "study", with_slides=True).project
        heatmaps = Ledger(copy).heatmap_folder("round-002")
        if not kept:
            shutil.rmtree(heatmaps)
        loaded = shutil.copytree(copy, Path(place) / "loaded")
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before, out = files_below(copy), Path(place) / "out"
        command = [sys.executable, "-c", EVALUATE, "evaluate", str(loaded), str(copy)]
        command += ["-o", str(out), "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=place)
        assert ended.returncode == 0, ended.stderr
        found = json.loads(ended.stdout)
        assert found["designs"] == said["designs"] and not found["failed"]
        written = {path.name: path.read_bytes() for path in out.glob("heatmaps/*/*")}
        if kept:
            assert written == {path.name: path.read_bytes() for path in heatmaps.iterdir()}
        assert len(written) >= 1 and files_below(copy) == before
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755)


def test_tables_are_shown_with_what_to_know_before_believing_them(
    evaluated: tuple[Any, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, out, _ = evaluated
    shutil.copytree(out, tmp_path / "out")
    ended = here("evaluate", study.project, "-o", tmp_path / "out", "--part", "validation")
    assert ended.code == 0, ended.err
    assert "Designs\tRecall\tPrecision\tDSC\tIoU" in ended.out
    assert "1 validation slide, at 4 µm per pixel" in ended.out
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in ended.out
    assert "round-002 was chosen by 1 of these slides" in ended.err


def test_slides_the_model_was_fitted_to_are_marked(
    evaluated: tuple[Any, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, _, _ = evaluated
    ended = here(
        "evaluate", study.project, "-o", tmp_path, "--part", "all", "--design", "model", "--json"
    )
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert list(said["designs"]) == ["round-002"] and said["slides"] == 5
    parts = Ledger(study.project).parts()
    for own in said["measured"]:
        known = None if parts[own["image_id"]] == "test" else parts[own["image_id"]]
        assert own["known_to_the_design"] == known
    assert any("was trained on 3 of these slides" in each for each in said["warnings"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("train (fitted to)") == 3 and "validation (chosen by)" in page
    low, high = (said["designs"]["round-002"]["metrics"]["dice"][key] for key in ("low", "high"))
    assert 0.5 < low < high <= 1


def test_tables_of_an_earlier_evaluation_that_no_longer_hold_are_gone(
    evaluated: tuple[Any, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, out, _ = evaluated
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "tables" / "mine.md").write_text("my own notes")
    ended = here("evaluate", study.project, "-o", tmp_path / "out", "--design", "otsu")
    assert ended.code == 0, ended.err
    tables = {path.name for path in (tmp_path / "out" / "tables").iterdir()}
    assert "p-values.md" not in tables and {"designs.md", "mine.md"} <= tables
    assert not (tmp_path / "out" / "figures" / "calibration-Tumor.png").exists()


def test_models_of_any_folder_are_compared_under_their_names(
    evaluated: tuple[Any, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, _, said = evaluated
    model = Ledger(study.project).model_folder("round-002")
    shutil.copytree(model, tmp_path / "copied" / "model")
    ended = here(
        *("evaluate", study.project, "-o", tmp_path / "out", "--json"),
        *("--model", f"Mob-PW={model}", "--model", tmp_path / "copied" / "model"),
    )
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert list(found["designs"]) == ["Mob-PW", "copied"]
    dice = said["designs"]["round-002"]["metrics"]["dice"]["mean"]
    assert [own["metrics"]["dice"]["mean"] for own in found["designs"].values()] == [dice, dice]
    assert found["slides"] == 1, "the copied one is fitted to all slides on its card"
    assert list((tmp_path / "out" / "heatmaps").rglob("*.ome.tif")), "the copy has no other place"


def test_annotations_that_began_as_the_models_own_proposals_are_told(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    study = trained_study.copied(tmp_path / "study")
    study.correct(["f.tif"])
    ended = here("evaluate", study.project, "-o", tmp_path / "out", "--image", "f.tif")
    assert ended.code == 0, ended.err
    assert "On 1 slide the annotations began as proposals of round-002" in ended.err


def test_what_is_not_there_yet_is_told_with_a_command_that_makes_it(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    study = trained_study.copied(tmp_path / "study")
    ended = here("evaluate", study.project, "-o", tmp_path / "out", "--image", "f.tif")
    assert ended.code == 1 and "f.tif: not reviewed" in ended.err
    file = study.project / "project.qpproj"
    command = f"qpannot approve f.tif -p {file}"
    assert command in ended.err
    assert here(*shlex.split(command)[1:]).code == 0
    ended = here("evaluate", study.project, "-o", tmp_path / "out", "--design", "refined")
    assert ended.code == 1 and "keeps no refinement network" in ended.err
    assert f"qpannot train {file} --stage refinement -o refined" in ended.err


def test_a_project_is_named_by_its_whole_path(
    reviewed_study: Any, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = reviewed_study.project
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    there = Path("x") / ".." / os.path.relpath(folder, tmp_path)
    ended = here("evaluate", there, "-o", "out", "--design", "tissue", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["project"] == str((folder / "project.qpproj").resolve())


def test_a_bad_slide_is_named_and_skipped(trained_study: Any, here: Here, tmp_path: Path) -> None:
    study = trained_study.copied(tmp_path / "study", with_slides=True)
    (tmp_path / "a.tif").write_bytes(b"no slide any more")
    ended = here(
        *("evaluate", study.project, "-o", tmp_path / "out", "--design", "tissue"),
        *("--image", "a.tif", "--image", "b.tif", "--image", "f.tif"),
    )
    assert ended.code == 3, ended.err
    assert "Skipped a.tif" in ended.err and "Skipped f.tif: not reviewed" in ended.err
    assert "2 named slides" in ended.out  # one of them measured
    assert "tissue\t" in ended.out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "What failed" in page and "b.tif" in page


def test_without_a_model_thresholds_are_compared_with_what_a_person_drew(
    reviewed_study: Any, here: Here, tmp_path: Path
) -> None:
    ended = here("evaluate", reviewed_study.project, "-o", tmp_path, "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert list(said["designs"]) == ["otsu", "tissue"]
    assert (said["part"], said["slides"]) == ("test", 5), "no slide was shown to anything"


def test_results_are_told_apart_by_metadata(
    reviewed_study: Any, here: Here, tmp_path: Path
) -> None:
    from qpannot.qupath import ImageChanges

    study = reviewed_study.copied(tmp_path / "study")
    with study.open("r+") as project:
        project.update_images(
            {
                image.id: ImageChanges(metadata={"Scanner": "old" if image.name < "c" else "new"})
                for image in project.images
            }
        )
    ended = here(
        *("evaluate", study.project, "-o", tmp_path / "out", "--design", "tissue"),
        *("--by", "scanner", "--by", "stain"),
    )
    assert ended.code == 0, ended.err
    table = (tmp_path / "out" / "tables" / "by-scanner.csv").read_text()
    header, row = csv.reader(table.splitlines())
    assert header[1] == "Scanner new (3) mean" and header[4] == "Scanner new (3) low"
    assert [row[header.index(f"Scanner {name} n")] for name in ("new (3)", "old (2)")] == ["3", "2"]
    assert "do not differ in the metadata stain" in ended.err
    assert (tmp_path / "out" / "figures" / "dice-by-scanner.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "nowhere"], 1, "is no model"),
        (["--design", "model"], 1, "no model has been trained"),
        (["--design", "magic"], 2, "magic"),
        (["--part", "validation"], 1, "no validation"),
        (["--image", "nowhere"], 2, "no image"),
    ],
)
def test_what_cannot_be_is_said(
    reviewed_study: Any, here: Here, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    ended = here("evaluate", reviewed_study.project, "-o", tmp_path / "out", *arguments)
    assert ended.code == code and words in ended.err
    assert "Traceback" not in ended.err


def test_a_model_that_does_not_know_a_class_is_refused(
    evaluated: tuple[Any, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, _, _ = evaluated
    ended = here(
        *("evaluate", study.project, "-o", tmp_path, "--set", "labels.classes=[Tumor, Stroma]")
    )
    assert ended.code == 2 and "not Stroma" in ended.err


def test_a_runtime_is_shown_where_it_was_measured(
    evaluated: tuple[Any, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, out, _ = evaluated
    shutil.copytree(out, tmp_path / "out")
    ended = here("evaluate", study.project, "-o", tmp_path / "out", "--repeat", "2", "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)["runtime"]
    assert "768 x 512 px" in said["slide"]
    engines = [run["engine"].split()[0] for run in said["runs"]]
    assert engines[0] == "torch" and len(set(engines)) == len(engines)
    for run in said["runs"]:
        assert run["seconds"]["Total"] == run["seconds"]["Patch-wise"]
        assert len(run["seconds"]["Total"]) == 2 and min(run["seconds"]["Total"]) > 0
    table = (tmp_path / "out" / "tables" / "runtime.md").read_text(encoding="utf-8")
    assert "torch on" in table and "Mean ± standard deviation of 2 runs" in table
