from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.qupath import Annotation, PathClass, as_stored
from qpannot.qupath.geojson.fitting import fit
from qpannot.qupath.proposals import Origin, is_untouched, make_proposal

BOW_TIE = shapely.Polygon([(100, 100), (200, 200), (200, 100), (100, 200)])
ANGLES = np.linspace(0, 2 * np.pi, 200, endpoint=False)
ROUND = shapely.Polygon(np.column_stack([np.cos(ANGLES), np.sin(ANGLES)]) * 900.123 + 150_000)


def proposed(geometry: BaseGeometry) -> Annotation:
    return make_proposal(geometry, PathClass("Tumor"), Origin(1, "AN1"), locked=False)


@pytest.mark.parametrize(("geometry", "pieces"), [(BOW_TIE, 1), (ROUND, 3)])
def test_an_untouched_proposal_stays_so_repaired_or_split(
    geometry: BaseGeometry, pieces: int
) -> None:
    fitted = fit([proposed(geometry)], max_vertices=100)
    assert len(fitted.repairs) + len(fitted.splits) == 1 and len(fitted.objects) >= pieces
    for each in fitted.objects:
        assert isinstance(each, Annotation) and is_untouched(as_stored(each))
    assert fit(fitted.objects, max_vertices=100).objects == fitted.objects


def test_a_correction_and_a_persons_drawing_are_no_proposals_for_being_repaired() -> None:
    corrected = proposed(shapely.box(1, 1, 9, 9)).with_changes(geometry=BOW_TIE)
    fitted = fit([corrected, Annotation(BOW_TIE)])
    assert len(fitted.repairs) == 2
    assert [each.metadata for each in fitted.objects] == [corrected.metadata, {}]


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (shapely.Polygon(shapely.box(1, 1, 9, 9).exterior, [shapely.box(0, 0, 99, 99).exterior]),
         "has holes that leave nothing of it"),
        (shapely.Polygon([(0, 0), (9, 0), (4, 0)]), "has no extent"),
        (shapely.Polygon(), "has no geometry"),
    ],
)  # fmt: skip
def test_it_is_said_why_nothing_is_left_of_an_object(geometry: BaseGeometry, reason: str) -> None:
    (left_out,) = fit([Annotation(geometry, name="mine")]).left_out
    assert left_out.text == f"mine {reason}"
