"""The classes that proposals have, in projects that know them or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qpannot.bootstrap.loop import bootstrap
from qpannot.qupath import PathClass, Project, open_project
from qpannot.recipe import Recipe, load_recipe

CLASSES = ("Tumor", "Stroma", "In situ", "Fat", "Nerve", "Vessel", "Lymph node", "Artefact")
MORE_THAN_COLORS = load_recipe(
    "quick", [f"labels.classes=[{', '.join(CLASSES)}]", "proposal.color=[1, 2, 3]"]
)


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        yield opened


def classes(project: Project) -> dict[str | None, tuple[int, int, int] | None]:
    with open_project(project.path) as again:
        return {each.name: each.color for each in again.classes}


def test_every_class_of_the_recipe_gets_a_colour(project: Project) -> None:
    bootstrap(project, MORE_THAN_COLORS)
    found = classes(project)
    assert set(CLASSES) <= set(found) and all(found[name] for name in CLASSES)
    assert found["Stroma"] == (150, 200, 150)  # as QuPath has it
    unknown = [found[name] for name in CLASSES[2:7]]
    assert len(set(unknown)) == 5
    (proposal,) = project.images[0].annotations()
    assert proposal.path_class is not None and proposal.path_class.name == "Tumor"


def test_the_classes_of_a_project_stay_as_a_person_has_them(project: Project) -> None:
    own = [PathClass("Tumor", (9, 8, 7)), PathClass("Mine", (1, 1, 1))]
    project.set_classes(own)
    bootstrap(project, Recipe.model_validate({**MORE_THAN_COLORS.model_dump(), "name": "mine"}))
    found = classes(project)
    assert (found["Tumor"], found["Mine"]) == ((9, 8, 7), (1, 1, 1))
    assert list(found)[:2] == ["Tumor", "Mine"] and found["Fat"]
    (proposal,) = project.images[0].annotations()
    assert proposal.path_class is not None and proposal.path_class.color == (9, 8, 7)


def test_a_project_that_knows_all_classes_is_not_written(project: Project) -> None:
    bootstrap(project, MORE_THAN_COLORS)
    before = classes(project)
    bootstrap(project, MORE_THAN_COLORS, only=project.images[:1])
    assert classes(project) == before
