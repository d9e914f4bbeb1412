from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qpannot.errors import MissingSlideError, SlideError, UsageError
from qpannot.geometry import Mpp, Region, Size
from qpannot.linking import describe_slide, find_slides, open_image
from qpannot.qupath import Project, open_project


def edit_builder(project: Project, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Project:
    """Change the first image's builder on disk, as QuPath or a person might, and open again."""
    document = json.loads(project.path.read_text())
    document["images"][0]["serverBuilder"] = change(document["images"][0]["serverBuilder"])
    project.path.write_text(json.dumps(document))
    return open_project(project.path, "r+")


@pytest.fixture
def project(project_folder: Path) -> Project:
    return open_project(project_folder, "r+")


def with_calibration(builder: dict[str, Any], value: float, unit: str) -> dict[str, Any]:
    for side in ("pixelWidth", "pixelHeight"):
        builder["metadata"]["pixelCalibration"][side] = {"value": value, "unit": unit}
    return builder


def test_the_projects_resolution_goes_before_the_files(project: Project) -> None:
    project = edit_builder(project, lambda builder: with_calibration(builder, 0.3, "µm"))
    with open_image(project.images[0], fallback_mpp=Mpp.square(9)) as slide:
        assert slide.mpp == Mpp(0.3, 0.3)


def test_the_files_resolution_goes_before_the_option(project: Project) -> None:
    project = edit_builder(project, lambda builder: with_calibration(builder, 1.0, "px"))
    with open_image(project.images[0], fallback_mpp=Mpp.square(9)) as slide:
        assert slide.mpp == Mpp(0.5, 0.5)


def test_the_option_counts_where_nothing_else_tells(
    make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_slide(tmp_path / "plain.svs", mpp=None)
    with open_project(tmp_path / "study", "x") as project:
        (image,) = project.add_images([describe_slide(path)])
        with open_image(image, fallback_mpp=Mpp.square(0.4)) as slide:
            assert slide.mpp == Mpp(0.4, 0.4)
        with open_image(image) as slide, pytest.raises(SlideError, match=r"plain\.svs.*\n.*--mpp"):
            _ = slide.mpp


def test_a_rotated_and_cropped_entry_shows_what_qupath_shows(project: Project) -> None:
    region = {"x": 100, "y": 200, "width": 900, "height": 700, "z": 0, "t": 0}

    def change(builder: dict[str, Any]) -> dict[str, Any]:
        cropped = {"builderType": "cropped", "builder": builder, "region": region}
        return {"builderType": "rotated", "builder": cropped, "rotation": "ROTATE_90"}

    with open_image(project.images[0]) as slide:
        straight = slide.read_downsampled(Region(100, 200, 900, 700), 1)
    with open_image(edit_builder(project, change).images[0]) as slide:
        assert slide.size == Size(700, 900)
        turned = slide.read_downsampled(Region(0, 0, 700, 900), 1)
    assert np.array_equal(turned, np.rot90(straight, -1))


def test_a_crop_of_another_file_is_never_taken_for_the_slide(project: Project) -> None:
    region = {"x": 0, "y": 0, "width": 500, "height": 500, "z": 0, "t": 0}
    project = edit_builder(
        project, lambda builder: {"builderType": "cropped", "builder": builder, "region": region}
    )
    path = project.images[0].path
    assert path is not None
    with open_image(project.images[0]) as slide:
        assert slide.size == Size(500, 500)
    shutil.copy(path.with_name("two.svs"), path)
    with pytest.raises(SlideError, match="but the project says 2,048 x 1,536 px"):
        open_image(project.images[0])


def test_a_thumbnail_shows_what_qupaths_own_does(shared_data: Path) -> None:
    with open_project(shared_data / "qupath/written-by-qupath/0.6.0/project") as project:
        image = project.images[0]
        assert image.thumbnail_path is not None
        theirs = Image.open(image.thumbnail_path).convert("RGB")
    with_slide = describe_slide(shared_data / "slides/CMU-1-Small-Region.svs")
    assert with_slide.thumbnail is not None
    # QuPath's is not averaged but sampled, so that only coarse pixels can be compared
    coarse = [
        np.asarray(picture.resize((56, 75), Image.Resampling.BOX), float)
        for picture in (theirs, Image.fromarray(with_slide.thumbnail))
    ]
    difference = np.abs(coarse[0] - coarse[1]).mean()
    assert difference < 3
    assert np.abs(coarse[0] - np.roll(coarse[1], 1, axis=0)).mean() > 2 * difference


def test_a_transform_we_cannot_follow_is_an_error_that_names_it(project: Project) -> None:
    project = edit_builder(project, lambda builder: {"builderType": "affine", "builder": builder})
    with pytest.raises(SlideError, match=r"one\.svs.*affine"):
        open_image(project.images[0])


def test_a_damaged_entry_is_an_error_that_says_so(project: Project) -> None:
    project = edit_builder(
        project, lambda builder: {**builder, "metadata": {"width": None, "height": 3}}
    )
    with pytest.raises(SlideError, match=r"one\.svs: its entry in the project is damaged"):
        open_image(project.images[0])


def test_a_file_of_another_size_is_never_taken_for_the_slide(project: Project) -> None:
    path = project.images[0].path
    assert path is not None
    shutil.copy(path.with_name("two.svs"), path)
    with pytest.raises(SlideError, match="1,536 x 2,048 px, but the project says 2,048 x 1,536 px"):
        open_image(project.images[0])


def test_a_missing_slide_names_the_image_and_where_it_was(project: Project) -> None:
    path = project.images[0].path
    assert path is not None
    path.unlink()
    with pytest.raises(MissingSlideError, match=r"one\.svs: the slide is not at .*one\.svs"):
        open_image(project.images[0])


def test_images_from_a_server_are_no_local_files(project: Project) -> None:
    project = edit_builder(project, lambda builder: {**builder, "uri": "https://host/a.svs"})
    with pytest.raises(SlideError, match="no local file"):
        open_image(project.images[0])


def test_folders_are_searched_for_slides_each_once(project: Project, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    (slides / "notes.txt").touch()
    (slides / ".hidden.svs").touch()
    (slides / "case").mkdir()
    (slides / "case" / "Slidedat.tif").touch()
    (slides / "case.mrxs").touch()
    found = [path.name for path in find_slides([slides / "two.svs", slides])]
    assert found == ["two.svs", "case.mrxs", "glass.svs", "one.svs"]
    with pytest.raises(UsageError, match="no such file"):
        list(find_slides([tmp_path / "nowhere"]))
