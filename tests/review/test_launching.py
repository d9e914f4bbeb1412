from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qpannot

REPOSITORY = Path(qpannot.__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_without_a_screen_the_command_says_what_to_do(
    proposed_study: Any, here: Callable[..., Any], no_display: None
) -> None:
    pytest.importorskip("napari")
    ended = here("review", proposed_study.project)
    assert ended.code == 1
    assert "no screen" in ended.err
    assert "ssh -X" in ended.err
    assert "QuPath" in ended.err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_a_screen_that_cannot_be_reached_is_told_of_and_nothing_crashes(
    proposed_study: Any,
    here: Callable[..., Any],
    no_display: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("napari")
    monkeypatch.setenv("DISPLAY", ":12345")
    ended = here("review", proposed_study.project)
    assert ended.code == 1
    assert "No window can be opened" in ended.err
    assert "libxcb-cursor0" in ended.err


def test_without_napari_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'napari':\n"
        "            raise ModuleNotFoundError(name)\n"
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'napari' else found(name)\n"
        "sys.argv = ['qpannot', 'review', sys.argv[1]]\n"
        "from qpannot.cli import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert 'pip install "qpannot[review]"' in ended.stderr


def test_an_image_that_is_not_there_is_wrong_usage(
    proposed_study: Any, here: Callable[..., Any]
) -> None:
    pytest.importorskip("napari")
    ended = here("review", proposed_study.project, "--image", "nothing")
    assert ended.code == 2
    assert "no image 'nothing'" in ended.err


def test_where_no_slide_waits_no_window_opens(
    project_folder: Path, here: Callable[..., Any], no_display: None
) -> None:
    pytest.importorskip("napari")
    ended = here("review", project_folder)
    assert ended.code == 0, ended.err
    assert "No slide waits" in ended.out


def test_where_every_slide_that_waits_is_missing_the_command_says_how_to_find_them(
    project_folder: Path, slide_file: Path, here: Callable[..., Any], no_display: None
) -> None:
    pytest.importorskip("napari")
    assert here("bootstrap", project_folder, "--image", "one.svs").code == 0
    slide_file.unlink()
    ended = here("review", project_folder, "--image", "one.svs")
    assert ended.code == 3, ended.err
    assert "Left out one.svs" in ended.out
    assert "relink" in ended.out


def test_the_manifest_is_valid_and_its_commands_are_there(manifest_path: Path) -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(manifest_path)
    manifest.validate_imports()
    checked = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(manifest_path)],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    ids = {command.id for command in manifest.contributions.commands}
    assert ids == {"qpannot.open_project", "qpannot.review"}


def test_an_installation_tells_napari_of_the_manifest(manifest_path: Path) -> None:
    told = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    entry = told["project"]["entry-points"]["napari.manifest"]["qpannot"]
    module, _, name = entry.partition(":")
    assert module == "qpannot.review"
    assert manifest_path.name == name


def test_the_command_opens_a_window_and_ends_when_it_is_told_to(
    study: Any, display: dict[str, str]
) -> None:
    command = [sys.executable, "-u", "-m", "qpannot", "review", str(study.project)]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**display, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if "window" in line:
            break
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=60)
    assert "8 slides to review" in "".join(lines), err
    assert running.returncode == 143, out + err
    assert "Stopped" in err


CLOSER = """
import sys
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow
from qpannot.qupath import open_project
from qpannot.review.launching import run
from qpannot.review.session import Session

def docks(main):
    shown = [each.objectName() for each in main.findChildren(QDockWidget) if each.isVisible()]
    return ",".join(sorted(shown)).replace(" ", "-")

def close():
    mains = [each for each in QApplication.topLevelWidgets() if isinstance(each, QMainWindow)]
    main = next((each for each in mains if "qpannot" in each.windowTitle()), None)
    import napari

    viewer = napari.current_viewer()
    if main is None or "Annotations" not in viewer.layers:
        return
    ticks.stop()
    print("docks", docks(main))
    viewer.layers["Annotations"].paint((480, 400), 1)
    QApplication.processEvents()
    for action in viewer.window.window_menu.actions():
        if action.text() == "Layer List":
            action.trigger()
    print("docks", docks(main))
    main.close(confirm_need=True)  # as napari's own Ctrl+W does

with open_project(sys.argv[1], "r+") as project:
    application = QApplication([])
    ticks = QTimer(interval=200)
    ticks.timeout.connect(close)
    ticks.start()
    ended = run(Session(project))
print("ended", ended.exit_code, *ended.lines)
"""


def test_only_our_panel_is_shown_and_the_window_closes_without_a_question(
    study: Any, display: dict[str, str]
) -> None:
    running = subprocess.run(
        [sys.executable, "-c", CLOSER, str(study.project)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**display, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    told = [line.split(maxsplit=1) for line in running.stdout.splitlines()]
    docks = [what for name, what in told if name == "docks"]
    assert docks == ["qpannot-review", "layer-list,qpannot-review"], running.stderr
    (ended,) = (what for name, what in told if name == "ended")
    assert ended.startswith("0")
    assert "changes are kept" in ended
    assert "Traceback" not in running.stderr
    assert len(list((study.project / "qpannot" / "review").glob("*.journal"))) == 1
