from __future__ import annotations

import numpy as np
import shapely

from qpannot.qupath.annotation import Annotation, PathClass
from qpannot.review.outlines import LINE_PX, UNCLASSIFIED, Outlines

SHAPES = [(1024, 2048), (512, 1024), (256, 512)]
BLUE = (0, 0, 180)


def seen(outlines: Outlines, level: int) -> np.ndarray:
    """Where anything is drawn on a level."""
    return np.asarray(outlines.levels[level])[..., 3] > 0


def test_areas_are_outlined_with_their_holes_and_left_clear_inside() -> None:
    hole = shapely.box(300, 300, 500, 500)
    area = shapely.box(100, 100, 900, 900) - hole
    outlines = Outlines([Annotation(area, PathClass("Region*", BLUE))], SHAPES)
    drawn = np.asarray(outlines.levels[0])
    for y, x in ((100, 500), (500, 100), (300, 400), (400, 500)):
        around = drawn[y - LINE_PX : y + LINE_PX, x - LINE_PX : x + LINE_PX].reshape(-1, 4)
        assert (*BLUE, 255) in map(tuple, around)
    for y, x in ((50, 50), (200, 200), (400, 400), (800, 700)):
        assert drawn[y, x, 3] == 0


def test_every_level_has_the_same_outline_and_lines_as_wide() -> None:
    outlines = Outlines([Annotation(shapely.box(200, 200, 1000, 800))], SHAPES)
    for level in range(3):
        rows, columns = np.nonzero(seen(outlines, level))
        step = 1 << level
        assert abs(columns.min() * step - 200) <= LINE_PX * step
        assert abs(rows.max() * step - 800) <= LINE_PX * step
        middle = seen(outlines, level)[500 // step]
        assert middle.sum() == 2 * LINE_PX


def test_a_part_is_what_the_whole_has_there() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1000, (40, 2))
    annotations = [Annotation(shapely.Point(each).buffer(60)) for each in corners]
    outlines = Outlines(annotations, SHAPES)
    whole = np.asarray(outlines.levels[1])
    part = outlines.levels[1][100:300, 50:400]
    differing = (part != whole[100:300, 50:400]).any(axis=2).mean()
    assert differing < 0.01  # lines are rounded to pixels from another corner


def test_lines_points_and_what_is_smaller_than_a_pixel_are_seen() -> None:
    for geometry in (
        shapely.LineString([(100, 100), (400, 300)]),
        shapely.Point(700, 700),
        shapely.MultiPoint([(10, 10), (300, 20)]),
        shapely.box(800, 200, 801, 201),
    ):
        outlines = Outlines([Annotation(geometry)], SHAPES)
        drawn = np.asarray(outlines.levels[2])
        assert (drawn[..., 3] > 0).any(), geometry
        assert (*UNCLASSIFIED, 255) in map(tuple, drawn.reshape(-1, 4))


def test_an_annotations_own_colour_goes_before_that_of_its_class() -> None:
    own = Annotation(shapely.box(10, 10, 90, 90), PathClass("Tumor", BLUE), color=(1, 2, 3))
    drawn = np.asarray(Outlines([own], SHAPES).levels[0])
    assert (1, 2, 3, 255) in map(tuple, drawn.reshape(-1, 4))
