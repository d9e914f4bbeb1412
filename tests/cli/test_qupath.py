from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="the layout of QuPath's folder is Linux' here"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def qpannot(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person without any QuPath but those in their home."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PAQUO_", "CONDA_"))}
    return subprocess.run(
        [sys.executable, "-m", "qpannot", *arguments],
        capture_output=True,
        text=True,
        cwd=home,
        env={**kept, "HOME": str(home), **more},
    )


def make_qupath(folder: Path, version: str) -> Path:
    for name in (f"lib/app/qupath-core-{version}.jar", "lib/runtime/lib/server/libjvm.so"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.touch()
    return folder


def test_find_names_the_folder_the_version_and_how_to_choose_another(home: Path) -> None:
    folder = make_qupath(home / "QuPath-0.6.0", "0.6.0")
    shown = qpannot(home, "qupath", "find")
    assert shown.returncode == 0 and shown.stderr == ""
    assert f"QuPath 0.6.0 at {folder}" in shown.stdout and "PAQUO_QUPATH_DIR" in shown.stdout
    found = json.loads(qpannot(home, "qupath", "find", "--json").stdout)
    assert found == {
        "folder": str(folder),
        "version": "0.6.0",
        "found_by": f"a search of {home}",
        "supported": True,
    }


def test_find_says_what_to_do_where_there_is_none(home: Path) -> None:
    shown = qpannot(home, "qupath", "find", "--json")
    if shown.returncode == 0:
        pytest.skip("a QuPath is installed on this machine")
    assert shown.returncode == 1 and json.loads(shown.stdout) is None
    shown = qpannot(home, "qupath", "find")
    assert shown.returncode == 1 and "qpannot qupath install" in shown.stdout


def test_find_names_a_variable_that_leads_nowhere(home: Path) -> None:
    shown = qpannot(home, "qupath", "find", PAQUO_QUPATH_DIR=str(home / "none"))
    assert shown.returncode == 1 and "PAQUO_QUPATH_DIR is" in shown.stderr


def test_install_offline_says_how_to_do_it_by_hand(home: Path) -> None:
    nobody = "http://127.0.0.1:9"
    shown = qpannot(
        home, "qupath", "install", "--folder", "q", https_proxy=nobody, HTTPS_PROXY=nobody
    )
    assert shown.returncode == 1 and shown.stdout == ""
    assert "cannot be downloaded" in shown.stderr and "another computer" in shown.stderr
    assert not list((home / "q").iterdir())


def test_install_leaves_what_is_there_and_says_how_to_use_it(home: Path) -> None:
    folder = make_qupath(home / "tools" / "QuPath-0.6.0", "0.6.0")
    shown = qpannot(home, "qupath", "install", "--version", "0.6.0", "--folder", "tools")
    assert shown.returncode == 0 and "PAQUO_QUPATH_DIR=" in shown.stdout
    shown = qpannot(home, "qupath", "install", "--folder", str(folder.parent), "--json")
    assert json.loads(shown.stdout) == {
        "folder": str(folder),
        "version": "0.6.0",
        "found": False,
    }


def test_doctor_tells_a_qupath_that_does_not_work(home: Path) -> None:
    make_qupath(home / "QuPath-0.6.0", "0.6.0")
    found = {each["what"]: each for each in json.loads(qpannot(home, "doctor", "--json").stdout)}
    assert found["QuPath"]["verdict"] == "ok" and "0.6.0" in found["QuPath"]["found"]
    assert found["project backend"]["verdict"] == "absent"
    assert found["project backend"]["found"].startswith("builtin")
    assert "cannot be used" in found["project backend"]["meaning"]
