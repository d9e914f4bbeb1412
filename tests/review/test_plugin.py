"""The way in through napari's own menus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari import Viewer

    from tests.conftest import Study


def test_napari_offers_the_widget_which_opens_a_project(
    shared_viewer: Viewer, study: Study, manifest_path: Path
) -> None:
    import npe2
    from qtpy.QtWidgets import QPushButton

    plugins = npe2.PluginManager.instance()
    if "qpannot" not in plugins:
        plugins.register(npe2.PluginManifest.from_file(manifest_path))
    dock, widget = shared_viewer.window.add_plugin_dock_widget("qpannot", "Review")
    (start,) = (each for each in widget.findChildren(QPushButton) if each.text() == "Review")
    widget.path.setText(str(study.project / "nothing.qpproj"))
    start.click()
    assert "nothing.qpproj" in widget.message.text()
    widget.path.setText(str(study.project))
    start.click()
    try:
        assert widget.review.opened is not None
        assert "Annotations" in shared_viewer.layers
        assert widget.review.panel.isVisibleTo(widget)
    finally:
        widget.close_project()
        shared_viewer.layers.clear()
        shared_viewer.window.remove_dock_widget(dock)


def test_naparis_menu_opens_a_project(
    shared_viewer: Viewer, study: Study, manifest_path: Path
) -> None:
    import npe2
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication, QFileDialog

    plugins = npe2.PluginManager.instance()
    if "qpannot" not in plugins:
        plugins.register(npe2.PluginManifest.from_file(manifest_path))
    (project,) = study.project.glob("*.qpproj")

    def choose() -> None:
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, QFileDialog):
            waiting.stop()
            dialog.selectFile(str(project))
            dialog.accept()

    waiting = QTimer(interval=100)
    waiting.timeout.connect(choose)
    waiting.start()
    from napari._app_model import get_app_model

    widget = get_app_model().commands.execute_command("qpannot.open_project").result()
    try:
        assert widget.review.opened is not None
        assert "Annotations" in shared_viewer.layers
    finally:
        widget.close_project()
        shared_viewer.layers.clear()
        shared_viewer.window.remove_dock_widget(widget)
