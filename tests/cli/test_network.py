"""``train`` and ``predict`` by themselves, on slides that a small network learns to tell apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.scoring import outlines_in
from qpannot.heatmap import load_heatmap
from qpannot.linking import open_image
from qpannot.models import load_bundle
from qpannot.models.refinement import load_refinement
from qpannot.qupath.geojson import read_geojson
from qpannot.recipe import load_recipe

Here = Callable[..., Any]
FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]


@pytest.fixture(scope="module")
def training(
    reviewed_study: Any, tmp_path_factory: pytest.TempPathFactory, here: Here
) -> tuple[Path, Any]:
    """The folder of a training of its own, and what the command said."""
    folder = tmp_path_factory.mktemp("training") / "first"
    ended = here("train", reviewed_study.project, "-o", folder, "--json")
    assert ended.code == 0, ended.err
    return folder, json.loads(ended.out)


def test_train_leaves_a_model_and_says_how_good_it_is(
    training: tuple[Path, Any], reviewed_study: Any
) -> None:
    folder, said = training
    assert Path(said["model"]) == folder / "model" and Path(said["curves"]).is_file()
    card = load_bundle(folder / "model").card
    assert card.architecture.classes == ("Non-tumor", "Tumor") and card.mpp == 1
    assert said["epochs"] == 3 and 1 <= said["best_epoch"] <= 3 and said["failed"] == []
    names = [name for part in said["slides"].values() for name in part]
    assert sorted(names) == ["a.tif", "b.tif", "c.tif", "d.tif", "e.tif"]
    held_out = {*said["slides"]["validation"], *said["slides"]["test"]}
    assert set(said["scores"]) == held_out and len(held_out) == 2
    assert all(score["dice"] > 0.9 for score in said["scores"].values())
    assert card.metrics == pytest.approx(said["metrics"])


def test_train_again_trains_nothing_again(
    training: tuple[Path, Any], reviewed_study: Any, here: Here
) -> None:
    folder, said = training
    weights = folder / "model" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    ended = here("train", reviewed_study.project, "-o", folder)
    assert ended.code == 0 and weights.stat().st_mtime_ns == before
    name = said["slides"]["test"][0]
    assert f"{name}\t{said['scores'][name]['dice']:.3f}" in ended.out
    assert f"Model: {folder / 'model'}" in ended.out and "3 epochs" in ended.out


def test_a_training_goes_on_from_a_model_that_is_given(
    training: tuple[Path, Any], reviewed_study: Any, here: Here, tmp_path: Path
) -> None:
    folder, said = training
    ended = here(
        *("train", reviewed_study.project, "-o", tmp_path / "second", "--json"),
        *("--from", folder / "model", "--set", "training.learning_rate=1e-9"),
        *("--set", "training.epochs=1", "--set", "training.train_batches=1"),
    )
    assert ended.code == 0, ended.err
    scores = json.loads(ended.out)["scores"]
    assert {name: score["dice"] for name, score in scores.items()} == pytest.approx(
        {name: score["dice"] for name, score in said["scores"].items()}, abs=0.05
    )


def test_train_and_predict_only_read_the_project(
    training: tuple[Path, Any],
    trained_study: Any,
    here: Here,
    tmp_path: Path,
    files_below: FilesBelow,
) -> None:
    study = trained_study.copied(tmp_path / "study")
    before = files_below(study.project)
    brief = ("--set", "training.epochs=1", "--set", "training.train_batches=1")
    assert here("train", study.project, "-o", tmp_path / "out", *brief).code == 0
    assert here("predict", study.project, "-o", tmp_path / "maps", "-i", "h.tif").code == 0
    assert files_below(study.project) == before


def test_predict_writes_heatmaps_and_their_outlines(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    images = ("--image", "h.tif", "--image", "a.tif")
    ended = here("predict", trained_study.project, "-o", tmp_path / "maps", *images, "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert [each["name"] for each in said["predicted"]] == ["h.tif", "a.tif"]
    assert said["failed"] == []
    recipe = load_recipe(trained_study.recipe)
    with trained_study.open() as project:
        images_of = {image.name: image for image in project.images}
        for each in said["predicted"]:
            image = images_of[each["name"]]
            heatmap = load_heatmap(Path(each["heatmap"]))
            assert heatmap.classes == ("Non-tumor", "Tumor") and heatmap.slide == image.id
            seen = heatmap.probabilities[~np.isnan(heatmap.probabilities).any(axis=2)]
            assert len(seen) and seen.sum(axis=1) == pytest.approx(np.ones(len(seen)), abs=0.02)
            with open_image(image) as slide:
                wanted = outlines_in(heatmap, slide, recipe)
            found = read_geojson(Path(each["outlines"])).objects
            assert len(found) == len(wanted) > 0
            for read, made in zip(found, wanted, strict=True):
                assert shapely.equals_exact(read.geometry, made.polygon, 0.01)
                assert read.path_class is not None and read.path_class.name == made.class_name
                assert read.path_class.color == (200, 0, 0)  # the project's own
                assert read.measurements["Probability"] == pytest.approx(made.score)
            area = sum(outline.polygon.area for outline in wanted) / 1e6
            assert each["area_mm2"] == {"Tumor": pytest.approx(area)}


def test_what_was_predicted_is_not_predicted_again_and_other_settings_outline_it_anew(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    run = ("predict", trained_study.project, "-o", tmp_path, "-i", "h.tif")
    assert here(*run).code == 0
    (heatmap,), (outlines,) = tmp_path.glob("*.ome.tif"), tmp_path.glob("*.geojson")
    before, first = heatmap.stat().st_mtime_ns, read_geojson(outlines).objects
    ended = here(*run, "--set", "outlines.min_area_um2=10000000")
    assert ended.code == 0 and "nothing found" in ended.out
    assert heatmap.stat().st_mtime_ns == before
    assert first and not read_geojson(outlines).objects


def test_outlines_can_be_imported_as_proposals(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    study = trained_study.copied(tmp_path / "study")
    maps = tmp_path / "maps"
    assert here("predict", study.project, "-o", maps, "-i", "h.tif").code == 0
    with study.open("r+") as project:
        (image,) = (image for image in project.images if image.name == "h.tif")
        image.write_annotations(remove=image.annotations())
    (file,) = maps.glob("*.geojson")
    ended = here("import", "geojson", study.project, file, "-i", "h.tif", "--as-proposals")
    assert ended.code == 0, ended.err
    with study.open() as project:
        (image,) = (image for image in project.images if image.name == "h.tif")
        assert len(image.annotations()) == len(read_geojson(file).objects)


def test_a_slide_that_cannot_be_read_is_named_and_the_others_are_predicted(
    trained_study: Any, here: Here, tmp_path: Path
) -> None:
    study = trained_study.copied(tmp_path / "study", with_slides=True)
    (tmp_path / "g.tif").write_bytes(b"no slide")
    wanted = ("-i", "g.tif", "-i", "h.tif", "--json")
    ended = here("predict", study.project, "-o", tmp_path / "maps", *wanted)
    said = json.loads(ended.out)
    assert ended.code == 3 and [each["name"] for each in said["predicted"]] == ["h.tif"]
    ((failed,),) = (said["failed"],)
    assert failed["name"] == "g.tif" and failed["error"] and failed["next"]


def test_without_a_model_predict_says_how_to_get_one(
    reviewed_study: Any, here: Here, tmp_path: Path
) -> None:
    ended = here("predict", reviewed_study.project, "-o", tmp_path / "maps")
    assert ended.code == 1 and "no model has been trained" in ended.err
    assert "--model" in ended.err and "qpannot bootstrap" in ended.err
    nowhere = here("predict", reviewed_study.project, "--model", tmp_path / "nowhere", "--json")
    assert nowhere.code == 1 and "nowhere" in json.loads(nowhere.out)["error"]
    assert not list(tmp_path.rglob("*.tif"))


@pytest.mark.parametrize("names", [[], ["a.tif"]])
def test_with_too_few_reviewed_slides_train_says_what_is_missing(
    proposed_study: Any, here: Here, tmp_path: Path, names: list[str]
) -> None:
    study = proposed_study.copied(tmp_path / "study")
    study.correct(names)
    ended = here("train", study.project, "-o", tmp_path / "out")
    assert ended.code == 1 and "no patches to" in ended.err and "Review more slides" in ended.err
    assert not (tmp_path / "out" / "model").exists()


def test_the_loop_says_how_many_reviewed_slides_are_missing(
    proposed_study: Any, here: Here, tmp_path: Path
) -> None:
    study = proposed_study.copied(tmp_path / "study")
    study.correct(["a.tif"])
    ended = here("bootstrap", study.project)
    assert ended.code == 0 and "two reviewed slides at least" in ended.out
    assert Ledger(study.project).round(2) is None


REFINEMENT = ("design=smp:linknet/tu-test_resnet", "size_px=64", "batch_size=1", "accumulate=1")


@pytest.fixture(scope="module")
def refinement(
    training: tuple[Path, Any],
    reviewed_study: Any,
    tmp_path_factory: pytest.TempPathFactory,
    here: Here,
) -> tuple[Path, Any]:
    """The folder of a refinement network on that training's heatmaps, and what was said."""
    folder = tmp_path_factory.mktemp("refinement") / "first"
    settings = [*REFINEMENT, "epochs=8", "learning_rate=0.01", "workers=0"]
    ended = here(
        *("train", reviewed_study.project, "-o", folder, "--json", "--stage", "refinement"),
        *("--patch-model", training[0] / "model"),
        *(part for each in settings for part in ("--set", f"refinement.{each}")),
    )
    assert ended.code == 0, ended.err
    return folder, json.loads(ended.out)


def test_train_refines_the_heatmaps_of_a_patch_network_and_says_by_which_protocol(
    refinement: tuple[Path, Any], training: tuple[Path, Any]
) -> None:
    folder, said = refinement
    card = load_refinement(Path(said["model"])).card
    assert Path(said["model"]) == folder / "model"
    assert card.patch_model_sha256 == load_bundle(training[0] / "model").card.weights_sha256
    assert card.classes == ("Non-tumor", "Tumor")
    assert said["epochs"] == 8
    # Two slides are held out, too few: it is the paper's protocol.
    assert said["protocol"] == card.protocol == "paper"
    assert "fewer than refinement.train_after" in said["reason"]
    patch = training[1]["slides"]
    assert sorted(said["slides"]["teach"]) == sorted(patch["train"])
    assert sorted(said["slides"]["choose"]) == sorted(patch["validation"])
    judged = {*patch["validation"], *patch["test"]}
    assert set(said["before"]) == set(said["after"]) == judged
    own = training[1]["scores"]
    assert {name: each["dice"] for name, each in said["before"].items()} == pytest.approx(
        {name: each["dice"] for name, each in own.items()}
    )
    assert all(0 <= each["dice"] <= 1 for each in said["after"].values())


def test_predict_refines_and_keeps_what_was_refined_beside(
    refinement: tuple[Path, Any],
    training: tuple[Path, Any],
    reviewed_study: Any,
    here: Here,
    tmp_path: Path,
) -> None:
    ended = here(
        *("predict", reviewed_study.project, "-o", tmp_path / "maps", "-i", "f.tif", "--json"),
        *("--model", training[0] / "model", "--refine", refinement[0] / "model"),
    )
    assert ended.code == 0, ended.err
    (found,) = json.loads(ended.out)["predicted"]
    refined = load_heatmap(Path(found["heatmap"]))
    card = load_refinement(refinement[0] / "model").card
    assert refined.model.startswith(card.weights_sha256[:12])
    assert refined.shape == (43, 64)  # 768 x 512 px at 12 px a pixel
    (before,) = (tmp_path / "maps" / "unrefined").glob("*.ome.tif")
    assert load_heatmap(before).model.startswith((card.patch_model_sha256 or "")[:12])


def test_the_stages_of_a_training_are_not_mixed_up(
    reviewed_study: Any, training: tuple[Path, Any], here: Here, tmp_path: Path
) -> None:
    given = ("train", reviewed_study.project, "-o", tmp_path / "out")
    model = training[0] / "model"
    for options, what in (
        (("--patch-model", model), "Add --stage refinement"),
        (("--stage", "refinement", "--from", model), "Leave --from out"),
    ):
        ended = here(*given, *options)
        assert ended.code == 2 and what in ended.err
    wrong = here("predict", reviewed_study.project, "-o", tmp_path / "maps", "--refine", model)
    assert wrong.code == 1 and "is a patch network, where a refinement network" in wrong.err
