from __future__ import annotations

import io

import numpy as np
import shapely
from PIL import Image

from qpannot.geometry import Size
from qpannot.pictures import (
    captioned,
    compared,
    contact_sheet,
    file_name,
    outlined,
    small_png,
)
from qpannot.qupath import Annotation, PathClass

WHITE = np.full((50, 100, 3), 255, np.uint8)
RED = PathClass("Tumor", (200, 0, 0))


def where(picture: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The bounding box of a colour: left, top, right, bottom, ends included."""
    rows, columns = np.nonzero((np.asarray(picture) == color).all(axis=-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_outlines_lie_where_the_annotation_is() -> None:
    box = Annotation(shapely.box(200, 100, 800, 400), path_class=RED)
    picture = outlined(WHITE, Size(1000, 500), [box], width_px=1)
    assert where(picture, (200, 0, 0)) == (20, 10, 80, 40)
    assert picture.getpixel((50, 25)) == (255, 255, 255)


def test_holes_lines_and_points_are_drawn_in_their_colours() -> None:
    ring = shapely.box(0, 0, 900, 450).difference(shapely.box(300, 100, 600, 300))
    annotations = [
        Annotation(ring, path_class=RED, color=(0, 0, 250)),
        Annotation(shapely.LineString([(0, 480), (990, 480)]), path_class=RED),
        Annotation(shapely.MultiPoint([(450, 200)])),
    ]
    picture = outlined(WHITE, Size(1000, 500), annotations, width_px=1)
    assert picture.getpixel((30, 20)) == (0, 0, 250)
    assert where(picture, (200, 0, 0))[1] == 48
    left, top, right, bottom = where(picture, (255, 0, 255))
    assert (left + right) / 2 == 45 and (top + bottom) / 2 == 20


def test_a_long_caption_widens_the_picture() -> None:
    picture = captioned(Image.fromarray(WHITE), "a name that is far longer than the slide is wide")
    assert picture.width > 300 and picture.height > 50


def test_a_sheet_holds_every_picture() -> None:
    colors = [(10 * i, 0, 0) for i in range(1, 8)]
    pictures = [(Image.new("RGB", (300, 200), color), f"{color}" * 20) for color in colors]
    sheet = np.asarray(contact_sheet(pictures, columns=3))
    assert all((sheet == color).all(axis=-1).sum() == 300 * 200 for color in colors)


def test_file_names_suit_every_file_system() -> None:
    assert file_name("7", "a/b: ä.svs") == "7-a_b_a.png"
    assert file_name("8", "標本.svs") == "8-_.png"


def pixels(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(picture.convert("RGB"), np.int64)


def test_another_class_is_seen_as_removed_and_added() -> None:
    area = shapely.box(100, 100, 900, 400)
    picture = pixels(compared(WHITE, Size(1000, 500), {"Tumor": area}, {"Stroma": area}))
    assert (picture[25, 20:80] < 250).any(axis=-1).all()
    unchanged = pixels(compared(WHITE, Size(1000, 500), {"Tumor": area}, {"Tumor": area}))
    assert (unchanged[22:28, 30:70] == 255).all()


def test_islands_in_holes_and_crossed_outlines_are_compared() -> None:
    ring = shapely.box(0, 0, 1000, 500).difference(shapely.box(200, 100, 800, 400))
    island = shapely.box(400, 200, 600, 300)
    bow_tie = shapely.Polygon([(0, 0), (1000, 500), (1000, 0), (0, 500)])
    added = pixels(compared(WHITE, Size(1000, 500), {}, {"Tumor": ring.union(island)}))
    assert added[25, 50, 0] < 200  # the island
    assert (added[13:15, 30:70] == 255).all()  # the hole around it
    assert pixels(compared(WHITE, Size(1000, 500), {"Tumor": bow_tie}, {})).shape == (50, 100, 3)


def test_a_small_png_gives_up_colours_not_detail() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    large, small = (small_png(Image.fromarray(noise), limit) for limit in (10**6, 15_000))
    assert len(small) < len(large)
    assert Image.open(io.BytesIO(small)).size == (200, 200)
