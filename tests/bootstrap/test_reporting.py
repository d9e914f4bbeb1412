"""The page of a round, made of a real project and its ledger."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.outcome import Outcome
from qpannot.bootstrap.reporting import write_report
from qpannot.bootstrap.states import survey
from qpannot.recipe import Recipe


class Page(HTMLParser):
    """What a page says, what it refers to, and how many pictures it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.references: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for key, value in attrs if key in ("src", "href", "srcset")]
        if tag == "img":
            self.pictures.append(dict(attrs)["alt"] or "")

    def handle_data(self, data: str) -> None:
        self.text += re.sub(r"\s+", " ", data) + " "


def reports(study: Any) -> Path:
    return Ledger(study.project).house / "reports"


@pytest.fixture(scope="module")
def page(trained_study: Any) -> Page:
    return Page(reports(trained_study) / "round-002.html")


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    assert page.references and all(each.startswith("data:image/png") for each in page.references)
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.source)
    assert "://" not in outside and "url(" not in outside and "@import" not in outside
    assert "<script" not in outside and "<link" not in outside


def test_the_page_has_the_numbers_of_the_ledger(page: Page, trained_study: Any) -> None:
    record = Ledger(trained_study.project).round(2)
    assert record is not None and record.training is not None and record.judgement is not None
    test = [
        score.dice
        for key, score in record.judgement.scores["round-002"].items()
        if record.training.parts[key] == "test"
    ]
    assert test and f"{fmean(test):.3f}" in page.text
    for correction in record.corrections.values():
        assert f"{correction.overall.dice:.3f}" in page.text
    for choice in record.chosen:
        assert choice.reason in page.text
    assert "AN2: test_resnet" in page.text and "round-002 is the model in use" in page.text


def test_the_page_shows_every_correction_and_proposal(page: Page) -> None:
    for name in "abcde":
        assert any(f"{name}.tif" in each and "correction" in each for each in page.pictures)
    for name in "fgh":
        assert f"Proposal for {name}.tif" in page.pictures


def test_the_curves_are_those_of_the_training(page: Page, trained_study: Any) -> None:
    folder = Ledger(trained_study.project).model_folder("round-002").parent
    rows = list(csv.DictReader((folder / "curves.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 3
    assert page.source.count("<polyline") + page.source.count("<path") >= 4
    assert "loss" in page.text and "Dice of patches" in page.text


def test_a_first_round_says_that_nothing_was_judged(proposed_study: Any) -> None:
    first = Page(reports(proposed_study) / "round-001.html")
    assert "No model was judged on held-out slides yet" in first.text
    assert "AN1: tissue threshold 215" in first.text
    assert len(first.pictures) == 8 and "it had no annotations" in first.text


def test_a_slide_that_failed_is_named_with_the_reason(
    reviewed_study: Any, tmp_path: Path, here: Callable[..., Any]
) -> None:
    study = reviewed_study.copied(tmp_path / "study", with_slides=True)
    (tmp_path / "h.tif").write_bytes(b"no slide")
    assert here("bootstrap", study.project, "--image", "h.tif", "--image", "g.tif").code == 3
    page = Page(reports(study) / "round-001.html")
    assert "What failed" in page.text and "h.tif" in page.text.split("What failed")[1]


def test_where_nothing_was_done_there_is_no_page(trained_study: Any, tmp_path: Path) -> None:
    study = trained_study.copied(tmp_path / "study")
    with study.open("r+") as project:
        before = (reports(study) / "round-002.html").read_bytes()
        statuses = survey(project, Ledger.of(project))
        assert write_report(project, Outcome(Recipe(), statuses=statuses), []) is None
        assert (reports(study) / "round-002.html").read_bytes() == before
        outcome = Outcome(Recipe(), round=7, statuses=statuses)
        assert write_report(project, outcome, []) is None  # a round that nothing is recorded of
