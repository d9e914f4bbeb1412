"""How long a large mask takes to become polygons, and how much memory: run it by hand.

python benchmarks/vectorize.py [--side 20000] [--parts 100000]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.geometry import Mpp
from qpannot.recipe.settings import OutlineSettings
from qpannot.vectorize import class_mask, coverage, outlines_of_labels, polygons_of


def blobs(side: int, parts: int) -> NDArray[np.uint8]:
    """Return a mask of as many ragged discs, one in a cell of a grid, every fifth with a hole."""
    rng = np.random.default_rng(0)
    cells = int(np.ceil(np.sqrt(parts)))
    cell = side // cells
    y, x = np.mgrid[:cell, :cell] - cell / 2
    discs = []
    for index in range(200):
        turn = np.arctan2(y, x) * rng.integers(2, 9) + rng.uniform(0, 7)
        radius = np.hypot(x, y) / cell + 0.05 * np.sin(turn)
        disc = radius < rng.uniform(0.2, 0.43)
        discs.append(disc & (radius > 0.1) if index % 5 == 0 else disc)
    mask = np.zeros((side, side), np.uint8)
    for index in range(parts):
        row, column = divmod(index, cells)
        rows, columns = (slice(at * cell, (at + 1) * cell) for at in (row, column))
        mask[rows, columns] = discs[rng.integers(len(discs))]
    return mask


def peak_gb() -> float:
    """Return the most memory this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@contextmanager
def timed(what: str) -> Iterator[None]:
    start, worked = time.perf_counter(), time.process_time()
    yield
    spent, work = time.perf_counter() - start, time.process_time() - worked
    print(f"{what:40} {spent:6.1f} s, {work:6.1f} s of it working, peak {peak_gb():.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--parts", type=int, default=100_000)
    arguments = parser.parse_args()
    with timed("a mask is made"):
        mask = blobs(arguments.side, arguments.parts)
    print(f"{mask.nbytes / 1e9:.2f} GB, {arguments.parts:,} parts")
    affine = Affine.downsampled(4)
    with timed("mask -> exact polygons"):
        exact = polygons_of(mask, affine)
    print(f"{len(exact):,} polygons")
    with timed("mask -> outlines for QuPath"):
        settings = OutlineSettings(
            min_area_um2=100, min_hole_area_um2=100, smoothing_um=3, simplify_um=0.5
        )
        outlines = outlines_of_labels(mask, affine, Mpp.square(0.25), ("Tumor",), settings)
    print(f"{len(outlines):,} outlines")
    polygons = [polygon for _, polygon in exact]
    with timed("exact polygons -> class mask"):
        again = class_mask([polygons], affine, mask.shape)
    print("the same mask" if np.array_equal(again, mask) else "NOT the same mask")
    with timed("outlines -> coverage, cells of 64 px"):
        coarse = Affine.downsampled(64)
        side = arguments.side // 16
        coverage([outline.polygon for outline in outlines], coarse, (side, side))


if __name__ == "__main__":
    main()
