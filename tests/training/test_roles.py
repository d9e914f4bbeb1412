from __future__ import annotations

from collections.abc import Iterable

import pytest

from qpannot.errors import QpannotError
from qpannot.recipe import Recipe
from qpannot.sampling import Part
from qpannot.training import assign_roles


def recipe_of(**refinement: object) -> Recipe:
    return Recipe.model_validate({"refinement": {"train_after": 4, **refinement}})


def study(train: int, validation: int, test: int) -> dict[str, Part]:
    kinds = [Part.TRAIN] * train + [Part.VALIDATION] * validation + [Part.TEST] * test
    return {f"{part.value}-{index}": part for index, part in enumerate(kinds)}


def bare(slides: Iterable[str]) -> dict[str, dict[str, str]]:
    """Slides of which nothing else is known."""
    return {slide: {} for slide in slides}


def fitted_of(parts: dict[str, Part]) -> set[str]:
    return {key for key, part in parts.items() if part is Part.TRAIN}


def test_it_learns_from_slides_the_patch_network_was_not_fitted_to() -> None:
    parts = study(30, 12, 8)
    fitted = fitted_of(parts)
    roles = assign_roles(bare(parts), parts, fitted, recipe_of())
    assert roles.protocol == "held_out"
    assert not roles.reason
    used = {*roles.teach, *roles.choose}
    assert used == {key for key, part in parts.items() if part is Part.VALIDATION}
    assert not used & fitted
    assert not set(roles.teach) & set(roles.choose)
    assert (len(roles.teach), len(roles.choose)) == (10, 2)
    assert str(roles).startswith("10 slides teach and 2 choose")


def test_slides_reviewed_since_the_patch_network_was_trained_teach_too() -> None:
    parts = study(6, 2, 2)
    new = ["train-0", "train-1"]
    fitted = fitted_of(parts) - set(new)
    roles = assign_roles(bare(parts), parts, fitted, recipe_of())
    assert roles.protocol == "held_out"
    assert {*roles.teach, *roles.choose} == {*new, "validation-6", "validation-7"}


def test_where_the_held_out_are_of_one_patient_it_is_the_papers_protocol_and_says_so() -> None:
    parts = study(6, 5, 2)
    metadata = bare(parts) | {key: {"patient": "P9"} for key in parts if key.startswith("val")}
    roles = assign_roles(metadata, parts, fitted_of(parts), recipe_of())
    assert roles.protocol == "paper" and len(roles.choose) == 5
    assert "(5) cannot be divided" in roles.reason and "one patient" in roles.reason


def test_where_too_few_are_held_out_it_is_the_papers_protocol_and_says_so() -> None:
    parts = study(6, 3, 2)
    roles = assign_roles(bare(parts), parts, fitted_of(parts), recipe_of())
    assert roles.protocol == "paper"
    assert roles.teach == tuple(key for key in parts if key.startswith("train"))
    assert roles.choose == tuple(key for key in parts if key.startswith("validation"))
    assert "Only 3 of 11 reviewed slides" in roles.reason
    assert "train_after (4)" in roles.reason
    assert "(the paper's protocol)" in str(roles)


def test_the_papers_protocol_can_be_asked_for() -> None:
    parts = study(30, 12, 8)
    roles = assign_roles(bare(parts), parts, fitted_of(parts), recipe_of(protocol="paper"))
    assert (roles.protocol, roles.reason) == ("paper", "")
    assert (len(roles.teach), len(roles.choose)) == (30, 12)


def test_without_heatmaps_there_is_nothing_to_hold_out() -> None:
    parts = study(30, 12, 8)
    roles = assign_roles(bare(parts), parts, fitted_of(parts), recipe_of(use_heatmap=False))
    assert (len(roles.teach), len(roles.choose), roles.reason) == (30, 12, "")


@pytest.mark.parametrize("protocol", ["held_out", "paper"])
def test_slides_that_test_the_method_neither_teach_nor_choose(protocol: str) -> None:
    parts = study(9, 6, 5)
    slides = bare([*parts, "unknown"])
    roles = assign_roles(slides, parts, (), recipe_of(protocol=protocol))
    used = {*roles.teach, *roles.choose}
    assert used
    assert all(parts.get(key) in (Part.TRAIN, Part.VALIDATION) for key in used)


def test_slides_of_a_patient_are_not_divided() -> None:
    parts = study(0, 40, 0)
    slides = {key: {"patient": str(index // 4)} for index, key in enumerate(parts)}
    roles = assign_roles(slides, parts, (), recipe_of())
    patients = [{slides[key]["patient"] for key in own} for own in (roles.teach, roles.choose)]
    assert patients[0] and patients[1]
    assert not patients[0] & patients[1]


def test_a_patient_that_the_patch_network_was_fitted_to_is_not_held_out() -> None:
    parts = study(6, 6, 0)
    slides = bare(parts)
    slides["train-0"] = slides["validation-6"] = {"patient": "A"}  # reviewed one after the other
    roles = assign_roles(slides, parts, ["train-0"], recipe_of())
    assert roles.protocol == "held_out"
    assert {*roles.teach, *roles.choose} == parts.keys() - {"train-0", "validation-6"}


def test_the_order_of_the_slides_has_no_influence() -> None:
    parts = study(8, 9, 2)
    keys = list(parts)
    forth, back = (
        assign_roles(bare(order), parts, fitted_of(parts), recipe_of())
        for order in (keys, keys[::-1])
    )
    assert forth == back


@pytest.mark.parametrize(
    ("parts", "what"), [(study(0, 3, 1), "learn from"), (study(3, 0, 1), "choose its best epoch")]
)
def test_nothing_to_learn_from_is_a_clear_error(parts: dict[str, Part], what: str) -> None:
    with pytest.raises(QpannotError, match=what) as caught:
        assign_roles(bare(parts), parts, list(parts), recipe_of())
    assert "Review more slides" in str(caught.value.hint)
