from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from qpannot.errors import QpannotError, UsageError
from qpannot.qupath.paquo.installation import find_installation
from qpannot.qupath.paquo.installing import install

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="the layout of QuPath's folder is Linux' here"
)

FILES = ("lib/app/qupath-core-{version}.jar", "lib/runtime/lib/server/libjvm.so")


def make_qupath(folder: Path, version: str = "0.6.0") -> Path:
    """Make what looks like a QuPath from outside."""
    for name in FILES:
        path = folder / name.format(version=version)
        path.parent.mkdir(parents=True)
        path.touch()
    return folder


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a current folder of one's own, and no variables that lead to a QuPath."""
    for name in [name for name in os.environ if name.startswith("PAQUO_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")


def test_the_variable_goes_before_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_qupath(tmp_path / "home" / "QuPath-0.7.0", "0.7.0")
    named = make_qupath(tmp_path / "elsewhere", "0.5.1")
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(named))
    found = find_installation()
    assert found and (found.folder, found.version) == (named, "0.5.1")
    assert found.found_by == "PAQUO_QUPATH_DIR" and found.is_supported


def test_the_newest_by_name_is_found_in_ones_home(tmp_path: Path) -> None:
    for version in ("0.5.1", "0.7.0", "0.6.0"):
        make_qupath(tmp_path / "home" / f"QuPath-{version}", version)
    (tmp_path / "home" / "QuPath-9").mkdir()  # no QuPath in it
    found = find_installation()
    assert found and found.folder == tmp_path / "home" / "QuPath-0.7.0"
    assert str(tmp_path / "home") in found.found_by


def test_condas_qupath_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_qupath(tmp_path / "home" / "QuPath-0.7.0", "0.7.0")
    conda = make_qupath(tmp_path / "env" / "opt" / "QuPath", "0.4.4")
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "env"))
    found = find_installation()
    assert found and found.folder == conda


def test_paquos_settings_are_followed(tmp_path: Path) -> None:
    named = make_qupath(tmp_path / "elsewhere")
    Path(".paquo.toml").write_text(f'qupath_dir = "{named}"\n')
    code = (
        "from qpannot.qupath.paquo.installation import find_installation as f; print(f().folder);"
        "print(f().found_by)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == [str(named), "qupath_dir in .paquo.toml"]


def test_a_named_place_without_a_qupath_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qupath(tmp_path / "home" / "QuPath-0.7.0", "0.7.0")
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(QpannotError, match=r"PAQUO_QUPATH_DIR is .*nowhere.*no QuPath"):
        find_installation()


def test_an_old_qupath_is_found_and_told_to_be_too_old(tmp_path: Path) -> None:
    make_qupath(tmp_path / "home" / "QuPath-0.3.2", "0.3.2")
    found = find_installation()
    assert found and found.version == "0.3.2" and not found.is_supported


def offered(tmp_path: Path, version: str) -> bytes:
    """The archive that QuPath offers for Linux, as far as its layout goes."""
    make_qupath(tmp_path / "archive" / "QuPath", version)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        archive.add(tmp_path / "archive" / "QuPath", "QuPath")
    return data.getvalue()


def test_a_downloaded_qupath_is_unpacked_to_where_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paquo._utils

    data = offered(tmp_path, "0.6.0")
    asked = []

    def answer(url: str, **_: object) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(data)

    monkeypatch.setattr(paquo._utils, "urlopen", answer)
    sizes: list[int] = []
    made = install("0.6.0", Path.home(), each=sizes.append)
    found = find_installation()
    assert found and found.folder == made.folder == Path.home() / "QuPath-0.6.0"
    assert sizes == [len(data)] and [path.name for path in Path.home().iterdir()] == [
        "QuPath-0.6.0"
    ]
    assert install("v0.6.0", Path.home()).folder == made.folder and len(asked) == 1


@pytest.mark.parametrize("data", [b"", b"no archive"])
def test_a_download_that_is_no_archive_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    import paquo._utils

    monkeypatch.setattr(paquo._utils, "urlopen", lambda url, **_: io.BytesIO(data))
    with pytest.raises(QpannotError, match="cannot be unpacked") as raised:
        install("0.6.0", Path.home())
    assert "releases" in str(raised.value.hint)
    assert not list(Path.home().iterdir())


def test_offline_it_says_how_to_do_it_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(QpannotError, match=r"cannot be downloaded .*refused") as raised:
        install("0.6.0", Path.home())
    assert "urlopen" not in raised.value.message
    assert "on another computer" in str(raised.value.hint)
    assert "QuPath-0.6.0" in str(raised.value.hint)
    assert not list(Path.home().iterdir())


@pytest.mark.parametrize("version", ["0.3.2", "latest", "0.6", "../0.6.0"])
def test_versions_that_cannot_be_used_are_refused(version: str) -> None:
    with pytest.raises(UsageError, match="no QuPath"):
        install(version, Path.home())


def test_what_lies_in_the_place_is_not_touched() -> None:
    (Path.home() / "QuPath-0.6.0").mkdir()
    with pytest.raises(QpannotError, match="something else"):
        install("0.6.0", Path.home())
