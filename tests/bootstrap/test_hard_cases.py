"""What happens to a loop that was broken off, damaged, or given another recipe between rounds."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qpannot.bootstrap.learning import model_name
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.models.bundle import WEIGHTS
from qpannot.qupath.proposals import MODEL, is_proposal

CORRECTED = tuple(f"{name}.tif" for name in "abcde")
WAITING = tuple(f"{name}.tif" for name in "fgh")


@pytest.fixture
def trained(trained_study: Any, tmp_path: Path) -> Any:
    return trained_study.copied(tmp_path / "study")


@pytest.fixture
def reviewed(reviewed_study: Any, tmp_path: Path) -> Any:
    return reviewed_study.copied(tmp_path / "study")


def record_of(study: Any, number: int) -> RoundRecord:
    record = Ledger(study.project).round(number)
    assert record is not None
    return record


def models_of_proposals(study: Any) -> dict[str, set[str | None]]:
    """Return which models made the annotations of the slides that wait, by name."""
    with study.open() as project:
        return {
            image.name: {each.metadata.get(MODEL) for each in image.annotations()}
            for image in project.images
            if image.name in WAITING
        }


def outlines(study: Any) -> dict[str, list[tuple[str, str]]]:
    """Return what a person annotated, by name."""
    with study.open() as project:
        return {
            image.name: [(str(each.id), each.geometry.wkt) for each in image.annotations()]
            for image in project.images
            if image.name in CORRECTED
        }


def move_a_border(study: Any, name: str) -> None:
    with study.open("r+") as project:
        (image,) = (image for image in project.images if image.name == name)
        drawn = image.annotations()[0]
        changed = drawn.with_changes(geometry=drawn.geometry.buffer(-20))
        image.write_annotations(replace=[(drawn, changed)])


def test_a_finished_training_keeps_no_weights_but_the_models(trained: Any) -> None:
    folder = Ledger(trained.project).model_folder(model_name(2)).parent
    weights = (folder / "model" / WEIGHTS).stat().st_size

    assert not list(folder.glob("**/*.ckpt"))
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2 * weights


def test_a_model_that_no_round_recorded_is_used_where_it_fits(
    reviewed: Any, here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash can come after the model was written, and before the ledger says so."""
    weights = Ledger(reviewed.project).model_folder(model_name(2)) / WEIGHTS
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("qpannot.bootstrap.learning.TrainingRecord", lambda **_: 1 / 0)
        here("bootstrap", reviewed.project)
    before = weights.stat().st_mtime_ns

    ended = here("bootstrap", reviewed.project)

    assert ended.code == 0, ended.err
    assert record_of(reviewed, 2).is_complete
    assert weights.stat().st_mtime_ns == before


def test_a_model_that_no_round_recorded_is_set_aside_where_it_does_not_fit(
    trained: Any, here: Callable[..., Any]
) -> None:
    ledger = Ledger(trained.project)
    old = (ledger.model_folder(model_name(2)) / "model.json").read_bytes()
    (ledger.house / "rounds" / "002.json").unlink()
    move_a_border(trained, "a.tif")

    ended = here("bootstrap", trained.project)

    assert ended.code == 0, ended.err
    assert record_of(trained, 2).is_complete
    aside = ledger.house / "models" / "round-002-unrecorded-1" / "model" / "model.json"
    assert aside.read_bytes() == old
    assert (ledger.model_folder(model_name(2)) / "model.json").read_bytes() != old


def test_where_the_model_is_gone_another_is_trained(trained: Any, here: Callable[..., Any]) -> None:
    ledger = Ledger(trained.project)
    shutil.rmtree(ledger.house / "models")

    ended = here("bootstrap", trained.project)

    assert ended.code == 0, ended.err
    assert ledger.kept_model() == model_name(3)
    assert set().union(*models_of_proposals(trained).values()) == {model_name(3)}


def test_a_damaged_model_is_named_with_the_way_on(trained: Any, here: Callable[..., Any]) -> None:
    ledger = Ledger(trained.project)
    folder = ledger.model_folder(model_name(2))
    (folder / "model.json").write_text("{")
    before = trained.data()

    ended = here("bootstrap", trained.project)

    assert ended.code == 1
    assert f"delete {folder}" in " ".join(ended.err.split())
    assert trained.data() == before
    shutil.rmtree(folder)
    assert here("bootstrap", trained.project).code == 0
    assert ledger.kept_model() == model_name(3)


def test_other_classes_in_the_recipe_are_learned_before_they_are_proposed(
    trained: Any, here: Callable[..., Any]
) -> None:
    """The model of the old classes would propose what the recipe does not know."""
    with trained.open("r+") as project:
        tumor = next(each for each in project.classes if each.name == "Tumor")
        for image in project.images:
            if image.name in CORRECTED:
                own = image.annotations()
                changes = {"path_class": type(tumor)("Stripes", (1, 2, 3))}
                image.write_annotations(replace=[(e, e.with_changes(**changes)) for e in own])
    changed = ("--set", "labels.classes=[Stripes]", "--set", "proposal.class_name=Stripes")

    refused = here("bootstrap", trained.project, *changed, "--set", "round.train_after=99")
    learned = here("bootstrap", trained.project, *changed, "--set", "round.train_after=1")

    assert refused.code == 1
    assert "tells Non-tumor, Tumor apart" in refused.err
    assert "round.train_after=1" in refused.err
    assert learned.code == 0, learned.err
    record = record_of(trained, 3)
    assert record.judgement is not None
    assert record.judgement.kept == model_name(3)
    assert record.judgement.helped is None


def test_a_class_that_never_occurs_ends_the_training_and_nothing_else(
    reviewed: Any, here: Callable[..., Any]
) -> None:
    before = reviewed.data()
    classes = ("--set", "labels.classes=[Tumor, Stroma, Necrosis]")

    ended = here("bootstrap", reviewed.project, *classes)

    assert ended.code == 1
    assert "no patches of Stroma and Necrosis" in ended.err
    assert "labels.classes" in ended.err
    assert reviewed.data() == before
    back = here("bootstrap", reviewed.project, "--set", "labels.classes=[Tumor]")
    assert back.code == 0, back.err


def test_a_lost_split_is_taken_from_the_rounds(trained: Any) -> None:
    """A slide that judged a model must not teach the next."""
    ledger = Ledger(trained.project)
    before = ledger.parts()
    (ledger.house / "parts.json").unlink()

    assert set(before.values()) >= {"train", "validation"}
    assert ledger.parts() == before


def test_a_report_that_a_crash_kept_from_being_written_is_written_by_the_next_run(
    trained: Any, here: Callable[..., Any]
) -> None:
    report = trained.project / "qpannot" / "reports" / "round-002.html"
    report.unlink()

    here("bootstrap", trained.project)
    written = report.stat().st_mtime_ns
    here("bootstrap", trained.project)

    assert "round 2" in report.read_text(encoding="utf-8").lower()
    assert report.stat().st_mtime_ns == written


def test_a_damaged_record_of_an_image_is_not_called_damaged_annotations(
    trained: Any, here: Callable[..., Any]
) -> None:
    record = sorted((trained.project / "qpannot" / "images").glob("*.json"))[0]
    record.write_text("{")

    ended = here("bootstrap", trained.project)

    assert ended.code == 3
    assert str(record) in ended.err
    assert "Move the file away" in ended.err
    assert "put a snapshot back" not in ended.out


def test_a_damaged_recipe_of_the_project_is_named_with_the_way_on(
    trained: Any, here: Callable[..., Any]
) -> None:
    (trained.project / "qpannot" / "recipe.json").write_text('{"name": "x')

    ended = here("bootstrap", trained.project)

    assert ended.code == 1
    assert "recipe.json" in ended.err
    assert "Move the file away" in ended.err


def test_without_its_ledger_a_loop_keeps_every_annotation_and_goes_on(
    trained: Any, here: Callable[..., Any]
) -> None:
    before = outlines(trained)
    shutil.rmtree(trained.project / "qpannot")

    ended = here("bootstrap", trained.project, "--recipe", trained.recipe)

    assert ended.code == 0, ended.err
    assert outlines(trained) == before
    assert Ledger(trained.project).kept_model() == model_name(2)
    assert len(record_of(trained, 2).training.slides) == len(CORRECTED)  # type: ignore[union-attr]


def test_a_reviewed_slide_that_is_missing_is_left_out_and_learned_from_once_it_is_back(
    reviewed: Any, here: Callable[..., Any], tmp_path: Path
) -> None:
    study = reviewed.copied(tmp_path / "own" / "study", with_slides=True)
    study.slides.joinpath("a.tif").rename(study.slides / "a.away")

    without = here("bootstrap", study.project)
    study.slides.joinpath("a.away").rename(study.slides / "a.tif")
    status = here("status", study.project)

    assert without.code == 3
    assert "a.tif" in without.err
    assert len(record_of(study, 2).training.slides) == len(CORRECTED) - 1  # type: ignore[union-attr]
    assert "1 of 2 newly reviewed slides" in status.out


STEP = """
import sys
from qpannot.bootstrap import learning, network_round
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.reporting import write_report
from qpannot.errors import QpannotError
from qpannot.qupath import open_project
from qpannot.recipe import load_recipe

project, size = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
if size:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
try:
    with open_project(project, "r+") as opened:
        recipe = load_recipe(Ledger.of(opened).recipe_path)
        write_report(opened, bootstrap(opened, recipe), ())
except QpannotError as error:
    sys.exit(3 if error.hint else 4)
"""


def start_step(study: Any, file_size: int = 0) -> subprocess.Popen[str]:
    """Begin a step in a process of its own, with files no larger than this, as on a full disk.

    Not forked: a fork of a process that has calculated with torch may wait for ever.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", STEP, str(study.project), str(file_size)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
@pytest.mark.parametrize("file_size", [1_000, 60_000])
def test_on_a_full_disk_a_round_stops_with_a_message_and_goes_on_where_there_is_room(
    reviewed: Any, here: Callable[..., Any], file_size: int
) -> None:
    before = outlines(reviewed)

    ended_with = start_step(reviewed, file_size).wait(300)

    assert ended_with == 3
    assert outlines(reviewed) == before
    ended = here("bootstrap", reviewed.project)
    assert ended.code == 0, ended.err
    assert record_of(reviewed, 2).is_complete
    assert set().union(*models_of_proposals(reviewed).values()) == {model_name(2)}


def test_a_round_killed_at_many_moments_ends_as_if_it_never_was(
    reviewed: Any, here: Callable[..., Any]
) -> None:
    before = outlines(reviewed)
    rng = random.Random(0)
    for _ in range(3):
        process = start_step(reviewed)
        time.sleep(rng.uniform(0.05, 1.5))
        process.kill()
        process.wait()
        assert outlines(reviewed) == before

    ended = here("bootstrap", reviewed.project)

    assert ended.code == 0, ended.err
    record = record_of(reviewed, 2)
    assert record.is_complete
    ledger = Ledger(reviewed.project)
    with reviewed.open() as project:
        waiting = [image for image in project.images if image.name in WAITING]
        for image in waiting:
            own = [each.id for each in image.annotations() if is_proposal(each)]
            standing = ledger.image(image.id, image.name).standing
            assert sorted(own) == sorted(each.id for each in standing)
            assert {each.model for each in standing} == {model_name(2)}
        assert sorted(record.proposed) == sorted(image.id for image in waiting)
        assert sorted(each.image_id for each in record.chosen) == sorted(record.proposed)
    assert (ledger.house / "reports" / "round-002.html").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_training_that_is_asked_to_stop_says_so_with_the_code_of_the_signal(
    reviewed: Any, here: Callable[..., Any], number: signal.Signals, code: int
) -> None:
    command = (sys.executable, "-m", "qpannot", "bootstrap", str(reviewed.project))
    process = subprocess.Popen(
        [*command, "--set", "training.epochs=500", "--set", "training.patience=500"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Training"):
            break
    time.sleep(1)
    process.send_signal(number)
    told = process.stderr.read()

    assert process.wait() == code
    assert "Traceback" not in told
    assert "goes on where it was" in told
    ended = here("bootstrap", reviewed.project, "--set", "training.epochs=3")
    assert ended.code == 0, ended.err
