from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qpannot.errors import ConcurrentChangeError, FormatError, ProjectError
from qpannot.qupath.files import KEPT_SNAPSHOTS, QUIET_S, ProjectFiles, write_atomically
from qpannot.qupath.snapshots import NEWEST


@pytest.fixture
def files(tmp_path: Path) -> ProjectFiles:
    return ProjectFiles(tmp_path, timeout_s=0.2)


def test_an_edit_replaces_the_file_and_keeps_a_snapshot(files: ProjectFiles) -> None:
    path = files.folder / "data" / "1" / "data.qpdata"
    assert files.edit(path, lambda old: b"one" if old is None else None) == b"one"
    assert files.edit(path, lambda old: (old or b"") + b" two") == b"one two"
    assert path.read_bytes() == b"one two"
    assert [snapshot.read() for snapshot in files.snapshots(path)] == [b"one"]


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


def test_snapshots_are_bounded_and_the_first_and_the_newest_are_kept(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    for number in range(KEPT_SNAPSHOTS + 6):
        files.edit(path, lambda _, number=number: b"%d" % number)  # type: ignore[misc]
    kept = [int(snapshot.read()) for snapshot in files.snapshots(path)]
    assert len(kept) == KEPT_SNAPSHOTS
    assert kept[0] == 0
    assert kept[-NEWEST:] == list(range(KEPT_SNAPSHOTS + 5 - NEWEST, KEPT_SNAPSHOTS + 5))


def test_snapshots_of_a_project_are_bounded_together(
    files: ProjectFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpannot.qupath.files.SNAPSHOT_BYTES", 5_000)
    paths = [files.folder / "data" / str(image) / "data.qpdata" for image in (1, 2, 3)]
    for number in range(8):
        for path in paths:
            files.edit(path, lambda _, number=number: b"%d" % number * 1000)  # type: ignore[misc]
    for path in paths:
        kept = [snapshot.read()[:1] for snapshot in files.snapshots(path)]
        assert kept[0] == b"0" and kept[-1] == b"6"
    total = sum(each.size for path in paths for each in files.snapshots(path))
    assert total == 6_000, "the first and the newest of three files, and none in between"


def test_what_is_the_newest_snapshot_already_is_not_kept_twice(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    for text in (b"1", b"2"):
        files.edit(path, lambda _, text=text: text)  # type: ignore[misc]
    path.write_bytes(b"1")
    files.edit(path, lambda _: b"3")
    assert [snapshot.read() for snapshot in files.snapshots(path)] == [b"1"]


def test_a_snapshot_tells_when_its_file_was_saved(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    path.write_bytes(b"old")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    files.edit(path, lambda _: b"new")
    (snapshot,) = files.snapshots(path)
    assert snapshot.saved == datetime.fromtimestamp(1_700_000_000, UTC)
    assert snapshot.taken > snapshot.saved
    assert snapshot.size == 3


def test_a_restored_file_is_as_it_was_and_restoring_can_be_undone(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    for text in (b"1", b"2", b"3"):
        files.edit(path, lambda _, text=text: text)  # type: ignore[misc]
    first, _ = files.snapshots(path)
    assert files.restore(first) == b"1"
    assert path.read_bytes() == b"1"
    kept = files.snapshots(path)[-1]
    assert kept.read() == b"3"
    assert files.restore(kept) == b"3"
    assert files.restore(kept) is None, "it is there already"


def test_a_snapshot_that_was_damaged_is_not_restored(files: ProjectFiles) -> None:
    path = files.folder / "a.json"
    path.write_bytes(b"old")
    files.edit(path, lambda _: b"new")
    (snapshot,) = files.snapshots(path)
    snapshot.path.write_bytes(b"odd")
    with pytest.raises(FormatError, match="damaged after it was taken"):
        files.restore(snapshot)
    assert path.read_bytes() == b"new"


def test_snapshots_taken_before_names_held_a_digest_are_listed_and_restored(
    files: ProjectFiles,
) -> None:
    path = files.folder / "data" / "1" / "data.qpdata"
    files.edit(path, lambda _: b"new")
    folder = files.folder / "qpannot" / "snapshots" / "data" / "1"
    folder.mkdir(parents=True)
    (folder / "000007-20260131T094512Z-data.qpdata").write_bytes(b"old")
    (snapshot,) = files.snapshots(path)
    assert snapshot.number == 7
    assert files.restore(snapshot) == b"old"
    assert [each.number for each in files.snapshots(path)] == [7, 8]


def test_files_whose_names_end_alike_do_not_share_snapshots(files: ProjectFiles) -> None:
    for name in ("a.qpproj", "copy-a.qpproj"):
        path = files.folder / name
        path.write_bytes(name.encode())
        files.edit(path, lambda _: b"new")
    for name in ("a.qpproj", "copy-a.qpproj"):
        assert [each.read() for each in files.snapshots(files.folder / name)] == [name.encode()]
    assert [path.name for path in files.files_with_snapshots()] == ["a.qpproj", "copy-a.qpproj"]


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
    assert [snapshot.read() for snapshot in files.snapshots(path)] == [b"old"]


def test_a_save_that_broke_off_half_way_is_gone_on_from_what_was_there_before(
    files: ProjectFiles,
) -> None:
    path, backup = files.folder / "data", files.folder / "data.bkp"
    path.write_bytes(b"half of")
    backup.write_bytes(b"old EOF")
    edited = files.edit(
        path,
        lambda old: b"ours on " + (old or b""),
        backup=backup,
        is_whole=lambda data: data.endswith(b"EOF"),
    )
    assert edited == path.read_bytes() == b"ours on old EOF"
    assert [snapshot.read() for snapshot in files.snapshots(path)] == [b"half of", b"old EOF"]


def test_a_long_save_is_waited_for(files: ProjectFiles) -> None:
    path, backup = files.folder / "data", files.folder / "data.bkp"
    path.write_bytes(b"")
    backup.write_bytes(b"old EOF")

    def save_slowly() -> None:
        with path.open("ab", buffering=0) as file:
            for part in (b"new", b" and", b" long", b" and", b" slow", b" EOF"):
                time.sleep(QUIET_S / 2)
                file.write(part)
        backup.unlink()

    saving = threading.Thread(target=save_slowly)
    saving.start()
    edited = files.edit(
        path,
        lambda old: b"ours on " + (old or b""),
        backup=backup,
        is_whole=lambda data: data.endswith(b"EOF"),
    )
    saving.join()
    assert edited == path.read_bytes() == b"ours on new and long and slow EOF"


@pytest.mark.skipif(os.name == "nt", reason="Windows renames no file that another program has open")
@pytest.mark.parametrize("opened_first", [True, False])
def test_a_save_that_begins_between_the_last_look_and_the_rename_is_noticed(
    files: ProjectFiles, monkeypatch: pytest.MonkeyPatch, opened_first: bool
) -> None:
    path, backup = files.folder / "data", files.folder / "data.bkp"
    path.write_bytes(b"read EOF")
    rename = os.replace

    def save_as_qupath(before_rename: Callable[[], object]) -> None:
        rename(path, backup)
        if opened_first:
            file = path.open("wb")
            before_rename()
        else:
            before_rename()
            file = path.open("wb")
        with file:
            file.write(b"saved by QuPath EOF")
        backup.unlink()

    def replace(source: Path, target: Path) -> None:
        if target != path:
            rename(source, target)
            return
        monkeypatch.setattr(os, "replace", rename)
        replaced = threading.Event()
        saving = threading.Thread(target=save_as_qupath, args=[replaced.wait])
        saving.start()
        while not backup.exists() or (opened_first and not path.exists()):
            time.sleep(0.001)
        rename(source, target)
        threading.Timer(0.3, replaced.set).start()

    monkeypatch.setattr(os, "replace", replace)

    def edit() -> bytes | None:
        return files.edit(
            path,
            lambda old: (old or b"")[:-3] + b"+ ours EOF",
            backup=backup,
            is_whole=lambda data: data.endswith(b"EOF"),
        )

    if opened_first:  # what QuPath writes, nobody sees: its file has no name any more
        with pytest.raises(ConcurrentChangeError, match="its save was lost"):
            edit()
    else:
        assert edit() == path.read_bytes() == b"saved by QuPath + ours EOF"


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"N" + data[1:]])
def test_what_is_written_is_read_back(
    files: ProjectFiles, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]
) -> None:
    path = files.folder / "a"
    path.write_bytes(b"old")
    synced = os.fsync

    def spoil_on_disk(descriptor: int) -> None:
        synced(descriptor)
        (temporary,) = files.folder.glob(".a.*.tmp")
        temporary.write_bytes(spoil(temporary.read_bytes()))

    monkeypatch.setattr(os, "fsync", spoil_on_disk)
    with pytest.raises(ProjectError, match="reads back differently"):
        write_atomically(path, b"new" * 1_000_000)
    assert path.read_bytes() == b"old"
    assert os.listdir(files.folder) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="links and modes are POSIX's")
def test_links_and_permissions_survive_a_write(files: ProjectFiles) -> None:
    target, link = files.folder / "target", files.folder / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    files.edit(link, lambda _: b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_behind_is_cleared_away_wherever_it_was(
    files: ProjectFiles,
) -> None:
    code = (
        "import os, pathlib, signal, sys; from qpannot.qupath.files import ProjectFiles\n"
        "files = ProjectFiles(pathlib.Path(sys.argv[1]))\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.edit(files.folder / 'data' / '1' / 'data.qpdata', lambda _: b'new')"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(files.folder)], timeout=60)
    assert ended.returncode != 0
    (half,) = files.folder.rglob("*.tmp")
    assert half.name.startswith(".data.qpdata.")
    foreign = files.folder / ".mine.tmp"
    foreign.write_bytes(b"another program's")
    files.edit(files.folder / "classes.json", lambda _: b"x")
    assert not half.exists()
    assert foreign.exists()
    assert [path.name for path in (files.folder / "qpannot").iterdir()] == ["lock"]


def test_snapshots_are_found_whatever_the_file_is_called(files: ProjectFiles) -> None:
    path = files.folder / "a [v2].qpproj"
    for text in (b"1", b"2", b"3"):
        files.edit(path, lambda _, text=text: text)  # type: ignore[misc]
    assert [snapshot.read() for snapshot in files.snapshots(path)] == [b"1", b"2"]
