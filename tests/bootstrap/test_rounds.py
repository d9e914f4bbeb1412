"""The loop as a person lives it, on slides whose tumours can be told by their texture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely

from qpannot import training
from qpannot.bootstrap import learning, network_round, proposing
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.states import survey
from qpannot.models import load_bundle
from qpannot.qupath.geojson import read_geojson
from qpannot.qupath.proposals import METHOD, MODEL, ROUND, SCORE, is_untouched
from qpannot.recipe import load_recipe

CORRECTED = tuple(f"{name}.tif" for name in "abcde")


def record_of(study: Any, number: int) -> RoundRecord:
    record = Ledger(study.project).round(number)
    assert record is not None
    return record


def ids(study: Any) -> dict[str, str]:
    with study.open() as project:
        return {image.name: image.id for image in project.images}


def annotations_of(study: Any, name: str) -> tuple[Any, ...]:
    with study.open() as project:
        (image,) = (image for image in project.images if image.name == name)
        return tuple(image.annotations())


def state_of(study: Any, name: str) -> str:
    with study.open() as project:
        statuses = survey(project, Ledger.of(project))
    return next(status.state.value for status in statuses if status.image.name == name)


@pytest.fixture
def trained(trained_study: Any, tmp_path: Path) -> Any:
    return trained_study.copied(tmp_path / "study")


@pytest.fixture
def reviewed(reviewed_study: Any, tmp_path: Path) -> Any:
    return reviewed_study.copied(tmp_path / "study")


def test_a_round_learns_from_what_was_corrected_and_proposes_for_the_rest(
    trained_study: Any,
) -> None:
    record, known = record_of(trained_study, 2), ids(trained_study)
    assert record.training is not None and record.judgement is not None
    assert record.is_complete and record.training.model == record.judgement.kept == "round-002"
    assert set(record.training.slides) == {known[name] for name in CORRECTED}
    assert sorted(record.training.parts.values()) == [
        "test",
        "train",
        "train",
        "train",
        "validation",
    ]
    assert record.judgement.helped is None and record.training.before is None
    assert sorted(record.proposed) == [known["f.tif"], known["g.tif"], known["h.tif"]]
    for name in ("f.tif", "g.tif", "h.tif"):
        (proposal,) = annotations_of(trained_study, name)
        truth = trained_study.truth[name]
        shared = proposal.geometry.intersection(truth).area
        assert 2 * shared / (proposal.geometry.area + truth.area) > 0.9
        assert state_of(trained_study, name) == "proposed"


def test_its_proposals_say_which_round_and_model_made_them_and_how_sure_it_was(
    trained_study: Any,
) -> None:
    (proposal,) = annotations_of(trained_study, "f.tif")
    assert proposal.metadata[ROUND] == "2" and proposal.metadata[MODEL] == "round-002"
    assert proposal.metadata[METHOD] == "AN2: test_resnet"
    assert 0.5 < float(proposal.metadata[SCORE]) <= 1
    (kept,) = Ledger(trained_study.project).image(ids(trained_study)["f.tif"], "").standing
    assert (kept.id, kept.model) == (proposal.id, "round-002")
    assert kept.score == pytest.approx(float(proposal.metadata[SCORE]), abs=1e-4)


def test_the_dice_in_the_ledger_is_that_of_the_models_outlines_on_the_held_out_slides(
    trained_study: Any, here: Callable[..., Any], tmp_path: Path
) -> None:
    record, known = record_of(trained_study, 2), ids(trained_study)
    assert record.training is not None and record.judgement is not None
    held_out = [key for key, part in record.training.parts.items() if part != "train"]
    scores = record.judgement.scores["round-002"]
    assert len(held_out) == 2 and set(scores) == set(held_out)
    names = [name for name, key in known.items() if key in held_out]
    wanted = [part for name in names for part in ("--image", name)]
    assert here("predict", trained_study.project, "-o", tmp_path, *wanted).code == 0
    for name in names:
        found = shapely.union_all(
            [each.geometry for each in read_geojson(tmp_path / f"{known[name]}.geojson").objects]
        )
        truth = trained_study.truth[name]
        dice = 2 * found.intersection(truth).area / (found.area + truth.area)
        score = scores[known[name]]
        assert score.dice == score.by_class["Tumor"] == pytest.approx(dice, abs=1e-3)
        assert score.iou == pytest.approx(dice / (2 - dice), abs=1e-3)
        assert dice > 0.9


def test_a_persons_annotations_stay_byte_for_byte(reviewed_study: Any, trained_study: Any) -> None:
    before, after = reviewed_study.data(), trained_study.data()
    assert {name: after[name] for name in CORRECTED} == {name: before[name] for name in CORRECTED}
    assert all(after[name] != before[name] for name in ("f.tif", "g.tif", "h.tif"))


def test_corrections_are_measured_against_the_proposals_they_were_made_of(
    proposed_study: Any, trained_study: Any
) -> None:
    record, known = record_of(trained_study, 2), ids(trained_study)
    assert set(record.corrections) == {known[name] for name in CORRECTED}
    (tissue,) = annotations_of(proposed_study, "a.tif")
    truth = trained_study.truth["a.tif"]
    shared = tissue.geometry.intersection(truth).area
    change = record.corrections[known["a.tif"]].overall
    assert change.dice == pytest.approx(2 * shared / (tissue.geometry.area + truth.area))
    assert change.area_removed_px2 == pytest.approx(tissue.geometry.area - shared)


def test_why_slides_were_chosen_is_recorded_most_doubtful_first(trained_study: Any) -> None:
    chosen = record_of(trained_study, 2).chosen
    scores = [each.score for each in chosen]
    assert len(chosen) == 3 and None not in scores
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert "least sure" in chosen[0].reason and "number 3 of 3" in chosen[2].reason


def test_only_untouched_proposals_are_replaced(reviewed: Any, here: Callable[..., Any]) -> None:
    with reviewed.open("r+") as project:
        images = {image.name: image for image in project.images}
        (named,) = images["f.tif"].annotations()
        images["f.tif"].write_annotations(replace=[(named, named.with_changes(name="look again"))])
        images["h.tif"].write_annotations(remove=images["h.tif"].annotations())
    before = reviewed.data()
    ended = here("bootstrap", reviewed.project)
    assert ended.code == 0 and "f.tif: left alone" in ended.out
    after = reviewed.data()
    assert (after["f.tif"], after["h.tif"]) == (before["f.tif"], before["h.tif"])
    (proposal,) = annotations_of(reviewed, "g.tif")
    assert proposal.metadata[MODEL] == "round-002"
    assert state_of(reviewed, "h.tif") == "unannotated"


def test_a_worse_model_is_not_kept_and_the_run_says_so(
    trained: Any, here: Callable[..., Any]
) -> None:
    trained.correct(["f.tif", "g.tif"], lose=3)
    before = trained.data()
    ended = here(
        *("bootstrap", trained.project, "--rounds", 3, "--json"),
        *("--set", "training.start=scratch", "--set", "training.learning_rate=1e-9"),
        *("--set", "training.epochs=1", "--set", "training.train_batches=1"),
    )
    assert ended.code == 0, ended.err
    first, second = json.loads(ended.out)  # the third was not begun, for lack of work
    assert second["round"] is None and second["training"] is None
    known, judgement = ids(trained), first["judgement"]
    assert (judgement["kept"], judgement["helped"]) == ("round-002", False)
    assert first["training"]["before"] == "round-002"
    (validation,) = (
        key for key, part in first["training"]["parts"].items() if part == "validation"
    )
    new, old = (judgement["scores"][name] for name in ("round-003", "round-002"))
    assert set(new) == set(old) and new[validation]["dice"] < old[validation]["dice"]
    before_that = record_of(trained, 2).judgement
    assert before_that is not None
    assert old == {key: each.model_dump() for key, each in before_that.scores["round-002"].items()}
    assert Ledger(trained.project).kept_model() == "round-002"
    corrections = record_of(trained, 3).corrections
    assert set(corrections) == {known["f.tif"], known["g.tif"]}  # the others were known before
    assert trained.data() == before  # the last slide has the kept model's proposal already
    page = Path(first["report"]).read_text(encoding="utf-8")
    assert "This round did not help" in page and "round-002 is kept" in page


def test_a_slide_keeps_its_part_and_training_goes_on_from_the_last_model(
    trained: Any, here: Callable[..., Any]
) -> None:
    trained.correct(["f.tif", "g.tif"], lose=3)
    ended = here("bootstrap", trained.project, "--set", "training.epochs=1")
    assert ended.code == 0, ended.err
    old, new = record_of(trained, 2), record_of(trained, 3)
    assert old.training is not None and new.training is not None and new.judgement is not None
    assert old.training.parts.items() < new.training.parts.items()
    assert len(new.training.parts) == 7
    means = [
        score.dice
        for scores in new.judgement.scores.values()
        for key, score in scores.items()
        if new.training.parts[key] == "validation"
    ]
    assert len(means) == 2 and min(means) > 0.8  # one epoch from nothing gives less
    verdict = "helped" if new.judgement.helped else "did not help"
    if means[0] == means[1]:
        verdict = "neither helped nor harmed"
    assert f"The round {verdict}: {new.judgement.kept} is kept." in ended.out


class Crash(BaseException):
    """Nobody catches it, as nobody catches a power cut."""


def test_a_round_broken_off_at_each_stage_comes_to_the_same_end(
    reviewed: Any, trained_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(reviewed.recipe)
    trainings = []
    train = training.train_patch_network

    def counted(*arguments: Any, **more: Any) -> Any:
        trainings.append(arguments)
        return train(*arguments, **more)

    monkeypatch.setattr(learning, "train_patch_network", counted)

    def crash_in(room: Any, name: str, after: int = 0) -> None:
        real, calls = getattr(room, name), []

        def crash(*arguments: Any, **more: Any) -> Any:
            calls.append(arguments)
            if len(calls) > after:
                raise Crash
            return real(*arguments, **more)

        with monkeypatch.context() as patched, reviewed.open("r+") as project:
            patched.setattr(room, name, crash)
            with pytest.raises(Crash):
                bootstrap(project, recipe)
        begun = Ledger(reviewed.project).round(2)
        assert begun is None or begun.is_broken_off

    crash_in(learning, "train_patch_network")
    assert not trainings and list((reviewed.project / "qpannot" / "patches").iterdir())
    crash_in(learning, "heatmaps_of")
    assert record_of(reviewed, 2).training is not None and len(trainings) == 1
    assert record_of(reviewed, 2).judgement is None
    crash_in(network_round, "heatmaps_of")
    assert record_of(reviewed, 2).judgement is not None
    crash_in(proposing, "_mark_written", after=1)
    made = [
        annotations_of(reviewed, name)[0].metadata[ROUND] for name in ("f.tif", "g.tif", "h.tif")
    ]
    assert sorted(made) == ["1", "2", "2"]

    with reviewed.open("r+") as project:
        outcome = bootstrap(project, recipe)
    assert len(trainings) == 1
    assert len(outcome.proposed) == 1  # what was written before the crash is not written again
    record, smooth = record_of(reviewed, 2), record_of(trained_study, 2)
    assert record.is_complete and record.judgement == smooth.judgement
    assert record.corrections == smooth.corrections
    assert sorted(record.proposed) == sorted(smooth.proposed)
    for name in ("f.tif", "g.tif", "h.tif"):
        (mine,), (others,) = annotations_of(reviewed, name), annotations_of(trained_study, name)
        assert shapely.equals_exact(mine.geometry, others.geometry)
        kept = Ledger(reviewed.project).image(ids(reviewed)[name], "").proposals
        assert [(each.round, each.replaced) for each in kept] == [(1, True), (2, False)]
        assert all(each.written for each in kept)
    digests = [
        load_bundle(Ledger(each.project).model_folder("round-002")).card.weights_sha256
        for each in (reviewed, trained_study)
    ]
    assert digests[0] == digests[1]
    with reviewed.open("r+") as project:
        assert bootstrap(project, recipe).round is None


def test_a_round_that_was_broken_off_still_tells_why_slides_were_chosen(
    trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained.add_slides({"i.tif": 320, "j.tif": 352}, tmp_path)
    recipe = load_recipe(trained.recipe)
    real, calls = proposing.Round._propose, []

    def crash(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) > 1:
            raise Crash
        real(*arguments)

    with monkeypatch.context() as patched, trained.open("r+") as project:
        patched.setattr(proposing.Round, "_propose", crash)
        with pytest.raises(Crash):
            bootstrap(project, recipe)
    with trained.open("r+") as project:
        bootstrap(project, recipe)
    record, known = record_of(trained, 2), ids(trained)
    assert {known["i.tif"], known["j.tif"]} <= set(record.proposed)
    assert set(record.proposed) == {each.image_id for each in record.chosen}


def test_slides_that_cannot_be_read_are_named_and_the_others_done(
    reviewed_study: Any, tmp_path: Path, here: Callable[..., Any]
) -> None:
    study = reviewed_study.copied(tmp_path / "study", with_slides=True)
    for name in ("a.tif", "f.tif"):
        (tmp_path / name).write_bytes(b"no slide at all")
    ended = here("bootstrap", study.project, "--json")
    assert ended.code == 3
    said, known = json.loads(ended.out), ids(study)
    assert sorted(each["name"] for each in said["failed"]) == ["a.tif", "f.tif"]
    assert all(each["error"] and each["next"] for each in said["failed"])
    assert sorted(each["name"] for each in said["proposed"]) == ["g.tif", "h.tif"]
    assert set(said["training"]["parts"]) == {known[name] for name in CORRECTED[1:]}
    (untouched,) = annotations_of(study, "f.tif")
    assert untouched.metadata[ROUND] == "1" and is_untouched(untouched)


@pytest.mark.parametrize("choose", ["entropy", "random"])
def test_no_more_slides_wait_than_the_recipe_allows(
    trained: Any, here: Callable[..., Any], tmp_path: Path, choose: str
) -> None:
    trained.add_slides({"i.tif": 320, "j.tif": 352, "k.tif": 384}, tmp_path)
    limits = ("--set", "round.slides=5", "--set", f"round.choose={choose}")
    assert here("bootstrap", trained.project, *limits).code == 0
    known, record = ids(trained), record_of(trained, 2)
    new = [each for each in record.chosen if each.image_id in [known[f"{n}.tif"] for n in "ijk"]]
    assert len(new) == 2  # three waited already
    heatmaps = [
        (Ledger(trained.project).heatmap_folder("round-002") / f"{known[n]}.ome.tif").exists()
        for n in ("i.tif", "j.tif", "k.tif")
    ]
    if choose == "entropy":
        assert all(heatmaps) and new[0].score is not None and "entropy" in new[0].reason
        left = set(known[f"{n}.tif"] for n in "ijk") - {each.image_id for each in new}
        assert len(left) == 1 and new[0].score >= (new[1].score or 0)
    else:
        assert sum(heatmaps) == 2
        assert [(each.score, each.reason) for each in new] == [(None, "drawn at random")] * 2
    again = here("bootstrap", trained.project, *limits, "--json")
    assert json.loads(again.out)["proposed"] == []


def test_of_many_slides_only_some_are_looked_at_to_choose_from(
    trained: Any, here: Callable[..., Any], tmp_path: Path
) -> None:
    trained.add_slides({"i.tif": 320, "j.tif": 352, "k.tif": 384}, tmp_path)
    limits = ("--set", "round.slides=4", "--set", "round.candidates=2")
    assert here("bootstrap", trained.project, *limits).code == 0
    folder, known = Ledger(trained.project).heatmap_folder("round-002"), ids(trained)
    made = [
        name for name in ("i.tif", "j.tif", "k.tif") if (folder / f"{known[name]}.ome.tif").exists()
    ]
    proposed = [
        name for name in ("i.tif", "j.tif", "k.tif") if state_of(trained, name) == "proposed"
    ]
    assert len(made) == 2 and len(proposed) == 1 and set(proposed) < set(made)


def test_an_image_asked_for_is_proposed_for_anew_by_the_model(
    trained: Any, here: Callable[..., Any]
) -> None:
    before, (old,) = trained.data(), annotations_of(trained, "h.tif")
    ended = here(
        *("bootstrap", trained.project, "--image", "h.tif", "--image", "a.tif"),
        *("--set", "outlines.simplify_um=0", "--set", "outlines.smoothing_um=0"),
    )
    assert ended.code == 0 and "a.tif: left alone, it is reviewed" in ended.out
    (new,) = annotations_of(trained, "h.tif")
    assert new.id != old.id and new.metadata[MODEL] == "round-002"
    assert {**trained.data(), "h.tif": b""} == {**before, "h.tif": b""}
    assert Ledger(trained.project).recipe() == load_recipe(trained.recipe)


def test_where_the_network_finds_nothing_an_untouched_proposal_goes(
    reviewed: Any, here: Callable[..., Any]
) -> None:
    with reviewed.open("r+") as project:
        (image,) = (image for image in project.images if image.name == "f.tif")
        (proposal,) = image.annotations()
        image.write_annotations(replace=[(proposal, proposal.with_changes(name="mine"))])
    before = reviewed.data()
    nothing = ("--set", "outlines.min_area_um2=1000000")
    ended = here("bootstrap", reviewed.project, *nothing)
    assert ended.code == 0 and "g.tif: nothing found" in ended.out
    assert annotations_of(reviewed, "g.tif") == () and reviewed.data()["f.tif"] == before["f.tif"]
    lines = here("status", reviewed.project).out.splitlines()
    (row,) = (line for line in lines if "\tg.tif\t" in line)
    assert "unannotated" in row and "AN2: test_resnet: nothing found" in row
    assert json.loads(here("bootstrap", reviewed.project, "--json").out)["nothing_found"] == []
    lower = ("--set", "outlines.min_area_um2=3000", "--json")
    (again, *_) = json.loads(here("bootstrap", reviewed.project, *lower).out)["proposed"]
    assert again["name"] in ("g.tif", "h.tif")
