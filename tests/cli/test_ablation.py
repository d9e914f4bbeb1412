"""``ablation`` on slides that a small network learns to tell apart."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from qpannot.errors import QpannotError
from qpannot.models.bundle import read_card
from qpannot.qupath.locking import ProjectLock
from qpannot.training import train_patch_network

Here = Callable[..., Any]
FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]

TRAINING = "qpannot.bootstrap.ablation.training"

DESIGNS: list[dict[str, Any]] = [
    {"name": "Otsu", "numeral": "I", "stage": "threshold", "set": ["tissue.method=otsu"]},
    {
        "name": "UNet-LR",
        "numeral": "II",
        "stage": "refinement",
        "set": ["refinement.use_heatmap=false"],
    },
    {"name": "Patch", "numeral": "IV", "stage": "patch"},
    {"name": "Patch-UNet", "numeral": "VI", "stage": "refinement", "patch": "Patch"},
]
REFINEMENT = {
    "design": "smp:linknet/tu-test_resnet",
    "size_px": 64,
    "batch_size": 2,
    "accumulate": 1,
    "epochs": 2,
    "workers": 0,
    "protocol": "paper",
}
LABELS = ["(I) Otsu", "(II) UNet-LR", "(IV) Patch", "(VI) Patch-UNet"]


def write_recipe(folder: Path, tiny: Path, designs: list[dict[str, Any]]) -> Path:
    path = folder / "designs.yaml"
    values = {
        "extends": str(tiny),
        "refinement": REFINEMENT,
        "ablation": {"designs": designs},
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def compared(
    trained_study: Any, tmp_path_factory: pytest.TempPathFactory, here: Here
) -> tuple[Any, Path, Path, Any]:
    """A study, its recipe of designs, the folder, and what the command said of two seeds."""
    folder = tmp_path_factory.mktemp("ablation")
    study = trained_study.copied(folder / "study")
    recipe = write_recipe(folder, study.recipe, DESIGNS)
    ended = here(
        *("ablation", study.project, "-o", folder / "out", "--recipe", recipe),
        *("--seed", 0, "--seed", 1, "--repeat", 1, "--json"),
    )
    assert ended.code == 0, ended.err
    return study, recipe, folder / "out", json.loads(ended.out)


def test_every_design_is_trained_on_the_same_split_and_judged_on_the_same_slides(
    compared: tuple[Any, Path, Path, Any],
) -> None:
    _, _, out, said = compared
    assert list(said["designs"]) == LABELS and said["part"] == "test"
    split = json.loads((out / "split.json").read_text())["slides"]
    parts: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for key, own in split.items():
        parts[own["part"]].add(key)
    assert len(said["trainings"]) == 6 and said["seeds"] == [0, 1]
    for own in said["trainings"]:
        assert (set(own["teach"]), set(own["choose"])) == (parts["train"], parts["validation"])
    for label in LABELS:
        assert {o["image_id"] for o in said["measured"] if o["design"] == label} == parts["test"]
    assert "One split of 5 reviewed slides" in said["notes"][0]
    assert any("the paper's protocol" in note for note in said["notes"])


def test_the_network_beats_the_threshold_that_takes_all_tissue(
    compared: tuple[Any, Path, Path, Any],
) -> None:
    said = compared[3]
    dice = {name: own["metrics"]["dice"]["mean"] for name, own in said["designs"].items()}
    assert dice["(IV) Patch"] > 0.7 > dice["(I) Otsu"]
    assert said["designs"]["(I) Otsu"]["baseline"]


def test_figures_are_means_over_seeds_and_the_seeds_are_told(
    compared: tuple[Any, Path, Path, Any],
) -> None:
    _, _, out, said = compared
    for label in LABELS[1:]:
        seeds = said["by_seed"][label]
        means = [seeds[seed]["dice"]["mean"] for seed in ("0", "1")]
        mean = said["designs"][label]["metrics"]["dice"]["mean"]
        assert mean == pytest.approx(sum(means) / 2)
    losses = {own["metrics"]["loss"] for own in said["trainings"] if own["label"] == "(IV) Patch"}
    assert len(losses) == 2, "each seed is a training of its own"
    rows = list(csv.DictReader((out / "tables" / "seeds.csv").open(encoding="utf-8")))
    assert [row["Designs"] for row in rows] == LABELS[1:]
    assert rows[1]["Mean of seeds n"] == "2" and rows[1]["Mean of seeds sd"]


def test_the_papers_tables_are_written_in_every_form_with_how_they_came_about(
    compared: tuple[Any, Path, Path, Any],
) -> None:
    _, _, out, _ = compared
    for stem in ("designs", "p-values", "runtime", "seeds", "trainings"):
        for suffix in ("csv", "md", "tex"):
            text = (out / "tables" / f"{stem}.{suffix}").read_text(encoding="utf-8")
            assert "UNet-LR" in text
    table = (out / "tables" / "designs.md").read_text(encoding="utf-8")
    assert "One split of 5 reviewed slides" in table and "Trained with seeds 0, 1" in table
    runtime = (out / "tables" / "runtime.md").read_text(encoding="utf-8")
    assert "Patch-wise | Refinement | Total" in runtime
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "study: ablation study" in page and 'src="data:image/png;base64,' in page


def test_what_several_designs_refine_is_trained_once_and_named_by_its_weights(
    compared: tuple[Any, Path, Path, Any],
) -> None:
    _, _, out, _ = compared
    for seed in (0, 1):
        home = out / f"seed-{seed}"
        assert sorted(path.name for path in home.iterdir()) == ["Patch", "Patch-UNet", "UNet-LR"]
        refined = json.loads((home / "Patch-UNet" / "model" / "model.json").read_text())
        assert refined["patch_model_sha256"] == read_card(home / "Patch" / "model").weights_sha256


def test_a_rerun_trains_and_measures_nothing_and_leaves_the_project_alone(
    compared: tuple[Any, Path, Path, Any],
    here: Here,
    files_below: FilesBelow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, recipe, out, said = compared

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it was trained already")

    monkeypatch.setattr(f"{TRAINING}.train_patch_network", never)
    monkeypatch.setattr(f"{TRAINING}.train_refinement_network", never)
    project, measured = files_below(study.project), files_below(out / "measured")
    ended = here(
        *("ablation", study.project, "-o", out, "--recipe", recipe),
        *("--seed", 0, "--seed", 1, "--repeat", 1, "--json"),
    )
    assert ended.code == 0, ended.err
    again = json.loads(ended.out)
    assert again["designs"] == said["designs"] and again["trainings_reused"] == 6
    assert files_below(study.project) == project and files_below(out / "measured") == measured


def test_slides_reviewed_since_are_left_out_and_named(
    compared: tuple[Any, Path, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, recipe, out, said = compared
    later = study.copied(tmp_path / "study")
    later.correct(["f.tif"])
    shutil.copytree(out, tmp_path / "out")
    ended = here(
        *("ablation", later.project, "-o", tmp_path / "out", "--recipe", recipe),
        *("--seed", 0, "--seed", 1, "--repeat", 0, "--json"),
    )
    assert ended.code == 0, ended.err
    again = json.loads(ended.out)
    assert any("reviewed since the study began: f.tif" in each for each in again["warnings"])
    assert again["designs"] == said["designs"]


def test_designs_trained_on_other_annotations_are_not_mixed(
    compared: tuple[Any, Path, Path, Any], here: Here, tmp_path: Path
) -> None:
    study, recipe, out, _ = compared
    split = json.loads((out / "split.json").read_text())["slides"]
    name = next(own["name"] for own in split.values() if own["part"] == "train")
    changed = study.copied(tmp_path / "study")
    with changed.open("r+") as project:
        image = next(image for image in project.images if image.name == name)
        drawn = image.annotations()[0]
        smaller = drawn.with_changes(geometry=drawn.geometry.buffer(-9))
        image.write_annotations(replace=[(drawn, smaller)])
    shutil.copytree(out, tmp_path / "out")
    ended = here(
        *("ablation", changed.project, "-o", tmp_path / "out", "--recipe", recipe),
        *("--design", "IV", "--seed", 7, "--repeat", 0),
    )
    assert ended.code == 1
    assert f"{name} are annotated otherwise" in " ".join(ended.err.split())


def test_an_interrupted_study_goes_on_at_the_epoch_where_it_was(
    trained_study: Any, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = trained_study.copied(tmp_path / "study")
    recipe = write_recipe(tmp_path, study.recipe, DESIGNS)
    command = (
        *("ablation", study.project, "-o", tmp_path / "out", "--recipe", recipe),
        *("--design", "patch", "--design", "ii", "--repeat", 0),
    )

    class Killed(BaseException):
        pass

    def killed_in_the_second_epoch(*args: Any, progress: Any, **kwargs: Any) -> Any:
        def show(told: Any) -> None:
            progress(told)
            if str(told).startswith("epoch 2"):
                raise Killed

        return train_patch_network(*args, progress=show, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(f"{TRAINING}.train_patch_network", killed_in_the_second_epoch)
        here(*command)
    assert (tmp_path / "out" / "seed-0" / "UNet-LR" / "trained.json").exists()
    assert not (tmp_path / "out" / "seed-0" / "Patch" / "model").exists()
    ended = here(*command, "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert said["trainings_reused"] == 1
    resumed = {own["label"]: own["was_resumed"] for own in said["trainings"]}
    assert resumed == {"(II) UNet-LR": False, "(IV) Patch": True}
    assert list(said["designs"]) == ["(II) UNet-LR", "(IV) Patch"]


def test_a_design_that_fails_is_named_and_the_others_go_on(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    study = trained_study.copied(tmp_path / "study")
    diverging = {"name": "Wild", "stage": "patch", "set": ["training.learning_rate=1e30"]}
    refining = {"name": "Wild-UNet", "stage": "refinement", "patch": "Wild"}
    recipe = write_recipe(tmp_path, study.recipe, [DESIGNS[0], diverging, refining, DESIGNS[2]])
    ended = here(
        *("ablation", study.project, "-o", tmp_path / "out", "--recipe", recipe),
        *("--repeat", 0, "--json"),
    )
    assert ended.code == 3, ended.err
    said = json.loads(ended.out)
    assert [own["design"] for own in said["not_trained"]] == ["Wild", "Wild-UNet"]
    assert list(said["designs"]) == ["(I) Otsu", "(IV) Patch"]
    assert "Skipped Wild, seed 0" in ended.err
    assert "Wild, whose heatmaps it refines, could not be trained" in ended.err
    assert "Wild was not trained with seed 0" in (tmp_path / "out" / "report.html").read_text()


def test_what_cannot_be_trained_is_told_before_anything_is(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    study = trained_study
    missing = {"name": "New", "stage": "patch", "set": ["network.weights=nowhere.pth"]}
    odd = {"name": "Odd", "stage": "refinement", "patch": "New", "set": ["refinement.design=unet"]}
    recipe = write_recipe(tmp_path, study.recipe, [DESIGNS[2], missing, odd])
    ended = here("ablation", study.project, "-o", tmp_path / "out", "--recipe", recipe)
    assert ended.code == 1
    assert "Nothing was trained" in ended.err and not (tmp_path / "out").exists()
    assert "New: " in ended.err and "nowhere.pth" in ended.err
    assert "Odd: unet cannot take images of 64 px" in ended.err


def test_a_mistyped_design_names_the_nearest(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    ended = here(
        *("ablation", trained_study.project, "-o", tmp_path / "out", "--design", "Mob-PW-Unett"),
        "--json",
    )
    assert ended.code == 2 and not (tmp_path / "out").exists()
    said = json.loads(ended.out)
    assert said["error"].startswith("There is no design 'Mob-PW-Unett'")
    assert said["next"].startswith("Did you mean Mob-PW-UNet?") and "V Mob-KM-PW" in said["next"]


def test_a_second_run_in_the_same_folder_is_refused(
    compared: tuple[Any, Path, Path, Any], here: Here
) -> None:
    study, recipe, out, _ = compared
    lock = ProjectLock(out / "run.lock")
    lock.acquire(0)
    try:
        ended = here("ablation", study.project, "-o", out, "--recipe", recipe)
    finally:
        lock.release()
    assert ended.code == QpannotError.exit_code
    assert "another 'qpannot ablation' is working in this folder" in ended.err
