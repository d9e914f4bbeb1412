from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def study(qpannot: Any, slide_file: Path, make_slide: Any, tmp_path: Path) -> Path:
    """A project of two slides that qpannot added."""
    make_slide(slide_file.with_name("two.svs"), size=(1536, 2048))
    qpannot("init", slide_file.parent, "-o", tmp_path / "study")
    return tmp_path / "study"


def test_renamed_slides_are_found_by_their_fingerprints(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "slides", tmp_path / "archive")
    (tmp_path / "archive" / "one.svs").rename(tmp_path / "archive" / "case 7.svs")
    shown = qpannot("relink", study, tmp_path / "archive", "--dry-run", "--json").json
    assert shown["dry_run"]
    assert [image["evidence"] for image in shown["images"]] == ["same", "same"]
    assert not any(
        image["slide_found"] for image in qpannot("status", study, "--json").json["images"]
    )
    ended = qpannot("relink", study, tmp_path / "archive")
    assert "case 7.svs (the same bytes)" in ended.out and "2 of 2 images relinked" in ended.out
    assert all(image["slide_found"] for image in qpannot("status", study, "--json").json["images"])


def test_renamed_shares_are_followed_unverified_only_when_told_to_and_loudly(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    places = ("--from", str(tmp_path / "slides"), "--to", "//new-server/slides")
    ended = qpannot("relink", study, *places, code=3)
    assert "cannot be reached from here" in ended.out and "0 of 2 images" in ended.out
    ended = qpannot("relink", study, *places, "--unverified")
    assert "Unverified 2 images" in ended.err and "nothing was checked" in ended.err
    assert "2 of 2 images relinked" in ended.out


def test_what_is_found_is_relinked_and_the_exit_code_says_that_something_is_not(
    qpannot: Any, study: Path, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "slides" / "one.svs").rename(tmp_path / "archive" / "one.svs")
    (tmp_path / "slides" / "two.svs").unlink()
    ended = qpannot("relink", study, tmp_path / "archive", code=3)
    assert "two.svs: not found" in ended.out and "1 of 2 images relinked" in ended.out


def test_a_person_can_name_the_file(
    qpannot: Any, study: Path, make_slide: Any, tmp_path: Path
) -> None:
    chosen = make_slide(tmp_path / "scanned again.svs", mpp=0.25)
    ended = qpannot("relink", study, chosen, "--image", "one.svs")
    assert "scanned again.svs" in ended.out and "Unverified 1 image" in ended.err
    images = qpannot("status", study, "--json").json["images"]
    assert images[0]["slide"] == str(chosen)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Where are the slides now"),
        (("--from", "/a"), "--from and --to go together"),
        (("slides", "--from", "/a", "--to", "/b"), "Where are the slides now"),
        (("--from", "a", "--to", "/b"), "'a' is no absolute path"),
        (("--image", "one.svs"), "--image goes with one slide file"),
        (("slides", "--image", "one.svs"), "--image goes with one slide file"),
        (("nowhere",), "no such file or folder"),
    ],
)
def test_contradictory_or_missing_places_are_refused(
    qpannot: Any,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in qpannot("relink", study, *arguments, code=2).err


def test_slides_are_known_again_after_a_round_that_opened_them(
    qpannot: Any, project_folder: Path, tmp_path: Path
) -> None:
    assert not (project_folder / "qpannot" / "slides.json").exists()
    qpannot("bootstrap", project_folder, "--set", "tissue.min_area_um2=10000")
    shutil.move(tmp_path / "slides", tmp_path / "archive")
    (tmp_path / "archive" / "glass.svs").rename(tmp_path / "archive" / "blank.svs")
    shown = qpannot("relink", project_folder, tmp_path / "archive", "--json").json
    assert [image["evidence"] for image in shown["images"]] == ["same", "same", "same"]
