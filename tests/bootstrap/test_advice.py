from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qpannot.bootstrap.advice import next_steps
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.review import say
from qpannot.bootstrap.states import State, survey
from qpannot.qupath import Project, open_project
from qpannot.recipe import load_recipe


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        yield opened


def advice(project: Project) -> str:
    return "\n".join(next_steps(survey(project, Ledger.of(project)), project.path))


def test_the_advice_follows_the_loop(project: Project) -> None:
    assert "3 slides without annotations" in advice(project)
    assert f"qpannot bootstrap {project.path}" in advice(project)
    bootstrap(project, load_recipe("h2gnet", ["tissue.min_area_um2=10000"]))
    assert "2 slides to be corrected" in advice(project)
    assert "1 slide where nothing was found" in advice(project)
    assert "without annotations;" not in advice(project)
    say(project, project.images, State.REVIEWED, allow_empty=True)
    assert "second reader" in advice(project)


def test_missing_slides_are_named(project: Project) -> None:
    path = project.images[1].path
    assert path is not None
    path.unlink()
    assert "1 slide missing (two.svs)" in advice(project)


def test_an_empty_project_is_told_how_to_get_slides(tmp_path: Path) -> None:
    with open_project(tmp_path / "study", "x") as project:
        assert "qpannot init" in advice(project)
