"""Kill writers with SIGKILL at hundreds of moments, and look at what they leave.

    python benchmarks/kill_trials.py                       # every boundary of every operation
    python benchmarks/kill_trials.py --per-operation 10    # evenly spread ones
    python benchmarks/kill_trials.py --random 100          # and after random times

A child process does one operation on a copy of a project and is killed right before its n-th call
into the file system, for each n; or, with ``--random``, after a random part of the time that the
operation takes. Then, each time:

- the project opens, and every data file holds the annotations of before or of after, exactly;
- what a person drew is there;
- the same operation, run again, finishes, and gives what an undisturbed one gives;
- nothing half-written is left, and no data of images that are not in the project.

Prints the counts as JSON; ends with 1 when any of this failed. POSIX only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import tifffile
from shapely.geometry import Polygon

from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.restoring import restore_file, restore_image
from qpannot.linking import add_slides, describe_slide
from qpannot.qupath import Annotation, ImageChanges, PathClass, open_project
from qpannot.qupath.files import ProjectFiles
from qpannot.recipe import load_recipe

FILE_SYSTEM = {"posix", "fcntl", "_io", "io"}
TUMOR = PathClass("Tumor", (200, 0, 0))


@dataclass(frozen=True)
class Operation:
    """What is done to a project, and what must hold whenever it is killed.

    Parameters
    ----------
    does
        Does it; may be done again.
    person
        Whether the person's annotations must be there at any moment.
    """

    does: Callable[[Path], object]
    person: bool = True


@dataclass
class Report:
    """What was counted of one operation."""

    boundaries: int = 0
    kills: int = 0
    left: Counter[str] = field(default_factory=Counter)
    """How many left the old data, the new data, or some images old and some new."""
    failures: list[str] = field(default_factory=list)


def make_project(folder: Path) -> Path:
    """Make a project of three slides, two with annotations of a person's."""
    for number in range(3):
        _write_slide(folder / "slides" / f"{number}.svs")
    study = folder / "study"
    with open_project(study, "x") as project:
        slides = sorted((folder / "slides").glob("*.svs"))
        project.add_images([describe_slide(path, image_type="BRIGHTFIELD_H_E") for path in slides])
        for image in project.images[:2]:
            image.write_annotations(add=drawn(image.id, 200, PathClass("Stroma", (1, 2, 3))))
            image.write_annotations(add=drawn(image.id + "9", 3, PathClass("Necrosis")))
        project.update_images(
            {image.id: ImageChanges(metadata={"block": "A"}) for image in project.images}
        )
    _write_slide(folder / "slides" / "added.svs")
    _write_slide(folder / "slides" / "added too.svs")
    return study


def _write_slide(path: Path) -> None:
    y, x = np.mgrid[:384, :512]
    pixels = np.full((384, 512, 3), 244, np.uint8)
    pixels[(x / 256 - 1) ** 2 + (y / 192 - 1) ** 2 < 0.5] = (170, 90, 160)
    path.parent.mkdir(parents=True, exist_ok=True)
    description = "Aperio Image Library v12\r\n512x384|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, pixels, tile=(256, 256), description=description, metadata=None)


def drawn(seed: str, count: int, path_class: PathClass) -> list[Annotation]:
    """Return annotations that are the same, IDs and all, whenever they are asked for."""
    rng = random.Random(seed)
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    made = []
    for _ in range(count):
        x, y, r = rng.uniform(50, 450), rng.uniform(50, 330), rng.uniform(4, 40)
        ring = np.round(np.c_[x + r * np.cos(turns), y + r * np.sin(turns)], 2)
        identity = UUID(int=rng.getrandbits(128), version=4)
        made.append(Annotation(Polygon(ring), path_class, id=identity))
    return made


def write(study: Path) -> None:
    """Add, change and remove annotations of two images, in one write each."""
    with open_project(study, "r+") as project:
        for image in project.images[:2]:
            there = {each.id: each for each in image.annotations()}
            marks = [there[each.id] for each in drawn(image.id + "9", 3, TUMOR) if each.id in there]
            changed = [each for each in marks[1:] if each.class_name != "Tumor"]
            image.write_annotations(
                add=drawn(image.id + "new", 50, TUMOR),
                replace=[(each, each.with_changes(path_class=TUMOR)) for each in changed],
                remove=marks[:1] if len(marks) == 3 else (),
            )


def add(study: Path) -> None:
    """Add two slides, as ``qpannot init`` does."""
    slides = sorted((study.parent / "slides").glob("added*.svs"))
    result = add_slides(study, slides, image_type="BRIGHTFIELD_H_E")
    if result.failed:
        raise result.failed[0][1]


def update(study: Path) -> None:
    """Change metadata and tags of all images."""
    with open_project(study, "r+") as project:
        project.update_images(
            {
                image.id: ImageChanges(metadata={"scanned": "2026"}, tags={"seen": True})
                for image in project.images
            }
        )


def restore(study: Path) -> None:
    """Put the first snapshot of two images back."""
    with open_project(study, "r+") as project:
        for image in project.images[:2]:
            restore_image(project, image, image.snapshots()[0])


def restore_project(study: Path) -> None:
    """Put the project's file back as it was before its last change."""
    files, path = ProjectFiles(study), study / "project.qpproj"
    restore_file(path, next(each for each in files.snapshots(path) if each.number == 2))


def propose(study: Path) -> None:
    """Do round 1, as ``qpannot bootstrap`` does."""
    with open_project(study, "r+") as project:
        outcome = bootstrap(project, load_recipe("quick", ()))
        if outcome.failed:
            raise outcome.failed[0][1]


OPERATIONS = {
    "write_annotations": Operation(write),
    "add_images": Operation(add),
    "update_images": Operation(update),
    "restore": Operation(restore, person=False),
    "restore project.qpproj": Operation(restore_project),
    "bootstrap": Operation(propose),
}


def in_child(does: Callable[[], object], *, kill_at: int | None = None) -> tuple[int, int]:
    """Do something in a child process.

    Parameters
    ----------
    kill_at
        Kill it right before this call into the file system, counted from 1.

    Returns
    -------
    int, int
        How it ended (negative: by a signal), and how many calls it came to make.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        with open(read_end, "rb") as pipe:
            said = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, int(said or 0)
    code = 1
    try:
        os.close(read_end)
        calls = 0

        def before_call(frame: Any, event: str, function: Any) -> None:
            nonlocal calls
            if event != "c_call" or not _is_file_system(function):
                return
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(before_call)
        try:
            does()
        finally:
            sys.setprofile(None)
        os.write(write_end, str(calls).encode())
        code = 0
    except Exception as error:  # noqa: BLE001 - told, and counted as a failure
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def _is_file_system(function: Any) -> bool:
    of = getattr(function, "__self__", None)
    return getattr(function, "__module__", None) in FILE_SYSTEM or isinstance(of, io.IOBase)


def killed_after(does: Callable[[], object], seconds: float) -> int:
    """Do something in a child process and kill it after a time."""
    child = os.fork()
    if not child:
        code = 1
        try:
            does()
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state_of(study: Path) -> dict[str, tuple[str, ...]]:
    """Return what the images of a project hold, told apart exactly, by name.

    Annotations by ID and values; proposals, whose IDs are new each time, by their values alone.
    """
    with open_project(study) as project:
        found = {}
        for image in project.images:
            told = []
            for each in image.annotations():
                identity = "" if each.metadata else str(each.id)
                told.append(f"{identity} {each.class_name} {each.name} {each.geometry.wkb_hex}")
            found[image.name] = tuple(sorted(told))
        return found


def entries_of(study: Path) -> dict[str, tuple[Any, ...]]:
    """Return what the project says of its images, by name."""
    with open_project(study) as project:
        return {image.name: (dict(image.metadata), image.tags) for image in project.images}


def litter_of(study: Path) -> list[str]:
    """Return what is left half-written."""
    return [
        str(path.relative_to(study))
        for path in study.rglob("*")
        if path.name.endswith((".tmp", ".owner", ".held"))
    ]


def orphans_of(study: Path) -> int:
    """Return how many folders of data no image of the project has."""
    with open_project(study) as project:
        return len({path.name for path in (study / "data").glob("*") if path.is_dir()}) - len(
            project.images
        )


def try_operation(
    original: Path, operation: Operation, *, per_operation: int | None, at_random: int
) -> Report:
    """Kill one operation at many moments."""
    report = Report()
    scratch = original.parent / "copy"
    person = {
        name: {line for line in lines if " Stroma " in line}
        for name, lines in state_of(original).items()
    }

    def fresh() -> Path:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(original, scratch)  # new files, so that none is shared
        return scratch

    def does() -> None:
        operation.does(scratch)

    old, old_entries = state_of(fresh()), entries_of(scratch)
    started = time.monotonic()
    code, report.boundaries = in_child(does)
    seconds = time.monotonic() - started
    if code:
        report.failures.append("does not even work when left alone")
        return report
    new, new_entries = state_of(scratch), entries_of(scratch)

    def check(kill: str, code: int) -> None:
        if code == 0:
            return  # it was quicker
        report.kills += 1
        try:
            after, entries = state_of(scratch), entries_of(scratch)
        except Exception as error:  # noqa: BLE001 - the very thing looked for
            report.failures.append(f"{kill}: does not open: {error}")
            return
        sides = set()
        for name, lines in after.items():
            if lines == old.get(name) == new.get(name):
                continue
            side = "old" if lines == old.get(name) else "new" if lines == new.get(name) else None
            if side is None:
                report.failures.append(f"{kill}: {name} is neither old nor new")
            else:
                sides.add(side)
            if operation.person and not person.get(name, set()) <= set(lines):
                report.failures.append(f"{kill}: {name} lost what a person drew")
        if entries not in (old_entries, new_entries):
            sides.add("entries between")
        if after.keys() not in (old.keys(), new.keys()):
            report.failures.append(f"{kill}: some images were added, some not")
        report.left[" and ".join(sorted(sides)) or "old"] += 1
        if in_child(does)[0]:
            report.failures.append(f"{kill}: a rerun fails")
        elif state_of(scratch) != new or entries_of(scratch) != new_entries:
            report.failures.append(f"{kill}: a rerun gives something else")
        if orphans := orphans_of(scratch):
            report.failures.append(f"{kill}: left the data of {orphans} images that are not there")
        report.failures += [f"{kill}: left {name}" for name in litter_of(scratch)]

    count = min(per_operation or report.boundaries, report.boundaries)
    for step in range(count):
        at = 1 + step * report.boundaries // count
        fresh()
        check(f"at call {at}", in_child(does, kill_at=at)[0])
    rng = random.Random(0)
    for _ in range(at_random):
        fresh()
        after = rng.uniform(0, seconds)
        check(f"after {after:.4f} s", killed_after(does, after))
    return report


def main() -> int:
    """Run the trials."""
    parser = argparse.ArgumentParser(description="Kill writers and look at what they leave.")
    parser.add_argument("--per-operation", type=int, help="this many of each operation's moments")
    parser.add_argument("--random", type=int, default=0, help="as many after random times")
    parser.add_argument("--operation", action="append", choices=OPERATIONS, help="only these")
    asked = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        study = make_project(Path(folder))
        for name in asked.operation or OPERATIONS:
            report = try_operation(
                study, OPERATIONS[name], per_operation=asked.per_operation, at_random=asked.random
            )
            failed |= bool(report.failures)
            print(json.dumps({"operation": name, **report.__dict__}), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
