from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from qpannot.geometry import Region, Size
from qpannot.inference.grid import Cells, HeatmapGrid
from qpannot.inference.reading import BLOCK_PX, in_portions, read_patches
from qpannot.slide import Slide, open_slide
from qpannot.slide.image import Pixels


@pytest.fixture
def noisy_slide(tmp_path: Path) -> Slide:
    """A slide no two patches of which are alike, at 0.25 mpp."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (90, 120, 3), np.uint8)
    pixels = coarse.repeat(16, axis=0).repeat(16, axis=1)
    path = tmp_path / "noise.svs"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 4):
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                description="Aperio Image Library v12\r\n1920x1440|MPP = 0.25",
                metadata=None,
                subfiletype=0,
            )
    return open_slide(path)


def grid_on(slide: Slide, mpp: float, size_px: int, stride_px: int) -> HeatmapGrid:
    return HeatmapGrid.of(
        slide.size, slide.mpp, patch_mpp=mpp, size_px=size_px, stride_px=stride_px
    )


def all_cells(grid: HeatmapGrid) -> Cells:
    return np.argwhere(np.ones(grid.shape, bool))


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.6437])
@pytest.mark.parametrize(("size_px", "stride_px"), [(96, 96), (96, 48), (64, 31)])
def test_patches_read_together_are_those_read_alone(
    noisy_slide: Slide, mpp: float, size_px: int, stride_px: int
) -> None:
    with noisy_slide as slide:
        grid = grid_on(slide, mpp, size_px, stride_px)
        cells = all_cells(grid)
        chosen = in_portions(cells, grid, len(cells))[0]
        found = list(read_patches(slide, grid, chosen))
        assert len(found) == len(chosen)
        for cell, patch in list(zip(chosen.tolist(), found, strict=True))[::7]:
            region, _ = grid.region(cell, cell)
            assert np.array_equal(patch, slide.read(region, mpp))


def test_patches_are_white_beyond_the_slide(noisy_slide: Slide) -> None:
    with noisy_slide as slide:
        grid = grid_on(slide, 0.25, 100, 50)
        (corner,) = read_patches(slide, grid, np.array([[0, 0]]))
        assert (corner[:25] == 255).all() and (corner[:, :25] == 255).all()
        assert np.array_equal(corner[25:, 25:], slide.read(Region(0, 0, 75, 75), 0.25))


class Spy:
    """Counts the pixels that are read of a slide."""

    def __init__(self, slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pixels = 0
        real = slide.read_downsampled

        def read(
            region: Region, downsample: float | tuple[float, float], size: Size | None = None
        ) -> Pixels:
            read = real(region, downsample, size)
            self.pixels += read.shape[0] * read.shape[1]
            return read

        monkeypatch.setattr(slide, "read_downsampled", read)


@pytest.mark.parametrize("stride_px", [64, 32, 16])
def test_what_patches_share_is_read_once(
    noisy_slide: Slide, stride_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noisy_slide as slide:
        grid = grid_on(slide, 0.25, 64, stride_px)
        spy = Spy(slide, monkeypatch)
        n_patches = 0
        for portion in in_portions(all_cells(grid), grid, batch_size=8):
            n_patches += sum(1 for _ in read_patches(slide, grid, portion))
        assert n_patches == grid.rows * grid.columns
        reach = 64 - stride_px  # of each block beyond its cells
        covered = (grid.columns * stride_px + 2 * reach) * (grid.rows * stride_px + 2 * reach)
        assert covered * 0.9 < spy.pixels <= covered * 1.1


def test_patches_far_from_each_other_are_read_alone(
    noisy_slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noisy_slide as slide:
        grid = grid_on(slide, 0.25, 64, 64)
        spy = Spy(slide, monkeypatch)
        found = list(read_patches(slide, grid, np.array([[0, 0], [12, 14]])))
        assert spy.pixels == 2 * 64 * 64
        assert np.array_equal(found[1], slide.read(Region(14 * 64, 12 * 64, 64, 64), 0.25))


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_portions_are_whole_blocks_of_a_batch_at_least(batch_size: int) -> None:
    grid = HeatmapGrid(70, 50, 64, 64, 1.0, 1.0)
    is_chosen = np.random.default_rng(1).random(grid.shape) < 0.3
    cells = np.argwhere(is_chosen)
    portions = in_portions(cells, grid, batch_size)
    together = np.concatenate(portions)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, cells.tolist()))
    assert all(len(portion) >= batch_size for portion in portions[:-1])
    per_block = BLOCK_PX // 64
    blocks = [{(r // per_block, c // per_block) for r, c in part.tolist()} for part in portions]
    assert sum(map(len, blocks)) == len(set.union(*blocks))


def test_no_cells_make_no_portions() -> None:
    grid = HeatmapGrid(7, 5, 64, 64, 1.0, 1.0)
    assert in_portions(np.empty((0, 2), np.int64), grid, 8) == []
