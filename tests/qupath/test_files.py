from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qpannot.errors import ConcurrentChangeError, LockedError, ProjectError
from qpannot.qupath.files import KEPT_SNAPSHOTS, ProjectFiles, write_atomically


@pytest.fixture
def files(tmp_path: Path) -> ProjectFiles:
    return ProjectFiles(tmp_path, timeout_s=0.2)


def test_an_edit_replaces_the_file_and_keeps_a_snapshot(files: ProjectFiles) -> None:
    path = files.folder / "data" / "1" / "data.qpdata"
    assert files.edit(path, lambda old: b"one" if old is None else None) == b"one"
    assert files.edit(path, lambda old: (old or b"") + b" two") == b"one two"
    assert path.read_bytes() == b"one two"
    assert [snapshot.read_bytes() for snapshot in files.snapshots(path)] == [b"one"]


def test_an_edit_that_changes_nothing_writes_nothing(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    path.write_bytes(b"same")
    before = path.stat().st_mtime_ns
    assert files.edit(path, lambda old: old) is None
    assert files.edit(path, lambda old: None) is None
    assert path.stat().st_mtime_ns == before
    assert files.snapshots(path) == []


def test_an_error_while_changing_leaves_the_old_file_and_no_litter(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    path.write_bytes(b"old")

    def fail(old: bytes | None) -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        files.edit(path, fail)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in files.folder.glob(".*")] == []


def test_a_save_by_another_program_in_between_is_noticed_and_built_upon(
    files: ProjectFiles,
) -> None:
    path = files.folder / "a.json"
    path.write_bytes(b"read")
    seen = []

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 1:
            path.write_bytes(b"saved by QuPath")
        return (old or b"") + b" + ours"

    assert files.edit(path, change) == b"saved by QuPath + ours"
    assert seen == [b"read", b"saved by QuPath"]


def test_a_program_that_never_stops_saving_is_not_overwritten(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    path.write_bytes(b"0")

    def change(old: bytes | None) -> bytes:
        path.write_bytes(str(time.monotonic_ns()).encode())
        return b"ours"

    with pytest.raises(ConcurrentChangeError, match="keeps saving"):
        files.edit(path, change)
    assert path.read_bytes() != b"ours"


def test_snapshots_are_bounded_and_the_first_is_kept(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    for number in range(KEPT_SNAPSHOTS + 6):
        files.edit(path, lambda _, number=number: b"%d" % number)  # type: ignore[misc]
    kept = [int(snapshot.read_bytes()) for snapshot in files.snapshots(path)]
    assert len(kept) == KEPT_SNAPSHOTS
    assert kept[0] == 0
    assert kept[1:] == list(range(KEPT_SNAPSHOTS + 5 - len(kept[1:]), KEPT_SNAPSHOTS + 5))


def test_another_process_that_holds_the_lock_is_waited_for_then_named(files: ProjectFiles) -> None:
    code = (
        "import sys, pathlib; from qpannot.qupath.files import ProjectFiles\n"
        "with ProjectFiles(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(files.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(LockedError, match="another process"):
            files.edit(files.folder / "a", lambda _: b"x")
        other.stdin.close()
        other.wait(timeout=10)
    assert files.edit(files.folder / "a", lambda _: b"x") == b"x"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_clear_error_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    opened = Path.open

    def on_a_full_disk(self: Path, *args: str, **kwargs: str) -> object:
        full = Path("/dev/full") if self.suffix == ".tmp" else self
        return opened(full, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with pytest.raises(ProjectError, match="No space left"):
        write_atomically(path, b"new" * 100_000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ProjectError, match="cannot be written"):
            ProjectFiles(tmp_path).edit(tmp_path / "a", lambda _: b"x")
    finally:
        tmp_path.chmod(0o700)


def test_a_save_while_our_file_is_being_written_is_kept(
    files: ProjectFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.folder / "a.json"
    path.write_bytes(b"read")
    synced = os.fsync

    def save_meanwhile(descriptor: int) -> None:
        synced(descriptor)
        monkeypatch.setattr(os, "fsync", synced)
        path.write_bytes(b"saved by QuPath")

    monkeypatch.setattr(os, "fsync", save_meanwhile)
    assert files.edit(path, lambda old: (old or b"") + b" + ours") == b"saved by QuPath + ours"


def test_qupath_is_given_time_to_finish_a_save(files: ProjectFiles) -> None:
    path, backup = files.folder / "data", files.folder / "data.bkp"
    backup.write_bytes(b"old")

    def finish_saving() -> None:
        path.write_bytes(b"new")
        backup.unlink()

    finish = threading.Timer(0.7, finish_saving)
    finish.start()
    assert files.edit(path, lambda old: (old or b"") + b" + ours", backup=backup) == b"new + ours"
    finish.join()


def test_a_save_that_broke_off_is_gone_on_from(files: ProjectFiles) -> None:
    path, backup = files.folder / "data", files.folder / "data.bkp"
    backup.write_bytes(b"old")
    assert files.edit(path, lambda old: (old or b"") + b" + ours", backup=backup) == b"old + ours"
    assert [snapshot.read_bytes() for snapshot in files.snapshots(path)] == [b"old"]


def test_what_is_written_is_read_back(files: ProjectFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.folder / "a"
    path.write_bytes(b"old")
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self)[:-1])
    with pytest.raises(ProjectError, match="reads back differently"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="links and modes are POSIX's")
def test_links_and_permissions_survive_a_write(files: ProjectFiles) -> None:
    target, link = files.folder / "target", files.folder / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    files.edit(link, lambda _: b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_behind_is_cleared_away(files: ProjectFiles) -> None:
    litter = files.folder / ".a[1].json.4711.tmp"
    litter.write_bytes(b"half")
    files.edit(files.folder / "a[1].json", lambda _: b"x")
    assert not litter.exists()


def test_snapshots_are_found_whatever_the_file_is_called(files: ProjectFiles) -> None:
    path = files.folder / "a [v2].qpproj"
    for text in (b"1", b"2", b"3"):
        files.edit(path, lambda _, text=text: text)  # type: ignore[misc]
    assert [snapshot.read_bytes() for snapshot in files.snapshots(path)] == [b"1", b"2"]
