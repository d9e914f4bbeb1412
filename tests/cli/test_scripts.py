from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_install_lists_the_menu_and_names_what_somebody_changed(
    project_folder: Path, here: Callable[..., Any]
) -> None:
    said = here("scripts", "install", project_folder)
    assert said.code == 0, said.err
    assert "Automate > Project scripts > qpannot" in said.out
    assert "2 Reviewed and next: Saves the open slide" in said.out and "Left" not in said.out
    (mine,) = (project_folder / "scripts" / "qpannot").glob("2*.groovy")
    mine.write_text("println 'mine'")
    said = here("scripts", "install", project_folder)
    assert (
        f"Left as it is, because somebody changed it, and qpannot's own is another by now: {mine}"
        in said.out
    )
    assert mine.read_text() == "println 'mine'"


def test_install_as_json(project_folder: Path, here: Callable[..., Any]) -> None:
    import json

    first = json.loads(here("scripts", "install", project_folder, "--json").out)
    again = json.loads(here("scripts", "install", project_folder, "--json").out)
    assert len(first["menu"]) == 6 and len(first["written"]) == 9 and again["written"] == []


def test_install_without_a_project_says_so(tmp_path: Path, here: Callable[..., Any]) -> None:
    said = here("scripts", "install", tmp_path / "none")
    assert said.code == 1 and "no QuPath project is there" in said.err
