from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qpannot.evaluation.drawing import Dot, Figure, Line, Text, to_png, to_svg

SVG = "{http://www.w3.org/2000/svg}"


def pixels(figure: Figure, scale: int = 1) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(to_png(figure, scale))).convert("RGB"))


def test_svg_stands_by_itself_and_takes_any_words() -> None:
    parts: list[Line | Dot | Text] = [
        Text(5, 10, "<Tumor> & 日本", "end"),
        Dot(3, 4, 2, "#ff0000", 0.5, 'a "slide"'),
        Line(((0, 0), (10, 5)), "#00ff00", 1, 4),
    ]
    root = ElementTree.fromstring(to_svg(Figure(100, 50, "a & b", parts)))
    assert root.get("viewBox") == "0 0 100 50" and root.get("aria-label") == "a & b"
    text, dot, line = root
    assert text.text == "<Tumor> & 日本" and text.get("text-anchor") == "end"
    assert (dot.get("cx"), dot.get("cy"), dot.findtext(f"{SVG}title")) == (
        "3.0",
        "4.0",
        'a "slide"',
    )
    assert line.get("points") == "0.0,0.0 10.0,5.0" and line.get("stroke-dasharray") == "4 4"


def test_png_has_everything_where_svg_has_it() -> None:
    parts: list[Line | Dot | Text] = [
        Line(((10, 20), (90, 20)), "#0000ff", 4),
        Dot(50, 40, 6, "#ff0000"),
        Dot(80, 40, 6, "#000000", 0.5),
    ]
    found = pixels(Figure(100, 60, "", parts), scale=2)
    assert found.shape == (120, 200, 3)
    assert found[40, 100].tolist() == [0, 0, 255] and found[40, 190].tolist() == [255] * 3
    assert found[80, 100].tolist() == [255, 0, 0] and found[60, 100].tolist() == [255] * 3
    assert abs(int(found[80, 160, 0]) - 127) <= 2


def test_a_dashed_line_has_gaps_of_the_length_of_its_dashes() -> None:
    row = pixels(Figure(120, 20, "", [Line(((0, 10), (120, 10)), "#000000", 4, 10)]))[10, :, 0]
    assert (row[[4, 24, 44]] < 50).all() and (row[[14, 34, 54]] > 200).all()


def test_words_end_begin_or_are_centred_where_they_are_put() -> None:
    columns = {}
    for anchor in ("start", "middle", "end"):
        found = pixels(Figure(200, 30, "", [Text(100, 20, "Dice", anchor)]))
        columns[anchor] = np.flatnonzero((found < 200).any(axis=(0, 2)))
    assert columns["start"].min() >= 99 and columns["end"].max() <= 101
    assert columns["middle"].min() < 95 and columns["middle"].max() > 105


def test_letters_that_the_font_of_pictures_lacks_lose_their_accents() -> None:
    def shown(text: str) -> bytes:
        return pixels(Figure(60, 30, "", [Text(5, 20, text)])).tobytes()

    assert shown("Tumör") == shown("Tumor") != shown("Tumr")
