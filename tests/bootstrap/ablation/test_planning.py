"""Which designs there are, what each changes, and in which order they are trained."""

from __future__ import annotations

from typing import Any

import pytest

from qpannot.bootstrap.ablation import Plan, check_plans, plan_designs
from qpannot.bootstrap.ablation.planning import with_patches
from qpannot.errors import QpannotError, RecipeError, UsageError
from qpannot.recipe import Recipe, load_recipe


def listing(*designs: dict[str, Any], **more: Any) -> Recipe:
    return Recipe.model_validate({"ablation": {"designs": designs}, **more})


def test_the_shipped_recipe_lists_the_papers_nine_designs() -> None:
    plans = plan_designs(load_recipe("ablation"))
    assert [plan.label for plan in plans] == [
        "(I) Otsu",
        "(II) UNet-LR",
        "(III) Inc-PW",
        "(IV) Mob-PW",
        "(V) Mob-KM-PW",
        "(VI) Mob-PW-UNet",
        "(VII) Mob-PW-AGUNet",
        "(VIII) Mob-PW-DAGUNet",
        "(IX) Mob-PW-DoubleUNet",
    ]
    recipes = {plan.settings.name: plan.recipe for plan in plans}
    assert recipes["Otsu"].tissue.method == "otsu"
    assert not recipes["UNet-LR"].refinement.use_heatmap
    assert recipes["Inc-PW"].network.encoder == "inception_v3"
    assert recipes["Mob-PW"].training.loss == "cross_entropy"
    assert recipes["Mob-KM-PW"].training.loss == "cluster_weighted"
    refining = [plan for plan in plans if plan.patch]
    assert [plan.recipe.refinement.design for plan in refining] == [
        "unet",
        "agunet",
        "dagunet",
        "doubleunet",
    ]
    assert {plan.patch.settings.name for plan in refining if plan.patch} == {"Mob-PW"}


def test_the_papers_designs_follow_its_own_protocol_and_resize() -> None:
    settings = load_recipe("ablation").refinement
    assert (settings.protocol, settings.fit) == ("paper", "stretch")


def test_designs_are_asked_for_by_name_or_numeral_and_keep_their_order() -> None:
    plans = plan_designs(load_recipe("ablation"), ["ix", "Mob-KM-pw", "I"])
    assert [plan.settings.numeral for plan in plans] == ["I", "V", "IX"]


def test_a_patch_design_is_trained_once_and_before_all_that_refine_it() -> None:
    plans = plan_designs(load_recipe("ablation"), ["IX", "VI", "I"])
    assert [plan.settings.numeral for plan in with_patches(plans)] == ["IV", "VI", "IX"]


def test_a_seed_reaches_both_stages_and_nothing_else() -> None:
    (plan,) = plan_designs(load_recipe("ablation"), ["VI"])
    seeded = plan.seeded(7)
    assert (seeded.training.seed, seeded.refinement.seed) == (7, 7)
    assert seeded.split == plan.recipe.split and seeded.evaluation == plan.recipe.evaluation


@pytest.mark.parametrize("name", ["..", "a/b", "Mob PW"])
def test_any_name_is_a_folder_within_the_study(name: str, tmp_path: Any) -> None:
    (plan,) = plan_designs(listing({"name": name, "stage": "patch"}))
    assert plan.folder(tmp_path, 3).parent == tmp_path / "seed-3"


def test_every_problem_of_every_design_is_told_at_once() -> None:
    recipe = listing(
        {"name": "A", "stage": "patch", "set": ["network.encodr=resnet18"]},
        {"name": "B", "stage": "refinement"},
        {"name": "C", "stage": "patch", "set": ["labels.classes=[Stroma]"]},
        {
            "name": "D",
            "stage": "refinement",
            "patch": "C",
            "set": ["refinement.use_heatmap=false", "labels.classes=[Stroma]"],
        },
    )
    with pytest.raises(RecipeError) as caught:
        plan_designs(recipe)
    told = "\n".join(caught.value.problems)
    assert "A: network.encodr=resnet18: no such key; did you mean network.encoder?" in told
    assert "B: says not which patch design it refines" in told
    assert "C: designs of other classes cannot be compared" in told
    assert "D: takes no heatmap, and yet refines C" in told


def test_a_recipe_without_designs_says_where_there_are_some() -> None:
    with pytest.raises(UsageError) as caught:
        plan_designs(Recipe())
    assert "--recipe ablation" in str(caught.value)


def small(name: str, **more: Any) -> dict[str, Any]:
    changes = ["network.encoder=test_resnet", "network.weights=null", "patches.size_px=32"]
    return {"name": name, "stage": "patch", "set": [*changes, *more.pop("set", ())], **more}


def test_what_can_be_made_passes_in_silence() -> None:
    check_plans(plan_designs(listing(small("A"))))


def test_one_trouble_of_several_designs_is_told_once(tmp_path: Any) -> None:
    wrong = f"network.weights={tmp_path / 'none.pth'}"
    plans: list[Plan] = plan_designs(
        listing(
            small("A", set=[wrong]),
            small("B", set=[wrong, "training.epochs=2"]),
            small("C", set=["network.encoder=resnt18"]),
        )
    )
    with pytest.raises(QpannotError) as caught:
        check_plans(plans)
    lines = caught.value.message.splitlines()
    assert lines[0].startswith("Nothing was trained") and len(lines) == 3
    assert lines[1].startswith("  A, B: ") and "none.pth" in lines[1]
    assert lines[2].startswith("  C: There is no encoder 'resnt18'")
    assert "Did you mean" in (caught.value.hint or "")


def test_missing_weights_are_told_in_short_with_the_designs_that_wait_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing was fetched before
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    recipe = listing(
        {"name": "A", "stage": "patch"},
        {"name": "B", "stage": "patch", "set": ["training.loss=cluster_weighted"]},
        {"name": "C", "stage": "refinement", "patch": "A"},
    )
    with pytest.raises(QpannotError) as caught:
        check_plans(plan_designs(recipe))
    first, of_patches, of_clusters, why = caught.value.message.splitlines()
    assert first.startswith("Nothing was trained")
    assert of_patches == (
        "  A, B, and so C, which refines the heatmaps of A: no ImageNet weights of mobilenet_v2"
    )
    assert of_clusters == "  B: no ImageNet weights of vgg16"
    assert why.startswith("The weights are not on this machine, and ") and "pytorch.org" in why
    hint = caught.value.hint or ""
    assert "--set network.weights=null --set clusters.weights=null" in hint
    assert hint.count("https://download.pytorch.org/models/") == 2
