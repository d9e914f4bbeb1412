from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qpannot.bootstrap.loop import bootstrap
from qpannot.cli import app
from qpannot.qupath import Project, open_project
from qpannot.recipe import load_recipe
from qpannot.review.session import Opened, Session
from qpannot.review.unsaved import next_step, unsaved

RECIPE = load_recipe("h2gnet", ["tissue.min_area_um2=10000"])


@pytest.fixture
def proposed(project_folder: Path) -> Path:
    with open_project(project_folder, "r+") as project:
        bootstrap(project, RECIPE)
    return project_folder


def painted(project: Project, image_id: str, *, by: str, independent: bool = False) -> Opened:
    opened = Session(project, by=by, independent=independent).open(image_id)
    opened.labels[:40, :40] = 1
    opened.changed()
    return opened


def test_what_a_review_has_not_saved_is_told_until_it_is(proposed: Path) -> None:
    with open_project(proposed, "r+") as project:
        opened = painted(project, "1", by="AB")
        opened.close()
        (left,) = unsaved(project)
        assert (left.image.name, left.by) == ("one.svs", "AB") and left.when.startswith("20")
        (told,) = next_step(project, (left,))
        assert "one.svs" in told and "qpannot review" in told

        again = Session(project).open("1")
        again.save()
        again.close()
        assert unsaved(project) == () and next_step(project, ()) == ()


def test_an_open_review_and_an_independent_readers_count_too(proposed: Path) -> None:
    with open_project(proposed, "r+") as project:
        second = painted(project, "2", by="C 1-2 ü", independent=True)
        first = painted(project, "1", by="")
        second.close()
        first.close()
        assert [(each.image.id, each.by) for each in unsaved(project)] == [
            ("1", ""),
            ("2", "C 1-2 ü"),
        ]
        assert "one.svs, two.svs" in next_step(project, unsaved(project))[0]


def test_strokes_that_were_saved_just_before_a_crash_are_not_told(
    proposed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_project(proposed, "r+") as project:
        opened = painted(project, "1", by="AB")
        path = opened._journal.path
        kept: list[bytes] = []
        write = type(opened.image).write_annotations

        def remembering(image: object, **changes: object) -> None:
            kept.append(path.read_bytes())
            write(image, **changes)  # type: ignore[arg-type]

        monkeypatch.setattr(type(opened.image), "write_annotations", remembering)
        opened.save()
        opened.close()
        path.write_bytes(kept[0])  # as after a power cut right after the write
        assert unsaved(project) == ()


def test_status_tells_of_unsaved_strokes_and_of_damaged_journals(
    proposed: Path, files_below: Callable[[Path], dict[str, tuple[int, bytes]]]
) -> None:
    with open_project(proposed, "r+") as project:
        painted(project, "1", by="AB").close()
    (journal,) = (proposed / "qpannot" / "review").glob("*.journal")
    journal.with_name("2-0.journal").write_bytes(b"damaged")
    journal.with_name("77-0.journal").write_bytes(b"of an image that is gone")
    before = files_below(proposed)

    shown = CliRunner().invoke(app, ["status", str(proposed)])
    told = CliRunner().invoke(app, ["status", str(proposed), "--json"])

    assert files_below(proposed) == before
    assert "not saved" in shown.output and "one.svs, two.svs" in shown.output
    (first, second) = json.loads(told.stdout)["unsaved"]
    assert (first["id"], first["by"]) == ("1", "AB")
    assert (second["id"], second["when"]) == ("2", "")
