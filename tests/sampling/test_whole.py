from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.affine import Affine
from qpannot.errors import QpannotError, UsageError
from qpannot.heatmap import Heatmap
from qpannot.qupath import Annotation, PathClass
from qpannot.qupath.proposals import Origin, make_proposal
from qpannot.recipe import Recipe
from qpannot.sampling.areas import resolve_areas
from qpannot.sampling.frame import Frame
from qpannot.sampling.whole import (
    UNKNOWN,
    Labels,
    StoredSlide,
    image_of,
    labels_of,
    load_whole,
    stored_whole,
)
from qpannot.slide import Slide, open_slide

MakeSlide = Callable[..., Path]

SIDE = 64


def recipe_of(coverage: str = "exhaustive", **refinement: object) -> Recipe:
    return Recipe.model_validate(
        {
            "labels": {"classes": ["Tumor", "Stroma"], "coverage": coverage},
            "refinement": {"size_px": SIDE, **refinement},
        }
    )


def drawn(geometry: BaseGeometry, name: str) -> Annotation:
    return Annotation(geometry, path_class=PathClass(name))


def labels(frame: Frame, *annotations: Annotation, coverage: str = "exhaustive") -> Labels:
    settings = recipe_of(coverage).labels
    return labels_of(resolve_areas(annotations, settings), settings, frame)


@pytest.fixture
def slide(tmp_path: Path, make_slide: MakeSlide) -> Slide:
    """2048 x 1024 px at 0.5 mpp: in the frame a pixel is 32 px, with 16 rows above and below."""
    return open_slide(make_slide(tmp_path / "wide.svs", size=(2048, 1024)))


@pytest.fixture
def frame(slide: Slide) -> Frame:
    return Frame.of(slide.size, slide.mpp, SIDE, "pad")


def heatmap_of(slide: Slide, model: str = "m") -> Heatmap:
    """Cells of 256 px; the left ones tumour for sure, the right column not predicted."""
    probabilities = np.zeros((4, 8, 3), np.float32)
    probabilities[:, :4, 1] = 1
    probabilities[:, 4:, 0] = 1
    probabilities[:, 7] = np.nan
    return Heatmap(
        probabilities, ("Rest", "Tumor", "Stroma"), Affine(256, 256), slide.mpp, model=model
    )


def test_slide_and_heatmap_lie_pixel_on_pixel_between_white_bands(
    slide: Slide, frame: Frame
) -> None:
    image = image_of(slide, frame, heatmap_of(slide), ("Tumor", "Stroma"))
    assert image.shape == (SIDE, SIDE, 5)
    assert image.dtype == np.uint8
    band = np.ones(SIDE, bool)
    band[16:48] = False
    assert (image[band, :, :3] == 255).all()
    assert (image[band, :, 3:] == 0).all()
    # The tissue of `write_slide` is an ellipse half as wide and high as the slide.
    tissue = image[..., 1] < 150
    rows, columns = np.nonzero(tissue)
    assert (columns.min(), columns.max()) == (16, 47)
    assert (rows.min(), rows.max()) == (24, 39)
    tumour = image[16:48, :, 3]
    assert (tumour[:, :28] == 255).all()
    assert (tumour[:, 36:] == 0).all()
    assert (np.diff(tumour[:, 28:36].astype(int), axis=1) <= 0).all()
    assert not image[..., 4].any()


def test_without_a_heatmap_it_is_the_slide_alone(slide: Slide, frame: Frame) -> None:
    assert image_of(slide, frame, None, ("Tumor",)).shape == (SIDE, SIDE, 3)


def test_stretched_the_slide_fills_the_square(slide: Slide) -> None:
    image = image_of(slide, Frame.of(slide.size, slide.mpp, SIDE, "stretch"), None, ())
    rows, columns = np.nonzero(image[..., 1] < 150)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (16, 47)


def test_a_heatmap_without_a_class_says_which(slide: Slide, frame: Frame) -> None:
    with pytest.raises(UsageError, match=r"has no Fat; it has Rest, Tumor, Stroma"):
        image_of(slide, frame, heatmap_of(slide), ("Tumor", "Fat"))


def test_a_pixel_is_of_the_class_that_covers_most_of_it(frame: Frame) -> None:
    # In pixels of the frame: tumour up to 10.6, stroma from there to 20.4.
    tumour = shapely.box(0, 0, 10.6 * 32, 1024)
    stroma = shapely.box(10.6 * 32, 0, 20.4 * 32, 1024)
    found = labels(frame, drawn(tumour, "Tumor"), drawn(stroma, "Stroma"))
    assert found.dtype == np.int8
    row = [1] * 11 + [2] * 9 + [0] * 44
    assert np.array_equal(found[16:48], np.tile(row, (32, 1)))


def test_beside_the_slide_nothing_is_known(frame: Frame) -> None:
    found = labels(frame, drawn(shapely.box(-500, -500, 3000, 3000), "Tumor"))
    assert (found[:16] == UNKNOWN).all()
    assert (found[48:] == UNKNOWN).all()
    assert (found[16:48] == 1).all()


def test_what_is_ignored_is_unknown_and_so_is_a_proposal_that_nobody_reviewed(
    frame: Frame,
) -> None:
    proposal = make_proposal(
        shapely.box(0, 0, 320, 1024), PathClass("Tumor"), Origin(1, "AN1"), locked=False
    )
    ignored = drawn(shapely.box(1600, 0, 2048, 1024), "Ignore*")
    tumour = drawn(shapely.box(1280, 0, 1920, 1024), "Tumor")
    inner = labels(frame, proposal, tumour, ignored)[16:48]
    assert (inner[:, :10] == UNKNOWN).all()
    assert (inner[:, 10:40] == 0).all()
    assert (inner[:, 40:50] == 1).all()
    assert (inner[:, 50:] == UNKNOWN).all()


def test_with_partial_coverage_only_what_was_looked_through_is_known(frame: Frame) -> None:
    tumour = drawn(shapely.box(0, 0, 320, 1024), "Tumor")
    region = drawn(shapely.box(640, 0, 1280, 1024), "Region*")
    fat = drawn(shapely.box(960, 0, 1120, 1024), "Fat")  # no class of the recipe
    found = labels(frame, tumour, region, fat, coverage="partial")[16:48]
    row = [1] * 10 + [UNKNOWN] * 10 + [0] * 10 + [UNKNOWN] * 5 + [0] * 5 + [UNKNOWN] * 24
    assert np.array_equal(found, np.tile(row, (32, 1)))
    assert (labels(frame, coverage="partial") == UNKNOWN).all()


def store(
    folder: Path, slide: Slide, *, recipe: Recipe | None = None, model: str = "m", width: int = 320
) -> StoredSlide:
    return stored_whole(
        folder,
        "a/1",
        slide,
        heatmap_of(slide, model),
        [drawn(shapely.box(0, 0, width, 1024), "Tumor")],
        recipe or recipe_of(),
    )


def test_a_stored_slide_is_what_was_made_and_is_not_made_again(
    tmp_path: Path, slide: Slide, frame: Frame
) -> None:
    stored = store(tmp_path / "slides", slide)
    whole = load_whole(stored)
    expected = image_of(slide, frame, heatmap_of(slide), ("Tumor", "Stroma"))
    assert np.array_equal(whole.image, expected)
    assert np.array_equal(whole.labels, labels(frame, drawn(shapely.box(0, 0, 320, 1024), "Tumor")))
    written = stored.path.stat().st_mtime_ns
    assert store(tmp_path / "slides", slide) == stored
    assert stored.path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "change",
    [
        {"model": "another"},
        {"width": 640},
        {"recipe": recipe_of(fit="stretch")},
        {"recipe": recipe_of(coverage="partial")},
        {"recipe": recipe_of(use_heatmap=False)},
    ],
    ids=["heatmap", "annotations", "fit", "labels", "no heatmap"],
)
def test_a_stored_slide_is_made_anew_when_what_it_is_made_from_changed(
    tmp_path: Path, slide: Slide, change: dict[str, object]
) -> None:
    before = store(tmp_path, slide)
    after = store(tmp_path, slide, **change)  # type: ignore[arg-type]
    assert after.key != before.key
    with pytest.raises(QpannotError, match="removed or changed"):
        load_whole(before)
    channels = 3 if change.get("recipe") == recipe_of(use_heatmap=False) else 5
    assert load_whole(after).image.shape == (SIDE, SIDE, channels)


def test_a_damaged_file_is_made_anew(tmp_path: Path, slide: Slide) -> None:
    stored = store(tmp_path, slide)
    whole = load_whole(stored)
    data = stored.path.read_bytes()
    stored.path.write_bytes(data[:300])
    with pytest.raises(QpannotError, match="removed or changed") as caught:
        load_whole(stored)
    assert "Run the command again" in str(caught.value.hint)
    for place in range(0, len(data), 3):  # most of it a checksum tells, some the decompressor
        stored.path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            assert np.array_equal(load_whole(stored).image, whole.image)  # a date was changed
        except QpannotError as error:
            assert "removed or changed" in str(error)
    assert np.array_equal(load_whole(store(tmp_path, slide)).image, whole.image)


def test_a_slide_without_the_heatmap_it_needs_is_named(tmp_path: Path, slide: Slide) -> None:
    with pytest.raises(UsageError, match=r"wide\.svs has no heatmap"):
        stored_whole(tmp_path, "1", slide, None, [], recipe_of())
