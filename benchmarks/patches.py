"""How fast patches are read for training: the loader against decoding alone.

    python benchmarks/patches.py [SLIDE ...] --size 256 --mpp 1.0 --workers 2

Both read the same patches with as many processes, by turns; what counts is the ratio within a
round. Decoding alone is `Slide.read` in a loop, each process with its own handle and its own share:
no sampling, no batches, no augmentation, nothing sent. Then the memory of the workers from epoch to
epoch, and the ways to augment. Without slides, one is made.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from qpannot.demo import make_demo_slides
from qpannot.recipe.settings import AugmentationSettings, PatchSettings
from qpannot.sampling import EpochSampler, LeftOut, Opener, PatchTable, PatchTree
from qpannot.sampling.augmentation import shifted_in_hsv
from qpannot.sampling.coverage import PatchGrid
from qpannot.sampling.handles import OpenSlides
from qpannot.sampling.loading import PatchDataset, PatchLoader
from qpannot.slide import Slide, open_slide

BATCH = 64
KINDS = ("A", "B")


def inner_patches(slide: Slide, patches: PatchSettings) -> PatchTable:
    """Every patch of a slide but the outer fifth, which is glass on most."""
    grid = PatchGrid.of(slide.size, slide.mpp, patches)
    x, y = (corners.ravel() for corners in np.meshgrid(grid.x, grid.y))
    middle_x, middle_y = x + grid.width / 2, y + grid.height / 2
    size = slide.size
    inside = (abs(middle_x / size.width - 0.5) < 0.3) & (abs(middle_y / size.height - 0.5) < 0.3)
    count = int(inside.sum())
    return PatchTable(
        x=x[inside],
        y=y[inside],
        label=(np.arange(count) % 2).astype(np.int16),
        tissue=np.ones(count, np.float32),
        fractions=np.zeros((count, 1), np.float32),
        classes=KINDS,
        size_px=patches.size_px,
        mpp=patches.mpp,
        width=grid.width,
        height=grid.height,
        left_out=dict.fromkeys(LeftOut, 0),
    )


_decoder: tuple[PatchTree, OpenSlides] | None = None


def start_decoder(tree: PatchTree, openers: Mapping[str, Opener]) -> None:
    global _decoder
    _decoder = tree, OpenSlides(openers)


def decode(rows: NDArray[np.int64]) -> int:
    assert _decoder is not None
    tree, slides = _decoder
    for row in rows:
        slides[tree.slides[tree.slide[row]]].read(tree.region(row), tree.mpp)
    return len(rows)


def shares(sampler: EpochSampler, workers: int) -> list[NDArray[np.int64]]:
    """The rows each worker reads, in the loader's order: by slide within a batch."""
    tree = sampler.tree
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(workers)]
    for number, draws in enumerate(sampler):
        order = np.lexsort((tree.x[draws.rows], tree.y[draws.rows], tree.slide[draws.rows]))
        parts[number % workers].append(draws.rows[order])
    return [np.concatenate(part) for part in parts]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def worker_megabytes(pids: list[int]) -> str:
    """Memory of each worker, proportional shares of what they share included."""
    sizes = []
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            return "unknown on this system"
        (line,) = (line for line in text.splitlines() if line.startswith("Pss:"))
        sizes.append(int(line.split()[1]) // 1024)
    return " ".join(f"{size:,}" for size in sizes) + " MB"


def compare(
    tree: PatchTree,
    openers: Mapping[str, Opener],
    augmentation: AugmentationSettings | None,
    *,
    workers: int,
    batches: int,
    rounds: int,
) -> None:
    sampler = EpochSampler(tree, batch_size=BATCH, batches=batches, seed=0)
    loader = PatchLoader(sampler, openers, augmentation=augmentation, workers=workers)
    count = batches * BATCH
    decoded, loaded, memory = [], [], []
    # A pool of one process each, so that no process takes another's share.
    pools = [
        multiprocessing.get_context("spawn").Pool(1, start_decoder, (tree, openers))
        for _ in range(workers)
    ]
    others = set(multiprocessing.active_children())
    exhaust(loader)
    pids = [c.pid for c in set(multiprocessing.active_children()) - others if c.pid]
    for epoch in range(1, rounds + 1):
        sampler.set_epoch(epoch)
        parts = shares(sampler, workers)

        def decode_all(parts: list[NDArray[np.int64]] = parts) -> None:
            jobs = [
                pool.apply_async(decode, (part,)) for pool, part in zip(pools, parts, strict=True)
            ]
            assert sum(job.get() for job in jobs) == count

        if epoch == 1:
            decode_all()  # warm, as the loader is
        decoded.append(count / seconds(decode_all))
        loaded.append(count / seconds(lambda: exhaust(loader)))
        memory.append(worker_megabytes(pids))
    for pool in pools:
        pool.terminate()
    ratios = [one / other for one, other in zip(loaded, decoded, strict=True)]
    print(
        f"  {'with' if augmentation else 'without'} augmentation: decoding "
        f"{statistics.median(decoded):,.0f}, loader {statistics.median(loaded):,.0f} patches/s; "
        f"ratio {statistics.median(ratios):.2f} "
        f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    )
    print(f"  workers' memory after each epoch: {'; '.join(memory)}")


def shifted_in_torch(pixels: torch.Tensor, hue: float, saturation: float) -> torch.Tensor:
    """The shift of a whole batch, uint8, shape [batch, 3, size, size]."""
    values = pixels.float()
    red, green, blue = values.unbind(1)
    value, least = values.amax(1), values.amin(1)
    chroma = value - least
    per_chroma = 1 / chroma.clamp(min=1)
    sixths = torch.where(
        value == red,
        (green - blue) * per_chroma,
        torch.where(value == green, (blue - red) * per_chroma + 2, (red - green) * per_chroma + 4),
    )
    sixths += hue * 6 / 255
    chroma = torch.minimum((chroma + value * (saturation / 255)).clamp_(min=0), value)
    offsets = torch.tensor([5.0, 3.0, 1.0])[:, None, None]
    k = torch.remainder(sixths[:, None] + offsets, 6)
    k = torch.minimum(k, 4 - k).clamp_(0, 1)
    return (value[:, None] - k * chroma[:, None]).add_(0.5).to(torch.uint8)


def compare_augmentation(tree: PatchTree, openers: Mapping[str, Opener]) -> None:
    torch.set_num_threads(1)
    dataset = PatchDataset(tree, openers, seed=0, augmentation=None)
    (draws,) = EpochSampler(tree, batch_size=BATCH, batches=1, seed=0)
    batch = dataset[draws].batch
    assert batch is not None
    pixels = batch.pixels
    patches = [np.ascontiguousarray(patch.permute(1, 2, 0)) for patch in pixels]
    one_by_one = np.stack([shifted_in_hsv(patch, 13, -7) for patch in patches])
    at_once = shifted_in_torch(pixels, 13, -7).permute(0, 2, 3, 1).numpy()
    assert np.abs(one_by_one.astype(int) - at_once).max() <= 1
    each, whole = [], []
    for _ in range(5):
        each.append(seconds(lambda: [shifted_in_hsv(patch, 13, -7) for patch in patches]))
        whole.append(seconds(lambda: shifted_in_torch(pixels, 13, -7)))
    print(
        f"  HSV shift on one core: {statistics.median(each) / BATCH * 1e3:.2f} ms a patch in NumPy "
        f"one by one, {statistics.median(whole) / BATCH * 1e3:.2f} ms in torch by batches"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--size", type=int, default=256, help="of a patch, in pixels")
    parser.add_argument("--mpp", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=20, help="in an epoch, of 64 patches")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = chosen.slides or [slide.path for slide in make_demo_slides(Path(folder), count=1)]
        patches = PatchSettings(size_px=chosen.size, mpp=chosen.mpp)
        openers = {str(path): partial(open_slide, path) for path in paths}
        tables = {}
        for path in paths:
            with open_slide(path) as slide:
                tables[str(path)] = inner_patches(slide, patches)
        tree = PatchTree(tables, {}, ("slide", "class"))
        print(
            f"{len(paths)} slide(s), {len(tree):,} patches of {chosen.size} px at {chosen.mpp} "
            f"mpp, {chosen.workers} worker(s), {chosen.batches} batches of {BATCH}"
        )
        how_much = {"workers": chosen.workers, "batches": chosen.batches, "rounds": chosen.rounds}
        compare(tree, openers, None, **how_much)
        compare(tree, openers, AugmentationSettings(), **how_much)
        compare_augmentation(tree, openers)


if __name__ == "__main__":
    main()
