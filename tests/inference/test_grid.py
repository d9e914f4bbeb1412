from __future__ import annotations

import numpy as np
import pytest
import shapely

from qpannot.errors import UsageError
from qpannot.geometry import Mpp, Size
from qpannot.inference.grid import Choice, HeatmapGrid, choose, probabilities_of, weights_of


def grid_of(
    width: int = 1000, height: int = 700, *, size_px: int = 64, stride_px: int | None = None
) -> HeatmapGrid:
    """Return the grid of a slide of 0.5 mpp whose patches have 1.25 mpp: 2.5 pixels each."""
    return HeatmapGrid.of(
        Size(width, height), Mpp(0.5, 0.5), patch_mpp=1.25, size_px=size_px, stride_px=stride_px
    )


def test_cells_lie_from_the_slides_corner_on_over_all_of_it() -> None:
    grid = grid_of(stride_px=32)
    assert (grid.affine.dx, grid.affine.dy, grid.affine.x, grid.affine.y) == (80, 80, 0, 0)
    assert grid.shape == (9, 13)  # 700 / 80 and 1000 / 80, the last ones reaching beyond


def test_a_slide_of_whole_cells_has_no_more_of_them_for_float_noise() -> None:
    mpp = Mpp(0.1 + 0.2, 0.1 + 0.2)
    grid = HeatmapGrid.of(Size(3000, 6000), mpp, patch_mpp=0.9, size_px=100, stride_px=None)
    assert grid.shape == (20, 10)


def test_pixels_that_are_not_square_have_cells_that_are_not_square() -> None:
    grid = HeatmapGrid.of(Size(1000, 1000), Mpp(0.5, 0.25), patch_mpp=1, size_px=50, stride_px=25)
    assert (grid.affine.dx, grid.affine.dy) == (50, 100)
    assert grid.affine.pixel_um(Mpp(0.5, 0.25)) == (25, 25)


@pytest.mark.parametrize("stride_px", [64, 32, 20])
def test_the_middle_of_a_patch_is_that_of_its_cell(stride_px: int) -> None:
    grid = grid_of(stride_px=stride_px)
    region, extent = grid.region((3, 5), (3, 5))
    assert extent == Size(64, 64)
    middle = region.x + region.width / 2, region.y + region.height / 2
    assert middle == pytest.approx(grid.affine.to_slide(np.array([5.5, 3.5])))
    assert (region.width, region.height) == (160, 160)


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(UsageError, match=r"heatmap\.stride_px is 65.*64 px"):
        grid_of(stride_px=65)


@pytest.mark.parametrize("stride_px", [64, 32, 24, 8])
def test_every_cell_with_any_tissue_is_predicted_and_no_other(stride_px: int) -> None:
    grid = grid_of(stride_px=stride_px)
    tissue = [shapely.Point(500, 350).buffer(190), shapely.box(20.5, 30, 21, 31)]
    choice = choose(grid, tissue, min_tissue=0.25)
    answers = np.tile(np.array([0.25, 0.75], np.float32), (len(choice.cells), 1))
    found = probabilities_of(answers, choice, grid)
    step = stride_px * 2.5
    boxes = [
        [shapely.box(c * step, r * step, (c + 1) * step, (r + 1) * step) for c in range(columns)]
        for r, columns in enumerate([grid.columns] * grid.rows)
    ]
    area = shapely.union_all(tissue)
    has_tissue = shapely.area(shapely.intersection(boxes, area)) > 0
    assert has_tissue.any() and not has_tissue.all()
    assert np.array_equal(~np.isnan(found).any(axis=2), has_tissue)
    assert np.allclose(found[has_tissue], [0.25, 0.75])


def test_the_network_sees_patches_it_could_have_been_trained_on_and_thin_strips() -> None:
    grid = grid_of(1600, 1600)
    tissue = [shapely.box(0, 0, 800, 470), shapely.box(0, 1125, 1600, 1135)]
    choice = choose(grid, tissue, min_tissue=0.25)
    assert choice.tissue[:3, :5].all()
    # 470 is 2.9 cells of 160; the strip has 6 % of its row, and nothing else is near.
    assert choice.seen[:3, :5].all() and choice.seen[7].all()
    assert choice.seen.sum() == 15 + 10


def test_a_cell_at_the_rim_without_a_patch_of_its_own_is_the_mean_of_those_beside_it() -> None:
    grid = grid_of(800, 160)
    choice = choose(grid, [shapely.box(0, 0, 340, 160)], min_tissue=0.25)
    assert choice.seen.tolist() == [[True, True, False, False, False]]
    assert choice.tissue.tolist() == [[True, True, True, False, False]]
    found = probabilities_of(np.array([[1, 0], [0.25, 0.75]], np.float32), choice, grid)
    assert found[0, :3].tolist() == [[1, 0], [0.25, 0.75], [0.25, 0.75]]
    assert np.isnan(found[0, 3:]).all()


@pytest.mark.parametrize(("size_px", "stride_px"), [(64, 64), (64, 32), (64, 24), (63, 20)])
def test_a_cell_is_the_mean_of_all_patches_weighted_by_what_they_cover_of_it(
    size_px: int, stride_px: int
) -> None:
    grid = HeatmapGrid(6, 7, size_px, stride_px, 1.0, 1.0)
    rng = np.random.default_rng(3)
    seen = rng.random(grid.shape) < 0.7
    answers = rng.dirichlet([1, 1, 1], seen.sum()).astype(np.float32)
    choice = Choice(np.ones(grid.shape, bool), seen)
    found = probabilities_of(answers, choice, grid)
    n_compared = 0
    for row, column in np.ndindex(grid.shape):
        cell = shapely.box(
            column * stride_px, row * stride_px, (column + 1) * stride_px, (row + 1) * stride_px
        )
        weights = []
        for at in choice.cells.tolist():
            region, _ = grid.region(at, at)
            patch = shapely.box(region.x, region.y, region.right, region.bottom)
            weights.append(cell.intersection(patch).area)
        if sum(weights):
            expected = np.average(answers, axis=0, weights=weights)
            assert found[row, column] == pytest.approx(expected, abs=1e-5)
            n_compared += 1
    assert n_compared > seen.sum() or size_px == stride_px


def test_the_weights_of_a_patch_add_up_to_its_width_in_cells() -> None:
    grid = HeatmapGrid(5, 5, 100, 30, 1.0, 1.0)
    assert weights_of(grid).sum() == pytest.approx(100 / 30)
    assert weights_of(grid).tolist() == pytest.approx([1 / 6, 1, 1, 1, 1 / 6])


def test_a_slide_without_tissue_has_nothing_to_see() -> None:
    grid = grid_of()
    choice = choose(grid, [], min_tissue=0.25)
    assert len(choice.cells) == 0
    found = probabilities_of(np.zeros((0, 2), np.float32), choice, grid)
    assert found.shape == (*grid.shape, 2)
    assert np.isnan(found).all()
