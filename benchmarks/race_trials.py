"""Let real QuPath save a project again and again while qpannot writes to it.

    python benchmarks/race_trials.py PROJECT --qupath 'COMMAND' --trials 30

``COMMAND`` opens a project with QuPath, adds one annotation to each image and saves, given the
``.qpproj`` file as its last argument. Each trial runs it on a copy of ``PROJECT`` while several
writes of ours go on, an annotation each, and then looks whether

- what was there before is there still;
- QuPath's annotation is there;
- each annotation of a write that reported success is there, unless QuPath, which had read the
  file before that write, saved over it (counted: QuPath does not look, and nothing can stop it).
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from shapely.geometry import box

from qpannot.errors import QpannotError
from qpannot.qupath import Annotation, find_project, open_project
from qpannot.qupath.qpdata.datafile import QpData


def main() -> int:
    """Run the trials."""
    parser = argparse.ArgumentParser(description="Race real QuPath saving the same project.")
    parser.add_argument("project", type=Path)
    parser.add_argument("--qupath", required=True, help="what opens, adds to and saves a project")
    parser.add_argument("--trials", type=int, default=30)
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    for trial in range(asked.trials):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "study"
            shutil.copytree(find_project(asked.project).parent, copy)
            race(copy, shlex.split(asked.qupath), random.Random(trial), counts)
    print(json.dumps(counts))
    return bool(counts["LOST: was there before"] or counts["LOST: saved by QuPath"])


def race(study: Path, qupath: list[str], rng: random.Random, counts: Counter[str]) -> None:
    """Let QuPath save once, and write all the while."""
    with open_project(study, "r+") as project:
        before = {image.id: {each.id for each in image.annotations()} for image in project.images}
        written: dict[str, list[object]] = {image.id: [] for image in project.images}
        saving = subprocess.Popen([*qupath, str(project.path)], stderr=subprocess.DEVNULL)
        while saving.poll() is None:
            image = rng.choice(project.images)
            ours = Annotation(box(1, 1, 9, 9), name="ours")
            try:
                image.write_annotations(add=[ours])
                written[image.id].append(ours.id)
                counts["writes"] += 1
            except QpannotError as error:
                counts[f"stopped: {error.message.split(': ', 1)[-1]}"] += 1
            time.sleep(rng.uniform(0, 0.02))
        counts["saves by QuPath that failed"] += saving.returncode != 0
        for image in project.images:
            after = {each.id: each for each in image.annotations()}
            kept = {
                each.id
                for snapshot in image.snapshots()
                for each in QpData.parse(snapshot.read(), source=snapshot.path).annotations()
            }
            counts["LOST: was there before"] += not before[image.id] <= after.keys()
            counts["LOST: saved by QuPath"] += not any(
                each.name == "qp-resave" for each in after.values()
            )
            over = [each for each in written[image.id] if each not in after]
            counts["ours that QuPath saved over"] += len(over)
            counts["of these in a snapshot"] += sum(each in kept for each in over)
            counts["images"] += 1
    counts["saves"] += 1


if __name__ == "__main__":
    sys.exit(main())
