from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import shapely

from qpannot.bootstrap import first_round, proposing
from qpannot.bootstrap.image_record import ImageRecord
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.said import STATE_KEY
from qpannot.bootstrap.states import State, survey
from qpannot.errors import LockedError, MissingSlideError
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, open_project
from qpannot.qupath.proposals import FINGERPRINT, METHOD, ROUND, is_untouched
from qpannot.recipe import load_recipe

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000", "tissue.requested_pixel_size_um=8"])


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        yield opened


def states(project: Project) -> list[State]:
    return [status.state for status in survey(project, Ledger.of(project))]


def drawn() -> Annotation:
    return Annotation(shapely.box(10, 10, 400, 300), path_class=PathClass("Stroma"), name="mine")


def test_round_one_outlines_the_tissue_of_every_slide_that_has_some(project: Project) -> None:
    outcome = bootstrap(project, RECIPE)
    assert [proposed.name for proposed in outcome.proposed] == ["one.svs", "two.svs"]
    assert [image.name for image in outcome.empty] == ["glass.svs"]
    assert outcome.round == 1 and not outcome.failed
    assert states(project) == [State.PROPOSED, State.PROPOSED, State.UNANNOTATED]
    (proposal,) = project.images[0].annotations()
    ellipse = shapely.transform(
        shapely.Point(0, 0).buffer(1, quad_segs=64), lambda xy: xy * (512, 384) + (1024, 768)
    )
    shared = proposal.geometry.intersection(ellipse).area
    assert shared / proposal.geometry.union(ellipse).area > 0.95
    mm2 = proposal.geometry.area * 0.5**2 / 1e6
    assert outcome.proposed[0].area_mm2 == pytest.approx(mm2)


def test_another_slide_under_the_same_name_is_not_proposed_for(
    project: Project, make_slide: Callable[..., Path]
) -> None:
    assert project.images[0].path is not None
    make_slide(project.images[0].path, tissue=False)
    outcome = bootstrap(project, RECIPE)
    ((image, error),) = outcome.failed
    assert image.name == "one.svs" and "another slide" in error.message
    assert [proposed.name for proposed in outcome.proposed] == ["two.svs"]
    assert project.images[0].annotations() == ()


def test_an_outline_that_crosses_itself_is_an_area_all_the_same(project: Project) -> None:
    bow_tie = shapely.Polygon([(10, 10), (400, 400), (400, 10), (10, 400)])
    assert bow_tie.area == 0
    project.images[0].write_annotations(add=[Annotation(bow_tie)])
    assert states(project)[0] is State.REVIEWED


def test_a_proposal_carries_its_origin(project: Project) -> None:
    bootstrap(project, RECIPE)
    (proposal,) = project.images[0].annotations()
    assert proposal.metadata[ROUND] == "1"
    assert proposal.metadata[METHOD] == "AN1: tissue threshold 200"
    assert is_untouched(proposal)
    assert (proposal.class_name, proposal.locked) == ("Tumor", False)
    (kept,) = Ledger.of(project).image("1", "one.svs").proposals
    assert (kept.id, kept.round, kept.written) == (proposal.id, 1, True)
    assert shapely.equals_exact(kept.shape, proposal.geometry)
    record = Ledger.of(project).round(1)
    assert record is not None and record.proposed == ["1", "2"] and record.finished
    assert record.recipe["tissue"]["min_area_um2"] == 10_000


def test_the_state_is_shown_in_the_project(project: Project) -> None:
    bootstrap(project, RECIPE)
    with open_project(project.path) as again:
        assert again.images[0].metadata[STATE_KEY] == "proposed"
        assert again.images[0].tags == ("qpannot: proposed",)
        assert STATE_KEY not in again.images[2].metadata
        assert "Tumor" in [path_class.name for path_class in again.classes]


def test_repeating_does_nothing_twice(project: Project) -> None:
    bootstrap(project, RECIPE)
    before = [image.fingerprint() for image in project.images]
    outcome = bootstrap(project, RECIPE)
    assert outcome.round is None and not outcome.proposed and not outcome.empty
    assert [image.fingerprint() for image in project.images] == before


def test_an_image_a_person_annotated_is_never_touched(project: Project) -> None:
    project.images[0].write_annotations(add=[drawn()])
    before = project.images[0].fingerprint()
    outcome = bootstrap(project, RECIPE, only=project.images)
    assert [proposed.name for proposed in outcome.proposed] == ["two.svs"]
    assert project.images[0].fingerprint() == before
    assert states(project)[0] is State.REVIEWED


def test_an_untouched_proposal_is_made_anew_when_asked_for(project: Project) -> None:
    bootstrap(project, RECIPE)
    (first,) = project.images[0].annotations()
    finer = load_recipe("h2gnet", ["tissue.min_area_um2=10000", "tissue.dilate_boundaries=true"])
    outcome = bootstrap(project, finer, only=project.images[:1])
    assert [(each.name, each.replaced) for each in outcome.proposed] == [("one.svs", 1)]
    (second,) = project.images[0].annotations()
    assert second.id != first.id and second.geometry.area > first.geometry.area
    assert states(project)[0] is State.PROPOSED
    kept = Ledger.of(project).image("1", "one.svs").proposals
    assert [(each.id, each.replaced) for each in kept] == [(first.id, True), (second.id, False)]


def test_a_proposal_stays_where_other_settings_find_nothing(project: Project) -> None:
    bootstrap(project, RECIPE)
    before = project.images[0].fingerprint()
    nothing = load_recipe("h2gnet", ["tissue.threshold=1"])
    assert [i.name for i in bootstrap(project, nothing, only=project.images[:1]).empty] == [
        "one.svs"
    ]
    assert project.images[0].fingerprint() == before
    assert states(project)[0] is State.PROPOSED


def test_a_corrected_proposal_is_left_alone_when_asked_for(project: Project) -> None:
    bootstrap(project, RECIPE)
    image = project.images[0]
    (proposal,) = image.annotations()
    image.write_annotations(
        replace=[(proposal, proposal.with_changes(geometry=proposal.geometry.buffer(-50)))]
    )
    before = image.fingerprint()
    outcome = bootstrap(project, RECIPE, only=project.images[:1])
    assert [status.image.name for status in outcome.left_alone] == ["one.svs"]
    assert image.fingerprint() == before


def test_a_crash_while_a_proposal_is_made_anew_is_no_correction(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException): ...

    def crash(*args: object) -> None:
        raise Crash

    bootstrap(project, RECIPE)
    with monkeypatch.context() as patched:
        patched.setattr(proposing, "_mark_written", crash)
        with pytest.raises(Crash):
            bootstrap(project, RECIPE, only=project.images[:1])
    assert states(project)[0] is State.PROPOSED
    bootstrap(project, RECIPE)
    (proposal,) = project.images[0].annotations()
    record = Ledger.of(project).image("1", "one.svs")
    assert [kept.id for kept in record.standing] == [proposal.id]
    assert states(project)[0] is State.PROPOSED


def test_a_corrected_proposal_is_reviewed(project: Project) -> None:
    bootstrap(project, RECIPE)
    image = project.images[0]
    (proposal,) = image.annotations()
    cut = proposal.geometry.difference(shapely.box(0, 0, 900, 3000))
    image.write_annotations(replace=[(proposal, proposal.with_changes(geometry=cut))])
    assert states(project)[0] is State.REVIEWED
    bootstrap(project, RECIPE)
    assert project.images[0].metadata[STATE_KEY] == "reviewed"
    assert project.images[0].tags == ("qpannot: reviewed",)


def test_another_class_is_a_correction_and_another_name_is_none(project: Project) -> None:
    bootstrap(project, RECIPE)
    corrections: tuple[dict[str, Any], ...] = (
        {"path_class": PathClass("Stroma")},
        {"name": "seen"},
    )
    for image, changes in zip(project.images, corrections, strict=False):
        (proposal,) = image.annotations()
        image.write_annotations(replace=[(proposal, proposal.with_changes(**changes))])
    assert states(project)[:2] == [State.REVIEWED, State.PROPOSED]


def test_what_a_person_draws_beside_a_proposal_leaves_it_a_proposal(project: Project) -> None:
    bootstrap(project, RECIPE)
    project.images[0].write_annotations(add=[drawn()])
    status = survey(project, Ledger.of(project))[0]
    assert status.state is State.PROPOSED and "1 drawn by a person" in status.reason


def test_a_deleted_proposal_is_not_made_again_unless_asked_for(project: Project) -> None:
    bootstrap(project, RECIPE)
    image = project.images[0]
    image.write_annotations(remove=image.annotations())
    assert bootstrap(project, RECIPE).round is None
    status = survey(project, Ledger.of(project))[0]
    assert status.rejected and status.state is State.UNANNOTATED
    outcome = bootstrap(project, RECIPE, only=[project.images[0]])
    assert [proposed.name for proposed in outcome.proposed] == ["one.svs"]
    assert states(project)[0] is State.PROPOSED


def test_a_proposal_replaced_by_a_persons_drawing_is_reviewed(project: Project) -> None:
    bootstrap(project, RECIPE)
    image = project.images[0]
    image.write_annotations(remove=image.annotations(), add=[drawn()])
    assert states(project)[0] is State.REVIEWED


def test_the_state_can_be_told_without_the_ledger(project: Project) -> None:
    bootstrap(project, RECIPE)
    image = project.images[1]
    (proposal,) = image.annotations()
    cut = proposal.with_changes(geometry=proposal.geometry.buffer(-50))
    image.write_annotations(replace=[(proposal, cut)])
    shutil.rmtree(project.folder / "qpannot")
    assert states(project) == [State.PROPOSED, State.REVIEWED, State.UNANNOTATED]


def test_a_batch_lets_only_so_many_slides_wait(project: Project) -> None:
    recipe = load_recipe("h2gnet", ["round.slides=1", "tissue.min_area_um2=10000"])
    assert len(bootstrap(project, recipe).proposed) == 1
    assert bootstrap(project, recipe).round is None
    image = project.images[0]
    (proposal,) = image.annotations()
    image.write_annotations(
        replace=[(proposal, proposal.with_changes(geometry=proposal.geometry.buffer(-50)))]
    )
    assert [proposed.name for proposed in bootstrap(project, recipe).proposed] == ["two.svs"]


def test_the_recipe_stays_with_the_project_and_one_tried_on_an_image_does_not(
    project: Project,
) -> None:
    ledger = Ledger.of(project)
    assert ledger.recipe() is None
    bootstrap(project, RECIPE, only=project.images[:1])
    assert ledger.recipe() is None
    bootstrap(project, RECIPE)
    bootstrap(project, load_recipe("quick", ["tissue.threshold=1"]), only=project.images[:1])
    assert ledger.recipe() == RECIPE
    changed = load_recipe(ledger.recipe_path, ["tissue.threshold=210"])
    assert changed.tissue.threshold == 210
    assert changed.tissue.min_area_um2 == RECIPE.tissue.min_area_um2


def test_each_stage_shows_how_far_it_is(project: Project) -> None:
    seen: list[tuple[str, str, int, int]] = []
    bootstrap(project, RECIPE, each=lambda *told: seen.append(told))
    names = ["one.svs", "two.svs", "glass.svs"]
    assert seen == [
        (stage, name, done, 3)
        for stage in ("Looking", "Proposing")
        for done, name in enumerate(names)
    ]


def test_a_missing_slide_is_named_and_the_rest_goes_on(project: Project) -> None:
    path = project.images[0].path
    assert path is not None
    path.unlink()
    outcome = bootstrap(project, RECIPE)
    ((image, error),) = outcome.failed
    assert image.name == "one.svs" and isinstance(error, MissingSlideError)
    assert [proposed.name for proposed in outcome.proposed] == ["two.svs"]
    record = Ledger.of(project).round(1)
    assert record is not None and list(record.failed) == ["1"]


@pytest.mark.parametrize("moment", ["before the write", "after the write", "after both"])
def test_a_crash_around_the_write_is_made_good_by_the_next_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Crash(BaseException): ...

    def crash(*args: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        if moment == "after the write":
            patched.setattr(proposing, "_mark_written", crash)
        elif moment == "after both":  # and before the round's record tells of them
            patched.setattr(proposing.Round, "_mirror", crash)
        else:
            patched.setattr(
                "qpannot.qupath.files.write_atomically", _crash_on("data.qpdata", Crash)
            )
        with pytest.raises(Crash):
            bootstrap(project, RECIPE)
    with open_project(project.path, "r+") as again:
        bootstrap(again, RECIPE)
        assert states(again) == [State.PROPOSED, State.PROPOSED, State.UNANNOTATED]
        for image in again.images[:2]:
            (proposal,) = image.annotations()
            kept = Ledger.of(again).image(image.id, image.name).proposals
            assert [(each.id, each.written) for each in kept] == [(proposal.id, True)]
        record = Ledger.of(again).round(1)
        assert record is not None and set(record.proposed) == {"1", "2"}


def _crash_on(name: str, crash: type[BaseException]) -> Callable[..., bool]:
    from qpannot.qupath.files import write_atomically

    def write(path: Path, data: bytes, **options: Any) -> bool:
        if path.name == name:
            raise crash
        return write_atomically(path, data, **options)

    return write


def test_two_runs_on_one_project_do_not_mix(project: Project) -> None:
    code = (
        "import sys, pathlib; from filelock import FileLock\n"
        "house = pathlib.Path(sys.argv[1]) / 'qpannot'; house.mkdir(exist_ok=True)\n"
        "with FileLock(house / 'run.lock'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(LockedError, match="another 'qpannot bootstrap'"):
            bootstrap(project, RECIPE)
        other.stdin.close()
    assert states(project)[0] is State.UNANNOTATED


def test_a_slide_without_resolution_is_measured_in_pixels_or_as_told(
    make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    from qpannot.geometry import Mpp
    from qpannot.linking import describe_slide

    path = make_slide(tmp_path / "slides" / "plain.svs", mpp=None)
    with open_project(tmp_path / "study", "x") as project:
        project.add_images([describe_slide(path)])
        assert project.images[0].server.mpp is None
        recipe = load_recipe("h2gnet", ["tissue.requested_downsample=16"])
        outcome = bootstrap(project, recipe)
        assert outcome.proposed[0].area_mm2 is None
        project.images[0].write_annotations(remove=project.images[0].annotations())
        outcome = bootstrap(project, RECIPE, only=project.images, mpp=Mpp.square(0.5))
        area_px = project.images[0].annotations()[0].geometry.area
        assert outcome.proposed[0].area_mm2 == pytest.approx(area_px * 0.25 / 1e6)
        assert project.images[0].server.mpp == Mpp.square(0.5)


def test_the_fingerprint_does_not_depend_on_where_a_ring_begins(project: Project) -> None:
    bootstrap(project, RECIPE)
    (proposal,) = project.images[0].annotations()
    assert isinstance(proposal.geometry, shapely.Polygon)
    ring = list(proposal.geometry.exterior.coords)[:-1]
    turned = shapely.Polygon(ring[5:] + ring[:5])
    assert is_untouched(proposal.with_changes(geometry=turned))
    assert not is_untouched(proposal.with_changes(geometry=turned.buffer(1)))
    assert len(proposal.metadata[FINGERPRINT]) == 16


@pytest.mark.parametrize("what", ["drew an annotation", "said there is nothing"])
def test_what_a_person_does_while_the_slide_is_read_goes_first(
    project: Project, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from qpannot.bootstrap.review import say
    from qpannot.tissue import detect_tissue

    def meanwhile(*arguments: Any) -> Any:
        with open_project(project.path, "r+") as other:
            if what == "drew an annotation":
                other.images[0].write_annotations(add=[drawn()])
            else:
                say(other, other.images[:1], State.REVIEWED, allow_empty=True)
        monkeypatch.setattr(first_round, "detect_tissue", detect_tissue)
        return detect_tissue(*arguments)

    monkeypatch.setattr(first_round, "detect_tissue", meanwhile)
    outcome = bootstrap(project, RECIPE)
    assert [status.image.name for status in outcome.left_alone] == ["one.svs"]
    assert [proposed.name for proposed in outcome.proposed] == ["two.svs"]
    names = [annotation.name for annotation in project.images[0].annotations()]
    assert names == (["mine"] if what == "drew an annotation" else [])


def test_a_mark_we_wrote_ourselves_is_nobodys_word(project: Project) -> None:
    bootstrap(project, RECIPE)
    image = project.images[0]
    (proposal,) = image.annotations()
    cut = proposal.with_changes(geometry=proposal.geometry.buffer(-50))
    image.write_annotations(replace=[(proposal, cut)])
    bootstrap(project, RECIPE)
    assert project.images[0].metadata[STATE_KEY] == "reviewed"
    image.write_annotations(remove=image.annotations())
    assert states(project)[0] is State.UNANNOTATED


def test_deleting_one_of_several_proposals_is_a_correction(project: Project) -> None:
    bootstrap(project, RECIPE)
    image = project.images[0]
    (proposal,) = image.annotations()
    twin = proposal.with_changes(id=uuid4())
    ledger = Ledger.of(project)

    def add_twin(record: ImageRecord) -> None:
        record.proposals.append(record.proposals[0].model_copy(update={"id": twin.id}))
        record.seen = None

    ledger.edit_image(image.id, image.name, add_twin)
    image.write_annotations(add=[twin])
    assert states(project)[0] is State.PROPOSED
    image.write_annotations(remove=[twin])
    assert states(project)[0] is State.REVIEWED


@pytest.mark.parametrize(
    "mark",
    [
        Annotation(shapely.LineString([(0, 0), (100, 100)])),
        Annotation(shapely.MultiPoint([(5, 5)]), path_class=PathClass("Tumor")),
        Annotation(shapely.box(0, 0, 500, 500), path_class=PathClass("Region*")),
    ],
)
def test_a_ruler_or_a_region_of_interest_is_no_annotated_slide(
    project: Project, mark: Annotation
) -> None:
    image = project.images[0]
    image.write_annotations(add=[mark])
    assert states(project)[0] is State.UNANNOTATED
    bootstrap(project, RECIPE)
    found = image.annotations()
    assert len(found) == 2 and mark.id in {annotation.id for annotation in found}
    image.write_annotations(remove=[a for a in found if a.id != mark.id])
    assert states(project)[0] is State.UNANNOTATED


@pytest.mark.parametrize("what", ["name", "note", "lock", "colour"])
def test_a_proposal_that_a_person_marked_is_not_made_anew(project: Project, what: str) -> None:
    bootstrap(project, RECIPE)
    image = project.images[0]
    (proposal,) = image.annotations()
    all_changes: dict[str, dict[str, Any]] = {
        "name": {"name": "checked by AB"},
        "note": {"metadata": {**proposal.metadata, "note": "ask AB"}},
        "lock": {"locked": True},
        "colour": {"color": (1, 2, 3)},
    }
    changes = all_changes[what]
    image.write_annotations(replace=[(proposal, proposal.with_changes(**changes))])
    before = image.fingerprint()
    outcome = bootstrap(project, RECIPE, only=project.images[:1])
    assert not outcome.proposed and image.fingerprint() == before


def test_a_proposal_without_ledger_or_mark_is_still_a_proposal(project: Project) -> None:
    bootstrap(project, RECIPE)
    shutil.rmtree(project.folder / "qpannot")
    project.update_images({"1": ImageChanges(metadata={STATE_KEY: None})})
    assert states(project)[0] is State.PROPOSED


def test_a_mark_set_in_qupath_during_a_run_is_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qpannot.tissue import detect_tissue

    bootstrap(project, RECIPE, only=project.images[:1])

    def meanwhile(*arguments: Any) -> Any:
        with open_project(project.path, "r+") as other:
            other.update_images({"1": ImageChanges(metadata={STATE_KEY: "reviewed"})})
        return detect_tissue(*arguments)

    monkeypatch.setattr(first_round, "detect_tissue", meanwhile)
    bootstrap(project, RECIPE)
    with open_project(project.path) as again:
        assert again.images[0].metadata[STATE_KEY] == "reviewed"
        assert states(again)[0] is State.REVIEWED


def test_an_image_removed_in_qupath_during_a_run_stops_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qpannot.tissue import detect_tissue

    def meanwhile(*arguments: Any) -> Any:
        document = json.loads(project.path.read_text())
        document["images"] = [e for e in document["images"] if e["entryID"] != 2]
        project.path.write_text(json.dumps(document))
        return detect_tissue(*arguments)

    monkeypatch.setattr(first_round, "detect_tissue", meanwhile)
    bootstrap(project, RECIPE)
    assert [image.id for image in project.images] == ["1", "3"]
    assert states(project) == [State.PROPOSED, State.UNANNOTATED]


def test_a_defect_on_one_slide_names_it_and_the_rest_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qpannot.tissue import detect_tissue

    def fail_once(*arguments: Any) -> Any:
        monkeypatch.setattr(first_round, "detect_tissue", detect_tissue)
        raise ZeroDivisionError("in the middle of it")

    monkeypatch.setattr(first_round, "detect_tissue", fail_once)
    outcome = bootstrap(project, RECIPE)
    ((image, error),) = outcome.failed
    assert image.name == "one.svs" and "in the middle of it" in error.message
    assert [proposed.name for proposed in outcome.proposed] == ["two.svs"]


def test_a_damaged_record_concerns_its_image_alone(project: Project) -> None:
    bootstrap(project, RECIPE)
    path = project.folder / "qpannot" / "images" / "1.json"
    path.write_bytes(path.read_bytes()[:100])
    outcome = bootstrap(project, RECIPE)
    ((image, error),) = outcome.failed
    assert image.name == "one.svs" and "1.json" in error.message
    assert [status.state for status in outcome.statuses[1:]] == [State.PROPOSED, State.UNANNOTATED]


def test_words_of_two_processes_are_both_kept(project: Project) -> None:
    code = (
        "import sys; from qpannot.bootstrap.image_record import *; from pathlib import Path\n"
        "from qpannot.bootstrap.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for i in range(20):\n"
        "    word = Word(state=sys.argv[2], when=now())\n"
        "    ledger.edit_image('1', 'one', lambda record: record.words.append(word))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(project.folder), name]) for name in "ab"
    ]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert len(Ledger.of(project).image("1", "one").words) == 40


def test_a_run_killed_at_any_moment_is_finished_by_the_next(project: Project) -> None:
    project.images[1].write_annotations(add=[drawn()])
    command = [sys.executable, "-m", "qpannot", "bootstrap", str(project.folder)]
    command += ["--set", "tissue.min_area_um2=10000"]
    for delay_s in (0.9, 1.2, 1.5, 1.8):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_s)
        running.kill()
        running.wait()
        with open_project(project.path) as opened:
            assert [a.name for a in opened.images[1].annotations()] == ["mine"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    with open_project(project.path) as opened:
        assert states(opened) == [State.PROPOSED, State.REVIEWED, State.UNANNOTATED]
        assert len(opened.images[0].annotations()) == 1
        record = Ledger.of(opened).round(1)
        assert record is not None and record.proposed == ["1"]


def test_annotations_that_did_not_change_are_not_read_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.images[0].write_annotations(add=[drawn()])
    bootstrap(project, RECIPE)

    def read(self: object) -> None:
        raise AssertionError("read again")

    with open_project(project.path) as again:
        monkeypatch.setattr(type(again.images[0]), "annotations", read)
        assert states(again) == [State.REVIEWED, State.PROPOSED, State.UNANNOTATED]
