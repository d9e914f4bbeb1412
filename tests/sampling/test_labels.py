from __future__ import annotations

import numpy as np
import pytest

from qpannot.recipe.settings import LabelSettings
from qpannot.sampling.labels import LeftOut, class_names, label_patches

PAPER = LabelSettings()
TWO = LabelSettings(classes=("Tumor", "Stroma"))


def label(
    tissue: float, *classes: float, ignored: float = 0.0, settings: LabelSettings = PAPER
) -> int:
    labels = label_patches(np.array([tissue]), np.array([classes]), np.array([ignored]), settings)
    return int(labels[0])


def test_the_rest_is_the_first_class() -> None:
    assert class_names(PAPER) == ("Non-tumor", "Tumor")


@pytest.mark.parametrize(
    ("tissue", "tumour", "expected"),
    [
        (0.25, 0.0, LeftOut.GLASS),
        (0.2501, 0.0, 0),
        (1.0, 0.0, 0),
        (1.0, 0.0001, LeftOut.MIXED),
        (1.0, 0.25, LeftOut.MIXED),
        (1.0, 0.2501, 1),
        (0.2501, 0.2501, 1),
    ],
)
def test_the_rules_of_the_paper(tissue: float, tumour: float, expected: int) -> None:
    assert label(tissue, tumour) == expected


def test_of_several_classes_the_largest_names_the_patch() -> None:
    assert label(1.0, 0.3, 0.6, settings=TWO) == 2
    assert label(1.0, 0.6, 0.3, settings=TWO) == 1


def test_a_little_of_any_class_keeps_a_patch_from_the_rest() -> None:
    assert label(1.0, 0.0, 0.01, settings=TWO) == LeftOut.MIXED
    assert label(1.0, 0.2, 0.2, settings=TWO) == LeftOut.MIXED


def test_the_numbers_are_the_recipes() -> None:
    settings = LabelSettings(min_tissue=0.5, min_class=0.01, max_class_in_rest=0.005)
    assert label(0.5, 1.0, settings=settings) == LeftOut.GLASS
    assert label(0.6, 0.02, settings=settings) == 1
    assert label(0.6, 0.005, settings=settings) == 0
    assert label(0.6, 0.008, settings=settings) == LeftOut.MIXED


def test_a_patch_that_touches_what_is_ignored_more_than_a_little_is_left_out() -> None:
    assert label(1.0, 1.0, ignored=0.05) == 1
    assert label(1.0, 1.0, ignored=0.06) == LeftOut.IGNORED
