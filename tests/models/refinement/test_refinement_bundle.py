from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qpannot.errors import QpannotError
from qpannot.models import load_bundle, patch_network, save_bundle
from qpannot.models.folders import CARD
from qpannot.models.refinement import (
    RefinementNetwork,
    load_refinement,
    refinement_network,
    save_refinement,
)
from qpannot.recipe import Recipe

DESIGN = "smp:linknet/tu-test_resnet"
RECIPE = Recipe.model_validate(
    {"refinement": {"design": DESIGN, "size_px": 32}, "patches": {"size_px": 32}}
)
PATCH_MODEL = "ab" * 32


def network_of(channels: int = 4) -> RefinementNetwork:
    torch.manual_seed(1)
    return refinement_network(DESIGN, channels=channels, size_px=32)


def save(folder: Path, network: RefinementNetwork, **more: Any) -> Path:
    arguments: dict[str, Any] = {
        "classes": ("Non-tumor", "Tumor"),
        "patch_model_sha256": PATCH_MODEL,
        "protocol": "held_out",
        "slides": ["a", "b"],
        "metrics": {"dice": 0.5},
        "round": 3,
    }
    save_refinement(folder, network, RECIPE, **(arguments | more))
    return folder


def test_a_network_answers_bit_by_bit_the_same_after_a_round_trip(tmp_path: Path) -> None:
    network = network_of()
    network(torch.rand(4, 4, 32, 32))  # batch norm has seen something
    images = torch.randint(0, 256, (2, 4, 32, 32), dtype=torch.uint8)
    bundle = load_refinement(save(tmp_path / "model", network))
    assert not bundle.network.training
    assert torch.equal(bundle.network(images), network.eval()(images))


def test_the_card_says_what_it_is_and_whose_heatmaps_it_was_trained_on(tmp_path: Path) -> None:
    values = json.loads((save(tmp_path / "model", network_of()) / CARD).read_text())
    assert values["kind"] == "refinement"
    assert values["architecture"] == {
        "design": DESIGN,
        "channels": 4,
        "classes": 2,
        "size_px": 32,
    }
    assert values["classes"] == ["Non-tumor", "Tumor"]
    assert values["patch_model_sha256"] == PATCH_MODEL
    assert (values["protocol"], values["fit"], values["round"]) == ("held_out", "pad", 3)
    assert Recipe.model_validate(values["recipe"]) == RECIPE


def test_a_network_without_heatmaps_names_no_patch_model(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", network_of(channels=3), patch_model_sha256=None)
    assert not load_refinement(folder).card.takes_heatmap


@pytest.mark.parametrize(
    "change",
    [
        {"patch_model_sha256": None},
        {"classes": ("Non-tumor", "Tumor", "Stroma")},
        {"classes": ("Tumor", "Tumor")},
        {"metrics": {"dice": float("nan")}},
    ],
)
def test_what_contradicts_itself_is_not_saved(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        save(tmp_path / "model", network_of(), **change)
    assert not (tmp_path / "model").exists()


def test_the_wrong_kind_of_model_is_named_as_such(tmp_path: Path) -> None:
    refinement = save(tmp_path / "refinement", network_of())
    patch = patch_network("test_resnet", ("Rest", "Tumor"), weights=None, size_px=32)
    save_bundle(tmp_path / "patch", patch, RECIPE, slides=[], metrics={})
    with pytest.raises(QpannotError, match="is a refinement network, where a patch network"):
        load_bundle(refinement)
    with pytest.raises(QpannotError, match="is a patch network, where a refinement network"):
        load_refinement(tmp_path / "patch")
    assert load_bundle(tmp_path / "patch").card.slides == ()


def test_a_patch_model_of_a_card_without_a_kind_still_loads(tmp_path: Path) -> None:
    patch = patch_network("test_resnet", ("Rest", "Tumor"), weights=None, size_px=32)
    save_bundle(tmp_path / "patch", patch, RECIPE, slides=["a"], metrics={}, chosen_by=["a"])
    path = tmp_path / "patch" / CARD
    values = json.loads(path.read_text())
    assert "kind" not in values
    assert values.pop("chosen_by") == ["a"]
    path.write_text(json.dumps(values))  # as it was written before
    assert load_bundle(tmp_path / "patch").card.chosen_by == ()
