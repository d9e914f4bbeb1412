"""What a project can do, whichever backend reads it: every test runs on both.

The paquo backend needs a QuPath: PAQUO_QUPATH_DIR=/path/to/QuPath pytest tests/qupath
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry.base import BaseGeometry

from qpannot.errors import (
    ConcurrentChangeError,
    FormatError,
    ProjectError,
    QpannotError,
    ReadOnlyError,
)
from qpannot.geometry import Mpp, Size
from qpannot.qupath import (
    Annotation,
    Detection,
    ImageChanges,
    ImageSource,
    ObjectKind,
    PathClass,
    PathObject,
    Plane,
    Project,
    ProjectImage,
    RoiType,
    as_stored,
    open_project,
)
from qpannot.qupath.annotation import differences

FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]
TUMOR = PathClass("Tumor", (200, 0, 0))
REAL_PROJECTS = (
    "written-by-qupath/0.6.0/project",
    "written-by-qupath/0.7.0/project",
    "coscia-0.6.0/demo_Qupath_project",
)

BOX = shapely.box(10, 20, 110.5, 70.25)
HOLED = shapely.box(0, 0, 900, 900).difference(shapely.box(100, 100, 200.5, 200.25))
TWO = shapely.MultiPolygon([shapely.box(0, 0, 9, 9), shapely.box(20, 20, 30, 30)])
CROSSING = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10), (0, 0)])
FAR = shapely.affinity.translate(shapely.Point(0, 0).buffer(33.3), 123456.789, 98765.4321)

REGIONS: dict[str, tuple[BaseGeometry, RoiType | None]] = {
    "rectangle": (BOX, RoiType.RECTANGLE),
    "rectangle across the edge": (shapely.box(-1000.1, -0.3, 0.7, 1020.7), RoiType.RECTANGLE),
    "ellipse": (BOX, RoiType.ELLIPSE),
    "line": (shapely.LineString([(0.1, 0.2), (30, 40.7)]), RoiType.LINE),
    "polygon": (BOX, None),
    "polygon far away": (FAR, None),
    "polygon that crosses itself": (CROSSING, None),
    "polygon with few corners": (shapely.Polygon([(0, 0), (5, 0), (0, 5)]), None),
    "polyline": (shapely.LineString([(0, 0), (1.1, 2.2), (3.3, 1)]), None),
    "point": (shapely.Point(5.5, 6.25), None),
    "points": (shapely.MultiPoint([(1, 2), (3.3, 4.4), (1, 2)]), None),
    "polygon with a hole": (HOLED, None),
    "several polygons": (TWO, None),
    "simple geometry": (FAR, RoiType.GEOMETRY),
    "several lines": (shapely.MultiLineString([[(0, 0), (1, 1)], [(5, 5), (6.6, 7)]]), None),
}

ODD: dict[str, dict[str, Any]] = {
    "plain": {},
    "named": {"name": "a name"},
    "emoji": {"name": "tumour 🔬 \U0001d49c"},
    "zero byte": {"name": "a\0b"},
    "no letters": {"name": ""},
    "long name": {"name": "x" * 70_000},
    "class": {"path_class": TUMOR},
    "derived class": {"path_class": PathClass("Tumor: Positive: 2+", (1, 2, 3))},
    "class in other letters": {"path_class": PathClass("Стромa ä", (9, 9, 9))},
    "locked": {"locked": True},
    "colour": {"color": (255, 0, 127)},
    "measurements": {
        "measurements": {"a": 1.5, "NaN": math.nan, "inf": math.inf, "µm²": -0.0, "": 1e300}
    },
    "metadata": {"metadata": {"kéy 🔬": "välue\n", "": "", "origin": "round 1"}},
    "plane": {"plane": Plane(1, 2, 3)},
    "z-slice": {"plane": Plane(-1, 4, 0)},
}


def square(x: float = 10, side: float = 50, **fields: Any) -> Annotation:
    fields = {"path_class": TUMOR, **fields}
    return Annotation(shapely.box(x, x, x + side, x + side), **fields)


def every_kind() -> list[PathObject]:
    """One object of each region, of each odd value, of each kind, and some within others."""
    regions = [Annotation(each, roi=roi, name=name) for name, (each, roi) in REGIONS.items()]
    odd = [Annotation(BOX, **fields) for fields in ODD.values()]
    outer = square(300)
    inner = square(310, 20, parent_id=outer.id)
    cell = Detection(
        shapely.Point(50, 50).buffer(8),
        kind=ObjectKind.CELL,
        nucleus=shapely.Point(50, 50).buffer(3),
        path_class=PathClass("Immune", (1, 200, 3)),
        measurements={"Nucleus: Area": 12.1, "Cell: Area": math.nan},
        parent_id=inner.id,
    )
    others = [
        cell,
        Detection(BOX, kind=ObjectKind.CELL, name="no nucleus"),
        Detection(BOX, kind=ObjectKind.DETECTION, color=(5, 6, 7)),
        Detection(shapely.box(0, 0, 64, 64), kind=ObjectKind.TILE, metadata={"a": "b"}),
    ]
    return [*regions, *odd, outer, inner, *others]


def assert_same(one: Sequence[PathObject], other: Sequence[PathObject]) -> None:
    assert [(each.kind, each.id) for each in one] == [(each.kind, each.id) for each in other]
    for a, b in zip(one, other, strict=True):
        assert differences(a, b) == ()
        assert (a.roi, a.parent_id) == (b.roi, b.parent_id)
        if isinstance(a, Detection) and isinstance(b, Detection):
            assert a.nucleus == b.nucleus
        if a.kind is ObjectKind.TMA_CORE:
            assert a == b


def assert_same_image(one: ProjectImage, other: ProjectImage) -> None:
    assert one.server == other.server
    for name in ("id", "name", "path", "tags", "description", "thumbnail_path"):
        assert getattr(one, name) == getattr(other, name)
    assert dict(one.metadata) == dict(other.metadata)


def assert_same_classes(one: Project, other: Project) -> None:
    assert [(c.name, c.color) for c in one.classes] == [(c.name, c.color) for c in other.classes]


def source_of(path: Path, **fields: Any) -> ImageSource:
    """An image as it would be described, of a file that nobody opens."""
    return ImageSource(
        path,
        reader="openslide",
        size=Size(2048, 1536),
        level_sizes=[Size(2048, 1536), Size(512, 384)],
        mpp=Mpp(0.5, 0.25),
        magnification=20,
        **fields,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a project of two images, whose slides are missing."""
    with open_project(tmp_path / "study", "x", backend="builtin") as project:
        project.add_images([source_of(tmp_path / f"{name}.svs") for name in ("one", "two")])
    return tmp_path / "study"


@pytest.fixture
def project(folder: Path, backend: str) -> Project:
    return open_project(folder, "r+", backend=backend)  # type: ignore[arg-type]


@pytest.fixture(params=REAL_PROJECTS)
def real(request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path) -> Path:
    """A copy of a project that QuPath wrote; its slides are missing."""
    return Path(shutil.copytree(shared_data / "qupath" / request.param, tmp_path / "real"))


def open_with(backend: str, path: Path, mode: str = "r") -> Project:
    return open_project(path, mode, backend=backend)  # type: ignore[arg-type]


def test_the_project_says_who_reads_it(project: Project, backend: str, folder: Path) -> None:
    assert project.backend == backend
    assert (project.folder, project.path, project.mode) == (folder, folder / "project.qpproj", "r+")


@pytest.mark.parametrize("name", REGIONS)
def test_every_region_reads_back_as_promised(project: Project, reader: str, name: str) -> None:
    geometry, roi = REGIONS[name]
    annotation = Annotation(geometry, roi=roi)
    project.images[0].write_annotations(add=[annotation])
    written = project.images[0].annotations()
    (read,) = open_with(reader, project.path).images[0].annotations()
    assert_same(written, [read])
    promised = as_stored(annotation)
    assert differences(promised, read) == () and promised.roi == read.roi
    assert read.geometry.hausdorff_distance(promised.geometry) == 0


@pytest.mark.parametrize("name", ODD)
def test_every_value_reads_back_as_promised(project: Project, reader: str, name: str) -> None:
    annotation = Annotation(BOX, **ODD[name])
    project.images[0].write_annotations(add=[annotation])
    (read,) = open_with(reader, project.path).images[0].annotations()
    assert differences(as_stored(annotation), read) == ()
    assert list(read.measurements) == list(annotation.measurements)


def test_everything_at_once_reads_back_in_the_same_order(project: Project, reader: str) -> None:
    wanted = every_kind()
    image = project.images[0]
    image.write_annotations(add=wanted)
    again = open_with(reader, project.path).images[0]
    assert_same(image.objects(), again.objects())
    assert_same(image.annotations(), again.annotations())
    by_id = {each.id: each for each in again.objects()}
    for each in wanted:
        assert differences(as_stored(each), by_id[each.id]) == ()
        assert by_id[each.id].parent_id == each.parent_id
    assert again.count_annotations() == sum(isinstance(each, Annotation) for each in wanted)


def test_what_one_wrote_the_other_changes_and_the_first_reads(
    project: Project, reader: str, backend: str
) -> None:
    project.images[0].write_annotations(add=every_kind())
    image = open_with(reader, project.path, "r+").images[0]
    before = image.annotations()
    renamed = before[0].with_changes(name="renamed", path_class=PathClass("New", (7, 7, 7)))
    image.write_annotations(
        add=[square(700)], replace=[(before[0], renamed)], remove=[before[-1], before[3]]
    )
    after = image.annotations()
    assert_same(after, project.images[0].annotations())
    assert_same(image.objects(), project.images[0].objects())
    changed = {before[0].id, before[-1].id, before[3].id}
    kept = [each for each in before if each.id not in changed]
    found = {each.id: each for each in after}
    assert all(differences(each, found[each.id]) == () for each in kept)


def test_real_projects_read_the_same(real: Path, reader: str) -> None:
    with open_with("builtin", real) as project, open_with(reader, real) as other:
        assert len(project.images) == len(other.images) > 0
        assert project.version == other.version
        assert_same_classes(project, other)
        for one, two in zip(project.images, other.images, strict=True):
            assert_same_image(one, two)
            assert_same(one.annotations(), two.annotations())
            assert_same(one.objects(), two.objects())


def test_real_projects_keep_everything_else_when_edited(
    real: Path, backend: str, reader: str
) -> None:
    for image in open_with(backend, real, "r+").images:
        before = image.objects()
        added = square(5)
        annotations = image.annotations()
        replace = [(each, each.with_changes(name="edited")) for each in annotations[:1]]
        remove = annotations[2:3]
        image.write_annotations(add=[added], replace=replace, remove=remove)
        other = next(each for each in open_with(reader, real).images if each.id == image.id)
        assert_same(image.objects(), other.objects())
        after = {each.id: each for each in other.objects()}
        assert after.pop(added.id).name is None
        for old, new in replace:
            assert differences(after.pop(old.id), new) == ()
        gone = {each.id for each in (*annotations[:1], *remove)}
        for each in before:
            if each.id not in gone:
                assert differences(each, after.pop(each.id)) == ()
        assert not after


def test_reading_changes_no_file(real: Path, backend: str, files_below: FilesBelow) -> None:
    before = files_below(real)
    folders = sorted(path for path in real.rglob("*") if path.is_dir())
    with open_with(backend, real) as project:
        for image in project.images:
            image.annotations()
            image.objects()
            image.count_annotations()
            image.fingerprint()
            assert image.server.uris
        assert project.classes is not None
    assert files_below(real) == before
    assert sorted(path for path in real.rglob("*") if path.is_dir()) == folders


def test_writing_nothing_changes_no_file_but_the_lock(
    real: Path, backend: str, files_below: FilesBelow
) -> None:
    before = files_below(real)
    with open_with(backend, real, "r+") as project:
        for image in project.images:
            image.write_annotations()
            project.update_images({image.id: ImageChanges(metadata={"no such": None})})
            project.update_images({image.id: ImageChanges(metadata=dict(image.metadata))})
        if project.classes:
            project.set_classes(project.classes)
    after = {name: what for name, what in files_below(real).items() if "lock" not in name}
    assert after == before


def test_a_project_open_for_reading_refuses_every_write(
    folder: Path, backend: str, files_below: FilesBelow
) -> None:
    before = files_below(folder)
    with open_with(backend, folder) as project:
        for write in (
            lambda: project.images[0].write_annotations(add=[square()]),
            lambda: project.update_images({"1": ImageChanges(metadata={"a": "b"})}),
            lambda: project.set_classes([TUMOR]),
            lambda: project.add_images([]),
        ):
            with pytest.raises(ReadOnlyError):
                write()
    assert files_below(folder) == before


def test_a_new_project_is_empty_and_both_read_it(tmp_path: Path, backend: str, reader: str) -> None:
    with open_with(backend, tmp_path / "new", "x") as project:
        assert project.images == () and project.version is not None
    with open_with(reader, tmp_path / "new") as again:
        assert again.images == () and again.classes == ()
        assert again.version == project.version


def test_a_new_project_is_never_made_over_an_old_one(
    folder: Path, backend: str, files_below: FilesBelow
) -> None:
    before = files_below(folder)
    for path in (folder, folder / "other.qpproj"):
        with pytest.raises(ProjectError, match="already"):
            open_with(backend, path, "x")
    assert files_below(folder) == before


def test_images_are_added_alike(tmp_path: Path, backend: str, reader: str) -> None:
    thumbnail = np.full((60, 100, 3), (200, 30, 90), np.uint8)
    source = source_of(
        tmp_path / "a slide ä.svs",
        thumbnail=thumbnail,
        image_type="BRIGHTFIELD_H_E",
        metadata={"patient": "P ä"},
        args=("--no-crop",),
    )
    with open_with(backend, tmp_path / "study", "x") as project:
        images = project.add_images([source, source_of(tmp_path / "two.svs")])
    assert [image.id for image in images] == ["1", "2"]
    with open_with(reader, tmp_path / "study") as again:
        for one, two in zip(images, again.images, strict=True):
            assert_same_image(one, two)
        first, second = again.images
    assert (first.name, dict(first.metadata)) == ("a slide ä.svs", {"patient": "P ä"})
    assert first.path == source.path and first.server.args == ("--no-crop",)
    assert first.server.size == Size(2048, 1536) and first.server.mpp == Mpp(0.5, 0.25)
    assert first.server.magnification == 20 and first.server.is_rgb
    assert first.thumbnail_path and second.thumbnail_path is None
    pixels = np.asarray(Image.open(first.thumbnail_path)).astype(int)
    assert pixels.shape == (60, 100, 3) and abs(pixels - thumbnail).max() < 16
    data = tmp_path / "study" / "data"
    assert json.loads((data / "1" / "summary.json").read_text())["imageType"] == "BRIGHTFIELD_H_E"
    assert not (data / "2" / "data.qpdata").exists()
    assert (data / "2" / "server.json").is_file()


def test_images_are_added_in_one_write_and_no_orphan_is_adopted(
    project: Project, tmp_path: Path
) -> None:
    orphan = project.folder / "data" / "3" / "data.qpdata"
    orphan.parent.mkdir()
    orphan.write_bytes(b"somebody's work")
    snapshots = project.folder / "qpannot" / "snapshots"
    before = len(list(snapshots.glob("*.qpproj")))
    added = project.add_images([source_of(tmp_path / f"{name}.svs") for name in "abc"])
    assert [image.id for image in added] == ["4", "5", "6"]
    assert len(list(snapshots.glob("*.qpproj"))) == before + 1
    assert orphan.read_bytes() == b"somebody's work"
    assert [image.name for image in project.images][2:] == ["a.svs", "b.svs", "c.svs"]


def test_metadata_tags_and_places_are_changed_and_the_rest_is_kept(
    real: Path, backend: str, reader: str
) -> None:
    document = json.loads((real / "project.qpproj").read_text())
    with open_with(backend, real, "r+") as project:
        image = project.images[0]
        old = image.server.uris[0]
        changes = ImageChanges(
            metadata={"patient": None, "state <>&='": "ä 🔬"},
            tags={"seen": True, "absent": False},
            uris={old: "file:/elsewhere/a%20slide.svs"},
        )
        project.update_images({image.id: changes})
        assert project.images[0].server.uris == ("file:/elsewhere/a%20slide.svs",)
    with open_with(reader, real) as again:
        for one, two in zip(project.images, again.images, strict=True):
            assert_same_image(one, two)
        assert again.images[0].metadata["state <>&='"] == "ä 🔬"
        assert "patient" not in again.images[0].metadata
        assert again.images[0].tags == ("seen",)
    after = json.loads((real / "project.qpproj").read_text())
    assert after["images"][1:] == document["images"][1:]
    for name in ("imageName", "description", "entryID", "randomizedName"):
        assert after["images"][0].get(name) == document["images"][0].get(name)
    assert after["uri"] == document["uri"] and after["version"] == document["version"]


def test_tags_are_left_out_of_projects_that_know_none(folder: Path, backend: str) -> None:
    path = folder / "project.qpproj"
    path.write_text(path.read_text().replace('"version": "0.6', '"version": "0.4', 1))
    with open_with(backend, folder, "r+") as project:
        project.update_images({"1": ImageChanges(tags={"seen": True})})
        assert project.images[0].tags == ()


def test_what_another_saved_in_the_project_since_it_was_opened_is_kept(
    project: Project, reader: str, tmp_path: Path
) -> None:
    with open_with(reader, project.path, "r+") as other:
        other.update_images({"1": ImageChanges(metadata={"theirs": "1"})})
        other.add_images([source_of(tmp_path / "three.svs")])
    project.update_images({"1": ImageChanges(metadata={"ours": "1"}), "3": ImageChanges()})
    assert dict(project.images[0].metadata) == {"theirs": "1", "ours": "1"}
    assert [image.name for image in project.images] == ["one.svs", "two.svs", "three.svs"]


def test_a_change_with_a_condition_is_made_only_where_it_holds(project: Project) -> None:
    project.update_images({"1": ImageChanges(metadata={"state": "a"}, only_if={"state": None})})
    project.update_images({"1": ImageChanges(metadata={"state": "b"}, only_if={"state": None})})
    project.update_images({"99": ImageChanges(metadata={"a": "b"}, only_if={"state": "x"})})
    assert project.images[0].metadata["state"] == "a"
    with pytest.raises(ProjectError, match="no longer in the project"):
        project.update_images({"99": ImageChanges(metadata={"a": "b"})})


def test_classes_are_replaced_in_order_with_their_colours(
    project: Project, reader: str, folder: Path
) -> None:
    project.set_classes([PathClass("Other", (1, 1, 1)), PathClass("Third", (3, 3, 3))])
    wanted = [PathClass("Tumor: Positive", (1, 2, 3)), TUMOR]
    project.set_classes(wanted)
    with open_with(reader, folder) as again:
        assert_same_classes(project, again)
        assert [(c.name, c.color) for c in again.classes] == [(c.name, c.color) for c in wanted]
    project.set_classes([PathClass("Tumor", (0, 0, 255))])
    assert [(c.name, c.color) for c in project.classes] == [("Tumor", (0, 0, 255))]
    project.set_classes([])
    assert project.classes == ()


def test_colours_of_one_project_do_not_turn_up_in_another(tmp_path: Path, backend: str) -> None:
    projects = []
    for name, color in (("a", (200, 0, 0)), ("b", (0, 0, 200))):
        with open_with(backend, tmp_path / name, "x") as project:
            (image,) = project.add_images([source_of(tmp_path / "one.svs")])
            project.set_classes([PathClass("Tumor", color)])
            image.write_annotations(add=[square(path_class=PathClass("Tumor", color))])
            projects.append((project, image, color))
    for project, image, color in projects:
        (annotation,) = image.annotations()
        assert annotation.path_class and annotation.path_class.color == color
        assert project.classes[0].color == color


def test_a_class_known_to_the_file_keeps_its_colour(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    other = square(200, path_class=PathClass("Tumor", (1, 2, 3)))
    plain = square(400, path_class=PathClass("Tumor"))
    image.write_annotations(add=[other, plain])
    after = image.annotations()
    assert [each.path_class and each.path_class.color for each in after] == [(200, 0, 0)] * 3


def test_a_class_without_a_colour_takes_the_projects(project: Project) -> None:
    project.set_classes([PathClass("Tumor", (9, 8, 7))])
    project.images[0].write_annotations(add=[square(path_class=PathClass("Tumor"))])
    (read,) = project.images[0].annotations()
    assert read.path_class and read.path_class.color == (9, 8, 7)


def test_replacing_changes_what_differs_and_nothing_else(project: Project, reader: str) -> None:
    image = project.images[0]
    annotations = [square(name="one", measurements={"a": 1.0}), square(200, name="two")]
    image.write_annotations(add=annotations)
    one, two = image.annotations()
    changed = one.with_changes(
        geometry=HOLED,
        roi=None,
        path_class=None,
        name=None,
        locked=True,
        color=(1, 2, 3),
        measurements={"b": math.nan},
        metadata={"x": "y"},
        plane=Plane(-1, 1, 0),
    )
    image.write_annotations(replace=[(one, changed)])
    after = open_with(reader, project.path).images[0].annotations()
    assert differences(after[0], as_stored(changed)) == () and differences(after[1], two) == ()
    image.write_annotations(replace=[(image.annotations()[0], one)])
    assert_same(open_with(reader, project.path).images[0].annotations(), [one, two])


def test_children_of_what_is_removed_move_up_to_where_it_was(project: Project) -> None:
    image = project.images[0]
    outer, last = square(100, 200), square(500)
    inner = square(110, 50, parent_id=outer.id)
    cell = Detection(shapely.box(111, 111, 115, 115), kind=ObjectKind.CELL, parent_id=inner.id)
    image.write_annotations(add=[outer, inner, cell, last])
    image.write_annotations(remove=[image.annotations()[0]])
    after = image.annotations()
    assert [(each.id, each.parent_id) for each in after] == [(inner.id, None), (last.id, None)]
    assert [(each.id, each.parent_id) for each in image.objects()] == [
        (inner.id, None),
        (cell.id, inner.id),
        (last.id, None),
    ]


def test_what_another_saved_in_between_is_kept(project: Project, reader: str) -> None:
    ours, theirs = square(), square(300)
    image = project.images[0]
    image.write_annotations(add=[ours])
    open_with(reader, project.path, "r+").images[0].write_annotations(add=[theirs])
    image.write_annotations(remove=[each for each in image.annotations() if each.id == ours.id])
    assert [each.id for each in image.annotations()] == [theirs.id]


@pytest.mark.parametrize("what", ["changed", "deleted"])
def test_an_annotation_that_another_changed_is_not_overwritten(
    project: Project, reader: str, what: str
) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    (read,) = image.annotations()
    other = open_with(reader, project.path, "r+").images[0]
    if what == "changed":
        other.write_annotations(replace=[(read, read.with_changes(geometry=HOLED))])
    else:
        other.write_annotations(remove=[read])
    before = image.fingerprint()
    with pytest.raises(ConcurrentChangeError, match="nothing was changed"):
        image.write_annotations(replace=[(read, read.with_changes(name="ours"))])
    with pytest.raises(ConcurrentChangeError, match="since it was read"):
        image.write_annotations(remove=[read], add=[square(500)])
    assert image.fingerprint() == before


def test_a_write_can_insist_on_the_file_that_was_read(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    read = image.fingerprint()
    image.write_annotations(add=[square(100)], unless_changed_since=read)
    with pytest.raises(ConcurrentChangeError, match="saved meanwhile"):
        image.write_annotations(add=[square(200)], unless_changed_since=read)
    assert len(image.annotations()) == 2


def test_adding_twice_adds_once(project: Project, reader: str) -> None:
    image = project.images[0]
    annotations = [each for each in every_kind() if isinstance(each, Annotation)]
    image.write_annotations(add=annotations)
    before = image.fingerprint()
    again = open_with(reader, project.path, "r+").images[0]
    again.write_annotations(add=annotations)
    assert len(again.annotations()) == len(annotations)
    assert image.fingerprint() == before


def test_an_id_is_never_given_twice(project: Project) -> None:
    image = project.images[0]
    known = square()
    image.write_annotations(add=[known])
    before = image.fingerprint()
    with pytest.raises(ConcurrentChangeError, match="another name"):
        image.write_annotations(add=[square(id=known.id, name="other")])
    twin = uuid4()
    with pytest.raises(QpannotError, match="is taken"):
        image.write_annotations(add=[square(id=twin), square(50, id=twin)])
    assert image.fingerprint() == before


def test_every_write_leaves_a_snapshot_of_what_was(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=[square()])
    data = project.folder / "data" / image.id / "data.qpdata"
    old = data.read_bytes()
    image.write_annotations(add=[square(100)])
    snapshots = list((project.folder / "qpannot" / "snapshots").rglob("*data.qpdata"))
    assert [path.read_bytes() for path in snapshots] == [old]


def test_what_cannot_be_stored_is_refused_before_anything_is_changed(project: Project) -> None:
    image = project.images[0]
    for wrong in (
        Annotation(shapely.Polygon()),
        square(path_class=PathClass(":")),
        square(path_class=PathClass("two\nlines")),
        square(path_class=PathClass("half \ud83d")),
        square(name="half \ud83d"),
        square(metadata={"a": "half \ud83d"}),
        square(measurements={"half \ud83d": 1}),
        square(metadata={"a": 1}),
        square(plane=Plane(-2, 0, 0)),
    ):
        with pytest.raises(QpannotError, match="cannot be stored"):
            image.write_annotations(add=[square(300), wrong])
    assert image.fingerprint().size == 0


@pytest.mark.parametrize("name", [":", "two\nlines", "half \ud83d"])
def test_classes_that_qupath_could_not_read_are_refused(
    project: Project, files_below: FilesBelow, name: str
) -> None:
    project.set_classes([TUMOR])
    before = files_below(project.folder)
    with pytest.raises(QpannotError, match="cannot be stored"):
        project.set_classes([TUMOR, PathClass(name)])
    assert files_below(project.folder) == before


def test_metadata_that_are_no_text_are_refused(
    project: Project, files_below: FilesBelow, tmp_path: Path
) -> None:
    before = files_below(project.folder)
    wrong = {"patient": "half \ud83d"}
    with pytest.raises(QpannotError, match=r"patient.*half a character"):
        project.update_images({"2": ImageChanges(metadata=wrong)})
    with pytest.raises(QpannotError, match=r"patient.*half a character"):
        project.add_images([source_of(tmp_path / "three.svs", metadata=wrong)])
    after = {name: what for name, what in files_below(project.folder).items() if "lock" not in name}
    assert after == {name: what for name, what in before.items() if "lock" not in name}


def break_region(data: Path) -> None:
    """Make a vertex at x = 12345 no number."""
    content = data.read_bytes()
    assert content.count(struct.pack(">f", 12345)) == 1
    data.write_bytes(content.replace(struct.pack(">f", 12345), struct.pack(">f", math.nan)))


def test_a_region_that_cannot_be_read_is_never_lost(project: Project, reader: str) -> None:
    image = project.images[0]
    broken = Annotation(shapely.Polygon([(0, 0), (12345, 0), (70, 7), (0, 9)]), name="broken")
    image.write_annotations(add=[square(name="whole"), broken])
    break_region(project.folder / "data" / image.id / "data.qpdata")
    whole, broken = image.annotations()
    assert broken.geometry.is_empty and not whole.geometry.is_empty
    before = image.fingerprint()
    for attempt in (
        {"remove": [whole, broken]},
        {"replace": [(broken, broken.with_changes(geometry=BOX))]},
        {"replace": [(broken, broken.with_changes(plane=Plane(0, 1, 2)))]},
    ):
        with pytest.raises(QpannotError, match=r"broken .* cannot be read, and would be lost"):
            image.write_annotations(**attempt)
    assert image.fingerprint() == before
    image.write_annotations(
        replace=[(broken, broken.with_changes(name="still broken"))], remove=[whole]
    )
    (left,) = open_with(reader, project.path).images[0].annotations()
    assert left.name == "still broken" and left.geometry.is_empty
    stream = (project.folder / "data" / image.id / "data.qpdata").read_bytes()
    assert struct.pack(">f", math.nan) in stream and struct.pack(">f", 70) in stream


def test_the_id_of_a_detection_is_taken_as_well(project: Project) -> None:
    image = project.images[0]
    cell = Detection(BOX, kind=ObjectKind.CELL)
    image.write_annotations(add=[cell])
    before = image.fingerprint()
    with pytest.raises(QpannotError, match="is taken"):
        image.write_annotations(add=[square(id=cell.id)])
    assert image.fingerprint() == before


def test_the_summary_counts_what_is_in_the_file(project: Project) -> None:
    image = project.images[0]
    image.write_annotations(add=every_kind())
    path = project.folder / "data" / image.id
    summary = json.loads((path / "summary.json").read_text())
    assert summary["timestamp"] == (path / "data.qpdata").stat().st_mtime_ns // 1_000_000
    assert summary["imageType"] == "UNSET"
    counts = summary["hierarchy"]["objectTypeCounts"]
    assert counts == {
        "Root objects": 1,
        "Annotations": len(REGIONS) + len(ODD) + 2,
        "Detections": 1,
        "Cells": 2,
        "Tiles": 1,
    }
    assert summary["hierarchy"]["nObjects"] == sum(counts.values())
    classes = summary["hierarchy"]["annotationClassificationCounts"]
    assert classes["Tumor"] == 3 and classes["Tumor: Positive: 2+"] == 1
    assert summary["hierarchy"]["detectionClassificationCounts"]["Immune"] == 1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_file_cut_short_is_an_error_and_never_written_over(
    project: Project, share: float
) -> None:
    image = project.images[0]
    image.write_annotations(add=every_kind())
    data = project.folder / "data" / image.id / "data.qpdata"
    whole = data.read_bytes()
    cut = whole[: int(len(whole) * share)]
    data.write_bytes(cut)
    with pytest.raises(FormatError, match=r"data\.qpdata") as caught:
        image.annotations()
    assert "Exception" not in caught.value.message and "java." not in caught.value.message
    assert "qpannot snapshots" in (caught.value.hint or "")
    with pytest.raises(QpannotError):
        image.write_annotations(add=[square()])
    assert data.read_bytes() == cut


@pytest.mark.parametrize("content", [b"not a data file", b"\xac\xed\x00\x05", b"\x00" * 999])
def test_a_file_that_is_none_of_qupaths_is_an_error(project: Project, content: bytes) -> None:
    image = project.images[0]
    data = project.folder / "data" / image.id / "data.qpdata"
    data.write_bytes(content)
    with pytest.raises(FormatError, match=r"data\.qpdata"):
        image.objects()


def test_a_save_that_qupath_broke_off_is_read_from_its_backup(
    project: Project, reader: str
) -> None:
    image = project.images[0]
    annotation = square()
    image.write_annotations(add=[annotation])
    data = project.folder / "data" / image.id / "data.qpdata"
    data.rename(data.with_name("data.qpdata.bkp"))
    again = open_with(reader, project.path, "r+").images[0]
    assert [each.id for each in again.annotations()] == [annotation.id]
    assert again.count_annotations() == 1
    again.write_annotations(add=[square(100)])
    assert len(image.annotations()) == 2


def test_ids_missing_in_an_old_file_follow_from_the_place(
    shared_data: Path, tmp_path: Path, backend: str, reader: str
) -> None:
    real = tmp_path / "real"
    shutil.copytree(shared_data / "qupath" / REAL_PROJECTS[0], real)
    forget_ids(real / "data" / "1" / "data.qpdata")
    one, two = open_with(backend, real, "r+").images[0], open_with(reader, real).images[0]
    before = one.objects()
    assert len({each.id for each in before}) == len(before)
    assert_same(before, two.objects())
    renamed = one.annotations()[0].with_changes(name="renamed")
    one.write_annotations(replace=[(one.annotations()[0], renamed)], add=[square(7)])
    after = {each.id: each for each in two.annotations()}
    assert after[renamed.id].name == "renamed"
    assert {each.id for each in before if isinstance(each, Annotation)} < after.keys()


def forget_ids(data: Path) -> None:
    """Make a file look as QuPath 0.3 wrote it: it knew no object IDs."""
    content = data.read_bytes()
    assert b"Object ID" in content and b'"qupathVersion":"0.6.0"' in content
    content = content.replace(b"Object ID", b"Other key")
    data.write_bytes(content.replace(b'"qupathVersion":"0.6.0"', b'"qupathVersion":"0.3.2"'))


def test_ids_are_given_by_the_caller(project: Project) -> None:
    fixed = UUID("12345678-1234-5678-1234-567812345678")
    project.images[0].write_annotations(add=[square(id=fixed)])
    assert project.images[0].annotations()[0].id == fixed


def change_project(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "project.qpproj"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_an_image_id_written_as_a_float_is_the_same_id(folder: Path, backend: str) -> None:
    annotation = square()
    open_with(backend, folder, "r+").images[1].write_annotations(add=[annotation])
    change_project(folder, lambda document: document["images"][1].update(entryID=2.0))
    with open_with(backend, folder, "r+") as project:
        project.update_images({"2": ImageChanges(metadata={"a": "b"})})
        assert [image.id for image in project.images] == ["1", "2"]
        assert [each.id for each in project.images[1].annotations()] == [annotation.id]


@pytest.mark.parametrize("wrong", [1.5, "one", None, True])
def test_an_image_id_that_is_no_whole_number_is_a_clear_error(
    folder: Path, backend: str, wrong: object
) -> None:
    change_project(folder, lambda document: document["images"][1].update(entryID=wrong))
    with pytest.raises(FormatError, match=r"image 2 has the entryID .*no whole number"):
        open_with(backend, folder)


def test_two_images_with_one_id_are_a_clear_error(folder: Path, backend: str) -> None:
    change_project(folder, lambda document: document["images"][1].update(entryID=1))
    with pytest.raises(FormatError, match=r"several images have the same entryID \(1\)") as caught:
        open_with(backend, folder, "r+")
    assert "Remove all but one" in (caught.value.hint or "")


def test_an_image_on_a_server_that_qupath_does_not_know_is_read_all_the_same(
    folder: Path, backend: str
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["images"][0]["serverBuilder"]["builderType"] = "of a newer QuPath"

    change_project(folder, change)
    with open_with(backend, folder, "r+") as project:
        project.update_images({"1": ImageChanges(metadata={"a": "b"})})
        project.images[0].write_annotations(add=[square()])
        assert len(project.images[0].annotations()) == 1
    document = json.loads((folder / "project.qpproj").read_text())
    assert document["images"][0]["serverBuilder"]["builderType"] == "of a newer QuPath"


@pytest.mark.parametrize("damage", ["deleted", "empty", "cut short"])
def test_a_project_file_that_is_gone_or_damaged_names_qupaths_backup(
    folder: Path, backend: str, damage: str
) -> None:
    path, backup = folder / "project.qpproj", folder / "project.qpproj.backup"
    whole = path.read_bytes()
    backup.write_bytes(whole)
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else whole[: len(whole) // 2])
    for given in (path, folder):
        with pytest.raises(ProjectError, match=r"project\.qpproj: ") as caught:
            open_with(backend, given, "r+")
        assert "project.qpproj.backup, is whole" in (caught.value.hint or "")
        assert "copy it to project.qpproj" in (caught.value.hint or "")
    shutil.copy(backup, path)
    assert len(open_with(backend, folder).images) == 2


def test_a_backup_that_is_damaged_as_well_is_not_recommended(folder: Path, backend: str) -> None:
    (folder / "project.qpproj").write_bytes(b"")
    (folder / "project.qpproj.backup").write_bytes(b"{")
    with pytest.raises(FormatError, match="is empty") as caught:
        open_with(backend, folder)
    assert "project.qpproj.backup" not in (caught.value.hint or "")
    assert "qpannot snapshots" in (caught.value.hint or "")


@pytest.mark.parametrize("damage", ["deleted", "cut short"])
def test_a_project_file_that_goes_meanwhile_is_not_replaced_by_the_save_before(
    project: Project, damage: str
) -> None:
    path = project.path
    whole = path.read_bytes()
    path.with_name("project.qpproj.backup").write_bytes(whole)
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(whole[:-20])
    with pytest.raises(ProjectError, match=r"project\.qpproj: "):
        project.update_images({"1": ImageChanges(metadata={"a": "b"})})
    assert not path.exists() if damage == "deleted" else path.read_bytes() == whole[:-20]


def test_a_save_of_the_project_that_is_under_way_is_waited_for(project: Project) -> None:
    path = project.path
    backup = path.with_name("project.qpproj.backup")
    path.rename(backup)  # as QuPath does, before it puts the new file there
    theirs = json.loads(backup.read_text())
    theirs["images"][1]["metadata"] = {"theirs": "1"}
    saving = threading.Timer(0.4, lambda: path.write_text(json.dumps(theirs)))
    saving.start()
    project.update_images({"1": ImageChanges(metadata={"ours": "1"})})
    saving.join()
    assert [dict(image.metadata) for image in project.images] == [{"ours": "1"}, {"theirs": "1"}]
