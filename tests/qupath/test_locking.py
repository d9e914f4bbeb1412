from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qpannot.errors import LockedError, ProjectError
from qpannot.qupath.files import ProjectFiles

HOLD = """
import pathlib, sys
from qpannot.qupath.files import ProjectFiles
if sys.argv[2:] == ["--no-locks"]:
    import errno, fcntl
    def no_locks(*_): raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = no_locks
with ProjectFiles(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
posix = pytest.mark.skipif(os.name == "nt", reason="as POSIX systems kill and lock")


@contextmanager
def another_holds(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline().strip() == b"held"
        yield other
        other.stdin.close()


def test_who_holds_the_project_is_told(tmp_path: Path) -> None:
    files = ProjectFiles(tmp_path, timeout_s=0.2)
    with another_holds(tmp_path) as other:
        with pytest.raises(LockedError) as caught:
            files.edit(tmp_path / "a", lambda _: b"x")
        assert f"process {other.pid} on " in caught.value.message
        assert "-c" in caught.value.message and "since 20" in caught.value.message
        assert "Wait for it to finish" in (caught.value.hint or "")
        assert not (tmp_path / "a").exists()
    assert files.edit(tmp_path / "a", lambda _: b"x") == b"x"


def test_a_process_that_comes_second_waits_and_then_goes_on(tmp_path: Path) -> None:
    files = ProjectFiles(tmp_path, timeout_s=30)
    with another_holds(tmp_path) as other:
        assert other.stdin is not None
        threading.Timer(0.5, other.stdin.close).start()
        assert files.edit(tmp_path / "a", lambda _: b"x") == b"x"


@posix
@pytest.mark.parametrize("arguments", [[], ["--no-locks"]])
def test_the_lock_of_a_killed_process_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    if arguments:
        refuse_to_lock(monkeypatch, errno.ENOLCK)
    with another_holds(tmp_path, *arguments) as other:
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=30)
        files = ProjectFiles(tmp_path, timeout_s=30)
        assert files.edit(tmp_path / "a", lambda _: b"x") == b"x"
    assert [path.name for path in (tmp_path / "qpannot").iterdir()] == ["lock"]


def refuse_to_lock(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    import fcntl

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


@posix
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_share_that_cannot_lock_is_written_one_at_a_time_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "qpannot").mkdir()
    (tmp_path / "qpannot" / "lock").touch()  # the project was copied here from a disk with locks
    refuse_to_lock(monkeypatch, code)
    files = ProjectFiles(tmp_path, timeout_s=0.2)
    assert files.edit(tmp_path / "a", lambda _: b"1") == b"1"
    with another_holds(tmp_path, "--no-locks"):
        with pytest.raises(LockedError, match="another process") as caught:
            files.edit(tmp_path / "a", lambda _: b"2")
        assert f"delete {tmp_path / 'qpannot' / 'lock.held'}" in (caught.value.hint or "")
    assert files.edit(tmp_path / "a", lambda _: b"2") == b"2"


@posix
def test_a_disk_that_fails_to_lock_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_lock(monkeypatch, errno.EIO)
    with pytest.raises(ProjectError, match="cannot be written"):
        ProjectFiles(tmp_path).edit(tmp_path / "a", lambda _: b"1")
    assert not (tmp_path / "a").exists()


def test_the_holder_may_take_the_lock_again(tmp_path: Path) -> None:
    files = ProjectFiles(tmp_path, timeout_s=0.2)
    with files.locked(), files.locked():
        assert files.edit(tmp_path / "a", lambda _: b"1") == b"1"
        with pytest.raises(LockedError):
            ProjectFiles(tmp_path, timeout_s=0.1).edit(tmp_path / "a", lambda _: b"2")
    assert ProjectFiles(tmp_path, timeout_s=0.1).edit(tmp_path / "a", lambda _: b"2") == b"2"
