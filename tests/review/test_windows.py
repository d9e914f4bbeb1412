from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage

from qpannot.review import windows
from qpannot.review.windows import WINDOW_PX, grown, place_around, windows_of

masks = arrays.arrays(bool, (30, 40), elements=st.sampled_from([False] * 9 + [True]))


@given(masks, st.integers(0, 3))
def test_a_mask_grows_in_all_directions(mask: NDArray[np.bool_], by: int) -> None:
    wanted = ndimage.maximum_filter(mask, 2 * by + 1)
    assert np.array_equal(grown(mask, by), wanted)


@pytest.mark.parametrize("many", [1, 1000])
@given(masks, masks)
def test_windows_are_the_connected_parts_that_are_to_be_traced(
    many: int, changed: NDArray[np.bool_], traced: NDArray[np.bool_]
) -> None:
    traced &= changed
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(windows, "MANY_WINDOWS", many)
        patched.setattr(windows, "NEIGHBOURHOOD_PX", 8)
        found = windows_of(changed, traced)
    covered = np.zeros(changed.shape, int)
    for window in found:
        covered[window.place] += window.mask
        assert window.mask.any(axis=0).all() or many == 1
    parts, _ = ndimage.label(grown(changed, WINDOW_PX), np.ones((3, 3)))
    assert np.array_equal(covered, np.isin(parts, np.setdiff1d(parts[traced], 0)).astype(int))


def test_nothing_painted_has_no_window() -> None:
    nothing = np.zeros((5, 6), bool)
    assert place_around(nothing, 2) is None
    assert windows_of(nothing, nothing) == []
