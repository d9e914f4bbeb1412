from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.states import State, survey
from qpannot.linking import describe_slide
from qpannot.qupath import Annotation, PathClass, Project, ProjectImage, open_project
from qpannot.recipe import load_recipe
from qpannot.review.session import Opened, Session

if TYPE_CHECKING:
    from napari import Viewer

    from qpannot.review.viewer import ReviewWindow
    from tests.conftest import Study

PATIENCE_S = 60


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


@pytest.fixture(scope="session")
def proposed(tmp_path_factory: pytest.TempPathFactory, make_slide: Callable[..., Path]) -> Path:
    """A project with proposals for one.svs and two.svs, none for glass.svs. To be copied."""
    folder = tmp_path_factory.mktemp("review")
    slides = [
        make_slide(folder / "one.svs"),
        make_slide(folder / "two.svs", size=(1536, 2048)),
        make_slide(folder / "glass.svs", tissue=False),
    ]
    with open_project(folder / "study", "x") as project:
        project.add_images([describe_slide(path) for path in slides])
        bootstrap(project, load_recipe("h2gnet", ["tissue.min_area_um2=10000"]))
    return folder / "study"


@pytest.fixture
def desk(proposed: Path, tmp_path: Path) -> Iterator[Desk]:
    """The same, to be changed; its slides are not."""
    shutil.copytree(proposed, tmp_path / "study")
    with open_project(tmp_path / "study", "r+") as opened:
        yield Desk(opened)


@dataclass(frozen=True)
class Desk:
    """A project that somebody reviews, and what others do to it meanwhile."""

    project: Project

    def again(self) -> Project:
        """Open the same project as another program does."""
        return open_project(self.project.path, "r+")

    def image(self, image_id: str, project: Project | None = None) -> ProjectImage:
        images = (project or self.project).images
        return next(image for image in images if image.id == image_id)

    def state(self, image_id: str) -> State:
        with self.again() as other:
            states = {each.image.id: each.state for each in survey(other, Ledger.of(other))}
        return states[image_id]

    def save_in_qupath(self, image_id: str, *, remove: bool = False) -> Annotation:
        """Change the slide's annotations as QuPath does meanwhile; return what it added."""
        drawn = Annotation(shapely.box(1800, 1300, 1900, 1400), path_class=PathClass("Stroma"))
        with self.again() as other:
            image = self.image(image_id, other)
            image.write_annotations(add=[drawn], remove=image.annotations() if remove else ())
        return drawn

    def paint(
        self, opened: Opened, left: int, top: int, right: int, bottom: int, value: int
    ) -> None:
        """Paint a rectangle given in full-resolution pixels, as a stroke."""
        (c0, r0), (c1, r1) = opened.canvas.affine.from_slide(
            np.array([[left, top], [right, bottom]])
        ).astype(int)
        opened.labels[max(0, r0) : r1, max(0, c0) : c1] = value
        opened.changed()

    def crash(self, session: Session) -> None:
        """Let go of the slide as the system does when a process is killed."""
        assert session.current is not None
        session.current._journal.write()
        session.current._journal.abandon()
        session.current.slide.close()
        session.current = None


@pytest.fixture(scope="session")
def shared_viewer(display: dict[str, str]) -> Iterator[Viewer]:
    """One viewer for all tests: each costs seconds."""
    import napari

    viewer = napari.Viewer()
    yield viewer
    viewer.close()


@pytest.fixture
def study(proposed_study: Study, tmp_path: Path) -> Study:
    """Eight slides of 768 x 512 px with a proposal each, of a project of its own."""
    return proposed_study.copied(tmp_path / "study")


@pytest.fixture
def project(study: Study) -> Iterator[Project]:
    with study.open("r+") as opened:
        yield opened


@pytest.fixture
def window(shared_viewer: Viewer, project: Project) -> Iterator[ReviewWindow]:
    """A review of the study, its first slide open."""
    from qpannot.review.viewer import ReviewWindow

    review = ReviewWindow(shared_viewer, Session(project))
    shared_viewer.window.add_dock_widget(review.panel, name="review", area="right")
    review.start()
    Hand(shared_viewer, mpp=1.0).until(lambda: shared_viewer.canvas.size[0] > 100)
    yield review
    review.close()
    review.layers.clear()
    shared_viewer.window.remove_dock_widget(review.panel)


@pytest.fixture
def hand(window: ReviewWindow) -> Hand:
    return Hand(window.viewer, mpp=1.0)


class Hand:
    """A person at the mouse and the keys of a viewer.

    Parameters
    ----------
    mpp
        Of the slides; places are told in their full-resolution pixels.
    """

    def __init__(self, viewer: Viewer, mpp: float) -> None:
        self.viewer, self._mpp = viewer, mpp
        self._widget: Any = viewer.window._qt_viewer.canvas.native

    def until(self, true: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
        """Let Qt work until something is so."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while not true():
            QApplication.processEvents()
            assert time.monotonic() < end, "it never came"
            time.sleep(0.01)

    def key(self, text: str) -> None:
        """Press a key, as ``"A"`` or ``"Shift-N"``."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        *held, letter = text.split("-")
        modifiers = {"Shift": Qt.ShiftModifier, "Control": Qt.ControlModifier}
        pressed = Qt.NoModifier
        for name in held:
            pressed |= modifiers[name]
        QTest.keyClick(self._widget, getattr(Qt, f"Key_{letter}"), pressed)
        self.until(lambda: True)

    def drag(self, *places: tuple[float, float]) -> None:
        """Move the mouse over places (x, y), its button held."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        points = [QPointF(*self._on_screen(place)) for place in places]
        left, none = Qt.LeftButton, Qt.NoButton
        events = [(QEvent.MouseButtonPress, points[0], left, left)]
        events += [(QEvent.MouseMove, point, none, left) for point in points]
        events += [(QEvent.MouseButtonRelease, points[-1], left, none)]
        for kind, point, button, held in events:
            there = self._widget.mapToGlobal(point)
            event = QMouseEvent(kind, point, there, button, held, Qt.NoModifier)
            QApplication.sendEvent(self._widget, event)
            QApplication.processEvents()

    def _on_screen(self, place: tuple[float, float]) -> tuple[float, float]:
        camera, (height, width) = self.viewer.scene.camera, self.viewer.canvas.size
        x, y = np.array(place) * self._mpp
        return (x - camera.center[-1]) * camera.zoom + width / 2, (
            y - camera.center[-2]
        ) * camera.zoom + height / 2
