from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely

from qpannot.errors import ConcurrentChangeError, ProjectError, UsageError
from qpannot.exchange import (
    export_geojson,
    find_geojson,
    import_geojson,
    importing,
    name_files,
    naming,
)
from qpannot.qupath import (
    Annotation,
    Detection,
    ObjectKind,
    PathClass,
    Project,
    ProjectImage,
    RoiType,
    TMACore,
)
from qpannot.qupath.geojson.reading import read_geojson
from qpannot.qupath.geojson.validity import MAX_VERTICES
from qpannot.qupath.geojson.writing import write_geojson

BOW_TIE = shapely.Polygon([(100, 100), (200, 200), (200, 100), (100, 200)])
TUMOR = PathClass("Tumor", (200, 0, 0))


def annotation(x: float = 300, **changes: Any) -> Annotation:
    return Annotation(shapely.box(x, 100.25, x + 50, 180), TUMOR, **changes)


def images_named(*names: str) -> list[ProjectImage]:
    return [SimpleNamespace(id=str(i + 1), name=name, path=None) for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["case 1.svs", "b.ome.tif"], ["case 1", "b"]),
        (["a.svs", "a.ndpi", "A.tif"], ["a.svs", "a.ndpi", "A.tif"]),
        (["a.svs", "a.svs"], ["a.svs (1)", "a.svs (2)"]),
        (["a.svs", "a.ndpi", "a.svs"], ["a.svs (1)", "a.ndpi", "a.svs (3)"]),
        (
            ["x/y:z?.svs", "con.svs", "..", " lead. ", "v1.2 final"],
            ["x_y_z_", "_con", "_", "lead", "v1.2 final"],
        ),
        (["slide.vsi - 20x"], ["slide.vsi - 20x"]),
    ],
)
def test_every_image_has_a_file_name_that_every_file_system_takes(
    names: list[str], files: list[str]
) -> None:
    images = images_named(*names)
    made = name_files(images)
    assert [made[image.id] for image in images] == files
    for image in images:
        assert naming.images_of(Path(made[image.id] + ".geojson.gz"), images) == [image]


def test_long_names_are_cut_and_still_differ() -> None:
    images = images_named("ä" * 300 + "1.svs", "ä" * 300 + "2.svs")
    made = set(name_files(images).values())
    assert len(made) == 2 and all(len(name.encode()) < 240 for name in made)


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("case-1.geojson", ["case-1.svs"]),
        ("case-1.svs.geojson.gz", ["case-1.svs"]),
        ("CASE-1.json", ["case-1.svs"]),
        ("case-2.geojson", ["case-2.svs", "case-2.ndpi"]),
        ("case-2.ndpi.geojson", ["case-2.ndpi"]),
        ("case-2.tif.geojson", []),
        ("case-1.ndpi.geojson", []),
        ("case-1.svs (1).geojson", ["case-1.svs"]),
        ("case.geojson", []),
    ],
)
def test_files_belong_to_the_images_they_are_named_after(file: str, found: list[str]) -> None:
    images = images_named("case-1.svs", "case-2.svs", "case-2.ndpi")
    assert [image.name for image in naming.images_of(Path(file), images)] == found


def test_a_file_of_another_kind_of_slide_is_only_of_an_image_without_a_kind() -> None:
    (renamed,) = images_named("case-1")
    assert naming.images_of(Path("case-1.svs.geojson"), [renamed]) == [renamed]
    assert naming.images_of(Path("CASE-1.svs.geojson"), [renamed]) == [renamed]


def test_slides_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [tmp_path / "slides" / case for case in ("case-1", "case-2")]
    images: list[Any] = [
        SimpleNamespace(id=folder.name, name="slide.svs", path=folder / "slide.svs")
        for folder in folders
    ]
    assert naming.images_of(tmp_path / "out" / "case-2" / "slide.geojson", images) == images[1:]
    assert naming.images_of(tmp_path / "out" / "slide.geojson", images) == images


def test_folders_stand_for_the_geojson_in_them(tmp_path: Path) -> None:
    for name in ("b.geojson", "a.geojson.gz", "classes.json", ".c.geojson.12.tmp", ".d.geojson"):
        (tmp_path / name).write_text("{}")
    names = [file.name for file in find_geojson([tmp_path, tmp_path / "b.geojson"])]
    assert names == ["a.geojson.gz", "b.geojson"]
    with pytest.raises(UsageError, match="no GeoJSON"):
        find_geojson([_empty(tmp_path)])
    with pytest.raises(UsageError, match="no such file"):
        find_geojson([tmp_path / "absent.geojson"])


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_a_project_goes_out_and_comes_in_again_unchanged(
    project: Project, tmp_path: Path, files_below: Callable[[Path], Any]
) -> None:
    one, two, _ = project.images
    parent = annotation(name="parent", metadata={"qpannot": "round 1"})
    cell = Detection(
        shapely.Point(320, 120).buffer(9),
        TUMOR,
        kind=ObjectKind.CELL,
        nucleus=shapely.Point(320, 120).buffer(4),
        measurements={"Area": 0.1},
        parent_id=parent.id,
    )
    ellipse = Annotation(
        shapely.Point(900.126, 900).buffer(50.129, quad_segs=25), roi=RoiType.ELLIPSE
    )
    one.write_annotations(add=[parent, cell, ellipse, Annotation(BOW_TIE, name="crossing")])
    two.write_annotations(add=[annotation(100_000.337)])
    before = files_below(project.folder)
    exported = export_geojson(project, tmp_path / "out")
    names = [each.path.name for each in exported.exported]
    assert names == ["one.geojson", "two.geojson", "glass.geojson"]
    assert [len(each.fitted.objects) for each in exported.exported] == [4, 1, 0]
    assert exported.exported[0].fitted.repairs[0].label == "crossing"
    result = import_geojson(project, find_geojson([tmp_path / "out"]))
    assert {each.image.name: each.unchanged for each in result.images} == {
        "one.svs": 4,
        "two.svs": 1,
        "glass.svs": 0,
    }
    assert result.is_complete and not any(each.added for each in result.images)
    assert files_below(project.folder) == before


def test_importing_twice_adds_once(project: Project, tmp_path: Path) -> None:
    one = project.images[0]
    file = tmp_path / "one.geojson"
    features = [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        for name, ring in (
            ("open", [[0, 0], [90.123456, 0], [90, 90]]),
            ("crossing", [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]),
            ("lost", [[0, 0]]),
        )
    ]
    file.write_text(json.dumps(features))
    (first,) = import_geojson(project, [file]).images
    assert [each.name for each in first.added] == ["open", "crossing"]
    assert [each.label for each in first.repairs] == ["open", "crossing"]
    assert [each.where for each in first.left_out] == ["[2]"]
    stored = one.annotations()
    assert [each.name for each in stored] == ["open", "crossing"]
    assert stored[1].geometry.area == 50 and stored[1].geometry.is_valid
    (second,) = import_geojson(project, [file]).images
    assert (second.added, second.unchanged, second.conflicts) == ([], 2, [])
    assert one.annotations() == stored


def test_detections_cells_and_tiles_come_in_and_tma_cores_do_not(
    project: Project, tmp_path: Path
) -> None:
    objects = [
        Detection(shapely.box(1, 1, 9, 9), kind=kind)
        for kind in (ObjectKind.CELL, ObjectKind.TILE, ObjectKind.DETECTION)
    ]
    core = TMACore(shapely.Point(50, 50).buffer(20, quad_segs=25), name="A-1", roi=RoiType.ELLIPSE)
    write_geojson(tmp_path / "one.geojson", [*objects, core])
    result = import_geojson(project, [tmp_path / "one.geojson"])
    assert [each.kind for each in project.images[0].objects()] == [each.kind for each in objects]
    assert "TMA core" in result.images[0].left_out[0].text and not result.is_complete


def test_what_a_person_changed_is_not_overwritten_unless_asked_for(
    project: Project, tmp_path: Path
) -> None:
    one = project.images[0]
    drawn, new = annotation(name="as exported"), annotation(600)
    one.write_annotations(add=[drawn])
    file = tmp_path / "one.geojson"
    write_geojson(file, [drawn.with_changes(name="edited elsewhere"), new])
    (stored,) = one.annotations()
    corrected = stored.with_changes(geometry=shapely.box(300, 100, 355, 180))
    one.write_annotations(replace=[(stored, corrected)])
    (result,) = import_geojson(project, [file]).images
    (conflict,) = result.conflicts
    assert (conflict.id, conflict.differs_in) == (drawn.id, ("name", "geometry"))
    assert {each.name for each in one.annotations()} == {"as exported", None}
    (result,) = import_geojson(project, [file], replace=True).images
    assert [each.id for each in result.replaced] == [drawn.id] and not result.conflicts
    (now,) = (each for each in one.annotations() if each.id == drawn.id)
    assert now.name == "edited elsewhere" and now.geometry.bounds[2] == 350
    (result,) = import_geojson(project, [file]).images
    assert result.unchanged == 2


def test_detections_are_not_replaced_even_when_asked_for(project: Project, tmp_path: Path) -> None:
    one = project.images[0]
    cell = Detection(shapely.box(1, 1, 9, 9), TUMOR, kind=ObjectKind.CELL)
    one.write_annotations(add=[cell])
    write_geojson(tmp_path / "one.geojson", [cell.with_changes(path_class=None)])
    (result,) = import_geojson(project, [tmp_path / "one.geojson"], replace=True).images
    assert [each.differs_in for each in result.conflicts] == [("class_name",)]
    assert one.objects()[0].class_name == "Tumor"


def test_a_giant_is_known_by_its_pieces(project: Project, tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, MAX_VERTICES + 500, endpoint=False)
    ring = 60_000 + 50_000 * np.column_stack([np.cos(angles), np.sin(angles)])
    giant = Annotation(shapely.Polygon(ring), TUMOR)
    one, two, _ = project.images
    one.write_annotations(add=[giant])
    (exported,) = export_geojson(project, tmp_path, images=[one]).exported
    (told,) = exported.fitted.splits
    assert told.id == giant.id and len(told.pieces) == len(exported.fitted.objects) > 1
    (again,) = import_geojson(project, [exported.path]).images
    assert not again.added and again.unchanged == len(told.pieces)
    import_geojson(project, [exported.path], image=two)
    assert tuple(piece.id for piece in two.annotations()) == told.pieces


def test_dry_run_changes_nothing_and_tells_the_same(
    project: Project, tmp_path: Path, files_below: Callable[[Path], Any]
) -> None:
    write_geojson(tmp_path / "one.geojson", [annotation()])
    before = files_below(project.folder)
    (planned,) = import_geojson(project, [tmp_path / "one.geojson"], dry_run=True).images
    assert files_below(project.folder) == before
    (done,) = import_geojson(project, [tmp_path / "one.geojson"]).images
    assert planned.added == done.added


def test_files_without_an_image_or_content_are_named_and_the_others_imported(
    project: Project, tmp_path: Path
) -> None:
    write_geojson(tmp_path / "one.geojson", [annotation()])
    write_geojson(tmp_path / "stranger.geojson", [annotation()])
    (tmp_path / "two.geojson").write_text("not json")
    result = import_geojson(project, find_geojson([tmp_path]))
    assert [each.image.name for each in result.images] == ["one.svs"]
    assert [Path(name).name for name, _ in result.failed] == ["stranger.geojson", "two.geojson"]
    assert all(error.hint for _, error in result.failed) and not result.is_complete


def test_any_file_goes_to_the_image_that_is_named(project: Project, tmp_path: Path) -> None:
    first, second = annotation(), annotation(400)
    write_geojson(tmp_path / "model a.geojson", [first])
    write_geojson(tmp_path / "model b.geojson", [first, second])
    two = project.images[1]
    result = import_geojson(project, find_geojson([tmp_path]), image=two)
    assert [each.id for each in two.annotations()] == [first.id, second.id]
    assert result.images[0].unchanged == 1


def test_objects_shifted_off_the_image_are_warned_of_with_the_likely_reason(
    project: Project, tmp_path: Path
) -> None:
    off = [annotation(x) for x in (3000, 4000, 100)]
    write_geojson(tmp_path / "one.geojson", off)
    (result,) = import_geojson(project, [tmp_path / "one.geojson"]).images
    assert result.outside == 2 and "crops" in result.warning and "2,048 x 1,536" in result.warning
    write_geojson(tmp_path / "two.geojson", [annotation(), annotation(900), annotation(5000)])
    (result,) = import_geojson(project, [tmp_path / "two.geojson"]).images
    assert result.outside == 1 and not result.warning


def test_what_qupath_saves_meanwhile_is_kept_and_the_import_begun_anew(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = project.images[0]
    saved = annotation(name="saved meanwhile")
    read = type(one).objects

    def read_and_save(image: Any) -> Any:
        objects = read(image)
        monkeypatch.setattr(type(one), "objects", read)
        image.write_annotations(add=[saved])
        return objects

    monkeypatch.setattr(type(one), "objects", read_and_save)
    write_geojson(tmp_path / "one.geojson", [annotation()])
    result = import_geojson(project, [tmp_path / "one.geojson"])
    assert result.is_complete and len(result.images[0].added) == 1
    assert [each.name for each in one.annotations()] == ["saved meanwhile", None]


def test_an_image_that_is_saved_again_and_again_is_named_and_left_alone(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = project.images[0]
    read = type(one).objects
    saved: list[Annotation] = []

    def read_and_save(image: Any) -> Any:
        objects = read(image)
        saved.append(annotation())
        image.write_annotations(add=saved[-1:])
        return objects

    monkeypatch.setattr(type(one), "objects", read_and_save)
    monkeypatch.setattr(importing, "ATTEMPTS", 3)
    new = annotation()
    write_geojson(tmp_path / "one.geojson", [new])
    result = import_geojson(project, [tmp_path / "one.geojson"])
    assert isinstance(result.failed[0][1], ConcurrentChangeError) and not result.images
    assert [each.id for each in one.annotations()] == [each.id for each in saved]
    assert len(saved) == 3


def test_only_annotations_and_only_some_images_are_exported_on_demand(
    project: Project, tmp_path: Path
) -> None:
    one = project.images[0]
    one.write_annotations(add=[annotation(), Detection(shapely.box(1, 1, 5, 5))])
    result = export_geojson(
        project, tmp_path / "a", images=[one], annotations_only=True, compress=True
    )
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["one.geojson.gz"]
    assert len(read_geojson(result.exported[0].path).objects) == 1
    export_geojson(project, tmp_path / "b" / "mine.geojson", images=[one])
    assert len(read_geojson(tmp_path / "b" / "mine.geojson").objects) == 2
    packed = export_geojson(project, tmp_path / "mine.geojson", images=[one], compress=True)
    assert packed.exported[0].path == tmp_path / "mine.geojson.gz"
    assert packed.exported[0].path.read_bytes()[:2] == b"\x1f\x8b"


def test_several_images_do_not_go_into_one_file(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot hold 3 images") as refused:
        export_geojson(project, tmp_path / "all.geojson")
    assert "--image" in str(refused.value.hint) and not list(tmp_path.glob("all*"))


def test_a_file_that_cannot_be_written_is_named_and_the_others_are(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "out" / "one.geojson").mkdir(parents=True)
    result = export_geojson(project, tmp_path / "out")
    assert [image.name for image, _ in result.failed] == ["one.svs"]
    assert [each.path.name for each in result.exported] == ["two.geojson", "glass.geojson"]
    assert all(each.path.is_file() for each in result.exported)


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_exported(
    project: Project, tmp_path: Path
) -> None:
    project.images[0].write_annotations(add=[annotation()])
    (project.folder / "data" / project.images[0].id / "data.qpdata").write_bytes(b"damaged")
    result = export_geojson(project, tmp_path / "out")
    assert [image.name for image, _ in result.failed] == ["one.svs"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "glass.geojson",
        "two.geojson",
    ]


def test_a_place_that_cannot_be_written_ends_in_an_error(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ProjectError, match="cannot be made"):
        export_geojson(project, tmp_path / "file" / "out")


def test_two_versions_in_two_files_are_not_both_taken(project: Project, tmp_path: Path) -> None:
    image = project.images[0]
    image.write_annotations(add=[Annotation(shapely.box(10, 10, 90, 90), TUMOR, name="mine")])
    (known,) = image.annotations()
    files = [tmp_path / "a.geojson", tmp_path / "b.geojson"]
    for file in files:
        write_geojson(file, [known.with_changes(name=file.stem)])
    (first,) = import_geojson(project, files, image=image, replace=True).images
    assert [new.name for new in first.replaced] == ["a"]
    assert [conflict.id for conflict in first.conflicts] == [known.id]
