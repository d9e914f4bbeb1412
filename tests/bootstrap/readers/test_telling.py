"""A round of a project with second readers, several annotators and sittings that were timed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely

from qpannot.bootstrap.image_record import now
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.readers.effort import Effort, record_effort
from qpannot.bootstrap.review import say
from qpannot.bootstrap.states import State
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.annotators import annotated_by

TUMOR = PathClass("Tumor")


def timed(minutes: float, *, strokes: int = 0, second_reader: bool = False) -> Effort:
    return Effort(
        by="CD" if second_reader else "AB",
        tool="napari",
        started=now(),
        active_seconds=60 * minutes,
        strokes=strokes,
        area_changed_um2=2e4 if strokes else None,
        round=1,
        second_reader=second_reader,
    )


@pytest.fixture(scope="module")
def study(
    reviewed_study: Any, tmp_path_factory: pytest.TempPathFactory, here: Callable[..., Any]
) -> Any:
    """Five slides were corrected: one was read again, one by two others, two were timed."""
    made = reviewed_study.copied(tmp_path_factory.mktemp("readers") / "study")
    with made.open("r+") as project:
        ledger = Ledger.of(project)
        images = {image.name[0]: image for image in project.images}
        say(project, [images["a"]], State.REVIEWED, by="AB")
        (own,) = images["a"].annotations()
        wider = own.with_changes(geometry=own.geometry.buffer(20, join_style="mitre"))
        images["a"].write_annotations(replace=[(own, wider)])
        say(project, [images["a"]], State.APPROVED, by="CD")
        truth = made.truth["b.tif"]
        for name, outline in (("Bee", truth), ("Cee", truth.buffer(-30, join_style="mitre"))):
            drawn = annotated_by(Annotation(outline, path_class=TUMOR), name)
            images["b"].write_annotations(add=[drawn])
            say(project, [images["b"]], State.REVIEWED, by=name, independent=True)
        record_effort(ledger, images["a"], timed(4, strokes=12))
        record_effort(ledger, images["a"], timed(3, second_reader=True))
        record_effort(ledger, images["c"], timed(1, strokes=5))
    ended = here("bootstrap", made.project)
    assert ended.code == 0, ended.err
    return made


@pytest.fixture(scope="module")
def page(study: Any) -> str:
    text = (study.project / "qpannot" / "reports" / "round-002.html").read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text.split("</style>")[1]))


def test_the_report_tells_what_the_second_reader_changed(study: Any, page: str) -> None:
    with study.open() as project:
        (image,) = (each for each in project.images if each.name == "a.tif")
        second = Ledger.of(project).image(image.id, image.name).second_reading
    assert second is not None and 0.5 < second.change.overall.dice < 1
    section = page.split("Second reader")[1].split("Readers of the same slide")[0]
    assert f"a.tif Tumor AB CD {second.change.overall.dice:.3f}" in section


def test_the_report_tells_how_far_readers_agree(page: str, study: Any) -> None:
    section = page.split("Readers of the same slide")[1].split("What was proposed")[0]
    assert "by the rule majority" in section
    one, other = study.truth["b.tif"], study.truth["b.tif"].buffer(-30, join_style="mitre")
    dice = 2 * other.area / (one.area + other.area)
    assert f"Bee Cee {dice:.3f}" in section
    assert section.count("b.tif") == 3, "whoever corrected the proposal is a reader too"


def test_the_report_tells_what_corrections_cost(page: str) -> None:
    section = page.split("What the correction cost")[1].split("Second reader")[0]
    assert "a.tif AB napari 4.0 12 0.02 mm²" in section
    assert "c.tif AB napari 1.0 5 0.02 mm²" in section
    assert re.search(r"d\.tif – QuPath – – 0\.\d\d mm²", section), "QuPath tells no time"
    assert "1 2 5.0 2.5 17 0.04 mm² 3.0" in section, "of round 1, two slides"


def test_what_was_merged_is_what_was_learned_and_compared(study: Any) -> None:
    with study.open() as project:
        ids = {image.name: image.id for image in project.images}
        record = Ledger.of(project).round(2)
        assert record is not None and record.training is not None
        assert "majority of Bee, Cee" in record.training.slides[ids["b.tif"]]
        assert "majority" not in record.training.slides[ids["c.tif"]]
        measured = record.corrections[ids["b.tif"]]
    with study.open() as project:
        kept = Ledger.of(project).image(ids["b.tif"], "b.tif").standing
    proposed = shapely.union_all([each.shape for each in kept])
    # Bee and whoever corrected the proposal are two of three
    expected = proposed.intersection(study.truth["b.tif"]).area
    total = proposed.area + study.truth["b.tif"].area
    assert measured.overall.dice == pytest.approx(2 * expected / total, abs=1e-6)


def test_status_tells_scripts_of_readers_and_costs(study: Any, here: Callable[..., Any]) -> None:
    told = json.loads(here("status", study.project, "--json").out)
    images = {image["name"]: image for image in told["images"]}
    assert images["a.tif"]["second_reader"]["second"] == "CD"
    assert images["b.tif"]["independent_readers"] == ["Bee", "Cee"]
    pairs = [each["readers"] for each in images["b.tif"]["agreement"]]
    assert pairs == [["", "Bee"], ["", "Cee"], ["Bee", "Cee"]]
    assert images["b.tif"]["agreement"][0]["dice"]["Tumor"] == pytest.approx(1)
    assert images["c.tif"]["agreement"] == [] and images["c.tif"]["second_reader"] is None
    assert [each["strokes"] for each in images["c.tif"]["effort"]] == [5]
    (cost,) = told["corrections"]
    assert (cost["round"], cost["slides"], cost["active_minutes_per_slide"]) == (1, 2, 2.5)
    assert cost["second_reader_minutes"] == 3


def test_status_and_approve_show_people_the_second_reading(
    study: Any, here: Callable[..., Any], tmp_path: Path
) -> None:
    shown = here("status", study.project).out
    assert re.search(r"a\.tif\s+AB\s+CD\s+0\.\d{3}", shown.split("second reading of")[1])
    again = study.copied(tmp_path / "study")
    said = here("approve", "c.tif", "d.tif", "-p", again.project, "--second-reader", "--by", "EF")
    assert re.search(r"[cd]\.tif\s+EF\s+1\.000", said.out.split("second reading of")[1])
    told = here("approve", "a.tif", "-p", again.project, "--second-reader", "--json").out
    assert json.loads(told)["images"][0]["second_reader"]["change"]["overall"]["dice"] == 1
