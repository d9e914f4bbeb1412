from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pytest
import shapely

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.states import State
from qpannot.errors import ProjectError
from qpannot.geometry import Region
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.proposals import is_proposal, is_untouched, sealed
from qpannot.review.session import ChangedMeanwhileError, NothingAnnotatedError, Session

if TYPE_CHECKING:
    from tests.review.conftest import Desk

TUMOR = PathClass("Tumor", (200, 0, 0))


def test_a_stroke_becomes_part_of_the_proposal_and_reviews_it(desk: Desk) -> None:
    (old,) = desk.image("1").annotations()
    with Session(desk.project) as session:
        opened = session.open("1")
        left, top, _, _ = old.geometry.bounds
        desk.paint(opened, int(left) + 200, int(top) + 200, int(left) + 300, int(top) + 300, 0)
        saved = opened.save()
    assert (saved.added, saved.changed, saved.removed, saved.conflicts) == (0, 1, 0, 0)
    assert saved.status.state is State.REVIEWED and "1 changed" in saved.message
    with desk.again() as other:
        (new,) = desk.image("1", other).annotations()
    assert new.id == old.id and is_proposal(new) and not is_untouched(new)
    lost = shapely.difference(old.geometry, new.geometry).area
    assert lost == pytest.approx(100 * 100, rel=0.05)
    assert desk.state("1") is State.REVIEWED


def test_saving_without_a_change_writes_nothing(desk: Desk) -> None:
    image = desk.image("1")
    before = image.fingerprint()
    with Session(desk.project) as session:
        opened = session.open("1")
        assert not opened.is_changed
        saved = opened.save()
    assert (saved.added, saved.changed, saved.removed) == (0, 0, 0)
    assert image.fingerprint() == before and saved.status.state is State.PROPOSED


def test_a_stroke_elsewhere_leaves_the_proposal_a_proposal(desk: Desk) -> None:
    (old,) = desk.image("1").annotations()
    with Session(desk.project) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 2)
        assert opened.save().added == 1
    first, second = desk.image("1").annotations()
    assert is_untouched(first) and first.geometry == old.geometry
    assert second.class_name == opened.classes[1].name and not is_proposal(second)


def test_a_save_can_be_painted_upon_and_saved_again(desk: Desk) -> None:
    with Session(desk.project) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        opened.save()
        labels = opened.labels
        desk.paint(opened, 100, 0, 200, 100, 1)
        saved = opened.save()
        assert opened.labels is labels
    assert (saved.added, saved.changed) == (0, 1)
    made = desk.image("1").annotations()[1]
    assert made.geometry.area == pytest.approx(200 * 100, rel=0.03)


def test_a_part_is_painted_more_finely_and_nothing_before_is_lost(desk: Desk) -> None:
    with Session(desk.project) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        whole = opened.canvas
        opened.finer(Region(50, 0, 300, 200))
        assert opened.canvas.region.width == 300 and (opened.labels[:90, :45] == 1).all()
        desk.paint(opened, 200, 100, 300, 200, 1)
        opened.whole()
        assert opened.canvas == whole and (opened.labels[110:190, 210:290] == 1).all()
        assert opened.save().added == 2
    areas = sorted(each.geometry.area for each in desk.image("1").annotations())
    assert areas[:2] == pytest.approx([100 * 100, 100 * 100], rel=0.05)


def test_what_somebody_saved_meanwhile_is_kept_and_painted_upon(desk: Desk) -> None:
    with Session(desk.project) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        drawn = desk.save_in_qupath("1")
        saved = opened.save()
        assert saved.conflicts == 1 and saved.is_redrawn and "somebody else" in saved.message
        (column, row) = opened.canvas.affine.from_slide(np.array([1850, 1350])).astype(int)
        assert opened.classes[opened.labels[row, column] - 1].name == "Stroma"
        assert opened.labels[10, 10] == 1 and not opened.is_changed
    found = {each.id: each for each in desk.image("1").annotations()}
    assert len(found) == 3 and found[drawn.id].geometry.equals(drawn.geometry)


def test_what_was_painted_outlives_that_qupath_deleted_what_it_was_painted_on(
    desk: Desk,
) -> None:
    (old,) = desk.image("1").annotations()
    with Session(desk.project) as session:
        opened = session.open("1")
        left, top, right, _ = old.geometry.bounds
        middle = int(left + right) // 2
        desk.paint(opened, middle - 50, int(top) - 60, middle + 50, int(top) + 60, 1)
        drawn = desk.save_in_qupath("1", remove=True)
        opened.save()
    found = {each.id: each for each in desk.image("1").annotations()}
    assert drawn.id in found and old.id not in found and len(found) == 2


def test_nothing_is_said_of_annotations_that_nobody_has_seen(desk: Desk) -> None:
    with Session(desk.project, by="AB") as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        desk.save_in_qupath("1")
        with pytest.raises(ChangedMeanwhileError, match="Somebody else"):
            opened.accept()
        assert len(desk.image("1").annotations()) == 3, "the stroke is saved"
        assert desk.state("1") is State.PROPOSED
        assert opened.accept().status.state is State.REVIEWED, "seen by now"


def test_a_proposal_that_nobody_has_seen_is_not_rejected(desk: Desk) -> None:
    with Session(desk.project) as session:
        opened = session.open("1")
        (old,) = desk.image("1").annotations()
        new = sealed(old.with_changes(id=uuid4(), geometry=shapely.box(10, 10, 90, 90), roi=None))
        with desk.again() as other:
            desk.image("1", other).write_annotations(add=[new], remove=[old])
        with pytest.raises(ChangedMeanwhileError):
            opened.reject()
        assert [each.id for each in desk.image("1").annotations()] == [new.id]
        assert opened.reject().removed == 1


def test_an_empty_slide_is_accepted_only_if_the_person_says_so(desk: Desk) -> None:
    with Session(desk.project) as session:
        opened = session.open("3")
        with pytest.raises(NothingAnnotatedError):
            opened.accept()
        assert opened.accept(allow_empty=True).status.state is State.REVIEWED


def test_rejecting_takes_away_what_nobody_touched(desk: Desk) -> None:
    with Session(desk.project) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        saved = opened.reject()
        assert (saved.added, saved.removed, saved.is_redrawn) == (1, 1, True)
        assert opened.labels[10, 10] == 1 and (opened.labels > 0).sum() < 11_000
        opened = session.open("2")
        assert opened.reject().removed == 1 and not opened.labels.any()
        assert session.queue[1].done
    (left,) = desk.image("1").annotations()
    assert not is_proposal(left)


def test_what_is_not_editable_is_shown_beside(desk: Desk) -> None:
    image = desk.image("1")
    (proposal,) = image.annotations()
    beside = [
        Annotation(shapely.box(0, 0, 50, 50), path_class=PathClass("Region*")),
        Annotation(shapely.box(0, 0, 50, 50), path_class=TUMOR, locked=True),
        Annotation(shapely.Point(10, 10), path_class=TUMOR),
    ]
    ignored = Annotation(shapely.box(1500, 0, 1600, 50), path_class=PathClass("Ignore*"))
    image.write_annotations(add=[*beside, ignored])
    with Session(desk.project) as session:
        opened = session.open("1")
        assert {each.id for each in opened.context} == {each.id for each in beside}
        names = [each.name for each in opened.classes]
        assert names[0] == "Tumor" and "Ignore*" in names and "Region*" not in names
        assert opened.labels[10, 1550] == names.index("Ignore*") + 1
        assert all(each.color for each in opened.classes)
    assert proposal in image.annotations()


def test_effort_is_recorded_without_idle_time(desk: Desk) -> None:
    time = iter([0.0, 10.0, 15.0, 500.0, 503.0])
    with Session(desk.project, by="AB", clock=lambda: next(time)) as session:
        opened = session.open("1")
        opened.touched()
        desk.paint(opened, 0, 0, 100, 100, 1)
        session.touched()
        desk.paint(opened, 100, 0, 200, 100, 1)
        session.touched()
        opened.save()
    (effort,) = Ledger.of(desk.project).image("1", "one.svs").effort
    assert (effort.by, effort.tool, effort.strokes, effort.round) == ("AB", "napari", 2, 1)
    assert effort.active_seconds == 18
    assert effort.area_changed_um2 == pytest.approx(200 * 100 * 0.25, rel=0.01)


def test_what_an_earlier_sitting_painted_is_not_counted_again(desk: Desk) -> None:
    with Session(desk.project, by="AB") as session:
        desk.paint(session.open("1"), 0, 0, 200, 100, 1)
    with Session(desk.project, by="CD") as session:
        opened = session.open("1")
        assert opened.recovered
        desk.paint(opened, 300, 300, 320, 320, 1)
        opened.save()
    first, second = Ledger.of(desk.project).image("1", "one.svs").effort
    assert first.area_changed_um2 == pytest.approx(200 * 100 * 0.25, rel=0.01)
    assert second.area_changed_um2 == pytest.approx(20 * 20 * 0.25, rel=0.3)
    assert (first.strokes, second.strokes) == (1, 1)


def test_who_only_looks_on_leaves_no_record_of_effort(desk: Desk) -> None:
    with Session(desk.project) as session:
        session.open("1")
        session.touched()
    assert Ledger.of(desk.project).image("1", "one.svs").effort == []


def test_a_save_that_fails_loses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ProjectError(desk.project.path, "the disk is full.")

    with Session(desk.project) as session:
        opened = session.open("1")
        desk.paint(opened, 0, 0, 100, 100, 1)
        with monkeypatch.context() as patched:
            patched.setattr(type(opened.image), "write_annotations", refuse)
            with pytest.raises(ProjectError, match="disk is full"):
                opened.save()
        assert opened.is_changed and opened.unsaved == 1
        assert opened.save().added == 1
