from __future__ import annotations

from pathlib import Path

import pytest

from qpannot.errors import RecipeError, SettingError, UsageError
from qpannot.recipe import Recipe, builtin_recipes, change_recipe, load_recipe


def test_the_defaults_are_the_papers_numbers() -> None:
    tissue = Recipe().tissue
    assert (tissue.method, tissue.threshold, tissue.requested_pixel_size_um) == (
        "threshold",
        200,
        20,
    )
    assert (tissue.min_area_um2, tissue.max_hole_area_um2) == (100_000, 1_000_000)


def test_the_refinement_stage_is_the_papers_but_keeps_the_shape_of_slides() -> None:
    settings = Recipe().refinement
    assert (settings.design, settings.size_px, settings.fit) == ("unet", 1024, "pad")
    assert (settings.learning_rate, settings.batch_size, settings.accumulate) == (1e-3, 4, 6)
    assert (settings.epochs, settings.patience) == (1000, 100)
    augmentation = settings.augmentation
    assert (augmentation.zoom, augmentation.stain_sigma) == ((0.8, 1.2), 0.1)
    changed = load_recipe("h2gnet", ["refinement.augmentation.zoom=[1, 1]"])
    assert list(changed.refinement.augmentation.zoom) == [1, 1]
    with pytest.raises(RecipeError, match=r"did you mean refinement\.augmentation\.zoom"):
        load_recipe("h2gnet", ["refinement.augmentation.zom=[1, 1]"])


def test_the_h2gnet_file_states_what_the_defaults_are() -> None:
    written = load_recipe("h2gnet")
    whole = Recipe().tissue.model_copy(update={"java_cuts": False})
    assert written == Recipe(description=written.description, tissue=whole)


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_shipped_recipe_validates_under_its_name(name: str) -> None:
    assert load_recipe(name).name == name


def test_a_recipe_states_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: quick\nname: mine\ntissue: {threshold: 230}\n")
    mine, quick = load_recipe(path), load_recipe("quick")
    assert mine.tissue == quick.tissue.model_copy(update={"threshold": 230})


def test_recipes_that_extend_each_other_in_a_circle_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(tmp_path / "a.yaml")


def test_set_changes_one_value() -> None:
    recipe = load_recipe("h2gnet", ["tissue.threshold=210", "round.slides=5"])
    assert (recipe.tissue.threshold, recipe.round.slides) == (210, 5)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("tissue.treshold=200", "tissue.threshold"),
        ("threshold=200", "tissue.threshold"),
        ("treshold=200", "tissue.threshold"),
        ("tisue.threshold=200", "tissue.threshold"),
        ("training.epochs.most=5", "training.epochs"),
        ("proposal.colour=[1, 2, 3]", "proposal.color"),
    ],
)
def test_a_mistyped_key_names_the_nearest_right_one(override: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match=rf"did you mean {nearest}\b"):
        load_recipe("h2gnet", [override])


@pytest.mark.parametrize(
    ("text", "corrected"),
    [
        ("tisue.treshold=3", "--set tissue.threshold=3"),  # the value that was typed
        ("tissue.threshold=300", "--set tissue.threshold=215"),  # the one that the recipe has
        ("round.slides=0", "--set round.slides=4"),
        ("labels.classes=Tumor", """--set 'labels.classes=["Tumor"]'"""),
        ("tissue=3", "--set tissue.threshold=210"),
        ("tissue.threshold", "--set tissue.threshold=210"),
    ],
)
def test_a_wrong_set_is_not_the_recipes_fault_and_is_shown_corrected(
    tmp_path: Path, text: str, corrected: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tissue: {threshold: 215}\nround: {slides: 4}\n")
    with pytest.raises(SettingError) as caught:
        load_recipe(path, [text])
    assert caught.value.message.startswith(f"--set {text}: ")
    assert caught.value.hint is not None and caught.value.hint.endswith(corrected)
    assert "mine.yaml" not in str(caught.value)


def test_a_wrong_recipe_is_not_the_fault_of_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("tissue: {treshold: 215}\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml cannot be used") as caught:
        load_recipe(path, ["round.slides=4"])
    assert "--set" not in caught.value.message and "Correct the file" in (caught.value.hint or "")


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("h2gnet", ["tissue.threshold=300", "tissue.min_area_um2=-1", "nonsense=1"])
    assert len(caught.value.problems) == 3
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["threshold", "=3", "tissue.threshold=[", "name.part=1"])
def test_a_malformed_set_is_a_usage_error(text: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe("h2gnet", [text])


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean h2gnet"):
        load_recipe("h2gnt")


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "tissue: 3"])
def test_a_file_that_is_no_recipe_is_a_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"bad\.yaml"):
        load_recipe(path)


def test_designs_of_a_recipe_are_named_once_and_refine_what_there_is() -> None:
    def problem(designs: str) -> str:
        with pytest.raises(RecipeError) as caught:
            load_recipe("h2gnet", [f"ablation.designs={designs}"])
        (found,) = caught.value.problems
        return found

    twice = "[{name: A, numeral: I, stage: patch}, {name: i, stage: threshold}]"
    assert problem(twice).endswith(": several designs are called i, I")
    nothing = "[{name: A, stage: refinement, patch: B}]"
    assert problem(nothing).endswith(": A refines B, which is no patch design")
    threshold = "[{name: A, stage: threshold, patch: B}, {name: B, stage: patch}]"
    assert problem(threshold).endswith("A is no refinement, and takes no heatmap of B")
    mistyped = "[{name: A, stage: patch, nmae: B}]"
    assert problem(mistyped).endswith(
        ": ablation.designs.0.nmae: no such key; did you mean ablation.designs.0.name?"
    )


def test_a_recipe_is_changed_as_by_set() -> None:
    recipe = load_recipe("quick")
    changed = change_recipe(recipe, ["network.encoder=vgg16"], source="mine")
    assert changed.network.encoder == "vgg16" and recipe.network.encoder != "vgg16"
    assert changed.training == recipe.training
    with pytest.raises(RecipeError, match=r"The recipe mine .*(.|\n)*network\.encoder"):
        change_recipe(recipe, ["network.encodr=vgg16"], source="mine")
