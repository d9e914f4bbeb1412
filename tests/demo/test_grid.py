"""From the planning grid to full resolution."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from qpannot.demo.grid import enlarge

FIELD = np.random.default_rng(3).standard_normal((40, 48)).astype(np.float32)


@pytest.mark.parametrize("smooth", [False, True])
def test_windows_side_by_side_meet_without_a_seam(smooth: bool) -> None:
    whole = enlarge(FIELD, 0, 0, 384, 320, 8, smooth=smooth)
    for x, y in ((0, 0), (128, 64), (256, 192)):
        part = enlarge(FIELD, x, y, 128, 128, 8, smooth=smooth)
        np.testing.assert_allclose(part, whole[y : y + 128, x : x + 128], atol=1e-6)


@pytest.mark.parametrize("smooth", [False, True])
def test_enlarging_is_the_usual_interpolation(smooth: bool) -> None:
    kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    expected = np.asarray(Image.fromarray(FIELD).resize((384, 320), kind))
    found = enlarge(FIELD, 0, 0, 384, 320, 8, smooth=smooth)
    inner = (slice(16, -16), slice(16, -16))  # at the border Pillow leaves samples out
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-5)
