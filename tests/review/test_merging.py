from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from qpannot.geometry import Region, Size
from qpannot.qupath import Annotation, PathClass, Plane, RoiType, as_stored
from qpannot.qupath.proposals import Origin, is_untouched, make_proposal
from qpannot.review import merging
from qpannot.review.canvas import Canvas, Labels, draw
from qpannot.review.erasing import wholly_erased
from qpannot.review.merging import Edits, merged
from qpannot.review.painted import Painted, painted_again
from qpannot.review.windows import WINDOW_PX

TUMOR = PathClass("Tumor", (200, 0, 0))
STROMA = PathClass("Stroma", (150, 200, 150))
IGNORE = PathClass("Ignore*", (180, 180, 180))
CLASSES = (TUMOR, STROMA, IGNORE)

CANVAS = Canvas.of(Region(100, 50, 600, 500), longest_px=60)
PX = CANVAS.downsample


def annotation(area: BaseGeometry, path_class: PathClass = TUMOR) -> Annotation:
    return as_stored(Annotation(area, path_class=path_class))


def square(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """Return a rectangle given in pixels of the canvas."""
    corner = np.array([CANVAS.region.x, CANVAS.region.y])
    return shapely.box(
        *(corner + PX * np.array([left, top])), *(corner + PX * np.array([right, bottom]))
    )


def paint(
    annotations: Sequence[Annotation], *strokes: tuple[slice, slice, int]
) -> tuple[Edits, tuple[Annotation, ...]]:
    """Paint rectangles (rows, columns, value); return the edits and what comes of them."""
    before = draw(annotations, CLASSES, CANVAS)
    after = before.copy()
    for rows, columns, value in strokes:
        after[rows, columns] = value
    edits = merged(annotations, before, after, CANVAS, CLASSES)
    return edits, edits.applied_to(annotations)


def holes(annotation: Annotation) -> int:
    parts = shapely.get_parts(annotation.geometry)
    return int(shapely.get_num_interior_rings(parts).sum())


def painted(annotations: Sequence[Annotation]) -> Labels:
    return draw(annotations, CLASSES, CANVAS)


def test_nothing_painted_is_nothing_changed() -> None:
    labels = painted([annotation(square(5, 5, 20, 20))])
    assert not merged([annotation(square(5, 5, 20, 20))], labels, labels.copy(), CANVAS, CLASSES)


def test_a_stroke_far_from_a_proposal_leaves_it_untouched() -> None:
    origin = Origin(round=1, method="AN1")
    near, far = (
        make_proposal(square(*box), TUMOR, origin, locked=False)
        for box in ((5, 5, 20, 20), (40, 30, 50, 45))
    )
    edits, after = paint([near, far], (slice(5, 15), slice(18, 25), 1))
    assert after[1] is far and is_untouched(far)
    ((old, new),) = edits.replace
    assert old is near and not is_untouched(new)
    assert (new.id, new.metadata) == (near.id, near.metadata) and not edits.add


def test_a_stroke_beside_an_annotation_becomes_part_of_it() -> None:
    (old,) = before = [annotation(square(5, 5, 20, 20))]
    edits, (new,) = paint(before, (slice(10, 15), slice(20, 30), 1))
    assert new.id == old.id and new.geometry.geom_type == "Polygon" and not edits.add
    wanted = shapely.union(old.geometry, square(19, 10, 30, 15))
    assert shapely.symmetric_difference(new.geometry, wanted).area < 3 * PX**2
    assert holes(new) == 0


def test_a_stroke_that_touches_nothing_is_a_new_annotation() -> None:
    (old,) = before = [annotation(square(5, 5, 20, 20))]
    edits, after = paint(before, (slice(30, 35), slice(30, 40), 1), (slice(40, 45), slice(5, 9), 2))
    assert after[0] is old
    assert [(each.class_name, each.geometry.is_valid) for each in edits.add] == [
        ("Tumor", True),
        ("Stroma", True),
    ]
    assert edits.add[0].geometry.area == pytest.approx(50 * PX**2, rel=0.1)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(30, 31), slice(30, 31)), (slice(30, 31), slice(10, 50)), (slice(20, 22), slice(9, 11))],
)
def test_the_finest_strokes_are_kept(rows: slice, columns: slice) -> None:
    edits, after = paint([], (rows, columns, 1))
    wanted = np.zeros(CANVAS.shape, np.uint8)
    wanted[rows, columns] = 1
    assert len(edits.add) == 1
    assert edits.add[0].geometry.area == pytest.approx(wanted.sum() * PX**2, rel=0.35)
    assert (painted(after) != wanted).sum() <= 2


def test_the_outline_of_a_round_brush_is_round() -> None:
    rows, columns = np.mgrid[: CANVAS.shape[0], : CANVAS.shape[1]]
    brush = (np.hypot(rows - 25, columns - 30) <= 12).astype(np.uint8)
    edits = merged([], np.zeros_like(brush), brush, CANVAS, CLASSES)
    (area,) = (each.geometry for each in edits.add)
    steps = shapely.length(square(18, 13, 43, 38))  # along the edges of pixels
    assert 4 * np.pi * area.area / area.length**2 > 0.97
    assert area.length < 0.82 * steps


def test_annotations_of_a_class_are_not_joined_by_a_stroke_between_them() -> None:
    before = [annotation(square(5, 5, 20, 30)), annotation(square(26, 15, 40, 30))]
    edits, after = paint(before, (slice(10, 20), slice(20, 26), 1))
    assert [each.id for each in after] == [each.id for each in before] and not edits.add
    first, second = (each.geometry for each in after)
    assert first.area == pytest.approx(before[0].geometry.area + 60 * PX**2, rel=0.03)
    assert shapely.intersection(first, second).area < PX**2
    assert (painted(after)[10:20, 20:26] == 1).all()


def test_overlapping_annotations_of_a_class_keep_what_is_theirs() -> None:
    before = [annotation(square(5, 5, 30, 30)), annotation(square(20, 20, 45, 40))]
    _, after = paint(before, (slice(22, 26), slice(22, 26), 0))
    hole = square(22, 22, 26, 26)
    for old, new in zip(before, after, strict=True):
        left = shapely.difference(old.geometry, hole)
        assert shapely.symmetric_difference(new.geometry, left).area < 3 * PX**2
        assert holes(new) == 1


def test_what_is_erased_in_two_stays_one_annotation() -> None:
    (old,) = before = [annotation(square(5, 10, 50, 20))]
    edits, (new,) = paint(before, (slice(0, 50), slice(25, 28), 0))
    assert new.id == old.id and new.geometry.geom_type == "MultiPolygon" and not edits.add
    assert len(shapely.get_parts(new.geometry)) == 2 and new.roi is RoiType.GEOMETRY


def test_what_is_erased_as_a_whole_is_removed() -> None:
    area = shapely.Point(300, 300).buffer(73.3)
    old = annotation(area)
    labels = painted([old])
    edits = merged([old], labels, np.zeros_like(labels), CANVAS, CLASSES)
    assert edits.remove == (old,) and not edits.add and not edits.replace


def test_another_class_takes_the_place_of_what_it_is_painted_over() -> None:
    tumor, stroma = before = [
        annotation(square(5, 5, 20, 20)),
        annotation(square(20, 5, 40, 20), STROMA),
    ]
    edits, after = paint(before, (slice(8, 14), slice(16, 26), 2))
    assert [each.id for each in after] == [tumor.id, stroma.id] and len(edits.replace) == 2
    first, second = (each.geometry for each in after)
    assert shapely.intersection(first, second).area < 0.05 * PX**2
    gap = shapely.difference(square(6, 6, 39, 19), shapely.union(first, second))
    assert gap.area < 0.3 * PX**2


def test_a_hole_is_painted_and_filled_again() -> None:
    (old,) = before = [annotation(square(5, 5, 40, 40))]
    _, with_hole = paint(before, (slice(15, 25), slice(15, 25), 0))
    assert holes(with_hole[0]) == 1
    _, (whole,) = paint(with_hole, (slice(15, 25), slice(15, 25), 1))
    assert holes(whole) == 0
    assert shapely.symmetric_difference(whole.geometry, old.geometry).area < 0.1 * PX**2


def test_what_is_not_editable_is_left_alone() -> None:
    area = square(5, 5, 40, 40)
    before = [
        annotation(area).with_changes(locked=True),
        annotation(area, PathClass("Region*")),
        annotation(area, PathClass("Unknown")),
        as_stored(Annotation(area)),
        as_stored(Annotation(area, path_class=TUMOR, plane=Plane(z=1))),
        as_stored(Annotation(shapely.LineString([(200, 200), (300, 300)]), path_class=TUMOR)),
        as_stored(Annotation(shapely.Point(210, 210), path_class=TUMOR)),
    ]
    assert not painted(before).any()
    edits, _ = paint(before, (slice(10, 20), slice(10, 20), 1))
    assert len(edits.add) == 1 and not edits.replace and not edits.remove


def test_an_annotation_too_small_for_the_canvas_is_not_lost() -> None:
    speck = annotation(square(10.1, 10.1, 10.3, 10.3))
    assert not painted([speck]).any()
    edits, after = paint([speck], (slice(8, 13), slice(11, 13), 2), (slice(9, 12), slice(9, 11), 1))
    assert after[0] is speck and len(edits.add) == 2


def test_what_reaches_out_of_the_canvas_stays_there_as_it_was() -> None:
    old = annotation(shapely.Point(120, 300).buffer(200, quad_segs=64))
    labels = painted([old])
    assert labels[:, 0].any()
    edits = merged([old], labels, np.zeros_like(labels), CANVAS, CLASSES)
    ((_, new),) = edits.replace
    region = CANVAS.region
    inside = shapely.box(region.x, region.y, region.right, region.bottom)
    left = shapely.difference(old.geometry, inside)
    assert shapely.symmetric_difference(new.geometry, left).area < PX**2


def test_an_invalid_outline_is_painted_on_as_it_is_filled() -> None:
    corner = np.array([CANVAS.region.x, CANVAS.region.y])
    bow_tie = shapely.Polygon(corner + PX * np.array([(5, 5), (35, 35), (35, 5), (5, 35)]))
    old = annotation(bow_tie)
    assert not old.geometry.is_valid
    _, (new,) = paint([old], (slice(5, 15), slice(7, 9), 0))
    assert new.geometry.is_valid
    assert painted([new])[20, 10] == painted([old])[20, 10] == 1
    assert painted([new])[7, 20] == painted([old])[7, 20] == 0


def test_smaller_annotations_are_drawn_upon_larger_ones_of_whatever_class() -> None:
    large, small = square(5, 5, 50, 45), square(15, 15, 25, 25)
    for classes in ((TUMOR, STROMA), (STROMA, TUMOR)):
        labels = painted([annotation(small, classes[0]), annotation(large, classes[1])])
        assert labels[20, 20] == CLASSES.index(classes[0]) + 1
        assert labels[40, 40] == CLASSES.index(classes[1]) + 1


def test_a_canvas_is_no_finer_than_the_slide_and_covers_it() -> None:
    whole = Canvas.of_slide(Size(100_000, 80_000))
    assert whole.shape == (3277, 4096) and whole.region.bottom >= 80_000
    assert Canvas.of_slide(Size(1000, 700)) == Canvas(Region(0, 0, 1000, 700), 1.0, (700, 1000))


# random drawings and strokes

numbers = st.floats(0, 1, allow_nan=False)


@st.composite
def drawings(draw_: st.DrawFn) -> list[Annotation]:
    """Annotations in and around the canvas that overlap, have holes, and come in parts."""
    made = []
    for _ in range(draw_(st.integers(0, 4))):
        x, y = 50 + 700 * draw_(numbers), 600 * draw_(numbers)
        n = draw_(st.integers(3, 24))
        radii = 30 + 170 * np.array(draw_(st.lists(numbers, min_size=n, max_size=n)))
        angles = 2 * np.pi * np.arange(n) / n
        area: BaseGeometry = shapely.Polygon(
            np.c_[x + radii * np.cos(angles), y + radii * np.sin(angles)]
        )
        if draw_(st.booleans()):
            area = shapely.difference(area, shapely.Point(x, y).buffer(28))
        if draw_(st.booleans()):
            area = shapely.union(area, shapely.Point(x + 150, y + 90).buffer(40))
        made.append(annotation(area, draw_(st.sampled_from(CLASSES))))
    return made


@st.composite
def strokes(draw_: st.DrawFn) -> Labels:
    """What is painted on the canvas, 255 where nothing is."""
    height, width = CANVAS.shape
    rows, columns = np.mgrid[:height, :width]
    values = np.full(CANVAS.shape, 255, np.uint8)
    for _ in range(draw_(st.integers(1, 4))):
        row, column = draw_(st.integers(0, height - 1)), draw_(st.integers(0, width - 1))
        radius = draw_(st.floats(0, 12))
        inside = np.hypot(rows - row, columns - column) <= radius
        values[inside] = draw_(st.integers(0, len(CLASSES)))
    return values


def around(changed: NDArray[np.bool_]) -> BaseGeometry:
    """Return the area in which outlines may be other ones: a pixel more than the window."""
    near = ndimage.binary_dilation(changed, np.ones((3, 3), bool), iterations=WINDOW_PX)
    boxes = [square(column, row, column + 1, row + 1) for row, column in np.argwhere(near)]
    return shapely.buffer(shapely.union_all(boxes), PX)


def vertices_beyond(area: BaseGeometry, window: BaseGeometry) -> NDArray[np.float64]:
    points = shapely.get_coordinates(area)
    return points[~shapely.intersects_xy(window, points)]


@given(drawings(), strokes())
def test_what_is_painted_is_drawn_and_nothing_else_is_changed(
    before: list[Annotation], stroke: Labels
) -> None:
    shown = painted(before)
    wanted = np.where(stroke == 255, shown, stroke)
    changed = wanted != shown
    edits = merged(before, shown, wanted, CANVAS, CLASSES)
    after = edits.applied_to(before)

    is_border = ndimage.maximum_filter(wanted, 3) != ndimage.minimum_filter(wanted, 3)
    wrong = (painted(after) != wanted) & changed
    assert not (wrong & ~is_border).any()

    window = around(changed)
    shapely.prepare(window)
    old, new = {each.id: each for each in before}, {each.id: each for each in after}
    for key in old.keys() - new.keys():
        assert shapely.difference(old[key].geometry, window).area == 0
    for key in new.keys() - old.keys():
        assert shapely.difference(new[key].geometry, window).area == 0
    for key in old.keys() & new.keys():
        if new[key] is old[key]:
            continue
        outside = [shapely.difference(each[key].geometry, window) for each in (old, new)]
        rounding = 0.01 * shapely.length(old[key].geometry)
        assert shapely.symmetric_difference(outside[0], outside[1]).area <= rounding
        points = [vertices_beyond(each[key].geometry, window) for each in (old, new)]
        for these, those in (points, points[::-1]):
            if len(these):
                far = shapely.distance(shapely.points(these), shapely.MultiPoint(those))
                assert far.max() <= 0.011  # QuPath's grid
    for each in (*edits.add, *(changed_one for _, changed_one in edits.replace)):
        assert each.geometry.is_valid and not each.geometry.is_empty
        assert as_stored(each).geometry == each.geometry
    for was, becomes in edits.replace:
        assert becomes.with_changes(geometry=was.geometry, roi=was.roi) == was
    for each in before:
        if not shapely.intersects(each.geometry, window):
            assert new[each.id] is each


def shown_of(edits: Edits) -> tuple[object, ...]:
    """Return all of edits but the IDs of new annotations."""
    new = sorted((each.geometry.wkb, each.class_name) for each in edits.add)
    return new, edits.replace, edits.remove


@given(drawings(), st.integers(0, len(CLASSES)), st.floats(4, 30), st.tuples(numbers, numbers))
def test_what_is_wholly_erased_goes_as_tracing_would_have_it_go(
    before: list[Annotation], value: int, radius: float, middle: tuple[float, float]
) -> None:
    shown = painted(before)
    rows, columns = np.mgrid[: shown.shape[0], : shown.shape[1]]
    away = np.hypot(rows - middle[0] * shown.shape[0], columns - middle[1] * shown.shape[1])
    wanted = np.where(away <= radius, np.uint8(value), shown)
    found = merged(before, shown, wanted, CANVAS, CLASSES)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merging, "wholly_erased", lambda *_: np.zeros(0, np.int64))
        traced = merged(before, shown, wanted, CANVAS, CLASSES)
    assert shown_of(found) == shown_of(traced)


def test_hundreds_are_erased_without_tracing_and_those_that_are_cut_keep_the_rest() -> None:
    canvas = Canvas.of_slide(Size(1000, 1000), longest_px=500)
    middles = [(x, y) for x in range(25, 1000, 50) for y in range(25, 1000, 50)]
    before = [annotation(shapely.Point(middle).buffer(15)) for middle in middles]
    labels = draw(before, CLASSES, canvas)
    erased = labels.copy()
    erased[:250] = 0
    erased[260:264] = 0  # through the next row
    edits = merged(before, labels, erased, canvas, CLASSES)
    upper = {each.id for each, (_, y) in zip(before, middles, strict=True) if y < 500}
    next_row = {each.id for each, (_, y) in zip(before, middles, strict=True) if y == 525}
    assert {each.id for each in edits.remove} == upper
    assert {old.id for old, _ in edits.replace} == next_row
    assert not edits.add
    gone = wholly_erased(
        [each.geometry for each in before], [1] * len(before), labels != erased, erased, canvas
    )
    assert {before[index].id for index in gone} == upper


@given(drawings(), strokes())
def test_painting_the_same_again_changes_next_to_nothing(
    before: list[Annotation], stroke: Labels
) -> None:
    shown = painted(before)
    layer = Painted.between(shown, np.where(stroke == 255, shown, stroke), CANVAS)
    if layer is None:
        return
    once = painted_again(before, [layer], CLASSES)
    twice = painted_again(once, [layer], CLASSES)
    n_border = int((painted(once) != painted(twice)).sum())
    for each in CLASSES:
        areas = [
            shapely.union_all([a.geometry for a in some if a.path_class == each])
            for some in (once, twice)
        ]
        assert shapely.symmetric_difference(areas[0], areas[1]).area <= (2 + 10 * n_border) * PX**2
