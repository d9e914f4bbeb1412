"""Real designs over slides that a person reviewed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from qpannot.affine import Affine
from qpannot.bootstrap.evaluating import Store, baseline, measure_designs, time_designs
from qpannot.bootstrap.evaluating.designs import Design, Timed
from qpannot.bootstrap.evaluating.running import truth_of
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.predicting import openers_of
from qpannot.bootstrap.states import survey
from qpannot.bootstrap.truth import Lesson, lessons_of
from qpannot.bootstrap.work import Work
from qpannot.console import silent
from qpannot.errors import SlideError
from qpannot.heatmap import Heatmap
from qpannot.qupath import Annotation, PathClass
from qpannot.recipe import load_recipe
from qpannot.sampling import Opener, Part
from qpannot.slide import Slide


@contextmanager
def at_work(study: Any, *changes: str) -> Iterator[tuple[Work, list[Lesson], dict[str, Opener]]]:
    """A project that is worked on, its reviewed slides, and what opens them."""
    with study.open() as project:
        ledger = Ledger.of(project)
        work = Work(project, ledger, load_recipe(study.recipe, changes), None, silent)
        lessons, _ = lessons_of(survey(project, ledger), ledger, work.recipe)
        openers, failed = openers_of(work, [lesson.image for lesson in lessons])
        assert not failed
        yield work, lessons, openers


def thresholds(work: Work) -> list[Design]:
    return [baseline("otsu", work.recipe), baseline("tissue", work.recipe)]


def test_a_threshold_finds_all_of_the_tumor_and_the_tissue_beside_it(
    reviewed_study: Any, tmp_path: Path
) -> None:
    with at_work(reviewed_study) as (work, lessons, openers):
        found = measure_designs(work, thresholds(work), lessons, openers, Store(tmp_path))
    assert [(each.design, each.slide) for each in found.measured] == [
        (name, f"{letter}.tif") for name in ("otsu", "tissue") for letter in "abcde"
    ]
    # the tissue is 640 x 384 pixels of 1 µm, the tumour the right part of it
    for each in found.measured[5:]:
        truth = reviewed_study.truth[each.slide].area
        own = each.classes["Tumor"]
        assert own.true_mm2 == pytest.approx(truth / 1e6)
        assert own.metrics["recall"] > 0.98
        assert own.metrics["precision"] == pytest.approx(truth / (640 * 384), abs=0.03)
        # nearly all of the outline that is too much lies at the tissue's left end
        left = reviewed_study.truth[each.slide].bounds[0] - 64
        assert own.metrics["hd95_um"] == pytest.approx(left, rel=0.1)
        assert each.seen is None and own.reliability is None


def test_what_still_fits_is_not_measured_again(reviewed_study: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with at_work(reviewed_study) as (work, lessons, openers):
        (design, _) = thresholds(work)
        first = measure_designs(work, [design], lessons[:4], openers, store)
        again = measure_designs(work, [design], lessons, openers, store)
    assert (first.reused, again.reused, len(again.measured)) == (0, 4, 5)
    assert [each.result() for each in again.measured[:4]] == [
        each.result() for each in first.measured
    ]


@pytest.mark.parametrize(
    "change",
    [
        "evaluation.mpp=8",
        "evaluation.threshold=0.6",
        "labels.coverage=partial",
        "tissue.requested_pixel_size_um=16",
    ],
)
def test_other_settings_are_measured_anew(reviewed_study: Any, tmp_path: Path, change: str) -> None:
    store = Store(tmp_path)
    with at_work(reviewed_study) as (work, lessons, openers):
        measure_designs(work, thresholds(work)[1:], lessons[:1], openers, store)
    with at_work(reviewed_study, change) as (work, lessons, openers):
        found = measure_designs(work, thresholds(work)[1:], lessons[:1], openers, store)
    assert found.reused == 0 and len(found.measured) == 1


def test_settings_that_decide_no_measurement_leave_them_alone(
    reviewed_study: Any, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    with at_work(reviewed_study) as (work, lessons, openers):
        measure_designs(work, thresholds(work), lessons[:1], openers, store)
    with at_work(reviewed_study, "evaluation.seed=3", "evaluation.groups=[a]") as (
        work,
        lessons,
        openers,
    ):
        assert measure_designs(work, thresholds(work), lessons[:1], openers, store).reused == 2


def test_other_annotations_are_measured_anew(reviewed_study: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "measured")
    study = reviewed_study.copied(tmp_path / "study")
    with at_work(study) as (work, lessons, openers):
        before = measure_designs(work, thresholds(work)[1:], lessons, openers, store)
    with study.open("r+") as project:
        image = project.images[0]
        (drawn,) = image.annotations()
        smaller = drawn.with_changes(geometry=shapely.box(600, 64, 704, 448))
        image.write_annotations(replace=[(drawn, smaller)])
    with at_work(study) as (work, lessons, openers):
        after = measure_designs(work, thresholds(work)[1:], lessons, openers, store)
    assert after.reused == 4
    was, now = (each.measured[0].result().metrics["precision"] for each in (before, after))
    assert now < was - 0.1


class RightHalf:
    """Takes the right half of any slide for tumour, sure by 0.9, but fails on one slide."""

    name = "right half"
    is_baseline = False

    def __init__(self, seen: Mapping[str, Part], bad: str = "") -> None:
        self.seen = seen
        self.bad = bad
        self.runs = 0

    @property
    def runners(self) -> list[Any]:
        return [self._run]

    def _run(self, slide: Slide) -> Timed:
        self.runs += 1
        return Timed("by hand", {"Patch-wise": float(self.runs), "Refinement": 0.5})

    def key(self, slide: Slide) -> str:
        return slide.path.name

    def heatmap(self, slide_id: str, opener: Opener, show: Any) -> Heatmap:
        if slide_id == self.bad:
            raise SlideError("a.tif", "is made of glass.")
        with opener() as slide:
            maps = np.zeros((1, 2, 2), np.float32)
            maps[0, 0, 0] = maps[0, 1, 1] = 0.9
            affine = Affine(slide.size.width / 2, slide.size.height)
            return Heatmap(maps, ("Non-tumor", "Tumor"), affine, slide.mpp)


def test_any_design_that_gives_heatmaps_is_measured_as_models_are(
    reviewed_study: Any, tmp_path: Path
) -> None:
    with at_work(reviewed_study) as (work, lessons, openers):
        design = RightHalf({lessons[1].image.id: Part.TRAIN})
        found = measure_designs(work, [design], lessons[:2], openers, Store(tmp_path))
    first, second = found.measured
    assert (first.seen, second.seen) == (None, Part.TRAIN)
    truth = reviewed_study.truth["a.tif"]
    common = truth.intersection(shapely.box(384, 0, 768, 512)).area
    metrics = first.result().metrics
    assert metrics["recall"] == pytest.approx(common / truth.area)
    assert metrics["precision"] == pytest.approx(common / (384 * 512))
    calibration = first.classes["Tumor"].reliability
    # of all 192 x 128 pixels those in the tissue, 640 x 384 µm
    assert calibration is not None
    assert calibration.counts.sum() == pytest.approx(160 * 96, rel=0.05)


def test_a_slide_that_fails_is_named_and_the_others_go_on(
    reviewed_study: Any, tmp_path: Path
) -> None:
    with at_work(reviewed_study) as (work, lessons, openers):
        designs: list[Design] = [
            RightHalf({}, bad=lessons[0].image.id),
            baseline("otsu", work.recipe),
        ]
        found = measure_designs(work, designs, lessons[:2], openers, Store(tmp_path))
    ((image, error),) = found.failed
    assert image.name == "a.tif" and "made of glass" in error.message
    assert [(each.design, each.slide) for each in found.measured] == [
        ("right half", "b.tif"),
        ("otsu", "a.tif"),
        ("otsu", "b.tif"),
    ]


def test_a_slide_without_tissue_or_tumor_follows_the_convention(
    reviewed_study: Any, tmp_path: Path
) -> None:
    with at_work(reviewed_study) as (work, lessons, openers):
        nothing = dataclasses.replace(lessons[0], annotations=(), key="nothing")
        found = measure_designs(work, thresholds(work)[1:], [nothing], openers, Store(tmp_path))
    metrics = found.measured[0].result().metrics
    assert metrics["dice"] == 0 and metrics["precision"] == 0
    assert metrics["recall"] != metrics["recall"] and metrics["hd95_um"] != metrics["hd95_um"]


def test_where_nobody_looked_nothing_counts(reviewed_study: Any) -> None:
    ignored = Annotation(shapely.box(0, 0, 300, 512), path_class=PathClass("Ignore*"))
    with at_work(reviewed_study) as (work, lessons, _):
        lesson = dataclasses.replace(lessons[0], annotations=(*lessons[0].annotations, ignored))
        truth, within = truth_of(lesson, work.recipe)
        assert truth_of(lessons[0], work.recipe)[1] is None
    assert list(truth) == ["Tumor"]
    assert within is not None and not within.intersects(shapely.box(10, 10, 290, 500))
    assert within.contains(shapely.box(310, 10, 760, 500))


def test_runs_are_timed_after_one_that_does_not_count(reviewed_study: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with at_work(reviewed_study) as (work, lessons, openers):
        design = RightHalf({})
        (runtime,), slide, failed = time_designs(work, [design], lessons, openers, 2, store)
        again, _, _ = time_designs(work, [design], lessons, openers, 2, store)
        more, _, _ = time_designs(work, [design], lessons, openers, 1, store)
    assert slide is not None and not failed
    assert (runtime.design, runtime.engine) == ("right half", "by hand")
    assert runtime.seconds == {
        "Patch-wise": [2.0, 3.0],
        "Refinement": [0.5, 0.5],
        "Total": [2.5, 3.5],
    }
    assert again == [runtime], "an earlier run's seconds are not measured again"
    assert more[0].seconds["Patch-wise"] == [5.0] and design.runs == 5


def test_seconds_of_another_machine_are_not_taken_for_this_ones(
    reviewed_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    with at_work(reviewed_study) as (work, lessons, openers):
        design = RightHalf({})
        time_designs(work, [design], lessons, openers, 2, store)
        monkeypatch.setattr("platform.node", lambda: "another")
        (runtime,), _, _ = time_designs(work, [design], lessons, openers, 2, store)
    assert runtime.seconds["Patch-wise"] == [5.0, 6.0] and design.runs == 6


def test_thresholds_are_not_timed(reviewed_study: Any, tmp_path: Path) -> None:
    with at_work(reviewed_study) as (work, lessons, openers):
        found, _, _ = time_designs(work, thresholds(work), lessons, openers, 1, Store(tmp_path))
    assert found == []
