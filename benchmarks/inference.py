"""How fast a slide is predicted, against the network and the reading alone.

    python benchmarks/inference.py [SLIDE] --engines openvino onnxruntime torch

The same patches are read only, predicted only (the same pixels again and again), and predicted from
the slide as `predict_heatmap` does it, tissue detection and comparison of the engines included; by
turns, with as many threads. What counts are the ratios within a round: to the network alone, and to
what both would take one after the other on the same cores. The network is MobileNetV2 without
weights. Without a slide one is made, at the resolution of the patches; some 1,600 patches of tissue
take --side 16384.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import tifffile
import torch

from qpannot.inference import Engines, predict_heatmap
from qpannot.inference.engines import Engine
from qpannot.inference.grid import HeatmapGrid, choose
from qpannot.inference.reading import in_portions, read_patches
from qpannot.models import Bundle, load_bundle, patch_network, save_bundle
from qpannot.recipe import Recipe
from qpannot.recipe.settings import HeatmapSettings, PatchSettings, TissueSettings
from qpannot.slide import Slide, open_slide
from qpannot.tissue import detect_tissue

TILE = 256


def write_slide(path: Path, side: int, mpp: float) -> Path:
    """A slide with one disc of textured tissue, half of its area, in JPEG tiles."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 190, (64, 64, 3)).repeat(8, 0).repeat(8, 1)
    texture = (coarse + rng.integers(-20, 20, coarse.shape)).astype(np.uint8)
    glass = np.full((TILE, TILE, 3), 244, np.uint8)
    middle, radius = side / 2, side * 0.4

    def tiles(step: int) -> list[np.ndarray]:
        found = []
        for top in range(0, side // step, TILE):
            for left in range(0, side // step, TILE):
                y, x = (np.arange(TILE) + start for start in (top, left))
                far = np.hypot(x * step - middle, (y * step - middle)[:, None]) > radius
                tissue = np.roll(texture, (top // 7, left // 5), (0, 1))[:TILE, :TILE]
                found.append(np.where(far[..., None], glass, tissue))
        return found

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for step in (1, 4, 16):
            tiff.write(
                iter(tiles(step)),
                shape=(side // step, side // step, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                description=f"Aperio Image Library v12\r\n{side}x{side}|MPP = {mpp:g}",
                metadata=None,
                subfiletype=0,
            )
    return path


def make_bundle(folder: Path, recipe: Recipe) -> Bundle:
    torch.manual_seed(0)
    network = patch_network(
        recipe.network.encoder, ("a", "b"), weights=None, size_px=recipe.patches.size_px
    )
    save_bundle(folder, network.eval(), recipe, slides=[], metrics={})
    return load_bundle(folder)


def rate(count: int, run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def in_threads(threads: int, work: Callable[[int], object], count: int) -> None:
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(count)))
    torch.set_num_threads(own)


def compare(
    slide: Slide, bundle: Bundle, recipe: Recipe, name: str, threads: int, rounds: int
) -> None:
    engines = Engines(bundle, engine=name, threads=threads)  # type: ignore[arg-type]
    grid = HeatmapGrid.of(
        slide.size,
        slide.mpp,
        patch_mpp=bundle.card.mpp,
        size_px=recipe.patches.size_px,
        stride_px=recipe.heatmap.stride_px,
    )
    choice = choose(grid, detect_tissue(slide, recipe.tissue), recipe.labels.min_tissue)
    cells = choice.cells
    sample = np.stack(list(read_patches(slide, grid, cells[:16])))
    compared = engines.compared(sample, "the slide")
    engine: Engine = compared.engine
    size = engine.batch_size
    portions = in_portions(cells, grid, size)
    patches = read_patches(slide, grid, np.concatenate(portions))
    pixels = [np.stack(list(islice(patches, size))) for _ in range(min(4, len(cells) // size))]

    def read(index: int) -> None:
        patches = read_patches(slide, grid, portions[index])
        while batch := list(islice(patches, size)):
            np.stack(batch)

    def calculate(index: int) -> None:
        for start in range(0, len(portions[index]), size):
            engine.predict(pixels[start // size % len(pixels)][: len(portions[index]) - start])

    found: dict[str, list[float]] = {"reading": [], "network": [], "slide": []}
    for _ in range(rounds):
        found["reading"].append(rate(len(cells), lambda: in_threads(threads, read, len(portions))))
        found["network"].append(
            rate(len(cells), lambda: in_threads(threads, calculate, len(portions)))
        )
        found["slide"].append(
            rate(len(cells), lambda: predict_heatmap(slide, bundle, recipe, engines=engines))
        )
    to_network = [a / b for a, b in zip(found["slide"], found["network"], strict=True)]
    to_both = [
        a * (1 / b + 1 / c)
        for a, b, c in zip(found["slide"], found["network"], found["reading"], strict=True)
    ]
    medians = {key: statistics.median(values) for key, values in found.items()}
    print(
        f"{engine.name}: {len(cells):,} patches; reading {medians['reading']:,.0f}, network "
        f"{medians['network']:,.0f}, slide {medians['slide']:,.0f} patches/s; slide to network "
        f"{statistics.median(to_network):.2f} ({', '.join(f'{r:.2f}' for r in to_network)}), to "
        f"both in turn {statistics.median(to_both):.2f}; difference from torch "
        f"{compared.difference}; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} "
        "MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=8192, help="of the slide that is made")
    parser.add_argument("--size", type=int, default=256, help="of a patch, in pixels")
    parser.add_argument("--stride", type=int)
    parser.add_argument("--mpp", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="*", default=["openvino", "onnxruntime", "torch"])
    chosen = parser.parse_args()
    recipe = Recipe(
        patches=PatchSettings(size_px=chosen.size, mpp=chosen.mpp),
        heatmap=HeatmapSettings(stride_px=chosen.stride),
        tissue=TissueSettings(java_cuts=False),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.slide or write_slide(Path(folder, "slide.svs"), chosen.side, chosen.mpp)
        bundle = make_bundle(Path(folder, "model"), recipe)
        with open_slide(path) as slide:
            for name in chosen.engines:
                compare(slide, bundle, recipe, name, chosen.threads, chosen.rounds)


if __name__ == "__main__":
    main()
