from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
from PIL import Image

from qpannot.bootstrap.charts import curve_chart, score_chart
from qpannot.bootstrap.corrections import Change, measure_correction
from qpannot.bootstrap.cropping import crop_to_tissue
from qpannot.bootstrap.readers.costs import RoundCost
from qpannot.bootstrap.readers.telling import AgreementRow, ReadersReport, SecondRow
from qpannot.bootstrap.report import (
    CorrectionRow,
    Curve,
    EffortRow,
    JudgedRow,
    ProposalRow,
    RoundReport,
    RoundScore,
    SlideScore,
    comparison_picture,
    render_report,
)
from qpannot.geometry import Mpp, Size

SVG = "{http://www.w3.org/2000/svg}"
OVERVIEW = np.full((300, 500, 3), 230, np.uint8)
FULL = Size(5000, 3000)
BARE = RoundReport(
    project="study",
    round=1,
    method="AN1",
    states={"unannotated": 2, "proposed": 1},
    date="2026-01-02",
    recipe="quick",
)


class Page(HTMLParser):
    """What a page shows, and what it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self.text += " "


def change(width: int, mpp: Mpp | None) -> Change:
    """A proposal of 8,000 px, of which a width is left."""
    before, after = ({"Tumor": shapely.box(0, 0, x, 8000)} for x in (8000, width))
    return measure_correction(before, after, mpp).overall


def scores(*dices: float) -> tuple[SlideScore, ...]:
    return tuple(SlideScore(f"slide-{n}", dice) for n, dice in enumerate(dices))


def full_report() -> RoundReport:
    picture = comparison_picture(OVERVIEW, FULL, {"T": shapely.box(0, 0, 900, 900)}, {})
    return RoundReport(
        project="a & b",
        round=2,
        method="AN2",
        states={"reviewed": 3},
        date="2026-01-02",
        recipe="quick",
        scores=(RoundScore(1, scores(0.5, 0.6)), RoundScore(2, scores(0.4, 0.5), kept=False)),
        judged=(
            JudgedRow("kept.svs", "validation", 0.612, 0.534),
            JudgedRow("mean of 2", "validation", None, 0.5, is_mean=True),
        ),
        helped=False,
        model="round-002",
        kept_model="round-001",
        model_digest="abc123",
        curves=(
            Curve("loss", "training", ((1, 0.9), (2, 0.5))),
            Curve("accuracy", "validation", ((1, 0.5), (2, 0.7))),
        ),
        corrections=(
            CorrectionRow("good.svs", "Tumor", change(7600, Mpp.square(0.25))),
            CorrectionRow("bad.svs", "Tumor", change(2000, None), picture),
        ),
        effort=(
            EffortRow(2, "AN1: tissue threshold 215", 3, 0.515),
            EffortRow(3, "AN2", 1, 0.7361),
        ),
        proposals=(ProposalRow("next.svs", "the network is least sure here", picture),),
        failures=(("broken.svs", "it cannot be read"),),
        next_steps=("2 slides to be corrected",),
        versions={"qpannot": "9.9"},
    )


def test_the_page_needs_nothing_beside_it() -> None:
    page = Page(render_report(full_report()))
    assert len(page.references) == 2
    assert all(each.startswith("data:image/png;base64,") for each in page.references)
    assert not {"script", "link", "iframe"} & set(page.tags)
    with Image.open(io.BytesIO(base64.b64decode(page.references[0].split(",")[1]))) as picture:
        assert picture.size == (480, 288)


def test_the_page_tells_all_of_the_round() -> None:
    text = Page(render_report(full_report())).text
    for told in (
        "a & b: round 2",
        "3 reviewed.",
        "This round did not help: round-001 is kept.",
        "it cannot be read",
        "2 slides to be corrected",
        "the network is least sure here",
        "digest of the model in use abc123",
        "qpannot 9.9",
        "0.20 mm²",
        "48,000,000 px²",
        "kept.svs validation 0.612 0.534",
        "mean of 2 validation – 0.500",
        "2 AN1: tissue threshold 215 3 0.515",
        "3 AN2 1 0.736",
    ):
        assert told in text


@pytest.mark.parametrize(("helped", "told"), [(True, "helped:"), (False, "did not help:")])
def test_a_round_helped_or_it_did_not(helped: bool, told: str) -> None:
    text = Page(render_report(replace(full_report(), helped=helped))).text
    assert f"This round {told} round-001 is kept." in text
    assert "no harm" not in text


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("validation", "validation"), "Shown are the validation slides, by which the model was"),
        (("test", "test"), "Shown are the test slides, which had no say"),
        (("validation", "test"), "by their test slides: 2; by their validation slides, by which"),
    ],
)
def test_it_is_said_which_slides_the_chart_shows(parts: tuple[str, str], told: str) -> None:
    rounds = tuple(
        RoundScore(number, scores(0.5), part=part) for number, part in enumerate(parts, 1)
    )
    assert told in Page(render_report(replace(BARE, scores=rounds))).text


def test_the_worst_proposal_comes_first() -> None:
    text = Page(render_report(full_report())).text
    assert text.index("bad.svs") < text.index("good.svs")


def test_the_least_agreement_of_readers_comes_first() -> None:
    readers = ReadersReport(
        second=(
            SecondRow("close.svs", "AB", "CD", "Tumor", change(7600, Mpp.square(0.25))),
            SecondRow("far.svs", "", "", "Tumor", change(2000, None)),
        ),
        agreement=(
            AgreementRow("same.svs", "Bee", "Cee", "Tumor", 0.95),
            AgreementRow("other.svs", "Bee", "Cee", "Tumor", 0.31),
        ),
        rule="staple",
    )
    text = Page(render_report(replace(BARE, readers=readers))).text
    assert text.index("far.svs") < text.index("close.svs") < text.index("other.svs")
    assert text.index("other.svs") < text.index("same.svs")
    assert "px²" in text and "mm²" in text and "rule staple" in text
    assert "What the correction cost" not in text


def test_minutes_per_slide_are_drawn_once_there_are_two_rounds() -> None:
    costs = [RoundCost(1, 4, 30.0, 200, 3.0, 0.0), RoundCost(2, 5, 12.0, 60, 0.5, 6.0)]
    one = replace(BARE, readers=ReadersReport(rounds=tuple(costs[:1])))
    assert "minutes per slide" not in Page(render_report(one)).text
    page = render_report(replace(BARE, readers=ReadersReport(rounds=tuple(costs))))
    assert "minutes per slide" in Page(page).text
    (svg,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    dots = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', svg)]
    assert len(dots) == 2 and dots[0] < dots[1], "7.5 minutes lie higher than 2.4"
    assert "7.5" in svg and "2.4" in svg
    only_second = replace(BARE, readers=ReadersReport(rounds=(RoundCost(1, 0, 0, 0, 0, 5.0),)))
    assert "5.0" in Page(render_report(only_second)).text


def test_what_was_not_measured_is_not_shown() -> None:
    page = Page(render_report(BARE))
    assert "svg" not in page.tags and "img" not in page.tags
    assert "2 unannotated, 1 proposed." in page.text
    assert "No model was judged on held-out slides yet." in page.text
    for heading in (
        "On the same slides",
        "Training",
        "What was corrected",
        "How much was corrected",
        "What was proposed",
        "What failed",
    ):
        assert heading not in page.text


def test_what_was_no_number_is_left_out_of_the_curves() -> None:
    nan, inf = float("nan"), float("inf")
    report = replace(
        BARE,
        curves=(
            Curve("loss", "training", ((1, 0.5), (2, inf), (3, 0.25))),
            Curve("dice", "validation", ((1, nan),)),
        ),
    )
    html = render_report(report)
    (points,) = re.findall(r'<polyline points="([^"]*)"', html)
    assert len(points.split()) == 2
    assert "validation" not in html


def test_names_of_people_are_text_and_never_markup() -> None:
    evil = '<script>alert("1")</script>'
    report = RoundReport(
        project=evil,
        round=1,
        method=evil,
        states={},
        date=evil,
        recipe=evil,
        scores=(RoundScore(1, (SlideScore(evil, 0.5),)),),
        curves=(Curve(evil, evil, ((1, 0.5),)),),
        failures=((evil, evil),),
        next_steps=(evil,),
    )
    page = Page(render_report(report))
    assert "script" not in page.tags
    assert evil in page.text


def test_the_chart_has_a_dot_for_each_slide_and_a_line_through_the_means() -> None:
    chart = ElementTree.fromstring(
        score_chart([RoundScore(1, scores(0.4, 0.6)), RoundScore(2, scores(0.7, 0.9), kept=False)])
    )
    circles = chart.findall(f".//{SVG}circle")
    dots = [each for each in circles if each.find(f"{SVG}title") is not None]
    first, second = (each for each in circles if each not in dots)
    assert len(dots) == 4
    heights = [float(dot.attrib["cy"]) for dot in dots]
    assert heights == sorted(heights, reverse=True)  # higher scores lie higher
    assert float(first.attrib["cy"]) == pytest.approx((heights[0] + heights[1]) / 2, abs=0.1)
    assert second.attrib["fill"] == "white" != first.attrib["fill"]
    (line,) = chart.findall(f".//{SVG}polyline")
    assert line.attrib["points"].split()[0] == f"{first.attrib['cx']},{first.attrib['cy']}"


def test_a_curve_lies_within_its_chart_whatever_its_values() -> None:
    for values in ([0.5], [3.0, 2.0, 1000.0], [-2.0, -1.0], [0.5, 0.5]):
        points = tuple(enumerate(values, 1))
        chart = ElementTree.fromstring(curve_chart([Curve("loss", "training", points)]))
        (line,) = chart.findall(f".//{SVG}polyline")
        drawn = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
        assert len(drawn) == len(values)
        assert all(0 <= x <= 680 and 0 <= y <= 220 for x, y in drawn)


def test_a_comparison_shows_what_was_removed_and_what_was_added() -> None:
    png = comparison_picture(
        OVERVIEW,
        FULL,
        {"Tumor": shapely.box(500, 500, 2500, 2500)},
        {"Tumor": shapely.box(1500, 500, 4500, 2500)},
    )
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    left, kept, right = (pixels[80:200, x : x + 60].mean(axis=(0, 1)) for x in (70, 160, 310))
    assert left[0] - left[2] > 20  # orange
    assert right[2] - right[0] > 20  # blue
    assert np.ptp(kept) < 5


def test_a_comparison_of_a_busy_slide_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
    png = comparison_picture(noise, Size(6000, 6000), {"T": shapely.box(9, 9, 3000, 3000)}, {})
    assert len(png) < 120_000


def test_a_picture_is_cut_to_the_tissue_and_all_that_is_outlined() -> None:
    overview = np.full((400, 800, 3), 245, np.uint8)
    overview[100:200, 300:400] = (180, 90, 160)
    overview[390, 790] = 0  # dust
    full = Size(16_000, 8_000)  # 20 times as large
    part = crop_to_tissue(overview, full, [shapely.box(8_000, 2_000, 9_000, 5_000)], longest_px=100)
    assert (part.x, part.y) == pytest.approx((6_000, 2_000), abs=160)
    assert (part.full_size.width, part.full_size.height) == pytest.approx((3_000, 3_000), abs=320)
    assert max(part.overview.shape) == 100
    moved = part.moved(shapely.box(6_000, 2_000, 8_000, 4_000))  # the tissue
    scale = part.overview.shape[1] / part.full_size.width
    left, top, right, bottom = (np.array(moved.bounds) * scale).round().astype(int)
    assert part.overview[top + 1 : bottom - 1, left + 1 : right - 1].max() < 200
    rest = part.overview.min(axis=2).copy()
    rest[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = 255
    assert rest.min() > 200


def test_a_picture_of_nothing_but_glass_is_the_whole_slide() -> None:
    part = crop_to_tissue(OVERVIEW, FULL, [], longest_px=500)
    assert (part.x, part.y, part.full_size) == (0, 0, FULL)
    assert np.array_equal(part.overview, OVERVIEW)
