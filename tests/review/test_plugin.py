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


def test_a_panel_that_is_closed_takes_its_layers_along_and_keeps_what_was_painted(
    shared_viewer: Viewer, study: Study
) -> None:
    from qpannot.review.plugin import ReviewWidget

    widget = ReviewWidget(shared_viewer)
    dock = shared_viewer.window.add_dock_widget(widget, area="right")
    for path, reader, word in (("", "", "Browse"), (str(study.project), "", "name")):
        widget.path.setText(path)
        widget.by.setText(reader)
        widget.independent.setChecked(bool(path))
        widget.open()
        assert word in widget.message.text() and widget.review is None
    widget.independent.setChecked(False)
    widget.open()
    review = widget.review
    assert review is not None
    assert review.session.current is not None
    review.easel.labels.paint((480, 400), 1)
    shared_viewer.window.remove_dock_widget(dock)  # as the cross of its title bar does
    assert not review.session.current
    assert not shared_viewer.layers
    assert len(list((study.project / "qpannot" / "review").glob("*.journal"))) == 1


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
