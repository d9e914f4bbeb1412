from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qpannot.bootstrap.advice import labels, next_steps
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.review import say
from qpannot.bootstrap.states import State, survey
from qpannot.linking import describe_slide
from qpannot.qupath import Project, open_project
from qpannot.recipe import Recipe, load_recipe


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        yield opened


def advice(project: Project) -> str:
    return "\n".join(
        next_steps(survey(project, Ledger.of(project)), project.path, Ledger.of(project), Recipe())
    )


def test_the_advice_follows_the_loop(project: Project) -> None:
    assert "3 slides without annotations" in advice(project)
    assert f"qpannot bootstrap {project.path}" in advice(project)
    bootstrap(project, load_recipe("h2gnet", ["tissue.min_area_um2=10000"]))
    assert "2 slides to be corrected" in advice(project)
    assert "1 slide where nothing was found" in advice(project)
    assert "without annotations;" not in advice(project)
    say(project, project.images, State.REVIEWED, allow_empty=True)
    assert "3 slides newly reviewed; train the network on them" in advice(project)


def test_a_full_batch_is_said_to_be_and_no_command_named_that_would_do_nothing(
    project: Project,
) -> None:
    recipe = load_recipe("h2gnet", ["round.slides=1", "tissue.min_area_um2=10000"])
    statuses = bootstrap(project, recipe).statuses
    told = "\n".join(next_steps(statuses, project.path, Ledger.of(project), recipe))
    assert "2 slides without annotations: the recipe lets 1 wait" in told
    for line in told.splitlines():
        *_, command = re.findall(r"qpannot bootstrap \S+(?: --set (\S+))?", line) or [""]
        if command:
            everything = load_recipe("h2gnet", ["tissue.min_area_um2=10000", command])
    assert bootstrap(project, everything).proposed


def test_commands_can_be_copied_whatever_the_project_is_called(
    make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    slide = make_slide(tmp_path / "slides" / "one.svs")
    with open_project(tmp_path / "Dr. O'Neil's study", "x") as project:
        project.add_images([describe_slide(slide)])
        (step,) = next_steps(
            survey(project, Ledger.of(project)), project.path, Ledger.of(project), Recipe()
        )
        command = step[step.index("qpannot bootstrap") :]
        assert shlex.split(command) == ["qpannot", "bootstrap", str(project.path)]


def test_images_of_one_name_are_told_apart(project: Project) -> None:
    path = project.images[1].path
    assert path is not None
    project.add_images([describe_slide(path)])
    called = labels(project.images)
    assert called == {
        "1": "one.svs",
        "2": "two.svs (ID 2)",
        "3": "glass.svs",
        "4": "two.svs (ID 4)",
    }
    path.unlink()
    assert "2 slides missing (two.svs (ID 2), two.svs (ID 4))" in advice(project)


def test_missing_slides_are_named(project: Project) -> None:
    path = project.images[1].path
    assert path is not None
    path.unlink()
    assert "1 slide missing (two.svs)" in advice(project)


def test_an_empty_project_is_told_how_to_get_slides(tmp_path: Path) -> None:
    with open_project(tmp_path / "study", "x") as project:
        assert "qpannot init" in advice(project)
