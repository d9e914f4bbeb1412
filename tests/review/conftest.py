from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def display(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a program that opens windows; napari's settings are of its own.

    Where there is no screen, Xvfb is one.
    """
    pytest.importorskip("napari", reason="napari is not installed: pip install -e '.[review]'")
    pytest.importorskip("qtpy.QtWidgets", reason="no Qt: pip install -e '.[review]'")
    changes = {
        "NAPARI_CONFIG": str(tmp_path_factory.mktemp("napari") / "settings.yaml"),
        "LIBGL_ALWAYS_SOFTWARE": "1",
    }
    xvfb: subprocess.Popen[bytes] | None = None
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        if (program := shutil.which("Xvfb")) is None:
            pytest.skip("no screen and no Xvfb; apt-get install xvfb (see CONTRIBUTING.md)")
        read, write = os.pipe()
        xvfb = subprocess.Popen(
            [program, "-displayfd", str(write), "-screen", "0", "1400x1000x24"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as told:
            number = told.readline().strip()
        if not number:
            pytest.fail(f"{program} is there, and does not start")
        changes["DISPLAY"] = f":{number}"
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield dict(os.environ)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if xvfb is not None:
            xvfb.terminate()
            xvfb.wait()


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a screen."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def manifest_path() -> Path:
    """What napari reads of the plugin."""
    import qpannot.review

    return Path(str(qpannot.review.__file__)).with_name("napari.yaml")
