from __future__ import annotations

import io
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from qpannot.geometry import Size
from qpannot.linking.recognising import Evidence, are_alike, recognise
from qpannot.qupath import open_project
from qpannot.slide import open_slide

Picture = NDArray[np.uint8]


def as_jpeg(picture: Picture, quality: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.fixture(scope="module")
def pictures(shared_data: Path) -> list[tuple[Picture, Picture]]:
    """Of six slides of one size, a thumbnail as projects have it and a smaller picture."""
    made = []
    for path in sorted((shared_data / "labelled" / "composite").glob("*.svs")):
        with open_slide(path) as slide:
            made.append((slide.thumbnail(Size(1000, 600)), slide.thumbnail(Size(256, 256))))
    assert len(made) == 6
    return made


def test_real_slides_of_one_size_are_told_apart(pictures: list[tuple[Picture, Picture]]) -> None:
    assert all(are_alike(as_jpeg(thumbnail, 15), picture) for thumbnail, picture in pictures)
    pairs = permutations(range(len(pictures)), 2)
    assert not any(are_alike(pictures[one][0], pictures[other][1]) for one, other in pairs)


def test_a_real_slide_scanned_again_or_turned_is_another(
    pictures: list[tuple[Picture, Picture]],
) -> None:
    for thumbnail, picture in pictures:
        shift = round(picture.shape[1] * 0.01)
        assert not are_alike(thumbnail, np.roll(picture, shift, axis=1))
        assert not are_alike(thumbnail, np.rot90(picture, 2))
        assert not are_alike(thumbnail, picture[:, ::-1])


def test_qupaths_own_thumbnail_shows_the_slide(shared_data: Path) -> None:
    with open_project(shared_data / "qupath/written-by-qupath/0.6.0/project") as project:
        image = next(image for image in project.images if not image.server.transforms)
        slide = shared_data / "slides/CMU-1-Small-Region.svs"
        assert recognise(slide, image, None).evidence is Evidence.ALIKE


def test_glass_looks_like_any_glass_and_tells_nothing() -> None:
    random = np.random.default_rng(0)
    one, other = (random.normal(240, 2, (60, 100, 3)).astype(np.uint8) for _ in range(2))
    assert are_alike(one, other) is None
    tissue = one.copy()
    tissue[20:40, 20:60] = 120
    assert are_alike(one, tissue) is False
    assert are_alike(tissue, tissue) is True


def pale_tissue(*blobs: tuple[int, int, int], black: int = 0, padding: int = 0) -> Picture:
    """A picture of glass with pale round pieces, its left part not scanned."""
    y, x = np.mgrid[:200, :300]
    picture = np.full((200, 300, 3), (245, 243, 246), np.uint8)
    for middle_x, middle_y, radius in blobs:
        picture[(x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2] = (215, 170, 205)
    picture[:, :black] = padding
    return picture


ONE = ((190, 50, 30), (250, 150, 20))
OTHER = ((250, 60, 28), (190, 150, 25))


@pytest.mark.parametrize("black", [0, 150, 163])
def test_what_was_not_scanned_does_not_make_slides_alike(black: int) -> None:
    one, other = pale_tissue(*ONE, black=black), pale_tissue(*OTHER, black=black)
    assert are_alike(one, other) is False
    assert are_alike(as_jpeg(one, 75), one[::2, ::2]) is True
    assert are_alike(one, pale_tissue(*ONE[:1], black=black)) is False


@pytest.mark.parametrize("padding", [255, 245])
def test_what_was_not_scanned_may_be_white_in_the_other_picture(padding: int) -> None:
    black = pale_tissue(*ONE, black=150)
    assert are_alike(black, pale_tissue(*ONE, black=150, padding=padding)) is True
    assert are_alike(black, pale_tissue(*OTHER, black=150, padding=padding)) is False


def test_tissue_where_the_other_was_not_scanned_is_a_difference() -> None:
    assert (
        are_alike(pale_tissue(*ONE, (70, 100, 60), black=5), pale_tissue(*ONE, black=150)) is False
    )


def test_slides_that_show_next_to_nothing_beside_the_black_cannot_be_told_apart() -> None:
    assert are_alike(pale_tissue(black=150), pale_tissue(black=150)) is None
    speck = pale_tissue((200, 50, 4), black=150)
    assert are_alike(speck, speck) is None
    black = np.zeros((20, 30, 3), np.uint8)
    assert are_alike(black, black) is None
