"""Tables, figures and values of measurements that can be told by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qpannot.bootstrap.ablation.comparison import Comparison
from qpannot.bootstrap.evaluating import Evaluation, Measured, Selection, baseline
from qpannot.bootstrap.evaluating.running import Runtime
from qpannot.bootstrap.truth import Lesson
from qpannot.evaluation.measuring import ClassMeasures
from qpannot.evaluation.metrics import Reliability
from qpannot.evaluation.typesetting import table_rows
from qpannot.recipe import Recipe
from qpannot.sampling import Part

TWO = Recipe.model_validate({"labels": {"classes": ["Tumor", "Stroma"]}})

Make = Callable[..., Evaluation]


def measures(dice: float, *, hd95_um: float = 10.0, area: float = 1.0) -> ClassMeasures:
    metrics = dict.fromkeys(("recall", "precision", "iou", "distance_um", "ece"), 0.5)
    bins = Reliability(np.array([2, 2]), np.array([0.2, 1.8]), np.array([0.0, 2.0]))
    return ClassMeasures({**metrics, "dice": dice, "hd95_um": hd95_um}, area, area, bins)


@pytest.fixture
def make(proposed_study: Any, tmp_path: Path) -> Iterator[Make]:
    """Make an evaluation of Dice by design, slide by slide."""
    with proposed_study.open() as project:

        def made(
            dices: dict[str, list[float]], seen: dict[str, Part] | None = None, **more: Any
        ) -> Evaluation:
            images = project.images[: max(map(len, dices.values()))]
            recipe = more.pop("recipe", Recipe())
            designs = []
            for name in dices:
                design = baseline("otsu", recipe)
                design.name, design.is_baseline = name, name == "otsu"
                designs.append(design)
            measured = [
                Measured(
                    name,
                    image,
                    image.name,
                    (seen or {}).get(image.name),
                    {each: measures(dice) for each in recipe.labels.classes},
                )
                for name, own in dices.items()
                for image, dice in zip(images, own, strict=True)
            ]
            lessons = tuple(Lesson(image, (), True, "") for image in images)
            parts = {image.id: Part.TEST for image in images}
            return Evaluation(
                project=tmp_path / "study" / "project.qpproj",
                recipe=recipe,
                designs=designs,
                selection=Selection("test", lessons, parts),
                measured=more.pop("measured", measured),
                warnings=[],
                groups=(),
                folder=tmp_path,
                **more,
            )

        yield made


def test_every_table_says_on_which_slides_and_how(make: Make) -> None:
    found = make({"otsu": [0.4, 0.6], "A": [0.7, 0.9]})
    tables = found.tables()
    assert list(tables) == ["designs", "borders", "p-values"]
    for table in tables.values():
        assert "On 2 test slides, at 4 µm per pixel and threshold 0.5." in table.notes
    otsu, a = table_rows(tables["designs"])
    assert (otsu[0], otsu[3]) == ("otsu", "0.500 ± 0.141 [0.400, 0.600]")
    assert (a[0], a[3]) == ("A", "0.800 ± 0.141 [0.700, 0.900]")
    assert found.judged == "A" and found.headline == "A: DSC 0.800 ± 0.141 [0.700, 0.900]"


def test_a_table_says_where_a_design_knows_the_slides(make: Make) -> None:
    found = make({"A": [0.7, 0.9]}, seen={"a.tif": Part.TRAIN})
    (note,) = (each for each in found.tables()["designs"].notes if "fitted" in each)
    assert note.endswith("chosen by: A 1.")


def test_baselines_are_compared_where_there_is_nothing_else(make: Make) -> None:
    few = make({"otsu": [0.4, 0.6], "A": [0.7, 0.9]}).tables()["p-values"]
    assert few.columns == ("Designs", "otsu", "A")
    more = make({"otsu": [0.4, 0.6], "A": [0.7, 0.9], "B": [0.6, 0.9]}).tables()["p-values"]
    assert more.columns == ("Designs", "A", "B"), "as the paper leaves Otsu out"
    assert "p-values" not in make({"A": [0.7, 0.9]}).tables()


def test_several_classes_have_a_table_each_and_one_of_their_means(make: Make) -> None:
    found = make({"A": [0.8, 0.8]}, recipe=TWO)
    own = {"Tumor": measures(0.9), "Stroma": measures(0.5)}
    image = found.measured[0].image
    found.measured = [Measured("A", image, image.name, None, own)]
    tables = found.tables()
    dice = {name: table_rows(tables[name])[0][3] for name in tables if name != "borders"}
    assert dice == {"designs": "0.700", "class-Tumor": "0.900", "class-Stroma": "0.500"}
    assert tables["designs"].caption.endswith("means over 2 classes")
    assert set(found.figures()) == {"dice", "calibration-Tumor", "calibration-Stroma"}


def test_calibration_is_of_the_pixels_of_all_slides(make: Make) -> None:
    titles = [
        getattr(part, "text", "")
        for part in make({"A": [0.8, 0.8]}).figures()["calibration-Tumor"].parts
    ]
    # 4 of 8 pixels are said to be there with 0.1 and are not, 4 with 0.9 and are
    assert "A: 0.100" in titles


def test_a_runtime_table_says_of_which_slide_and_of_which_design(make: Make) -> None:
    runs = [
        Runtime(name, "torch on cpu (32 bit)", {"Patch-wise": [2, 3], "Total": [2, 3]})
        for name in "AB"
    ]
    one = make({"A": [0.8, 0.9]}, runtimes=runs[:1], timed="a.tif (10 x 10 px)").tables()["runtime"]
    assert table_rows(one) == [["torch on cpu (32 bit)", "2.50 ± 0.71", "2.50 ± 0.71"]]
    assert any("a.tif (10 x 10 px)" in note for note in one.notes)
    two = make({"A": [0.8, 0.9]}, runtimes=runs, timed="a.tif").tables()["runtime"]
    assert [row[0] for row in table_rows(two)] == [f"{name}, {runs[0].engine}" for name in "AB"]


def test_values_for_scripts_are_json_without_nan(make: Make) -> None:
    found = make({"A": [0.8]})
    image = found.measured[0].image
    own = {"Tumor": measures(0.0, hd95_um=math.nan)}
    found.measured = [Measured("A", image, image.name, Part.VALIDATION, own)]
    values = json.loads(json.dumps(found.values(), allow_nan=False))
    assert values["measured"][0]["metrics"]["hd95_um"] is None
    assert values["measured"][0]["known_to_the_design"] == "validation"
    mean = values["designs"]["A"]["metrics"]["hd95_um"]
    assert (mean["mean"], mean["slides"]) == (None, 0)
    assert values["designs"]["A"]["classes"]["Tumor"]["dice"]["mean"] == 0


def test_an_evaluation_of_nothing_has_no_tables(make: Make) -> None:
    found = make({"A": [0.8]}, measured=[])
    assert (found.tables(), found.figures(), found.headline, found.judged) == ({}, {}, "", None)


def compared(made: Evaluation) -> Comparison:
    return Comparison(**{each.name: getattr(made, each.name) for each in fields(made)})


def test_the_headline_of_a_study_names_a_threshold_that_beats_what_was_trained(make: Make) -> None:
    said = compared(make({"otsu": [0.8, 0.9], "A": [0.5, 0.7], "B": [0.7, 0.7]})).headline
    assert said.startswith("Highest mean of what was trained: B: DSC 0.700")
    assert said.endswith("Higher is otsu, without training: 0.850")


def test_the_headline_of_a_study_is_the_highest_where_that_was_trained(make: Make) -> None:
    said = compared(make({"otsu": [0.6, 0.6], "A": [0.5, 0.7], "B": [0.7, 0.7]})).headline
    assert said.startswith("Highest mean on these very slides: B: DSC 0.700")
    assert "otsu" not in said
