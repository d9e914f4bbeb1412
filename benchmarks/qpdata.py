"""Writing and reading annotations: the built-in backend, and paquo where QuPath is, in one run.

    python benchmarks/qpdata.py
    python benchmarks/qpdata.py --sizes 10000x20 100000x200 --repeats 3 --json

A size is annotations x vertices. Every figure is of a process of its own that has the outlines at
hand already where it needs any (``outlines MB`` is what it takes until then): seconds from before
the tool is imported, so with the start of Java, until everything is on disk, or every annotation
is there with its geometry. The tools take turns. CPU seconds are those of all threads. On a busy
machine compare those: waiting for others counts in the seconds as well. Peak MB is the process'
largest resident memory.

Set PAQUO_QUPATH_DIR to a QuPath to have paquo measured as well: what its users write, that is
``add_annotation`` in a loop and the project's own save, and ``.roi`` for every annotation. That
is without a safety net; the built-in backend reads back what it wrote and compares, syncs it, and
keeps a snapshot of what was there. ``unchecked`` is the built-in backend without all of that,
which no command of qpannot ever does: what the safety costs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray

if TYPE_CHECKING:  # importing them is part of what is measured
    from qpannot.qupath import Annotation, Project

SPACING_PX = 100
Figures = dict[str, float]


def make_outlines(count: int, vertices: int) -> NDArray[np.float64]:
    """Return rings of blobs on a grid that do not touch each other, (count, vertices, 2) in px."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    waves = np.arange(2, 6)
    sizes, phases = rng.normal(0, 0.06, (2, count, len(waves)))
    radii = 32 * (1 + np.sum(
        sizes[:, :, None] * np.cos(waves[:, None] * angles + 50 * phases[:, :, None]), axis=1
    ))  # fmt: skip
    columns = int(np.ceil(np.sqrt(count)))
    row, column = np.divmod(np.arange(count), columns)
    centers = (np.stack([column, row], axis=-1) + 0.5) * SPACING_PX
    rings = radii[:, :, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    outlines: NDArray[np.float64] = np.round(centers[:, None] + rings, 2)
    return outlines


def save_outlines(file: Path, count: int, vertices: int) -> None:
    np.save(file, make_outlines(count, vertices))


def make_project(folder: Path) -> Path:
    """Make a project of one slide, without annotations."""
    from qpannot.linking import describe_slide
    from qpannot.qupath import open_project

    slide = folder / "slide.svs"
    with tifffile.TiffWriter(slide) as tiff:
        tiff.write(
            np.full((256, 256, 3), 240, np.uint8),
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            description="Aperio Image Library v12\r\n256x256|AppMag = 20|MPP = 0.5",
            metadata=None,
        )
    with open_project(folder / "empty", "x", backend="builtin") as project:
        project.add_images([describe_slide(slide)])
        return project.path


def builtin_write(path: Path, outlines: list[shapely.Polygon]) -> int:
    from qpannot.qupath import Annotation, PathClass, open_project

    tumor = PathClass("Tumor", (200, 0, 0))
    with open_project(path, "r+", backend="builtin") as project:
        added = [Annotation(outline, tumor) for outline in outlines]
        project.images[0].write_annotations(add=added)
        return project.images[0].count_annotations()


def unchecked_write(path: Path, outlines: list[shapely.Polygon]) -> int:
    from qpannot.qupath import Annotation, PathClass, open_project

    tumor = PathClass("Tumor", (200, 0, 0))
    with open_project(path, "r+", backend="builtin") as project:
        return write_unchecked(project, [Annotation(outline, tumor) for outline in outlines])


def unchecked_add_one(path: Path, outlines: list[shapely.Polygon]) -> int:
    from qpannot.qupath import Annotation, open_project

    with open_project(path, "r+", backend="builtin") as project:
        return write_unchecked(project, [Annotation(outlines[0])]) - 1


def write_unchecked(project: Project, added: list[Annotation]) -> int:
    """Write as paquo does: no read-back, no sync, no snapshot, and no lock."""
    from qpannot.qupath.qpdata.datafile import QpData

    file = project.folder / "data" / project.images[0].id / "data.qpdata"
    data = QpData.new(qupath_version="0.6.0")
    if file.exists():
        data = QpData.parse(file.read_bytes(), source=file)
    data.add(added)
    file.write_bytes(data.to_bytes())
    count: int = data.summary()["objectTypeCounts"]["Annotations"]
    return count


def builtin_read(path: Path, outlines: list[shapely.Polygon]) -> int:
    from qpannot.qupath import open_project

    with open_project(path, "r", backend="builtin") as project:
        return len(project.images[0].annotations())


def builtin_add_one(path: Path, outlines: list[shapely.Polygon]) -> int:
    from qpannot.qupath import Annotation, open_project

    with open_project(path, "r+", backend="builtin") as project:
        project.images[0].write_annotations(add=[Annotation(outlines[0])])
        return project.images[0].count_annotations() - 1


def paquo_write(path: Path, outlines: list[shapely.Polygon]) -> int:
    from paquo.classes import QuPathPathClass
    from paquo.projects import QuPathProject

    tumor = QuPathPathClass("Tumor")
    with QuPathProject(path, mode="r+") as project:
        hierarchy = project.images[0].hierarchy
        for outline in outlines:
            hierarchy.add_annotation(outline, path_class=tumor)
        return len(hierarchy.annotations)


def paquo_read(path: Path, outlines: list[shapely.Polygon]) -> int:
    from paquo.projects import QuPathProject

    with QuPathProject(path, mode="r") as project:
        return len([each.roi for each in project.images[0].hierarchy.annotations])


def paquo_add_one(path: Path, outlines: list[shapely.Polygon]) -> int:
    from paquo.projects import QuPathProject

    with QuPathProject(path, mode="r+") as project:
        hierarchy = project.images[0].hierarchy
        hierarchy.add_annotation(outlines[0])
        return len(hierarchy.annotations) - 1


JOBS: dict[str, Callable[[Path, list[shapely.Polygon]], int]] = {
    f"{tool} {what}": job
    for tool, jobs in (
        ("builtin", (builtin_write, builtin_read, builtin_add_one)),
        ("unchecked", (unchecked_write, builtin_read, unchecked_add_one)),
        ("paquo", (paquo_write, paquo_read, paquo_add_one)),
    )
    for what, job in zip(("write", "read", "add one"), jobs, strict=True)
}


def peak_mb() -> float:
    """Return the largest resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_job(job: str, path: Path, outlines_file: Path) -> Figures:
    """Do one job in this process."""
    rings = np.load(outlines_file, mmap_mode="r")
    wanted = {"write": len(rings), "read": 0, "add one": 1}[job.split(" ", 1)[1]]
    outlines: list[shapely.Polygon] = []
    for start in range(0, wanted, 1000):
        outlines += shapely.polygons(rings[start : min(start + 1000, wanted)]).tolist()
    outlines_mb = peak_mb()
    began, cpu_began = time.perf_counter(), time.process_time()
    count = JOBS[job](path, outlines)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    if count != len(rings):
        raise SystemExit(f"{job}: {count} annotations instead of {len(rings)}")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak_mb(),
        "outlines_mb": outlines_mb,
    }


def measure(job: str, path: Path, outlines_file: Path) -> Figures:
    """Do one job in a process of its own."""
    command = [sys.executable, __file__, "--job", job, str(path), str(outlines_file)]
    # our modules compiled once, as pip does with those that it installs
    compiled = {"PYTHONPYCACHEPREFIX": str(outlines_file.parent / "compiled")}
    environment = os.environ | compiled | {"PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_size(count: int, vertices: int, tools: list[str], repeats: int) -> dict[str, Any]:
    """Measure all jobs at one size, the tools in turns."""
    runs: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        outlines_file = folder / "outlines.npy"
        # in another process: the memory of this one would be counted as that of those it starts
        making = multiprocessing.get_context("spawn").Process(
            target=save_outlines, args=(outlines_file, count, vertices)
        )
        making.start()
        making.join()
        empty = make_project(folder)
        for turn in range(repeats):
            paths = {tool: folder / f"{tool}{turn}" / empty.name for tool in tools}
            for path in paths.values():
                shutil.copytree(empty.parent, path.parent)
            for what in ("write", "read", "add one"):
                for tool, path in paths.items():
                    figures = measure(f"{tool} {what}", path, outlines_file)
                    runs.setdefault(f"{tool} {what}", []).append(figures)
            for path in paths.values():
                shutil.rmtree(path.parent)
    return {
        "annotations": count,
        "vertices": vertices,
        "jobs": {
            job: {
                "seconds": statistics.median(figures["seconds"] for figures in all_figures),
                "cpu_seconds": statistics.median(figures["cpu_seconds"] for figures in all_figures),
                "all_seconds": [round(figures["seconds"], 3) for figures in all_figures],
                "peak_mb": max(figures["peak_mb"] for figures in all_figures),
                "outlines_mb": max(figures["outlines_mb"] for figures in all_figures),
            }
            for job, all_figures in runs.items()
        },
    }


def print_size(result: dict[str, Any]) -> None:
    jobs = result["jobs"]
    print(f"\n{result['annotations']:,} annotations of {result['vertices']} vertices")
    print(f"{'':18}{'s (median)':>12}{'least':>8}{'most':>8}{'CPU s':>8}{'per s':>10}"
          f"{'peak MB':>9}{'outlines MB':>13}{'paquo takes':>13}{'in CPU':>8}")  # fmt: skip
    for job, figures in jobs.items():
        tool, what = job.split(" ", 1)
        seconds = figures["seconds"]
        other = jobs.get(f"paquo {what}") if tool != "paquo" else None
        ratios = [
            f"{other[key] / figures[key]:.1f} x" if other else ""
            for key in ("seconds", "cpu_seconds")
        ]
        print(f"{job:18}{seconds:12.2f}{min(figures['all_seconds']):8.2f}"
              f"{max(figures['all_seconds']):8.2f}{figures['cpu_seconds']:8.2f}"
              f"{result['annotations'] / seconds:10,.0f}{figures['peak_mb']:9.0f}"
              f"{figures['outlines_mb']:13.0f}{ratios[0]:>13}{ratios[1]:>8}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", default=["10000x20", "10000x200", "100000x20"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--paquo-up-to", type=int, default=10_000, metavar="ANNOTATIONS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job, path, outlines_file = options.job
        print(json.dumps(run_job(job, Path(path), Path(outlines_file))))
        return
    has_paquo = bool(os.environ.get("PAQUO_QUPATH_DIR"))
    results = []
    for size in options.sizes:
        count, vertices = map(int, size.split("x"))
        tools = ["builtin", "unchecked"]
        if has_paquo and count <= options.paquo_up_to:
            tools.append("paquo")
        results.append(run_size(count, vertices, tools, options.repeats))
        if not options.json:
            print_size(results[-1])
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
