"""Broken and hostile data files: read or refused with a clear error, and nothing else.

The test tries some. To hunt for more, in a process of limited memory and with a limit on time:

    python tests/qupath/qpdata/test_hostile.py --inputs 20000 --seed 1 [FILE.qpdata ...]
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest
import shapely

from qpannot.errors import FormatError, QpannotError
from qpannot.qupath.annotation import Annotation, Detection, ObjectKind, PathClass, Plane, RoiType
from qpannot.qupath.qpdata.datafile import QpData

MEMORY_LIMIT_BYTES = 2 << 30
SECONDS_PER_INPUT = 20
HANDLE = b"\x71\x00\x7e"


def sample() -> bytes:
    """Return a small file with objects of all kinds, some of them alike."""
    square = shapely.box(10, 10, 60, 60)
    holed = shapely.Polygon(square.exterior, [shapely.box(20, 20, 30, 30).exterior])
    tumor = PathClass("Tumor: Positive", (200, 0, 0))
    top = Annotation(square, tumor, roi=RoiType.RECTANGLE, name="a\0ü😀", locked=True)
    objects: list[Annotation | Detection] = [
        top,
        *(Annotation(square, tumor, metadata={"k": "v"}, parent_id=top.id) for _ in range(4)),
        *(Annotation(holed, color=(1, 2, 3), measurements={"m": 0.5}) for _ in range(3)),
        Annotation(shapely.MultiPoint([(1, 2), (3, 4)]), plane=Plane(0, 1, 2)),
        *(
            Detection(
                square, tumor, measurements={"a": 1, "b": 2}, kind=ObjectKind.CELL, nucleus=holed
            )
            for _ in range(3)
        ),
        *(Detection(shapely.Point(i, i), kind=ObjectKind.DETECTION) for i in range(3)),
    ]
    data = QpData.new(qupath_version="0.6.0", image_type="BRIGHTFIELD_H_E")
    data.add(objects)
    return data.to_bytes()


def mutated(seeds: list[bytes], rng: random.Random) -> tuple[str, bytes]:
    """Return one of the seeds with some damage, and what kind of damage it is."""
    data = bytearray(rng.choice(seeds))
    kind = rng.choice(
        ["bytes", "bits", "cut", "remove", "repeat", "insert", "splice", "length", "handle", "code"]
    )
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        at = rng.randrange(4, max(5, len(data)))
        length = min(rng.choice([1, 2, 4, 16, 100, 1000]), len(data) - at)
        if kind == "bytes":
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == "bits" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * rng.choice([1, 2, 50])
        elif kind == "insert":
            data[at:at] = rng.randbytes(length)
        elif kind == "splice":
            other = rng.choice(seeds)
            start = rng.randrange(4, len(other))
            data[at : at + length] = other[start : start + rng.choice([length, 4, 200, 5000])]
        elif kind == "length":
            value = rng.choice([0, 1, 0x7F, 0xFF, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1])
            width = rng.choice([2, 4, 8])
            value &= (1 << 8 * width) - 1
            data[at : at + width] = value.to_bytes(width)
        elif kind == "handle":
            places = [i for i in range(4, len(data) - 5) if data.startswith(HANDLE, i)]
            if places:
                place = rng.choice(places)
                wanted = rng.choice([rng.randrange(300), 0xFFFF, rng.randrange(30)])
                data[place + 3 : place + 5] = struct.pack(">H", wanted)
        else:
            data[at : at + 1] = bytes([rng.choice(range(0x70, 0x7F))])
    return kind, bytes(data)


def exercise(data: bytes) -> str:
    """Read a file, edit it, and read it again; return how that ended."""
    try:
        read = QpData.parse(data, source="hostile.qpdata")
        assert read.to_bytes() == data
        annotations = read.annotations()
        read.objects()
        read.summary()
    except FormatError:
        return "refused"
    try:
        if annotations:
            read.replace(annotations[-1].with_changes(name="renamed"))
            read.remove([annotations[0].id])
        read.add([Annotation(shapely.box(0, 0, 9, 9), PathClass("Other"), metadata={"a": "b"})])
    except QpannotError:
        return "not edited"
    back = QpData.parse(read.to_bytes(), source="reread.qpdata")
    assert read.is_same(back)
    assert len(back.annotations()) == max(len(annotations), 1)
    assert back.to_bytes() == read.to_bytes()
    return "edited"


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("it takes too long")


def hunt(inputs: int, seed: int, files: list[Path], progress: Path) -> int:
    """Try many inputs in this process; return how many ended in anything but a clear error."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    signal.signal(signal.SIGALRM, _too_slow)
    seeds = [sample(), *(file.read_bytes() for file in files)]
    ends: Counter[str] = Counter()
    failures = 0
    for i in range(inputs):
        kind, data = mutated(seeds, random.Random(f"{seed}/{i}"))
        progress.write_text(f"input {i} of seed {seed} ({kind})")
        signal.alarm(SECONDS_PER_INPUT)
        try:
            ends[exercise(data)] += 1
        except BaseException:  # noqa: BLE001
            failures += 1
            trace = traceback.format_exc(limit=-4)
            sys.stdout.write(f"input {i} of seed {seed} ({kind}):\n{trace}\n")
        finally:
            signal.alarm(0)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{inputs} inputs, {failures} failures, {dict(ends)}, peak {peak_mb:.0f} MB\n")
    return failures


def hunt_apart(inputs: int, seed: int, files: list[Path]) -> tuple[bool, str]:
    """Try many inputs in a process of their own; return whether all went well, and its report."""
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "progress"
        command = [sys.executable, __file__, "--within", str(progress), "--inputs", str(inputs)]
        done = subprocess.run(
            [*command, "--seed", str(seed), *map(str, files)],
            capture_output=True,
            text=True,
            check=False,
        )
        at = progress.read_text() if progress.exists() else "the beginning"
        crash = f"crashed with {done.returncode} at {at}\n" if done.returncode not in (0, 1) else ""
        return done.returncode == 0, crash + done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
def test_damaged_files_are_read_or_refused_in_bounded_time_and_memory(
    request: pytest.FixtureRequest,
) -> None:
    went_well, report = hunt_apart(1_500, seed=0, files=[])
    assert went_well, report
    # of each kind of end there are many
    assert "refused" in report and "edited" in report


def test_damage_to_files_of_qupath_does_no_more_harm(shared_data: Path) -> None:
    files = sorted((shared_data / "qupath/written-by-qupath").rglob("data.qpdata"))
    went_well, report = hunt_apart(1_000, seed=0, files=files)
    assert went_well, report


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("files", type=Path, nargs="*", help="more files to damage")
    options = parser.parse_args()
    if options.within:
        sys.exit(min(1, hunt(options.inputs, options.seed, options.files, options.within)))
    went_well, report = hunt_apart(options.inputs, options.seed, options.files)
    sys.stdout.write(report)
    sys.exit(not went_well)


if __name__ == "__main__":
    main()
