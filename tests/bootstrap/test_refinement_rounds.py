"""The refinement stage within the loop, on slides whose tumours can be told by their texture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely

from qpannot.bootstrap import network_round
from qpannot.bootstrap.evaluating import designs_of
from qpannot.bootstrap.evaluating.seen import seen_by
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.predicting import kept_refinement
from qpannot.bootstrap.records import Judgement, RefinementRecord, RefinementTraining, Score
from qpannot.bootstrap.refinement import of_round
from qpannot.bootstrap.refinement.telling import CHOSE, HELD_OUT, report_of
from qpannot.bootstrap.work import Work
from qpannot.console import silent
from qpannot.errors import QpannotError
from qpannot.heatmap import load_heatmap
from qpannot.linking import open_image
from qpannot.models import load_bundle
from qpannot.models.refinement import load_refinement
from qpannot.qupath.geojson import read_geojson
from qpannot.qupath.proposals import METHOD, MODEL
from qpannot.recipe import Recipe

Here = Callable[..., Any]

REFINED = "round-002-refinement"
SETTINGS = (
    "refinement.enabled=true",
    "refinement.design=smp:linknet/tu-test_resnet",
    "refinement.size_px=64",
    "refinement.train_after=5",
    "refinement.learning_rate=0.01",
    "refinement.batch_size=1",
    "refinement.accumulate=1",
    "refinement.epochs=1",
    "refinement.workers=0",
)
"""Of a network that learns next to nothing, in no time."""

TIE = (
    "training.epochs=1",
    "training.train_batches=1",
    "training.learning_rate=1e-9",
    "outlines.threshold=0.999",
)
"""Of a patch network that is sure of nothing, and outlines of what is sure: there are none, refined
or not, and the newer one is kept."""

LOW = "outlines.threshold=0.05"


def given(*settings: str) -> list[str]:
    return [part for each in settings for part in ("--set", each)]


def record_of(study: Any, number: int = 2) -> RoundRecord:
    record = Ledger(study.project).round(number)
    assert record is not None
    return record


def refinement_of(study: Any, number: int = 2) -> RefinementRecord:
    refinement = record_of(study, number).refinement
    assert refinement is not None
    return refinement


def ids(study: Any) -> dict[str, str]:
    with study.open() as project:
        return {image.name: image.id for image in project.images}


def proposals_on(study: Any, name: str) -> tuple[Any, ...]:
    with study.open() as project:
        (image,) = (image for image in project.images if image.name == name)
        return tuple(image.annotations())


def break_off(study: Any) -> None:
    """Make the second round one that came as far as the judgement of its patch network."""
    record = record_of(study)
    record.refinement, record.is_complete = None, False
    Ledger(study.project).save_round(record)


@pytest.fixture(scope="module")
def refined_study(
    reviewed_study: Any, tmp_path_factory: pytest.TempPathFactory, here: Here
) -> tuple[Any, Any]:
    """A study after a round that refines, and what the command said. To be copied."""
    study = reviewed_study.copied(tmp_path_factory.mktemp("refined") / "study")
    ended = here("bootstrap", study.project, "--json", *given(*SETTINGS, *TIE))
    assert ended.code == 0, ended.err
    return study, json.loads(ended.out)


@pytest.fixture
def refined(refined_study: tuple[Any, Any], tmp_path: Path) -> Any:
    return refined_study[0].copied(tmp_path / "study")


@pytest.fixture
def judged(trained_study: Any, tmp_path: Path) -> Any:
    """A study whose second round was broken off before its refinement stage."""
    study = trained_study.copied(tmp_path / "study")
    break_off(study)
    return study


def test_a_round_refines_the_heatmaps_of_the_model_it_keeps_and_says_what_that_gave(
    refined_study: tuple[Any, Any],
) -> None:
    study, said = refined_study
    refinement, parts = refinement_of(study), Ledger(study.project).parts()
    training, judgement = refinement.training, refinement.judgement
    assert training is not None and judgement is not None
    assert said["refinement"] == refinement.model_dump()
    ledger = Ledger(study.project)
    card = load_refinement(ledger.model_folder(REFINED)).card
    patch = load_bundle(ledger.model_folder("round-002")).card
    assert (training.model, training.patch_model) == (REFINED, "round-002")
    assert card.patch_model_sha256 == training.patch_model_sha256 == patch.weights_sha256
    assert not (ledger.model_folder(REFINED).parent / "checkpoints").exists()
    # Two slides are held out, too few to teach: it is the paper's protocol.
    assert training.protocol == card.protocol == "paper" and "fewer than" in training.reason
    assert {key: "train" for key in training.teach} | {
        key: "validation" for key in training.choose
    } == {key: part for key, part in parts.items() if part != "test"}
    held_out = {key for key, part in parts.items() if part != "train"}
    assert {name: set(own) for name, own in judgement.scores.items()} == {
        "round-002": held_out,
        REFINED: held_out,
    }
    (chose,) = training.choose
    dices = {name: own[chose].dice for name, own in judgement.scores.items()}
    assert dices[REFINED] == dices["round-002"] == 0 and judgement.helped is False
    assert refinement.kept == ledger.kept_refinement() == REFINED
    page = Path(said["report"]).read_text(encoding="utf-8")
    assert "Refinement of heatmaps" in page and "the paper&#39;s protocol" in page
    assert f"Refining neither helped nor harmed: {REFINED} is kept." in page


def test_proposals_are_outlines_of_refined_heatmaps_and_say_so(
    refined: Any, here: Here, tmp_path: Path
) -> None:
    study, known = refined, ids(refined)
    assert here("bootstrap", study.project, "--image", "f.tif", "--set", LOW).code == 0
    chosen = {each.image_id: each for each in record_of(study).chosen}
    assert "mean entropy" in chosen[known["f.tif"]].reason
    made = proposals_on(study, "f.tif")
    assert made
    assert {each.metadata[METHOD] for each in made} == {
        "AN2: test_resnet, refined by smp:linknet/tu-test_resnet"
    }
    assert {each.metadata[MODEL] for each in made} == {f"round-002 + {REFINED}"}
    for options, folder in (((), "refined"), (("--unrefined",), "plain")):
        given_to = ("-o", tmp_path / folder, "-i", "f.tif", "--set", LOW)
        ended = here("predict", study.project, *given_to, *options)
        assert ended.code == 0, ended.err
    key, ledger = known["f.tif"], Ledger(study.project)
    found, plain = (load_heatmap(tmp_path / name / f"{key}.ome.tif") for name in FOLDERS)
    assert found.model == load_heatmap(ledger.heatmap_folder(REFINED) / f"{key}.ome.tif").model
    assert plain.model == load_heatmap(ledger.heatmap_folder("round-002") / f"{key}.ome.tif").model
    outlines = read_geojson(tmp_path / "refined" / f"{key}.geojson").objects
    areas = [shapely.union_all([each.geometry for each in own]) for own in (made, outlines)]
    assert areas[0].symmetric_difference(areas[1]).area < 0.001 * areas[0].area
    ended = here("predict", study.project, "--unrefined", "--refine", tmp_path)
    assert ended.code == 2 and "Leave one out" in ended.err


FOLDERS = ("refined", "plain")


class Crash(BaseException):
    """Nobody catches it, as nobody catches a power cut."""


def test_a_round_broken_off_at_each_stage_of_refinement_comes_to_the_same_end(
    refined_study: tuple[Any, Any], refined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Ledger(refined.project).recipe()
    assert recipe is not None
    smooth = refinement_of(refined)
    ledger = Ledger(refined.project)
    break_off(refined)
    shutil.rmtree(ledger.model_folder(REFINED).parent)
    shutil.rmtree(ledger.heatmap_folder(REFINED))

    def crash_in(name: str, *, before: bool = True, room: Any = of_round) -> None:
        real = getattr(room, name)

        def crash(*arguments: Any, **more: Any) -> Any:
            if not before:
                real(*arguments, **more)
            raise Crash

        with monkeypatch.context() as patched, refined.open("r+") as project:
            patched.setattr(room, name, crash)
            with pytest.raises(Crash):
                bootstrap(project, recipe)
        assert record_of(refined).is_broken_off

    crash_in("train_refinement_network")
    assert not ledger.has_model(REFINED)
    crash_in("train_refinement_network", before=False)  # the model is there, and not recorded
    weights = ledger.model_folder(REFINED) / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    assert record_of(refined).refinement is None
    crash_in("refined_of")
    assert refinement_of(refined).training is not None
    assert refinement_of(refined).judgement is None and ledger.kept_refinement() is None
    crash_in("NetworkRound", room=network_round)
    assert refinement_of(refined).judgement is not None
    with refined.open("r+") as project:
        outcome = bootstrap(project, recipe)
    assert not outcome.has_failures and record_of(refined).is_complete
    assert weights.stat().st_mtime_ns == written, "it was trained once"
    again = refinement_of(refined)
    assert again.judgement == smooth.judgement
    assert again.training is not None and smooth.training is not None
    assert again.training.metrics == smooth.training.metrics
    with refined.open("r+") as project:
        assert bootstrap(project, recipe).round is None


def test_a_refinement_that_makes_outlines_worse_is_not_used(judged: Any, here: Here) -> None:
    before = judged.data()
    ended = here("bootstrap", judged.project, *given(*SETTINGS))
    assert ended.code == 0, ended.err
    refinement = refinement_of(judged)
    assert refinement.training is not None and refinement.judgement is not None
    (chose,) = refinement.training.choose
    scores = refinement.judgement.scores
    assert scores[REFINED][chose].dice < scores["round-002"][chose].dice
    assert (refinement.kept, refinement.judgement.helped) == (None, False)
    assert "Refining did not help: heatmaps of round-002 are used as they are." in ended.out
    assert f"{scores['round-002'][chose].dice:.3f}\t{scores[REFINED][chose].dice:.3f}" in ended.out
    assert judged.data() == before, "proposals of the patch network stay"
    assert Ledger(judged.project).kept_refinement() is None


def test_with_too_few_slides_the_round_goes_on_without_refinement(judged: Any, here: Here) -> None:
    few = "refinement.train_after=6"
    ended = here("bootstrap", judged.project, *given(*SETTINGS, few))
    assert ended.code == 0, ended.err
    assert "5 of 6 reviewed slides (refinement.train_after)" in ended.out
    record = record_of(judged)
    assert record.is_complete and record.refinement is not None
    assert record.refinement.training is None and record.refinement.error == ""
    page = (judged.project / "qpannot" / "reports" / "round-002.html").read_text(encoding="utf-8")
    assert "5 of 6 reviewed slides" in page


def test_a_refinement_that_fails_is_named_and_the_round_goes_on_without(
    judged: Any, here: Here
) -> None:
    ended = here(
        "bootstrap", judged.project, *given(*SETTINGS, "refinement.learning_rate=1e30"), "--json"
    )
    assert ended.code == 3
    said = json.loads(ended.out)["refinement"]
    assert "no finite number" in said["error"] and "refinement.learning_rate" in said["hint"]
    record = record_of(judged)
    assert record.is_complete and Ledger(judged.project).kept_refinement() is None
    again = here("bootstrap", judged.project)
    assert again.code == 0, "what failed is told once"


def test_a_design_that_cannot_be_is_told_before_anything_is_trained(
    reviewed_study: Any, here: Here, tmp_path: Path
) -> None:
    study = reviewed_study.copied(tmp_path / "study")
    ended = here("bootstrap", study.project, *given(*SETTINGS, "refinement.design=unett"))
    assert ended.code == 2 and "unett" in ended.err
    assert Ledger(study.project).round(2) is None


def test_an_older_patch_models_refinement_is_not_applied_to_anothers_heatmaps(
    refined: Any, trained_study: Any
) -> None:
    ledger, recipe = Ledger(refined.project), Recipe()
    other = load_bundle(Ledger(trained_study.project).model_folder("round-002"))
    own = load_bundle(ledger.model_folder("round-002"))
    with refined.open() as project:
        work = Work(project, ledger, recipe, None, silent)
        found = kept_refinement(work, own)
        assert found is not None and found.folder == ledger.model_folder(REFINED)
        with pytest.raises(QpannotError, match="heatmaps of another patch network") as raised:
            kept_refinement(work, other)
    assert "heatmaps are then left as they are" in (raised.value.hint or "")
    # A later round keeps another patch network, and trains none to refine it.
    later = record_of(refined)
    assert later.judgement is not None
    later.number, later.refinement = 3, RefinementRecord(why_not="too few")
    ledger.save_round(later)
    assert ledger.kept_model() == "round-002" and ledger.kept_refinement() is None


def test_a_ledger_written_before_there_was_refinement_is_read(refined: Any, here: Here) -> None:
    path = refined.project / "qpannot" / "rounds" / "002.json"
    values = json.loads(path.read_text())
    del values["refinement"]
    path.write_text(json.dumps(values))
    ledger = Ledger(refined.project)
    assert record_of(refined).refinement is None
    assert (ledger.kept_model(), ledger.kept_refinement()) == ("round-002", None)
    assert here("status", refined.project).code == 0


def test_evaluate_shows_the_whole_method_beside_the_patch_network(
    refined_study: tuple[Any, Any], trained_study: Any, here: Here, tmp_path: Path
) -> None:
    study, _ = refined_study
    ended = here("evaluate", study.project, "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert list(said["designs"]) == ["otsu", "tissue", "round-002", REFINED]
    assert (said["part"], said["slides"]) == ("test", 1)
    dices = {name: own["metrics"]["dice"]["mean"] for name, own in said["designs"].items()}
    assert dices[REFINED] != dices["round-002"]
    model = Ledger(study.project).model_folder(REFINED)
    named = here(
        *("evaluate", study.project, "-o", tmp_path / "named", "--json"),
        *("--model", f"whole={model}"),
    )
    assert named.code == 0, named.err
    (only,) = json.loads(named.out)["designs"].items()
    assert (only[0], only[1]["metrics"]["dice"]["mean"]) == ("whole", dices[REFINED])
    alone = here("evaluate", trained_study.project, "-o", tmp_path / "alone", "--model", model)
    assert alone.code == 2 and "Name that one as well" in alone.err


def test_both_networks_of_the_whole_method_are_timed(
    refined_study: tuple[Any, Any], tmp_path: Path
) -> None:
    study, _ = refined_study
    with study.open() as project:
        recipe = Ledger(study.project).recipe()
        assert recipe is not None
        (design,) = designs_of(project, recipe, tmp_path, named=["refined"])
        with open_image(project.images[0]) as slide:
            timed = design.runners[0](slide)
            assert design.key(slide).startswith(
                load_refinement(Ledger(study.project).model_folder(REFINED)).card.weights_sha256[
                    :12
                ]
            )
    assert timed.engine.startswith("torch") and list(timed.seconds) == ["Patch-wise", "Refinement"]
    assert all(seconds > 0 for seconds in timed.seconds.values())


def _score(dice: float) -> Score:
    return Score(dice=dice, iou=dice / (2 - dice), by_class={"Tumor": dice})


@pytest.mark.parametrize(
    ("kept", "helped", "verdict"),
    [
        ("new", True, "Refining helped: new is kept."),
        ("new", False, "Refining neither helped nor harmed: new is kept."),
        ("old", True, "The earlier old refines better: it is kept."),
        ("patch", False, "Refining did not help: heatmaps of patch are used as they are."),
        ("patch", None, "Refining could not be judged: heatmaps of patch are used as they are."),
    ],
)
def test_what_is_gone_on_with_is_said(kept: str, helped: bool | None, verdict: str) -> None:
    training = RefinementTraining(
        model="new",
        patch_model="patch",
        patch_model_sha256="ab" * 32,
        protocol="held_out",
        reason="",
        teach=["1", "2"],
        choose=["3", "4"],
        epochs=2,
        best_epoch=1,
        stopped="epochs",
        seconds=1.0,
        metrics={},
    )
    scores = {
        name: {"3": _score(dice), "4": _score(dice + 0.2), "5": _score(0.5)}
        for name, dice in (("new", 0.6), ("old", 0.4), ("patch", 0.2))
    }
    judgement = Judgement(scores=scores, kept=kept, helped=helped)
    report = report_of(
        RefinementRecord(training=training, judgement=judgement), {"3": "c.tif", "4": "d.tif"}
    )
    assert report.verdict == verdict and report.columns == ("patch", "new", "old")
    rows = {row.slide: row for row in report.rows}
    assert rows["c.tif"].dices == (0.2, 0.6, 0.4) and rows["c.tif"].use == CHOSE
    assert rows["mean of 2"].dices == pytest.approx((0.3, 0.7, 0.5)) and rows["mean of 2"].is_mean
    assert rows["5"].use == HELD_OUT
    assert "was not fitted to" in report.told


def test_slides_that_taught_a_refinement_are_known_to_its_design(
    refined_study: tuple[Any, Any],
) -> None:
    study, _ = refined_study
    ledger, training = Ledger(study.project), refinement_of(study).training
    assert training is not None
    names = {key: name for name, key in ids(study).items()}
    seen = seen_by(ledger.model_folder(REFINED), ledger, names)
    assert seen == dict.fromkeys(training.teach, "train") | dict.fromkeys(
        training.choose, "validation"
    )
