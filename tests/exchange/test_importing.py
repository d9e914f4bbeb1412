from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import shapely

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.states import State, status_of
from qpannot.errors import FormatError, ProjectError
from qpannot.exchange import export_geojson, import_geojson
from qpannot.exchange.coordinates import check_are_pixels, count_outside
from qpannot.geometry import Size
from qpannot.qupath import Annotation, Detection, PathClass, Project, ProjectImage, open_project
from qpannot.qupath.annotators import annotator_of
from qpannot.qupath.geojson.reading import read_geojson
from qpannot.qupath.geojson.writing import write_geojson
from qpannot.qupath.proposals import FINGERPRINT, METHOD, Origin, is_untouched, make_proposal

TUMOR = PathClass("Tumor", (200, 0, 0))
Ring = Sequence[Sequence[float]]
BOX: Ring = [[300, 100], [350, 100], [350, 180], [300, 180], [300, 100]]


def write_features(path: Path, *features: dict[str, Any], **members: Any) -> Path:
    """Write features as programs do that know no more than a ring and a class."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **members}))
    return path


def feature(ring: Ring = BOX, id: object = None, **properties: Any) -> dict[str, Any]:
    made = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
    return made if id is None else {**made, "id": str(id)}


def state_of(project: Project, image: ProjectImage) -> State:
    return status_of(image, Ledger.of(project)).state


def predictions(folder: Path) -> Path:
    far = [[150_000.013, 9.99], [150_060.7, 9.99], [150_060.7, 80.003]]
    return write_features(
        folder / "one.geojson",
        feature(id=uuid4(), classification={"name": "Tumor", "color": [200, 0, 0]}),
        feature(far, id=uuid4()),
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [5, 5]}},
    )


def test_what_one_of_several_people_drew_stands_beside_what_others_drew(
    project: Project, tmp_path: Path
) -> None:
    """Both corrected the same proposal, each in a copy of the project: it has one ID."""
    image = project.images[0]
    origin = Origin(1, "AN1")
    proposal = make_proposal(shapely.box(0, 0, 90, 90), TUMOR, origin, locked=False)
    ours = proposal.with_changes(geometry=shapely.box(0, 0, 80, 80))
    image.write_annotations(add=[ours])
    theirs = proposal.with_changes(geometry=shapely.box(0, 0, 70, 70))
    file = tmp_path / "one.geojson"
    write_geojson(file, [theirs, Detection(shapely.box(1, 1, 2, 2))])
    (first,) = import_geojson(project, [file], by="Bee").images
    assert len(first.added) == 2 and not first.conflicts
    kept, (own,) = image.annotations()[0], [a for a in image.annotations() if annotator_of(a)]
    assert kept.geometry.equals(ours.geometry) and kept.metadata == proposal.metadata
    assert annotator_of(own) == "Bee" and own.geometry.equals(theirs.geometry)
    assert FINGERPRINT not in own.metadata and own.id != proposal.id
    (again,) = import_geojson(project, [file], by="Bee").images
    assert (again.added, again.unchanged, again.conflicts) == ([], 2, [])
    (other,) = import_geojson(project, [file], by="Cee").images
    assert [annotator_of(each) for each in other.added if isinstance(each, Annotation)] == ["Cee"]
    out = export_geojson(project, tmp_path / "out", images=[image]).exported[0].path
    (back,) = import_geojson(project, [out], by="Dee").images
    assert len(back.added) == 1, "what carries a name in the file keeps it"


def test_what_a_program_made_waits_for_a_person_when_it_is_imported_as_proposals(
    project: Project, tmp_path: Path
) -> None:
    image, file = project.images[0], predictions(tmp_path)
    import_geojson(project, [file], as_proposals=True)
    assert state_of(project, image) is State.PROPOSED
    *areas, point = image.annotations()
    assert all(is_untouched(each) and each.metadata[METHOD] == "import" for each in areas)
    assert not point.metadata
    (again,) = import_geojson(project, [file], as_proposals=True).images
    assert (again.added, again.unchanged, again.conflicts) == ([], 3, [])
    (again,) = import_geojson(project, [file]).images
    assert (again.added, again.unchanged, again.conflicts) == ([], 3, [])
    moved = areas[0].with_changes(geometry=shapely.box(300, 100, 360, 180))
    image.write_annotations(replace=[(areas[0], moved)])
    assert state_of(project, image) is State.REVIEWED


def test_what_was_imported_as_a_persons_work_can_be_made_proposals(
    project: Project, tmp_path: Path
) -> None:
    image, file = project.images[0], predictions(tmp_path)
    import_geojson(project, [file])
    assert state_of(project, image) is State.REVIEWED
    (told,) = import_geojson(project, [file], as_proposals=True).images
    assert [each.differs_in for each in told.conflicts] == [("metadata",)] * 2
    import_geojson(project, [file], as_proposals=True, replace=True)
    assert state_of(project, image) is State.PROPOSED


def test_our_own_proposals_keep_their_origin_and_corrected_ones_wait_again(
    project: Project, tmp_path: Path
) -> None:
    ours, corrected = (
        make_proposal(shapely.box(x, 9, x + 50, 99), TUMOR, Origin(1, "AN1"), locked=False)
        for x in (10, 200)
    )
    corrected = corrected.with_changes(geometry=shapely.box(200, 9, 260, 99))
    write_geojson(tmp_path / "one.geojson", [ours, corrected])
    import_geojson(project, [tmp_path / "one.geojson"], as_proposals=True)
    first, second = project.images[0].annotations()
    assert (first.metadata[METHOD], second.metadata[METHOD]) == ("AN1", "import")
    assert is_untouched(first) and is_untouched(second)


def test_an_image_that_is_refused_is_named_and_left_as_it_is(
    project: Project, tmp_path: Path
) -> None:
    asked = []

    def refuse(image: ProjectImage) -> None:
        asked.append(image.name)
        raise ProjectError(image.name, "is reviewed.")

    file = predictions(tmp_path)
    result = import_geojson(project, [file], check=refuse)
    assert [name for name, _ in result.failed] == ["one.svs"] == asked
    assert not result.images and not project.images[0].annotations()
    import_geojson(project, [file])
    assert import_geojson(project, [file], check=refuse).is_complete  # nothing is added any more


@pytest.fixture
def rich(project: Project) -> Annotation:
    """A proposal in the first image to which a person added all there is to add."""
    proposal = make_proposal(shapely.box(300, 100, 350, 180), TUMOR, Origin(1, "AN1"), locked=True)
    project.images[0].write_annotations(
        add=[
            proposal.with_changes(
                name="mine",
                color=(1, 2, 3),
                measurements={"Length": 4.5},
                metadata={**proposal.metadata, "note": "look"},
            )
        ]
    )
    (stored,) = project.images[0].annotations()
    return stored


def import_one(project: Project, folder: Path, made: dict[str, Any]) -> Annotation:
    """Import a feature with ``replace``, and return what the image holds then."""
    import_geojson(project, [write_features(folder / "one.geojson", made)], replace=True)
    (now,) = project.images[0].annotations()
    return now


def test_what_a_file_leaves_out_stays_as_it_is(
    project: Project, rich: Annotation, tmp_path: Path
) -> None:
    bare = feature(id=rich.id, classification="Tumor")
    (told,) = import_geojson(
        project, [write_features(tmp_path / "one.geojson", bare)], replace=True
    ).images
    assert told.unchanged == 1 and not told.replaced
    assert project.images[0].annotations() == (rich,)
    wider = [[300, 100], [360, 100], [360, 180], [300, 180]]
    now = import_one(project, tmp_path, feature(wider, id=rich.id, classification="Stroma"))
    assert now.class_name == "Stroma" and now.geometry.bounds[2] == 360
    assert (now.name, now.locked, now.color) == ("mine", True, (1, 2, 3))
    assert now.measurements == rich.measurements and now.metadata == rich.metadata
    assert not is_untouched(now)


def test_what_a_file_states_is_taken_also_where_that_is_nothing(
    project: Project, rich: Annotation, tmp_path: Path
) -> None:
    stated: dict[str, Any] = {
        "name": None,
        "isLocked": False,
        "measurements": {},
        "metadata": {"note": "seen"},
    }
    now = import_one(project, tmp_path, feature(id=rich.id, classification="Tumor", **stated))
    assert (now.name, now.locked, dict(now.measurements)) == (None, False, {})
    assert now.metadata["note"] == "seen" and now.color == (1, 2, 3)
    assert is_untouched(now), "where it came from stays with the outline and the class"
    gone = import_one(project, tmp_path, feature(id=rich.id, classification="Stroma", metadata={}))
    assert FINGERPRINT not in gone.metadata


def test_a_proposal_that_export_had_to_mend_is_untouched_elsewhere_too(
    project: Project, tmp_path: Path
) -> None:
    broken = shapely.Polygon([(100, 100), (300, 300), (300, 100), (200, 90), (100, 300), (90, 200)])
    one, two, _ = project.images
    one.write_annotations(add=[make_proposal(broken, TUMOR, Origin(1, "AN1"), locked=False)])
    (exported,) = export_geojson(project, tmp_path, images=[one]).exported
    assert exported.fitted.repairs
    (again,) = import_geojson(project, [exported.path]).images
    assert again.unchanged == len(exported.fitted.objects) and not again.conflicts
    import_geojson(project, [exported.path], image=two)
    assert two.annotations() and all(is_untouched(each) for each in two.annotations())
    assert state_of(project, two) is State.PROPOSED


def test_a_corrected_proposal_that_export_had_to_mend_stays_corrected(
    project: Project, tmp_path: Path
) -> None:
    made = make_proposal(shapely.box(1, 1, 9, 9), TUMOR, Origin(1, "AN1"), locked=False)
    bow_tie = shapely.Polygon([(100, 100), (200, 200), (200, 100), (100, 200)])
    write_geojson(tmp_path / "one.geojson", [made.with_changes(geometry=bow_tie)])
    import_geojson(project, [tmp_path / "one.geojson"])
    assert not is_untouched(project.images[0].annotations()[0])


DEGREES = [[8.5, 47.3], [8.6, 47.3], [8.6, 47.4], [8.5, 47.3]]
FRACTIONS = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.1]]
SLIDE = Size(40_000, 30_000)
CRS84 = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}


@pytest.mark.parametrize(
    ("ring", "members", "says"),
    [
        (BOX, {"crs": CRS84}, "of a map .*CRS84"),
        (DEGREES, {}, "degrees of a map"),
        (FRACTIONS, {}, "fractions"),
    ],
)
def test_coordinates_of_maps_and_fractions_are_no_pixels(
    tmp_path: Path, ring: Ring, members: dict[str, Any], says: str
) -> None:
    file = write_features(tmp_path / "a.geojson", feature(ring), **members)
    with pytest.raises(FormatError, match=says) as refused:
        check_are_pixels(file, read_geojson(file), SLIDE)
    assert "--as-pixels" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (feature(DEGREES), Size(2048, 1536)),
        (feature(DEGREES), None),
        (feature(DEGREES, objectType="annotation"), SLIDE),
        (feature(BOX), SLIDE),
    ],
)
def test_pixels_are_taken_for_pixels(tmp_path: Path, made: dict[str, Any], size: Size) -> None:
    file = write_features(tmp_path / "a.geojson", made, crs=None)
    check_are_pixels(file, read_geojson(file), size)


def test_what_is_no_pixels_comes_in_only_when_a_person_insists(
    project: Project, tmp_path: Path
) -> None:
    file = write_features(tmp_path / "one.geojson", feature(), crs=CRS84)
    result = import_geojson(project, [file])
    assert [name for name, _ in result.failed] == [str(file)] and not result.images
    assert len(import_geojson(project, [file], as_pixels=True).images[0].added) == 1


def test_objects_are_outside_by_their_centres() -> None:
    objects = [Detection(shapely.box(x, 5, x + 10, 15)) for x in (-9, -4, 94, 96)]
    assert count_outside(objects, Size(100, 50)) == 2
    assert count_outside(objects, None) == 0 == count_outside([], Size(1, 1))


def test_imports_at_the_same_time_all_end(project_folder: Path, tmp_path: Path) -> None:
    files = [
        write_features(tmp_path / f"{k}.geojson", *(feature(id=uuid4()) for _ in range(20)))
        for k in range(4)
    ]

    def run(file: Path) -> bool:
        with open_project(project_folder, "r+", "builtin") as opened:
            return import_geojson(opened, [file], image=opened.images[0]).is_complete

    with ThreadPoolExecutor(len(files)) as pool:
        assert all(pool.map(run, files))
    with open_project(project_folder) as opened:
        assert len(opened.images[0].annotations()) == 80
