"""The scripts for QuPath, as files: put into a project, brought up to date, left where changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qpannot.bootstrap import scripts
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.scripts import (
    HEATMAPS,
    MENU,
    SHARED,
    Script,
    install_scripts,
    keep_scripts,
    shipped_scripts,
)
from qpannot.qupath import Project, open_project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path / "study", "x") as made:
        yield made


def first_in_menu(project: Project) -> Path:
    return min((project.folder / MENU).glob("*.groovy"))


def newer_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every script ship with another text."""
    newer = [
        Script(
            each.path, scripts._sealed("// Newer.\n" + each.text.split(scripts._LAST_LINE[:20])[0])
        )
        for each in shipped_scripts()
    ]
    monkeypatch.setattr(scripts, "shipped_scripts", lambda: newer)


def test_they_come_with_a_digest_that_tells_they_are_as_shipped() -> None:
    found = shipped_scripts()
    assert {script.path.parent for script in found} == {MENU, SHARED}
    assert next(each.title for each in found if each.path.parent == MENU) == "1 Review panel"
    assert all(script.about.endswith(".") for script in found if script.path.parent == MENU)
    assert all(scripts._is_as_shipped(script.text) for script in found)
    assert not any(scripts._is_as_shipped(script.text + "// mine\n") for script in found)
    assert not any(scripts._is_as_shipped("// mine\n" + script.text) for script in found)


def test_they_say_nothing_that_an_old_editor_could_not_show() -> None:
    assert all(script.text.isascii() for script in shipped_scripts())


def test_a_second_time_writes_nothing(
    project: Project, files_below: Callable[[Path], dict[str, tuple[int, bytes]]]
) -> None:
    assert len(install_scripts(project).written) == len(shipped_scripts())
    before = files_below(project.folder)
    assert install_scripts(project).written == ()
    assert files_below(project.folder) == before


def test_a_newer_version_replaces_those_that_nobody_changed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_scripts(project)
    path = first_in_menu(project)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # as some editors save it
    newer_version(monkeypatch)
    assert len(install_scripts(project).written) == len(shipped_scripts())
    assert path.read_text().startswith("// Newer.")


def test_one_that_a_person_changed_stays_and_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_scripts(project)
    path = first_in_menu(project)
    mine = path.read_text().replace("project", "projekt")
    path.write_text(mine)
    installed = keep_scripts(project)
    assert installed.left == (path.relative_to(project.folder),) and installed.outdated == ()
    newer_version(monkeypatch)
    installed = keep_scripts(project)
    assert installed.left == installed.outdated == (path.relative_to(project.folder),)
    assert path.read_text() == mine


def test_a_script_of_the_same_name_that_is_not_ours_stays(project: Project) -> None:
    path = project.folder / shipped_scripts()[0].path
    path.parent.mkdir(parents=True)
    path.write_text("println 'mine'")
    assert install_scripts(project).left == (shipped_scripts()[0].path,)
    assert path.read_text() == "println 'mine'"


def test_bootstrap_does_not_bring_back_what_a_person_deleted(project: Project) -> None:
    assert len(keep_scripts(project).written) == len(shipped_scripts())
    path = first_in_menu(project)
    path.unlink()
    assert keep_scripts(project).written == () and not path.exists()
    assert install_scripts(project).written == (path.relative_to(project.folder),)


def test_bootstrap_goes_on_where_they_cannot_be_written(project: Project) -> None:
    (project.folder / "scripts").write_text("a file where the folder should be")
    installed = keep_scripts(project)
    assert installed.error is not None and "scripts" in installed.error.message


def test_bootstrap_puts_them_there_and_says_which_heatmaps_they_show(trained_study: Any) -> None:
    folder = trained_study.project
    assert len(list((folder / MENU).glob("*.groovy"))) == 6
    shown = json.loads((Ledger(folder).house / HEATMAPS).read_text())
    assert shown == {"format": 1, "folders": ["round-002"], "rest": "Non-tumor"}
