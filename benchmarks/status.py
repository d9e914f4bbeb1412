"""What ``qpannot status`` reads and how long it takes, on a made project of many annotated images.

    python benchmarks/status.py --images 5000 --keep /tmp/status-project

The images' data is as QuPath saves it (``data.qpdata`` and ``summary.json``), nothing of qpannot's
ledger: 200 polygons of 60 vertices drawn by a person, about 100 KB an image. Bytes are counted by
Linux (``rchar`` of ``/proc/self/io``: everything a process reads, whether cached or not, Python's
own modules included).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from shapely import Polygon

from qpannot.geometry import Mpp, Size
from qpannot.qupath import Annotation, ImageSource, PathClass, open_project, server
from qpannot.qupath.qpdata.datafile import QpData

CLASSES = [PathClass("Tumor", (200, 0, 0)), PathClass("Stroma", (150, 200, 150)), None]
TEMPLATES = 20
"""Different images' data; the others are copies."""

STATUS = """
import sys
from qpannot.cli import main
sys.argv = ["qpannot", "status", sys.argv[1]]
try:
    main()
finally:
    for line in open("/proc/self/io"):
        sys.stderr.write("IO " + line)
"""


def outline(random: np.random.Generator, vertices: int) -> Polygon:
    angles = np.linspace(0, 2 * math.pi, vertices, endpoint=False)
    radii = random.uniform(300, 500, vertices)
    x, y = random.uniform(1_000, 90_000, 2)
    return Polygon(np.column_stack([x + radii * np.cos(angles), y + radii * np.sin(angles)]))


def make_data(annotations: int, vertices: int, seed: int) -> tuple[bytes, dict[str, object]]:
    random = np.random.default_rng(seed)
    data = QpData.new(qupath_version="0.6.0", image_type="BRIGHTFIELD_H_E", server_json="{}")
    data.add(
        Annotation(outline(random, vertices), path_class=CLASSES[index % len(CLASSES)])
        for index in range(annotations)
    )
    return data.to_bytes(), data.summary()


def make_project(folder: Path, images: int, annotations: int, vertices: int) -> None:
    made = [make_data(annotations, vertices, seed) for seed in range(TEMPLATES)]
    size = Size(100_000, 80_000)
    sources = [
        ImageSource(
            folder / "slides" / f"{n:05}.svs", "openslide", size, [size], mpp=Mpp.square(0.25)
        )
        for n in range(images)
    ]
    with open_project(folder, "x") as project:
        document = json.loads(project.path.read_text())
    # not by add_images, which is safe and syncs every file: that takes minutes
    document["images"] = [
        {
            "serverBuilder": server.build(source),
            "entryID": number,
            "randomizedName": f"{number:032x}",
            "imageName": source.path.name,
            "metadata": {},
            "tags": [],
        }
        for number, source in enumerate(sources, 1)
    ]
    document["lastID"] = images
    (folder / "project.qpproj").write_text(json.dumps(document, indent=2))
    for number in range(1, images + 1):
        entry = folder / "data" / str(number)
        entry.mkdir(parents=True)
        data, hierarchy = made[number % TEMPLATES]
        (entry / "data.qpdata").write_bytes(data)
        saved = (entry / "data.qpdata").stat().st_mtime_ns // 1_000_000
        summary = {"timestamp": saved, "imageType": "BRIGHTFIELD_H_E", "hierarchy": hierarchy}
        (entry / "summary.json").write_text(json.dumps(summary))


def measure(folder: Path) -> dict[str, float | str]:
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", STATUS, str(folder)], capture_output=True, text=True, check=True
    )
    counts = dict(
        line.removeprefix("IO ").split(": ")
        for line in ended.stderr.splitlines()
        if line.startswith("IO ")
    )
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "read_MB": round(int(counts["rchar"]) / 1e6, 1),
        "read_calls": int(counts["syscr"]),
        "states": ended.stdout.splitlines()[-2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--annotations", type=int, default=200)
    parser.add_argument("--vertices", type=int, default=60)
    parser.add_argument("--keep", type=Path, help="Make the project here, or use the one there.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary, "study")
        if not (folder / "project.qpproj").exists():
            make_project(folder, options.images, options.annotations, options.vertices)
        sizes = [path.stat().st_size for path in folder.glob("data/*/data.qpdata")]
        project_mb = (folder / "project.qpproj").stat().st_size / 1e6
        print(
            f"{len(sizes)} images, data.qpdata {sum(sizes) / 1e6:.0f} MB in all, "
            f"project file {project_mb:.1f} MB, {os.cpu_count()} CPUs"
        )
        for run in ("first", "second"):
            print(f"status, {run} time: {json.dumps(measure(folder))}")


if __name__ == "__main__":
    main()
