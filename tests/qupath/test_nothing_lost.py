"""What a person drew survives crashes, full disks, missing rights and other programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shapely.geometry import box

from qpannot.bootstrap.image_record import ImageRecord
from qpannot.bootstrap.ledger import Ledger
from qpannot.errors import ConcurrentChangeError, ProjectError
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, open_project

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
posix = pytest.mark.skipif(os.name == "nt", reason="kills, limits and rights as POSIX has them")

FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]


def square(x: float = 0, class_name: str = "Stroma") -> Annotation:
    return Annotation(box(x, 0, x + 50, 50), PathClass(class_name))


def holds(study: Path) -> list[set[object]]:
    with open_project(study) as project:
        return [{(a.id, a.geometry.wkb) for a in image.annotations()} for image in project.images]


@posix
def test_a_writer_killed_at_any_moment_leaves_the_old_or_the_new_and_a_rerun_finishes() -> None:
    script = [sys.executable, str(BENCHMARKS / "kill_trials.py"), "--per-operation", "5"]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=600)
    reports = {each["operation"]: each for each in map(json.loads, ended.stdout.splitlines())}
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(reports) == 6
    for name, report in reports.items():
        assert report["kills"] == 5, name
        assert report["failures"] == [], name


def every_kind_of_write(study: Path) -> dict[str, Callable[[], None]]:
    """Return all that writes into a project, by what it changes."""

    def write() -> None:
        with open_project(study, "r+") as project:
            project.images[0].write_annotations(add=[square(7)])

    def restore() -> None:
        with open_project(study, "r+") as project:
            project.images[0].restore(project.images[0].snapshots()[0])

    def update() -> None:
        with open_project(study, "r+") as project:
            changes = ImageChanges(metadata={"a": "b" * 9_000})
            project.update_images({image.id: changes for image in project.images})

    def set_classes() -> None:
        with open_project(study, "r+") as project:
            project.set_classes([PathClass(f"{number:05}") for number in range(2_000)])

    def record() -> None:
        def change(each: ImageRecord) -> None:
            each.nothing_found = {"method": "m" * 9_000, "settings": {}, "when": "now"}

        Ledger(study).edit_image("1", "one", change)

    return {
        "annotations": write,
        "snapshot": restore,
        "project file": update,
        "classes": set_classes,
        "ledger": record,
    }


@pytest.fixture
def study(project_folder: Path) -> Path:
    """A project with a person's annotations, a snapshot, and a ledger."""
    with open_project(project_folder, "r+") as project:
        image = project.images[0]
        image.write_annotations(add=[square(x) for x in range(100)])
        image.write_annotations(add=[square(x, "Tumor") for x in range(100)])
    Ledger(project_folder).edit_image("1", "one", lambda record: None)
    return project_folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", ["annotations", "snapshot", "project file", "classes", "ledger"])
def test_a_full_disk_changes_nothing_and_a_rerun_with_space_finishes(
    study: Path, small_disk: Path, kind: str, files_below: FilesBelow
) -> None:
    study = Path(shutil.copytree(study, small_disk / "study"))
    write = every_kind_of_write(study)[kind]
    filler = small_disk / "filler"
    failed = 0
    for pages in range(60):
        page = os.statvfs(small_disk).f_bsize
        room = os.statvfs(small_disk).f_bfree - pages
        filler.write_bytes(b"x" * (page * max(room, 0)))
        before, held = files_below(study), holds(study)
        try:
            write()
        except ProjectError as error:
            assert "No space left on device" in error.message
            assert "free space" in (error.hint or "")
            failed += 1
            filler.unlink()
            after = files_below(study)
            assert holds(study) == held
            # snapshots that were complete may stay: nothing that was there is any different
            assert before.items() <= after.items()
            assert not [name for name in after if name.endswith(".tmp")]
            continue
        break
    else:
        pytest.fail("it never had enough space")
    assert failed, "the disk was never full"


LIMITED = """
import resource, sys
from pathlib import Path
from qpannot.errors import ProjectError
from qpannot.qupath import Annotation, open_project
from shapely.geometry import box
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    with open_project(sys.argv[1], "r+") as project:
        project.images[0].write_annotations(add=[Annotation(box(1, 1, 9, 9))])
except ProjectError as error:
    print(error.message)
    sys.exit(1)
"""


@posix
def test_a_quota_changes_nothing(study: Path, files_below: FilesBelow) -> None:
    before = files_below(study)
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(study), "8192"], capture_output=True, text=True
    )
    assert ended.returncode == 1, ended.stderr
    assert "cannot be written (File too large); nothing was changed" in ended.stdout
    assert files_below(study) == before


WRITE = """
import os, sys
from qpannot.errors import QpannotError
from qpannot.qupath import Annotation, open_project
from shapely.geometry import box
if sys.argv[5:]:
    "".encode("utf-16-be")  # what is loaded late might be where the other user may not read
    os.setgroups([]), os.setgid(int(sys.argv[5])), os.setuid(int(sys.argv[5]))
try:
    with open_project(sys.argv[1], "r+") as project:
        image = project.images[int(sys.argv[2])]
        for x in range(int(sys.argv[3])):
            image.write_annotations(add=[Annotation(box(x, 1, x + 9, 9), name=sys.argv[4])])
except QpannotError as error:
    print(error)
    sys.exit(1)
"""


@pytest.fixture
def anybodys(study: Path) -> Iterator[Path]:
    """The project at a place that everybody may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = Path(shutil.copytree(study, Path(folder) / "study"))
        yield copy
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755)


@posix
@pytest.mark.parametrize("writable", ["nothing", "the top folder", "the ledger"])
def test_what_may_only_be_read_is_a_message_and_stays_as_it_is(
    anybodys: Path, writable: str, files_below: FilesBelow
) -> None:
    study, house = anybodys, anybodys / "qpannot"
    open_to_all = {
        "nothing": [],
        "the top folder": [study, house, house / "lock"],
        "the ledger": [house, *house.rglob("*")],
    }[writable]
    for path in (study, *study.rglob("*")):
        rights = 0o777 if path in open_to_all else 0o555
        path.chmod(rights if path.is_dir() else rights & 0o666)
    before = files_below(study)
    command = [sys.executable, "-c", WRITE, str(study), "0", "1", "x"]
    if os.geteuid() == 0:  # who may write everywhere: become somebody who may not
        command.append("65534")
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert "cannot be written (Permission denied)" in ended.stdout
    assert "permissions" in ended.stdout
    after = files_below(study)
    assert before.items() <= after.items()
    new = after.keys() - before.keys()
    assert all(name.startswith(os.path.join("qpannot", "snapshots")) for name in new), new


def write_in_process(study: Path, image: int, count: int, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, str(study), str(image), str(count), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_write_at_once_all_get_their_turn(study: Path) -> None:
    before = holds(study)
    writers = [
        write_in_process(study, image, 10, name)
        for image, name in ((0, "first"), (0, "second"), (1, "third"))
    ]
    said = [writer.communicate(timeout=120)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], said
    after = holds(study)
    assert before[0] <= after[0]
    assert [len(each) for each in after] == [220, 10, 0]


def saved_by_qupath(project: Project, meanwhile: Callable[[], None]) -> None:
    """Save an image as QuPath does: the old data aside, the new in its place, the old away."""
    path = project.folder / "data" / "1" / "data.qpdata"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(project.folder, Path(folder) / "study"))
        with open_project(copy, "r+") as other:
            annotations = other.images[0].annotations()
            other.images[0].write_annotations(add=[square(5, "Necrosis")], remove=annotations[:1])
        saved = (copy / "data" / "1" / "data.qpdata").read_bytes()
    backup = path.with_name("data.qpdata.bkp")
    path.rename(backup)
    path.write_bytes(saved)
    meanwhile()
    backup.unlink()


@pytest.fixture
def qupath_saves_while_we_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Project], None]:
    """Let QuPath save the first image after it was read to be changed, before it is replaced."""

    def arrange(project: Project) -> None:
        synced = os.fsync

        def save_meanwhile(descriptor: int) -> None:
            monkeypatch.setattr(os, "fsync", synced)
            saved_by_qupath(project, lambda: None)
            synced(descriptor)

        monkeypatch.setattr(os, "fsync", save_meanwhile)

    return arrange


def test_what_qupath_saves_between_our_read_and_our_write_is_merged_by_object_id(
    study: Path, qupath_saves_while_we_write: Callable[[Project], None]
) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        read = image.annotations()
        ours = square(1, "Tumor")
        kept, changed = read[1], read[2].with_changes(name="ours")
        qupath_saves_while_we_write(project)
        image.write_annotations(add=[ours], replace=[(read[2], changed)], remove=[read[3]])
        after = image.annotations()
    names = {annotation.id: annotation.name for annotation in after}
    assert read[0].id not in names, "deleted in QuPath"
    assert sum(a.class_name == "Necrosis" for a in after) == 1, "drawn in QuPath"
    assert kept.id in names and ours.id in names
    assert names[changed.id] == "ours"
    assert read[3].id not in names


def test_a_change_of_what_qupath_deleted_meanwhile_stops_and_keeps_its_save(
    study: Path, qupath_saves_while_we_write: Callable[[Project], None]
) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        read = image.annotations()
        qupath_saves_while_we_write(project)
        with pytest.raises(ConcurrentChangeError, match="was deleted since it was read") as caught:
            image.write_annotations(replace=[(read[0], read[0].with_changes(name="ours"))])
        assert caught.value.hint == "Run the command again: it starts from what is there now."
        after = image.annotations()
    assert sum(a.class_name == "Necrosis" for a in after) == 1
    assert not any(a.name == "ours" for a in after)


def test_damaged_data_is_restored_over_and_kept(study: Path, files_below: FilesBelow) -> None:
    with open_project(study, "r+") as project:
        image = project.images[0]
        path = study / "data" / "1" / "data.qpdata"
        damaged = path.read_bytes()[:-400] + b"\0" * 400
        path.write_bytes(damaged)
        snapshot = image.snapshots()[0]
        restored = image.restore(snapshot)
        assert len(restored) == image.count_annotations() == len(image.annotations()) == 100
        assert path.read_bytes() == snapshot.read()
        assert image.snapshots()[-1].read() == damaged
        with pytest.raises(ProjectError):
            image.restore(image.snapshots()[-1])
        assert path.read_bytes() == snapshot.read()


def test_a_restore_waits_for_a_save_of_qupath_and_keeps_what_it_saved(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study / "data" / "1" / "data.qpdata"
    with open_project(study, "r+") as project:
        image = project.images[0]
        snapshot = image.snapshots()[0]
        image.write_annotations(add=[square(5, "Necrosis")])
        saved = path.read_bytes()
        path.rename(backup := path.with_name("data.qpdata.bkp"))
        path.write_bytes(saved[: len(saved) // 2])
        looks = []

        def go_on_saving(_: float) -> None:
            looks.append(path.read_bytes())
            if len(looks) == 3:
                with path.open("ab") as file:
                    file.write(saved[len(saved) // 2 :])
                backup.unlink()

        monkeypatch.setattr("qpannot.qupath.files.time.sleep", go_on_saving)
        image.restore(snapshot)
        monkeypatch.undo()
        assert looks == [saved[: len(saved) // 2]] * 3, "not written over while QuPath saved"
        assert path.read_bytes() == snapshot.read()
        assert image.snapshots()[-1].read() == saved
        image.restore(image.snapshots()[-1])
        assert any(each.class_name == "Necrosis" for each in image.annotations())


def test_a_snapshot_of_another_image_is_refused(study: Path) -> None:
    with open_project(study, "r+") as project:
        one, two, _ = project.images
        with pytest.raises(ProjectError, match=r"no snapshot of two\.svs"):
            two.restore(one.snapshots()[0])
        assert two.annotations() == ()


def test_nothing_is_restored_into_a_project_opened_for_reading(
    study: Path, files_below: FilesBelow
) -> None:
    before = files_below(study)
    with open_project(study) as project:
        snapshots = project.images[0].snapshots()
        with pytest.raises(ProjectError, match="reading only"):
            project.images[0].restore(snapshots[0])
    assert files_below(study) == before
