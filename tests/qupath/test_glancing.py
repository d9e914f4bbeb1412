from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shapely import LineString, Polygon, box

from qpannot.qupath import Annotation, Detection, ObjectKind, PathClass
from qpannot.qupath.glancing import Glance, glance_at
from qpannot.qupath.qpdata.datafile import QpData
from qpannot.qupath.qpdata.javastream import parse_start

TUMOR, REGION = PathClass("Tumor", (200, 0, 0)), PathClass("Region*", (0, 0, 180))


def save(folder: Path, data: QpData) -> Path:
    """Write an image's data and summary, as QuPath leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.qpdata"
    path.write_bytes(data.to_bytes())
    saved = path.stat().st_mtime_ns // 1_000_000
    summary = {"timestamp": saved, "hierarchy": data.summary()}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def new_data(*objects: Annotation | Detection) -> QpData:
    data = QpData.new(qupath_version="0.6.0", server_json="{}")
    data.add(objects)
    return data


def many(count: int) -> list[Annotation]:
    return [
        Annotation(box(10 * n, 0, 10 * n + 5, n + 1), path_class=TUMOR, metadata={"n": str(n)})
        for n in range(count)
    ]


def some_of(glance: Glance | None) -> list[tuple[Annotation, ...]]:
    assert glance is not None
    return list(glance.first_annotations())


def test_the_summary_tells_how_many_and_of_which_classes(tmp_path: Path) -> None:
    data = new_data(*many(3), Annotation(box(0, 0, 1, 1)), Annotation(box(1, 1, 2, 2), REGION))
    glance = glance_at(save(tmp_path, data))
    assert glance and glance.annotations == 5
    assert glance.class_names == {"Tumor", "Region*", None}


def test_a_summary_of_other_data_tells_nothing(tmp_path: Path) -> None:
    save(tmp_path, new_data(*many(3)))
    os.utime(tmp_path / "data.qpdata", (0, 0))
    assert glance_at(tmp_path) is None
    (tmp_path / "summary.json").write_text("[]")
    assert glance_at(tmp_path) is None
    (tmp_path / "summary.json").unlink()
    assert glance_at(tmp_path) is None


def test_the_first_annotations_are_those_of_the_file(tmp_path: Path) -> None:
    drawn = many(400)
    first, more = some_of(glance_at(save(tmp_path, new_data(*drawn))))[:2]
    assert 5 < len(first) < len(more) < len(drawn)
    for one, other in zip(more, drawn, strict=False):
        assert one.geometry.equals(other.geometry)
        assert (one.path_class, one.metadata) == (other.path_class, other.metadata)


def test_no_more_than_half_of_a_file_is_read(tmp_path: Path) -> None:
    glance = glance_at(save(tmp_path, new_data(*many(400))))
    assert glance is not None
    size = glance.data.stat().st_size
    glance.data.write_bytes(glance.data.read_bytes()[: size // 2] + bytes(size - size // 2))
    assert all(some_of(glance))


def test_annotations_are_told_from_cells_and_from_what_lies_around_others(tmp_path: Path) -> None:
    around = Annotation(box(0, 0, 1000, 1000), path_class=REGION)
    cells = [
        Detection(box(n, n, n + 5, n + 5), kind=ObjectKind.CELL, parent_id=around.id)
        for n in range(300)
    ]
    data = new_data(Annotation(LineString([(0, 0), (9, 9)])), around, *cells)
    for some in some_of(glance_at(save(tmp_path, data))):
        assert [each.geometry.area for each in some] == [0]


@pytest.mark.parametrize("at_once", [1 << 20, 1000, 64])
def test_a_metadata_key_is_found_wherever_in_the_file_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    from qpannot.qupath import glancing

    monkeypatch.setattr(glancing, "_AT_ONCE", at_once)
    marked = Annotation(box(0, 0, 1, 1), metadata={"some.key": "x"})
    for number, drawn in enumerate(([*many(20), marked], [marked, *many(20)], many(20))):
        glance = glance_at(save(tmp_path / str(number), new_data(*drawn)))
        assert glance is not None
        assert glance.mentions("some.key") is (marked in drawn)
        assert not glance.mentions("some.keys")


def test_a_beginning_that_is_no_stream_tells_nothing() -> None:
    assert parse_start(b"") == []
    assert parse_start(b"no Java stream at all") == []


def test_what_qupath_wrote_is_told_rightly_from_any_beginning(
    shared_data: Path, tmp_path: Path
) -> None:
    files = sorted((shared_data / "qupath").rglob("data.qpdata"))
    assert files
    found = 0
    for file in files:
        whole = QpData.parse(file.read_bytes(), source=file).annotations()
        known = {(each.geometry.wkb, each.class_name, tuple(each.metadata)) for each in whole}
        beginning = file.read_bytes()[:60_000]
        for size in range(0, len(beginning), 1 + len(beginning) // 40):
            padded = tmp_path / "data.qpdata"
            padded.write_bytes(beginning[:size].ljust(16 << 10, b"\0"))
            for some in Glance(1, frozenset(), padded).first_annotations():
                found += len(some)
                told = {(each.geometry.wkb, each.class_name, tuple(each.metadata)) for each in some}
                assert told <= known
    assert found > 30


@pytest.mark.parametrize("geometry", [Polygon([(0, 0), (4, 0), (0, 3)]), box(0, 0, 4, 3)])
def test_areas_come_with_their_size(tmp_path: Path, geometry: Polygon) -> None:
    drawn = [Annotation(geometry, path_class=TUMOR) for _ in range(200)]
    assert some_of(glance_at(save(tmp_path, new_data(*drawn))))[0][0].geometry.area == geometry.area
