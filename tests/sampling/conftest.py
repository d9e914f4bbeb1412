"""Slides and patch tables that the tests of this room draw on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from qpannot.sampling import LeftOut, PatchTable

MakeTable = Callable[..., PatchTable]


@pytest.fixture
def make_table() -> MakeTable:
    """Make the table of a slide of 1 mpp from the numbers of patches of each class."""

    def make(*counts: int, classes: Sequence[str] = ("Non-tumor", "Tumor")) -> PatchTable:
        label = np.repeat(np.arange(len(counts)), counts).astype(np.int16)
        fractions = np.zeros((len(label), len(classes) - 1), np.float32)
        fractions[label > 0, label[label > 0] - 1] = 1
        return PatchTable(
            x=64 * np.arange(len(label), dtype=np.float64),
            y=np.zeros(len(label)),
            label=label,
            tissue=np.ones(len(label), np.float32),
            fractions=fractions,
            classes=tuple(classes),
            size_px=32,
            mpp=2.0,
            width=64.0,
            height=64.0,
            left_out=dict.fromkeys(LeftOut, 0),
        )

    return make
