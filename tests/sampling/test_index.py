from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from shapely.geometry.base import BaseGeometry

from qpannot.demo.slides import mask_to_geometry
from qpannot.errors import MissingMppError
from qpannot.geometry import Mpp
from qpannot.qupath import Annotation, PathClass
from qpannot.recipe import Recipe, load_recipe
from qpannot.sampling import LeftOut, PatchTable, describe_patches, index_slide, stored_index
from qpannot.sampling.store import index_key, load_table, save_table
from qpannot.slide import Slide, open_slide
from qpannot.tissue import detect_tissue


def recipe_with(*overrides: str) -> Recipe:
    return load_recipe(
        "quick", ["patches.size_px=32", "patches.mpp=1.0", "tissue.min_area_um2=100", *overrides]
    )


RECIPE = recipe_with()
TISSUE = shapely.transform(
    shapely.Point(0, 0).buffer(1, quad_segs=64), lambda xy: xy * (512, 384) + (1024, 768)
)
"""What the slide of the tests shows: see ``write_slide``."""


def drawn(geometry: BaseGeometry, name: str = "Tumor") -> Annotation:
    return Annotation(geometry, path_class=PathClass(name))


def boxes(table: PatchTable) -> list[BaseGeometry]:
    regions = [table.region(row) for row in range(len(table))]
    return [shapely.box(r.x, r.y, r.right, r.bottom) for r in regions]


@pytest.fixture
def slide(slide_file: Path) -> Slide:
    return open_slide(slide_file)


def test_patches_are_labelled_by_what_covers_them(slide: Slide) -> None:
    tumour = shapely.box(1024, 0, 2048, 1536)
    table = index_slide(slide, [drawn(tumour.intersection(TISSUE))], RECIPE)
    whole_tissue = shapely.union_all([*detect_tissue(slide, RECIPE.tissue), tumour & TISSUE])
    assert table.classes == ("Non-tumor", "Tumor")
    assert min(table.counts.values()) > 50
    for box, label, tissue, (part,) in zip(
        boxes(table), table.label, table.tissue, table.fractions, strict=True
    ):
        assert box.within(shapely.box(0, 0, 2048, 1536))
        covered = box.intersection(tumour).intersection(TISSUE).area / box.area
        assert part == pytest.approx(covered, abs=1e-6)
        assert label == (1 if covered > 0.25 else 0)
        assert covered > 0.25 or covered == 0
        assert tissue > 0.25
        assert tissue == pytest.approx(box.intersection(whole_tissue).area / box.area, abs=1e-6)
    # 32 px at 1.0 mpp are 64 pixels of 0.5 um: 32 x 24 patches.
    assert len(table) + sum(table.left_out.values()) == 32 * 24
    assert table.left_out[LeftOut.GLASS] > 400


def test_an_odd_pixel_size_gives_patches_between_pixels(slide_file: Path) -> None:
    slide = open_slide(slide_file, mpp=Mpp(0.503, 0.497))
    table = index_slide(slide, [], RECIPE)
    assert (table.width, table.height) == pytest.approx((32 / 0.503, 32 / 0.497))
    columns = table.x / (32 / 0.503)
    assert columns == pytest.approx(columns.round(), abs=1e-9)
    pixels = slide.read(table.region(0), table.mpp)
    assert pixels.shape == (32, 32, 3)


def test_overlapping_patches_are_a_stride_apart(slide: Slide) -> None:
    table = index_slide(slide, [], recipe_with("patches.stride_px=8"))
    assert np.unique(np.diff(np.unique(table.x))).tolist() == [16.0]
    assert table.width == 64


def test_a_tumour_on_glass_is_tissue(slide: Slide) -> None:
    pale = shapely.box(0, 0, 256, 256)
    table = index_slide(slide, [drawn(pale)], RECIPE)
    assert table.counts["Tumor"] == 16
    assert index_slide(slide, [drawn(pale, "Non-tumor")], RECIPE).x.min() > 256


def test_ignored_areas_leave_patches_out(slide: Slide) -> None:
    ignored = shapely.box(1024, 0, 2048, 1536)
    table = index_slide(slide, [drawn(TISSUE), drawn(ignored, "Ignore*")], RECIPE)
    assert (table.x + table.width <= 1024).all()
    assert table.left_out[LeftOut.IGNORED] > 50


def test_partial_coverage_learns_from_annotated_areas_alone(slide: Slide) -> None:
    recipe = recipe_with("labels.coverage=partial")
    tumour, rest = shapely.box(768, 640, 896, 896), shapely.box(1024, 640, 1152, 896)
    region = shapely.box(1152, 640, 1280, 896)
    necrosis = shapely.box(1152, 640, 1280, 768)
    table = index_slide(
        slide,
        [
            drawn(tumour),
            drawn(rest, "Non-tumor"),
            drawn(region, "Region*"),
            drawn(necrosis, "Necrosis"),
        ],
        recipe,
    )
    assert table.counts == {"Tumor": 8, "Non-tumor": 8 + 4}
    known = shapely.union_all([tumour, rest, region.difference(necrosis)])
    assert all(box.within(known) for box in boxes(table))
    assert index_slide(slide, [], recipe).counts == {"Tumor": 0, "Non-tumor": 0}


def test_several_classes_each_have_their_label(slide: Slide) -> None:
    recipe = recipe_with("labels.classes=[Tumor, Stroma]")
    annotations = [
        drawn(shapely.box(768, 640, 896, 896)),
        drawn(shapely.box(1024, 640, 1152, 896), "Stroma"),
    ]
    table = index_slide(slide, annotations, recipe)
    assert table.classes == ("Non-tumor", "Tumor", "Stroma")
    assert (table.counts["Tumor"], table.counts["Stroma"]) == (8, 8)
    assert table.fractions.shape == (len(table), 2)
    assert table.fractions[table.label == 2].tolist() == [[0, 1]] * 8


def test_a_class_without_patches_is_reported(slide: Slide) -> None:
    recipe = recipe_with("labels.classes=[Tumor, Stroma]")
    report = describe_patches({"one": index_slide(slide, [drawn(TISSUE, "Tumour")], recipe)})
    assert "Non-tumor: 1" in report
    assert "from 1 of 1 slides" in report
    assert "Stroma: no patches" in report
    assert "nothing to learn Tumor and Stroma from. Annotate" in report
    assert "with too little tissue" in report


def test_a_slide_smaller_than_a_patch_has_no_patches(slide: Slide) -> None:
    table = index_slide(slide, [drawn(TISSUE)], recipe_with("patches.size_px=2048"))
    assert len(table) == 0
    assert "Tumor: no patches" in describe_patches({"one": table})


def test_without_a_pixel_size_there_is_a_clear_error(
    make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    slide = open_slide(make_slide(tmp_path / "none.svs", mpp=None))
    with pytest.raises(MissingMppError):
        index_slide(slide, [], RECIPE)


def assert_same(one: PatchTable | None, other: PatchTable) -> None:
    assert one is not None
    for field in fields(PatchTable):
        found, wanted = getattr(one, field.name), getattr(other, field.name)
        assert type(found) is type(wanted)
        if isinstance(wanted, np.ndarray):
            assert found.dtype == wanted.dtype
            assert np.array_equal(found, wanted)
        else:
            assert found == wanted


def test_a_stored_table_is_read_back_as_it_was(slide: Slide, tmp_path: Path) -> None:
    annotations = [drawn(shapely.box(768, 640, 896, 896))]
    made = stored_index(tmp_path / "patches", "entry/1", slide, annotations, RECIPE)
    (file,) = (tmp_path / "patches").iterdir()
    before = file.stat().st_mtime_ns
    read = stored_index(tmp_path / "patches", "entry/1", slide, annotations, RECIPE)
    assert_same(read, made)
    assert file.stat().st_mtime_ns == before


def test_a_table_is_kept_while_nothing_that_matters_changed(slide: Slide) -> None:
    annotation = drawn(TISSUE)
    key = index_key(slide, [annotation], RECIPE)
    renamed = annotation.with_changes(name="a", locked=True, measurements={"Dice": 1.0})
    assert index_key(slide, [renamed], recipe_with("training.seed=3")) == key


def test_a_table_is_made_anew_when_anything_that_matters_changed(
    slide: Slide, slide_file: Path
) -> None:
    one, two = drawn(TISSUE), drawn(shapely.box(0, 0, 5, 5), "Stroma")
    keys = [
        index_key(slide, [one, two], RECIPE),
        index_key(slide, [two, one], RECIPE),
        index_key(slide, [one], RECIPE),
        index_key(slide, [one, drawn(two.geometry, "Tumor")], RECIPE),
        index_key(slide, [one, drawn(shapely.box(0, 0, 5, 6), "Stroma")], RECIPE),
        index_key(slide, [one, two], RECIPE, is_truth=lambda each: False),
        index_key(slide, [one, two], recipe_with("patches.stride_px=16")),
        index_key(slide, [one, two], recipe_with("labels.min_class=0.1")),
        index_key(slide, [one, two], recipe_with("tissue.threshold=190")),
        index_key(open_slide(slide_file, mpp=Mpp.square(0.25)), [one, two], RECIPE),
        index_key(slide.rotated(1), [one, two], RECIPE),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 not a zip", None])
def test_a_damaged_table_is_made_anew(slide: Slide, tmp_path: Path, damage: bytes | None) -> None:
    made = stored_index(tmp_path, "1", slide, [], RECIPE)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:-300] if damage is None else damage)
    assert load_table(file, index_key(slide, [], RECIPE)) is None
    assert_same(stored_index(tmp_path, "1", slide, [], RECIPE), made)


def test_a_table_that_would_need_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", header=np.array({"key": "k"}, object))
    assert load_table(tmp_path / "1.npz", "k") is None


def test_an_empty_table_can_be_stored(
    make_table: Callable[..., PatchTable], tmp_path: Path
) -> None:
    save_table(tmp_path / "1.npz", make_table(0, 0), "k")
    assert_same(load_table(tmp_path / "1.npz", "k"), make_table(0, 0))


def test_labels_of_real_texture_follow_the_truth(shared_data: Path) -> None:
    folder = shared_data / "labelled" / "composite"
    mask = tifffile.imread(folder / "breast-11.mask.tif")
    annotation = drawn(mask_to_geometry(mask == 2, 16))
    recipe = load_recipe("quick", ["patches.size_px=64", "patches.mpp=0.5"])
    with open_slide(folder / "breast-11.svs") as slide:
        table = index_slide(slide, [annotation], recipe)
    assert min(table.counts.values()) > 200
    # A patch is 128 pixels, 8 x 8 of the mask.
    column, row = (table.x / 16).astype(int), (table.y / 16).astype(int)
    cells = np.stack([mask[r : r + 8, c : c + 8] for r, c in zip(row, column, strict=True)])
    assert table.fractions[:, 0] == pytest.approx((cells == 2).mean(axis=(1, 2)), abs=1e-6)
    assert ((cells > 0).mean(axis=(1, 2)) > 0.25).mean() > 0.95
