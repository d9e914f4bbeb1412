from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from qpannot.recipe import Recipe
from qpannot.sampling import PatchTree
from qpannot.training.identity import describe_changes, key_of, run_identity, tree_digest

if TYPE_CHECKING:
    from tests.training.conftest import Study

MakeRecipe = Callable[..., Recipe]
LEVELS = ("slide", "class")


@pytest.fixture
def tree(study: Study) -> PatchTree:
    return PatchTree(study.tables, {}, LEVELS)


def test_only_what_an_epoch_depends_on_makes_another_run(
    tree: PatchTree, recipe_of: MakeRecipe
) -> None:
    def identity(recipe: Recipe, start: str | None = None) -> object:
        return run_identity(tree, tree, recipe, start=start)

    own = identity(recipe_of())
    assert own == identity(recipe_of(epochs=99, patience=4, workers=2))
    assert own == identity(recipe_of().model_copy(update={"name": "other"}))
    clusters = recipe_of().clusters.model_copy(update={"k": 7})
    assert own == identity(recipe_of().model_copy(update={"clusters": clusters}))
    weighted = recipe_of(loss="cluster_weighted")
    others = [
        identity(recipe_of(), start="0" * 64),
        *(identity(recipe_of(**{k: v})) for k, v in {"seed": 1, "batch_size": 9}.items()),
        identity(weighted),
        identity(weighted.model_copy(update={"clusters": clusters})),
    ]
    assert all(other != own for other in others)
    cycle = identity(recipe_of(schedule="one_cycle"))
    assert cycle == identity(recipe_of(schedule="one_cycle", patience=4))
    assert cycle != identity(recipe_of(schedule="one_cycle", epochs=99)), "the rate depends on it"
    assert others[-1] != others[-2]


@pytest.mark.parametrize("column", ["x", "y", "label"])
def test_any_change_of_the_patches_is_seen(study: Study, tree: PatchTree, column: str) -> None:
    table = study.tables["b"]
    changed = getattr(table, column).copy()
    changed[5] = 1 - changed[5]
    tables = {**study.tables, "b": dataclasses.replace(table, **{column: changed})}
    assert tree_digest(PatchTree(tables, {}, LEVELS)) != tree_digest(tree)
    assert tree_digest(PatchTree(study.tables, {}, LEVELS)) == tree_digest(tree)


def test_other_metadata_are_seen_where_they_change_the_draws(study: Study) -> None:
    grades = {name: {"grade": "2", "stain": "HE"} for name in study.tables}
    others = {**grades, "a": {"grade": "3", "stain": "HE"}}
    levels = ("grade", *LEVELS)
    assert tree_digest(PatchTree(study.tables, grades, levels)) != tree_digest(
        PatchTree(study.tables, others, levels)
    )
    plain = {name: {"grade": "2"} for name in study.tables}
    assert tree_digest(PatchTree(study.tables, grades, levels)) == tree_digest(
        PatchTree(study.tables, plain, levels)
    )


def test_changes_are_named_the_first_of_many(tree: PatchTree, recipe_of: MakeRecipe) -> None:
    old = run_identity(tree, tree, recipe_of(), start=None)
    new = run_identity(tree, tree, recipe_of(seed=1, batch_size=9), start="0" * 64)
    assert describe_changes(old, new) == (
        "training.batch_size (8, now 9), training.seed (0, now 1), the model it goes on from"
    )
    many = describe_changes(dict.fromkeys(new, "other"), new)
    assert many.endswith(f" and {len(new) - 5} more")
    assert many.count("now") == 5
    assert key_of(old) != key_of(new)
