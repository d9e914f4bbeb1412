from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shapely import LineString, Point, box

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.loop import bootstrap
from qpannot.bootstrap.states import State, survey
from qpannot.bootstrap.words import remember
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project, open_project
from qpannot.qupath.proposals import Origin, make_proposal
from qpannot.recipe import load_recipe

TUMOR, REGION = PathClass("Tumor", (200, 0, 0)), PathClass("Region*", (0, 0, 180))
RULER = Annotation(LineString([(0, 0), (900, 900)]))
MARKED_OFF = make_proposal(box(0, 0, 90, 90), TUMOR, Origin(1, "AN1"), locked=False).with_changes(
    path_class=REGION
)
PROPOSAL = make_proposal(box(0, 0, 90, 90), TUMOR, Origin(1, "AN1"), locked=False)


def areas(count: int, path_class: PathClass | None = TUMOR) -> list[Annotation]:
    return [Annotation(box(9 * n, 0, 9 * n + 5, 5), path_class=path_class) for n in range(count)]


def rulers(count: int) -> list[Annotation]:
    return [Annotation(LineString([(n, 0), (n, 900)]), path_class=TUMOR) for n in range(count)]


@pytest.fixture
def project(project_folder: Path) -> Project:
    return open_project(project_folder, "r+")


@pytest.fixture
def read_whole(monkeypatch: pytest.MonkeyPatch, project: Project) -> list[str]:
    """The images whose annotations were read in full from now on."""
    read: list[str] = []
    image = type(project.images[0])
    annotations = image.annotations

    def counting(self: Any) -> Any:
        read.append(self.id)
        return annotations(self)

    monkeypatch.setattr(image, "annotations", counting)
    return read


@pytest.mark.parametrize(
    ("drawn", "state"),
    [
        (areas(300), State.REVIEWED),
        (areas(300, None), State.REVIEWED),
        ([RULER, *areas(300)], State.REVIEWED),
        (rulers(300), State.UNANNOTATED),
        ([*rulers(300), *areas(1)], State.REVIEWED),
        ([Annotation(Point(n, 1), path_class=TUMOR) for n in range(300)], State.UNANNOTATED),
        (areas(300, REGION), State.UNANNOTATED),
        ([*areas(300, REGION), RULER], State.UNANNOTATED),
        ([PROPOSAL, *areas(300)], State.PROPOSED),
        ([PROPOSAL], State.PROPOSED),
        ([*areas(300), PROPOSAL], State.PROPOSED),  # far from the start of the file
        ([*areas(300, REGION), MARKED_OFF], State.REVIEWED),
        ([], State.UNANNOTATED),
    ],
)
def test_a_glance_tells_the_state_that_reading_everything_tells(
    project: Project, drawn: list[Annotation], state: State
) -> None:
    project.images[0].write_annotations(add=drawn)
    ledger = Ledger.of(project)
    (glanced, *_), (whole, *_) = survey(project, ledger, at_a_glance=True), survey(project, ledger)
    assert glanced.state is whole.state is state
    assert (glanced.reason, glanced.annotations) == (whole.reason, whole.annotations)
    assert glanced.proposals == whole.proposals


@pytest.mark.parametrize("drawn", [areas(300), [RULER, *areas(300)], areas(300, REGION)])
def test_what_a_person_drew_is_not_read_in_full_to_see_that(
    project: Project, read_whole: list[str], drawn: list[Annotation]
) -> None:
    for image in project.images:
        image.write_annotations(add=drawn)
    read_whole.clear()
    survey(project, Ledger.of(project), at_a_glance=True)
    assert not read_whole


def test_lines_and_points_alone_are_read_in_full_before_they_count_for_nothing(
    project: Project, read_whole: list[str]
) -> None:
    project.images[0].write_annotations(add=rulers(300))
    read_whole.clear()
    survey(project, Ledger.of(project), at_a_glance=True)
    assert read_whole == ["1"]


def test_a_glance_is_never_remembered_as_if_all_had_been_read(project: Project) -> None:
    project.images[0].write_annotations(add=areas(300))
    ledger = Ledger.of(project)
    remember(ledger, survey(project, ledger, at_a_glance=True))
    assert ledger.image("1", "").seen is None
    remember(ledger, survey(project, ledger))
    seen = ledger.image("1", "").seen
    assert seen is not None and seen.drawn == 300


def test_what_the_ledger_knows_is_not_looked_at_again(
    project: Project, read_whole: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.images[0].write_annotations(add=areas(300))
    ledger = Ledger.of(project)
    remember(ledger, survey(project, ledger))
    read_whole.clear()
    opened: list[str] = []
    path_open = Path.open

    def noting(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(self.name)
        return path_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", noting)
    (status, *_) = survey(project, ledger, at_a_glance=True)
    assert status.state is State.REVIEWED and status.annotations == 300
    assert not read_whole and "data.qpdata" not in opened


def test_proposals_are_always_compared_whole(project: Project, read_whole: list[str]) -> None:
    bootstrap(project, load_recipe("h2gnet", ["tissue.min_area_um2=10000"]))
    image = project.images[0]
    # as if QuPath had saved it with more beside the proposal, which nobody touched
    image.write_annotations(add=areas(300))
    os.utime(project.folder / "data" / "1" / "data.qpdata")
    read_whole.clear()
    statuses = survey(project, Ledger.of(project), at_a_glance=True)
    assert statuses[0].state is State.PROPOSED and statuses[0].proposals == 1
    assert read_whole == ["1"]


def test_without_the_ledger_the_mark_in_the_project_tells_that_there_were_proposals(
    project: Project, read_whole: list[str]
) -> None:
    image = project.images[0]
    image.write_annotations(add=[*areas(300), PROPOSAL])  # far from the start of the file
    project.update_images({"1": ImageChanges(metadata={"qpannot.state": "proposed"})})
    read_whole.clear()
    status = survey(project, Ledger.of(project), at_a_glance=True)[0]
    assert status.state is State.PROPOSED and read_whole == ["1"]


def test_looking_changes_no_file(project: Project, files_below: Callable[..., Any]) -> None:
    project.images[0].write_annotations(add=areas(300))
    before = files_below(project.folder)
    survey(project, Ledger.of(project), at_a_glance=True)
    assert files_below(project.folder) == before
