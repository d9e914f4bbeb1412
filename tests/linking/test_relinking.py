from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from PIL import Image

from qpannot.errors import UsageError
from qpannot.geometry import Mpp
from qpannot.linking import (
    Evidence,
    Relinked,
    add_slides,
    describe_slide,
    link_to,
    open_image,
    relink,
    remember_slides,
    rename_places,
)
from qpannot.qupath import ImageChanges, Project, open_project
from qpannot.qupath.places import PlaceChange


def edit_entries(project: Project, change: Callable[[dict[str, Any]], None]) -> Project:
    """Change the entries on disk, as QuPath or a person might, and open the project again."""
    document = json.loads(project.path.read_text())
    for entry in document["images"]:
        change(entry)
    project.path.write_text(json.dumps(document))
    return open_project(project.path, "r+")


def places(project: Project) -> list[Path | None]:
    """Where the project on disk says its slides are."""
    with open_project(project.path) as again:
        return [image.path for image in again.images]


def evidence(results: list[Relinked]) -> list[Evidence | None]:
    return [result.evidence for result in results]


@pytest.fixture
def project(project_folder: Path) -> Project:
    return open_project(project_folder, "r+")


def test_the_file_of_the_right_size_is_taken(project: Project, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "a").mkdir(parents=True)
    (archive / "b").mkdir()
    shutil.copy(tmp_path / "slides" / "two.svs", archive / "a" / "one.svs")
    shutil.move(tmp_path / "slides" / "one.svs", archive / "b" / "one.svs")
    (result,) = relink(project, [archive])
    assert result.found == archive / "b" / "one.svs"
    with open_project(project.path) as again:
        assert again.images[0].path == archive / "b" / "one.svs"
        builder = json.loads((again.folder / "data" / "1" / "server.json").read_text())
        assert builder["uri"].endswith("archive/b/one.svs")


def test_a_persons_resolution_survives_relinking(project: Project, tmp_path: Path) -> None:
    def calibrate(entry: dict[str, Any]) -> None:
        for side in ("pixelWidth", "pixelHeight"):
            calibration = entry["serverBuilder"]["metadata"]["pixelCalibration"]
            calibration[side] = {"value": 0.3, "unit": "µm"}

    project = edit_entries(project, calibrate)
    shutil.move(tmp_path / "slides", tmp_path / "archive")
    results = relink(project, [tmp_path / "archive"], unverified=True)
    assert [bool(result.found) for result in results] == [True, True, True]
    project.update_images({"1": ImageChanges(metadata={"a": "b"})})
    with open_image(project.images[0]) as slide:
        assert slide.mpp == Mpp(0.3, 0.3)


def test_slides_of_one_name_and_size_are_told_apart_by_their_pictures(
    batches: Project, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    # the other way round, so that neither order nor folder is a help
    for old, new in (("a", "y"), ("b", "x")):
        (archive / new).mkdir(parents=True)
        shutil.move(tmp_path / "slides" / old / "1.svs", archive / new / "1.svs")
    results = relink(batches, [archive])
    assert evidence(results) == [Evidence.ALIKE, Evidence.ALIKE]
    assert places(batches) == [archive / "y" / "1.svs", archive / "x" / "1.svs"]


def test_swapped_folders_do_not_swap_slides(batches: Project, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.move(tmp_path / "slides", archive)
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (archive / old).rename(archive / new)
    relink(batches, [archive])
    assert places(batches) == [archive / "b" / "1.svs", archive / "a" / "1.svs"]


def test_another_slide_of_the_same_name_and_size_is_never_taken(
    batches: Project, tmp_path: Path
) -> None:
    (tmp_path / "slides" / "a" / "1.svs").unlink()
    shutil.copytree(tmp_path / "slides" / "b", tmp_path / "archive" / "a")
    before = places(batches)
    for unverified in (False, True):
        (result,) = relink(batches, [tmp_path / "archive"], unverified=unverified)
        assert result.found is None and "shows another picture" in result.why
    assert places(batches) == before


def test_another_slide_that_took_the_place_of_one_is_told_and_the_right_one_found(
    batches: Project, tmp_path: Path
) -> None:
    first = tmp_path / "slides" / "a" / "1.svs"
    shutil.move(first, tmp_path / "safe.svs")
    shutil.copy(tmp_path / "slides" / "b" / "1.svs", first)
    (result,) = relink(batches, [tmp_path / "slides"])
    assert result.image.id == batches.images[0].id and result.found is None
    assert f"{first} shows another picture" in result.why and "no other file" in result.why
    archive = tmp_path / "archive" / "1.svs"
    archive.parent.mkdir()
    shutil.move(tmp_path / "safe.svs", archive)
    (result,) = relink(batches, [archive.parent])
    assert result.found == archive and places(batches)[0] == archive
    assert relink(batches, [archive.parent]) == []


def test_files_that_cannot_be_told_apart_are_named_and_none_is_taken(
    batches: Project, make_case: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "slides" / "a")
    fitting = [
        make_case(tmp_path / "archive" / folder / "1.svs", 0, marked=folder == "y")
        for folder in "xy"
    ]
    for unverified in (False, True):
        (result,) = relink(batches, [tmp_path / "archive"], unverified=unverified)
        assert result.found is None and result.candidates == tuple(fitting)
        assert all(str(path) in result.why for path in fitting) and "--image" in result.why


def test_copies_of_one_slide_are_no_doubt(batches: Project, tmp_path: Path) -> None:
    for folder in "xy":
        shutil.copytree(tmp_path / "slides" / "a", tmp_path / "archive" / folder)
    shutil.rmtree(tmp_path / "slides" / "a")
    (result,) = relink(batches, [tmp_path / "archive"])
    assert result.found == tmp_path / "archive" / "x" / "1.svs"


def test_without_a_picture_only_a_person_can_tell(batches: Project, tmp_path: Path) -> None:
    (batches.folder / "data" / "1" / "thumbnail.jpg").unlink()
    shutil.move(tmp_path / "slides" / "a", tmp_path / "archive")
    (result,) = relink(batches, [tmp_path / "archive"])
    assert result.found is None and "--unverified" in result.why
    (result,) = relink(batches, [tmp_path / "archive"], unverified=True)
    assert (result.found, result.evidence) == (tmp_path / "archive" / "1.svs", Evidence.FITS)


def test_the_slide_of_another_image_is_not_taken(batches: Project, tmp_path: Path) -> None:
    (batches.folder / "data" / "1" / "thumbnail.jpg").unlink()
    shutil.rmtree(tmp_path / "slides" / "a")
    (result,) = relink(batches, [tmp_path / "slides"], unverified=True)
    assert result.found is None and "is the slide of 1.svs" in result.why


def test_one_file_is_not_taken_for_two_slides(batches: Project, tmp_path: Path) -> None:
    for image_id in "12":
        (batches.folder / "data" / image_id / "thumbnail.jpg").unlink()
    shutil.move(tmp_path / "slides" / "a", tmp_path / "archive")
    shutil.rmtree(tmp_path / "slides")
    results = relink(batches, [tmp_path / "archive"], unverified=True)
    assert [result.found for result in results] == [None, None]
    assert all("several images" in result.why for result in results)


def test_a_slide_added_by_qpannot_is_found_under_any_name(
    make_case: Callable[..., Path], tmp_path: Path
) -> None:
    files = [make_case(tmp_path / "slides" / f"{case}.svs", case) for case in range(3)]
    add_slides(tmp_path / "study", files)
    archive = tmp_path / "archive"
    archive.mkdir()
    for case, name in enumerate(("c.svs", "0.svs", "a.SVS")):
        shutil.move(files[case], archive / name)
    with open_project(tmp_path / "study", "r+") as project:
        results = relink(project, [archive])
        assert evidence(results) == [Evidence.SAME] * 3
        assert places(project) == [archive / "c.svs", archive / "0.svs", archive / "a.SVS"]


def test_a_file_changed_since_it_was_seen_needs_a_persons_word(
    batches: Project, make_case: Callable[..., Path], tmp_path: Path
) -> None:
    remember_slides(batches, batches.images)
    shutil.rmtree(tmp_path / "slides" / "a")
    altered = make_case(tmp_path / "archive" / "1.svs", 0, marked=True)
    (result,) = relink(batches, [tmp_path / "archive"])
    assert result.found is None and "not the file that was seen before" in result.why
    (result,) = relink(batches, [tmp_path / "archive"], unverified=True)
    assert (result.found, result.evidence) == (altered, Evidence.ALTERED)


def test_without_the_record_of_slides_pictures_still_tell(batches: Project, tmp_path: Path) -> None:
    remember_slides(batches, batches.images)
    shutil.rmtree(batches.folder / "qpannot")
    shutil.move(tmp_path / "slides", tmp_path / "archive")
    assert evidence(relink(batches, [tmp_path / "archive"])) == [Evidence.ALIKE, Evidence.ALIKE]


def test_a_fingerprint_counts_for_the_place_it_was_taken_at_only(
    batches: Project, tmp_path: Path
) -> None:
    remember_slides(batches, batches.images)
    b = (tmp_path / "slides" / "b" / "1.svs").as_uri()

    def swap(entry: dict[str, Any]) -> None:  # a person corrected the entry in QuPath
        if entry["entryID"] == 1:
            entry["serverBuilder"]["uri"] = b.replace("/b/", "/corrected/")

    project = edit_entries(batches, swap)
    shutil.move(tmp_path / "slides" / "a", tmp_path / "archive")
    (result,) = relink(project, [tmp_path / "archive"])
    assert result.evidence is Evidence.ALIKE


def test_names_are_found_whatever_a_file_system_did_to_their_letters(
    make_case: Callable[..., Path], tmp_path: Path
) -> None:
    name = "F\u00e4rbung 1.svs"
    with open_project(tmp_path / "study", "x") as project:
        project.add_images([describe_slide(make_case(tmp_path / "slides" / name, 1))])
        moved = tmp_path / "archive" / "fa\u0308rbung 1.SVS"
        moved.parent.mkdir()
        shutil.move(tmp_path / "slides" / name, moved)
        (result,) = relink(project, [tmp_path / "archive"])
        assert result.found == moved and places(project) == [moved]


def test_a_turned_entry_is_compared_in_its_own_frame(batches: Project, tmp_path: Path) -> None:
    thumbnail = batches.folder / "data" / "1" / "thumbnail.jpg"
    with Image.open(thumbnail) as picture:
        picture.transpose(Image.Transpose.ROTATE_270).save(thumbnail)

    def turn(entry: dict[str, Any]) -> None:
        if entry["entryID"] == 1:
            inner = entry["serverBuilder"]
            entry["serverBuilder"] = {
                "builderType": "rotated",
                "builder": inner,
                "rotation": "ROTATE_90",
            }

    shutil.move(tmp_path / "slides", tmp_path / "archive")
    results = relink(edit_entries(batches, turn), [tmp_path / "archive"])
    assert evidence(results) == [Evidence.ALIKE, Evidence.ALIKE]


def test_a_tree_that_moved_whole_is_not_searched(
    batches: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "elsewhere" / "archive"
    shutil.move(tmp_path / "slides", archive / "slides")
    walked: list[Path] = []
    walk = os.walk

    def noting(folder: Path) -> Any:
        walked.append(folder)
        return walk(folder)

    monkeypatch.setattr(os, "walk", noting)
    relink(batches, [archive])
    assert places(batches) == [archive / "slides" / each / "1.svs" for each in "ab"]
    assert not walked


def test_what_is_found_is_relinked_though_others_are_not(batches: Project, tmp_path: Path) -> None:
    shutil.move(tmp_path / "slides" / "a", tmp_path / "archive")
    shutil.rmtree(tmp_path / "slides")
    first, second = relink(batches, [tmp_path / "archive"])
    assert first.found and second.found is None
    assert places(batches)[0] == tmp_path / "archive" / "1.svs"


def test_a_dry_run_changes_nothing(batches: Project, tmp_path: Path, files_below: Any) -> None:
    shutil.move(tmp_path / "slides", tmp_path / "archive")
    before = files_below(batches.folder)
    with open_project(batches.path) as project:
        assert all(result.found for result in relink(project, [tmp_path / "archive"], dry_run=True))
    assert files_below(batches.folder) == before


def test_everything_is_written_in_one_step(
    batches: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(tmp_path / "slides", tmp_path / "archive")
    writes: list[int] = []
    update = type(batches).update_images

    def noting(self: Any, changes: Mapping[str, ImageChanges]) -> None:
        writes.append(len(changes))
        update(self, changes)

    monkeypatch.setattr(type(batches), "update_images", noting)
    relink(batches, [tmp_path / "archive"])
    assert writes == [2]


def test_a_renamed_share_is_followed_where_every_file_is_the_slide(
    batches: Project, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "slides", tmp_path / "näher 2")
    change = PlaceChange.of(str(tmp_path / "slides"), (tmp_path / "näher 2").as_uri())
    assert evidence(rename_places(batches, change)) == [Evidence.ALIKE, Evidence.ALIKE]
    assert places(batches) == [tmp_path / "näher 2" / each / "1.svs" for each in "ab"]


def test_a_renamed_share_with_another_slide_in_its_place_is_refused(
    batches: Project, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "slides", tmp_path / "new")
    shutil.copy(tmp_path / "new" / "b" / "1.svs", tmp_path / "new" / "a" / "1.svs")
    change = PlaceChange.of(str(tmp_path / "slides"), str(tmp_path / "new"))
    for unverified in (False, True):
        first, second = rename_places(batches, change, unverified=unverified, dry_run=True)
        assert first.found is None and "another picture" in first.why
        assert second.evidence is Evidence.ALIKE


def test_a_place_out_of_reach_is_believed_only_when_told_to(
    batches: Project, tmp_path: Path
) -> None:
    change = PlaceChange.of(str(tmp_path / "slides"), r"\\neu\Schnitte 2")
    before = places(batches)
    assert all(result.found is None for result in rename_places(batches, change))
    assert places(batches) == before
    results = rename_places(batches, change, unverified=True)
    assert results[0].found == PureWindowsPath(r"\\neu\Schnitte 2\a\1.svs")
    assert evidence(results) == [None, None]
    with open_project(batches.path) as again:
        assert again.images[0].server.uris == ("file://neu/Schnitte%202/a/1.svs",)
    back = PlaceChange.of("file:////NEU/Schnitte%202", str(tmp_path / "slides"))
    rename_places(open_project(batches.path, "r+"), back)
    assert places(batches) == before


def test_a_file_missing_in_a_place_within_reach_is_no_matter_of_trust(
    batches: Project, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "slides", tmp_path / "new")
    shutil.rmtree(tmp_path / "new" / "b")
    change = PlaceChange.of(str(tmp_path / "slides"), str(tmp_path / "new"))
    first, second = rename_places(batches, change, unverified=True)
    assert first.found and second.found is None and "is not there" in second.why


def test_a_share_no_image_is_on_is_a_mistake_that_shows_where_they_are(
    batches: Project, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"No image.*\n.*{tmp_path}/slides/a"):
        rename_places(batches, PlaceChange.of("//old/share", "//new/share"))


def test_a_project_without_images_has_no_places(tmp_path: Path) -> None:
    with (
        open_project(tmp_path / "a person's study", "x") as project,
        pytest.raises(UsageError, match="has no images") as refused,
    ):
        rename_places(project, PlaceChange.of("//old/share", "//new/share"))
    assert shlex.quote(str(project.folder)) in str(refused.value.hint)


def test_a_person_decides_which_file_it_is(
    batches: Project, make_case: Callable[..., Path], tmp_path: Path
) -> None:
    chosen = make_case(tmp_path / "chosen.svs", 7)
    before = places(batches)
    with pytest.raises(UsageError, match=r"another picture.*nothing was changed"):
        link_to(batches, batches.images[:1], chosen)
    assert places(batches) == before
    (result,) = link_to(batches, batches.images[:1], chosen, unverified=True)
    assert (result.found, result.evidence) == (chosen, Evidence.UNLIKE)
    assert "another picture" in result.why
    assert places(batches)[0] == chosen


def test_a_file_of_another_size_is_refused_even_to_a_person(
    batches: Project, slide_file: Path, tmp_path: Path
) -> None:
    before = places(batches)
    with pytest.raises(UsageError, match="2,048 x 1,536 px, not 1,024 x 768 px"):
        link_to(batches, batches.images[:1], slide_file)
    with pytest.raises(UsageError, match=r"1\.svs \(ID 1\), 1\.svs \(ID 2\)"):
        link_to(batches, batches.images, tmp_path / "slides" / "a" / "1.svs")
    assert places(batches) == before


def test_relinked_slides_are_known_from_then_on(batches: Project, tmp_path: Path) -> None:
    shutil.move(tmp_path / "slides", tmp_path / "archive")
    relink(batches, [tmp_path / "archive"])
    shutil.move(tmp_path / "archive" / "a" / "1.svs", tmp_path / "archive" / "renamed.svs")
    (result,) = relink(batches, [tmp_path / "archive"])
    assert (result.found, result.evidence) == (tmp_path / "archive" / "renamed.svs", Evidence.SAME)
