from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.states import State
from qpannot.qupath import Project, open_project
from qpannot.recipe import load_recipe
from qpannot.review.session import Session

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        bootstrap(opened, RECIPE)
        yield opened


def test_accepting_goes_through_the_queue(project: Project) -> None:
    with Session(project, by="AB") as session:
        assert [item.image.name for item in session.queue] == ["one.svs", "two.svs", "glass.svs"]
        first = session.open()
        assert first.labels.any() and first.classes[0].name == "Tumor"
        saved = first.accept()
        assert saved.status.state is State.REVIEWED
        assert session.waiting == 2
        second = session.next()
        assert second is not None and second.image.name == "two.svs"
        before = second.image.annotations()
        second.labels[:200, :200] = 2
        second.changed()
        saved = second.save()
        assert (saved.added, saved.changed, saved.removed) == (1, 0, 0)
        after = second.image.annotations()
        assert all(each in after for each in before)
