from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import shapely

from qpannot import qupath
from qpannot.errors import (
    ConcurrentChangeError,
    FormatError,
    ProjectError,
    QpannotError,
    ReadOnlyError,
)
from qpannot.geometry import Mpp, Size
from qpannot.qupath import Annotation, ImageChanges, PathClass, Project
from qpannot.qupath.qpdata.datafile import QpData
from qpannot.qupath.qpdata.javatypes import JavaString
from qpannot.qupath.qpdata.measurements import NumbersLayout
from qpannot.qupath.qpdata.pathwriting import ObjectWriter
from qpannot.qupath.qpdata.roinodes import RegionLayout

open_project = partial(qupath.open_project, backend="builtin")

TUMOR = PathClass("Tumor", (200, 0, 0))
FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]
SAMPLES = ("written-by-qupath/0.6.0/project", "written-by-qupath/0.7.0/project")


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path) -> Path:
    """A copy of a project that real QuPath wrote."""
    return Path(shutil.copytree(shared_data / "qupath" / request.param, tmp_path / "sample"))


@pytest.fixture
def project(project_folder: Path) -> Iterator[Project]:
    with open_project(project_folder, "r+") as opened:
        yield opened


def square(x: float = 10, side: float = 50) -> Annotation:
    return Annotation(shapely.box(x, x, x + side, x + side), path_class=TUMOR)


def test_images_of_a_real_project_are_read(sample: Path) -> None:
    with open_project(sample) as project:
        first, second = project.images
        assert (first.id, first.name) == ("1", "CMU-1-Small-Region.svs")
        assert (first.server.size, first.server.mpp) == (Size(2220, 2967), Mpp(0.499, 0.499))
        assert dict(first.metadata) == {"patient": "P-1", "grade": "G2"}
        assert first.description == "a description\nwith two lines äö"
        assert first.tags == () and second.description is None
        assert first.count_annotations() == len(first.annotations()) == 11
        assert {c.name: c.color for c in project.classes}["Tumor: Positive"] is not None


def test_reading_changes_no_file(sample: Path, files_below: FilesBelow) -> None:
    before = files_below(sample)
    with open_project(sample, "r") as project:
        for image in project.images:
            assert image.annotations() is not None
            image.count_annotations()
            image.fingerprint()
        assert project.classes
    assert files_below(sample) == before


def test_writing_nothing_changes_no_file_but_the_lock(
    sample: Path, files_below: FilesBelow
) -> None:
    before = files_below(sample)
    with open_project(sample, "r+") as project:
        for image in project.images:
            image.write_annotations()
        project.update_images({"1": ImageChanges(metadata={"patient": "P-1", "new": None})})
        project.set_classes(project.classes)
    after = files_below(sample)
    after.pop("qpannot/lock", None)
    assert after == before


def test_adding_and_removing_again_gives_the_same_objects(sample: Path) -> None:
    with open_project(sample, "r+") as project:
        image = project.images[0]
        before = image.annotations()
        added = square()
        image.write_annotations(add=[added])
        assert len(image.annotations()) == len(before) + 1
        image.write_annotations(remove=[a for a in image.annotations() if a.id == added.id])
        after = image.annotations()
    assert [a.id for a in after] == [a.id for a in before]
    assert [a.geometry for a in after] == [a.geometry for a in before]


def test_annotations_read_back_equal_in_a_new_process_of_reading(project: Project) -> None:
    holes = shapely.box(0, 0, 900, 900).difference(shapely.box(100, 100, 200.5, 200.25))
    wanted = [
        square(),
        Annotation(holes, path_class=PathClass("Tumor: Positive"), name="with a hole", locked=True),
        Annotation(
            shapely.MultiPolygon([shapely.box(0, 0, 9, 9), shapely.box(20, 20, 30, 30)]),
            color=(1, 2, 3),
            measurements={"a": 1.5, "b": math.nan},
            metadata={"kéy 🔬": "välue"},
        ),
    ]
    project.images[0].write_annotations(add=wanted)
    with open_project(project.path) as again:
        found = again.images[0].annotations()
        assert again.images[0].count_annotations() == 3
    assert [a.id for a in found] == [a.id for a in wanted]
    for made, read in zip(wanted, found, strict=True):
        assert shapely.equals(made.geometry, read.geometry)
        assert (made.path_class, made.name, made.locked) == (
            read.path_class,
            read.name,
            read.locked,
        )
        assert (made.color, dict(made.metadata)) == (read.color, dict(read.metadata))
    assert math.isnan(found[2].measurements["b"]) and found[2].measurements["a"] == 1.5


def test_replacing_keeps_the_id_and_every_other_object(project: Project) -> None:
    image = project.images[0]
    one, two = square(), square(200)
    image.write_annotations(add=[one, two])
    stored = image.annotations()[0]
    moved = stored.with_changes(geometry=shapely.box(1, 2, 3, 4), name="moved")
    image.write_annotations(replace=[(stored, moved)])
    after = image.annotations()
    assert [a.id for a in after] == [one.id, two.id]
    assert after[0].name == "moved" and shapely.equals(after[0].geometry, moved.geometry)
    assert shapely.equals(after[1].geometry, two.geometry)


def test_what_qupath_saved_in_between_is_kept(project: Project) -> None:
    ours, theirs = square(), square(300)
    image = project.images[0]
    image.write_annotations(add=[ours])
    with open_project(project.path, "r+") as other:
        other.images[0].write_annotations(add=[theirs])
    image.write_annotations(remove=[a for a in image.annotations() if a.id == ours.id])
    assert [a.id for a in image.annotations()] == [theirs.id]


@pytest.mark.parametrize("what", ["changed", "deleted"])
def test_an_annotation_that_another_changed_is_not_overwritten(project: Project, what: str) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    (read,) = image.annotations()
    with open_project(project.path, "r+") as other:
        if what == "changed":
            corrected = read.with_changes(geometry=shapely.box(0, 0, 5, 5))
            other.images[0].write_annotations(replace=[(read, corrected)])
        else:
            other.images[0].write_annotations(remove=[read])
    before = image.fingerprint()
    with pytest.raises(ConcurrentChangeError, match="nothing was changed"):
        image.write_annotations(replace=[(read, read.with_changes(name="ours"))])
    with pytest.raises(ConcurrentChangeError, match="since it was read"):
        image.write_annotations(remove=[read], add=[square(500)])
    assert image.fingerprint() == before


def test_adding_twice_adds_once(project: Project) -> None:
    image = project.images[0]
    annotation = square()
    image.write_annotations(add=[annotation])
    before = image.fingerprint()
    image.write_annotations(add=[annotation])
    assert len(image.annotations()) == 1
    assert image.fingerprint() == before


def test_every_write_leaves_a_snapshot_of_what_was(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    data = project.folder / "data" / image.id / "data.qpdata"
    old = data.read_bytes()
    image.write_annotations(add=[square(100)])
    snapshots = list((project.folder / "qpannot" / "snapshots").rglob("*data.qpdata"))
    assert [path.read_bytes() for path in snapshots] == [old]


def test_a_save_that_qupath_broke_off_is_read_from_its_backup(project: Project) -> None:
    image = project.images[0]
    annotation = square()
    image.write_annotations(add=[annotation])
    data = project.folder / "data" / image.id / "data.qpdata"
    data.rename(data.with_name("data.qpdata.bkp"))
    assert [a.id for a in image.annotations()] == [annotation.id]
    assert image.count_annotations() == 1
    image.write_annotations(add=[square(100)])
    assert len(image.annotations()) == 2


def test_a_data_file_that_cannot_be_understood_is_never_written_over(project: Project) -> None:
    data = project.folder / "data" / "1" / "data.qpdata"
    data.write_bytes(b"not a data file")
    with pytest.raises(FormatError, match=r"data\.qpdata"):
        project.images[0].write_annotations(add=[square()])
    assert data.read_bytes() == b"not a data file"


def test_metadata_and_tags_are_changed_and_the_rest_is_kept(sample: Path) -> None:
    before = json.loads((sample / "project.qpproj").read_text())
    with open_project(sample, "r+") as project:
        changes = ImageChanges(
            metadata={"grade": None, "state <>&='": "ä"}, tags={"seen": True, "absent": False}
        )
        project.update_images({"1": changes})
        assert dict(project.images[0].metadata) == {"patient": "P-1", "state <>&='": "ä"}
    after = json.loads((sample / "project.qpproj").read_text())
    assert after["images"][0].pop("tags") == ["seen"]
    assert after["images"][0]["metadata"] == {"patient": "P-1", "state <>&='": "ä"}
    for document in (before, after):
        document["images"][0].pop("metadata")
        document["images"][0].pop("tags", None)
        document.pop("modifyTimestamp")
    assert after == before


def test_tags_are_left_out_of_projects_that_know_none(sample: Path) -> None:
    path = sample / "project.qpproj"
    path.write_text(path.read_text().replace('"version": "0.', '"version": "0.4.', 1))
    with open_project(sample, "r+") as project:
        project.update_images({"1": ImageChanges(tags={"seen": True})})
        assert project.images[0].tags == ()


def test_images_are_added_as_qupath_does(project: Project) -> None:
    document = json.loads(project.path.read_text())
    assert document["lastID"] == 3 and len(document["images"]) == 3
    for image in project.images:
        folder = project.folder / "data" / image.id
        server = json.loads((folder / "server.json").read_text())
        assert server == document["images"][int(image.id) - 1]["serverBuilder"]
        assert image.thumbnail_path == folder / "thumbnail.jpg"
        assert image.path and image.path.is_file()
    assert project.images[0].server.mpp == Mpp(0.5, 0.5)
    assert project.images[0].server.magnification == 20


def test_an_orphaned_data_folder_is_not_adopted(project: Project, slide_file: Path) -> None:
    from qpannot.linking import describe_slide

    orphan = project.folder / "data" / "4"
    orphan.mkdir()
    (orphan / "data.qpdata").write_bytes(b"somebody's work")
    (added,) = project.add_images([describe_slide(slide_file, image_type="BRIGHTFIELD_H_E")])
    assert added.id == "5"
    summary = json.loads((project.folder / "data" / "5" / "summary.json").read_text())
    assert summary["imageType"] == "BRIGHTFIELD_H_E"
    assert summary["server"] == {"width": 2048, "height": 1536, "sizeC": 3, "sizeZ": 1, "sizeT": 1}


def test_a_project_moved_with_its_slides_finds_them(project_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(project_folder, moved / "study")
    shutil.move(tmp_path / "slides", moved / "slides")
    with open_project(moved / "study") as project:
        assert project.images[0].path == moved / "slides" / "one.svs"


def test_classes_are_written_as_qupath_does(project: Project) -> None:
    project.set_classes([TUMOR, PathClass("Tumor: Positive")])
    written = json.loads((project.folder / "classifiers" / "classes.json").read_text())
    assert written == {
        "pathClasses": [{"name": "Tumor", "color": -3670016}, {"name": "Tumor: Positive"}]
    }
    assert [c.color for c in project.classes] == [(200, 0, 0), None]


def test_a_project_open_for_reading_refuses_every_write(
    project_folder: Path, files_below: FilesBelow
) -> None:
    before = files_below(project_folder)
    with open_project(project_folder) as project:
        for write in (
            lambda: project.images[0].write_annotations(add=[square()]),
            lambda: project.update_images({"1": ImageChanges(metadata={"a": "b"})}),
            lambda: project.set_classes([TUMOR]),
            lambda: project.add_images([]),
        ):
            with pytest.raises(ReadOnlyError):
                write()
    assert files_below(project_folder) == before


def test_an_empty_geometry_is_refused_before_anything_is_changed(project: Project) -> None:
    image = project.images[0]
    with pytest.raises(QpannotError, match="is empty"):
        image.write_annotations(add=[Annotation(shapely.Polygon())])
    assert image.fingerprint().size == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a QuPath project"),
        ("[]", "not a QuPath project"),
        ('{"images": []}', "before 0.2"),
        ('{"version": "0.6.0", "images": [{}]}', "no entryID"),
        ('{"version": "0.6.0", "images": {}}', "list of images"),
    ],
)
def test_a_file_that_is_no_project_is_a_clear_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "project.qpproj"
    path.write_text(text)
    with pytest.raises(FormatError, match=says):
        open_project(path)


def test_where_there_is_no_project_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="qpannot init"):
        open_project(tmp_path)
    with pytest.raises(ProjectError, match="no such project"):
        open_project(tmp_path / "a.qpproj")


def test_a_new_project_is_never_made_over_an_old_one(
    project_folder: Path, files_below: FilesBelow
) -> None:
    before = files_below(project_folder)
    with pytest.raises(ProjectError, match="already"):
        open_project(project_folder, "x")
    with pytest.raises(ProjectError, match="already"):
        open_project(project_folder / "other.qpproj", "x")
    assert files_below(project_folder) == before


def test_ids_survive_an_edit(project: Project) -> None:
    fixed = UUID("12345678-1234-5678-1234-567812345678")
    annotation = Annotation(shapely.box(0, 0, 9, 9), id=fixed)
    project.images[0].write_annotations(add=[annotation])
    assert project.images[0].annotations()[0].id == fixed


def test_a_class_known_to_the_file_keeps_its_colour(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    other = square(200).with_changes(path_class=PathClass("Tumor", (1, 2, 3)))
    plain = square(400).with_changes(path_class=PathClass("Tumor"))
    image.write_annotations(add=[other, plain])
    after = image.annotations()
    assert [a.path_class and a.path_class.color for a in after] == [(200, 0, 0)] * 3


def test_a_class_without_a_colour_takes_the_projects(project: Project) -> None:
    project.set_classes([PathClass("Tumor", (9, 8, 7))])
    project.images[0].write_annotations(add=[square().with_changes(path_class=PathClass("Tumor"))])
    (read,) = project.images[0].annotations()
    assert read.path_class and read.path_class.color == (9, 8, 7)


def test_a_class_without_colour_in_the_file_stays_so(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    path = project.folder / "data" / "1" / "data.qpdata"
    data = QpData.parse(path.read_bytes(), source=path)
    (node,) = data._object_writer()._classes.values()
    for part, desc in zip(node.data, node.desc.lineage, strict=True):
        for index, field in enumerate(f for f in desc.fields if f.signature is not None):
            if field.name == "colorRGB":
                part.references[index] = None
    path.write_bytes(data.to_bytes())
    (colourless,) = image.annotations()
    assert colourless.path_class and colourless.path_class.color is None
    image.write_annotations(
        add=[square(200)], replace=[(colourless, colourless.with_changes(name="x"))]
    )
    after = image.annotations()
    assert [a.path_class and a.path_class.color for a in after] == [None, None]


def test_the_null_class_of_old_projects_is_no_class(project: Project) -> None:
    path = project.folder / "classifiers" / "classes.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"pathClasses": [{"name": "Unclassified"}, {"name": "Tumor", "color": -1}]}')
    assert [path_class.name for path_class in project.classes] == ["Tumor"]


def test_a_write_can_insist_on_the_file_that_was_read(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    read = image.fingerprint()
    image.write_annotations(add=[square(100)], unless_changed_since=read)
    with pytest.raises(ConcurrentChangeError, match="saved meanwhile"):
        image.write_annotations(add=[square(200)], unless_changed_since=read)
    assert len(image.annotations()) == 2


def test_a_write_that_would_read_back_differently_is_not_made(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    before = image.fingerprint()
    (known,) = image.annotations()
    monkeypatch.setattr(QpData, "remove", lambda self, ids: None)
    with pytest.raises(ProjectError, match="read back differently"):
        image.write_annotations(remove=[known])
    assert image.fingerprint() == before


def _wrong_measurement(self: Any, numbers: Any, values: Any, write: Any) -> None:
    write(self, [number - 1 for number in numbers], values)  # -2 for -1, of which hashes are equal


def _wrong_first_measurement(self: Any, measurements: Any, make: Any) -> Any:
    return make(self, {name: value - 1 for name, value in measurements.items()})


def _moved_vertex(self: Any, shape: Any, values: Any, write: Any) -> None:
    write(self, shape._replace(x=shape.x[:-1] + bytes([shape.x[-1] ^ 1])), values)


def _no_class(self: Any, path_class: Any, make: Any) -> None:
    return None


def _another_renamed(self: Any, each: Any, old: Any, new: Any, shape: Any, update: Any) -> Any:
    each.parent.children[0].set_name(JavaString.of("other"))
    return update(self, each, old, new, shape)


def _another_renamed_by_adding(self: Any, new: Any, nodes: Any, known: Any, append: Any) -> None:
    self._tree.children[0].set_name(JavaString.of("other"))
    append(self, new, nodes, known)


def _lost(self: Any, new: Any, nodes: Any, known: Any, append: Any) -> None:
    append(self, new[:-1], nodes[:-1], known)


@pytest.mark.parametrize(
    ("owner", "method", "wrong"),
    [
        (NumbersLayout, "write", _wrong_measurement),
        (ObjectWriter, "_measurements", _wrong_first_measurement),
        (RegionLayout, "write", _moved_vertex),
        (ObjectWriter, "_path_class", _no_class),
        (ObjectWriter, "update", _another_renamed),
        (QpData, "_append", _another_renamed_by_adding),
        (QpData, "_append", _lost),
    ],
)
def test_a_defect_of_ours_in_writing_is_found_before_anything_is_written(
    project: Project, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, wrong: Any
) -> None:
    image = project.images[0]
    numbers = {"a": -1.0, "b": math.nan}
    image.write_annotations(add=[square(), square(100)])
    before = image.fingerprint()
    (_, known) = image.annotations()
    replace = [(known, known.with_changes(name="ours"))]
    added = [
        square(x).with_changes(path_class=PathClass("New"), measurements=numbers)
        for x in (20, 40, 60)
    ]
    right = getattr(owner, method)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, lambda *args: wrong(*args, right))
        with pytest.raises(ProjectError, match="read back differently"):
            image.write_annotations(add=added, replace=replace)
    assert image.fingerprint() == before
    image.write_annotations(add=added, replace=replace)
    assert len(image.annotations()) == 5


def test_a_half_written_file_is_read_from_qupaths_backup(project: Project) -> None:
    image = project.images[0]
    annotation = square()
    image.write_annotations(add=[annotation])
    data = project.folder / "data" / "1" / "data.qpdata"
    whole = data.read_bytes()
    data.with_name("data.qpdata.bkp").write_bytes(whole)
    data.write_bytes(whole[: len(whole) // 2])
    assert [a.id for a in image.annotations()] == [annotation.id]
    image.write_annotations(add=[square(100)])
    assert len(image.annotations()) == 2
    assert {each.read() for each in image.snapshots()[-2:]} == {whole[: len(whole) // 2], whole}


def test_entries_of_classes_that_stay_are_kept_whole(project: Project) -> None:
    path = project.folder / "classifiers" / "classes.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        '{"pathClasses": [{"name": "Tumor", "color": 1677721600, "note": 1}], "more": 2}'
    )
    project.set_classes([*project.classes, PathClass("New", (1, 2, 3))])
    written = json.loads(path.read_text())
    assert written["pathClasses"][0] == {"name": "Tumor", "color": 1677721600, "note": 1}
    assert written["more"] == 2 and len(written["pathClasses"]) == 2
