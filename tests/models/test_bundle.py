from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from qpannot import __version__
from qpannot.errors import QpannotError
from qpannot.models import (
    PatchNetwork,
    load_bundle,
    patch_network,
    predict_probabilities,
    save_bundle,
)
from qpannot.models.bundle import CARD, WEIGHTS, read_card
from qpannot.qupath.files import write_atomically
from qpannot.recipe import Recipe
from qpannot.recipe.settings import PatchSettings

CLASSES = ("Non-tumor", "Tumor")
RECIPE = Recipe(name="trial", patches=PatchSettings(size_px=64, mpp=0.5))


@pytest.fixture(scope="module")
def network() -> PatchNetwork:
    torch.manual_seed(1)
    made = patch_network("mobilenet_v2", CLASSES, weights=None, size_px=64)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-3)
    made(torch.rand(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    return made.eval()


def save(folder: Path, network: PatchNetwork, **more: Any) -> Path:
    arguments: dict[str, Any] = {
        "slides": ["a.svs", "b.svs"],
        "round": 2,
        "metrics": {"dice": 0.75},
    }
    save_bundle(folder, network, RECIPE, **(arguments | more))
    return folder


@pytest.fixture
def saved(tmp_path: Path, network: PatchNetwork) -> Path:
    return save(tmp_path / "models" / "round-2", network)


def change_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / CARD).read_text())
    change(values)
    (folder / CARD).write_text(json.dumps(values))


def write_weights(folder: Path, state: dict[str, torch.Tensor]) -> None:
    data = safetensors.torch.save(state)
    (folder / WEIGHTS).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    change_card(folder, lambda values: values.update(weights_sha256=digest))


def test_a_network_answers_bit_by_bit_the_same_after_a_round_trip(
    saved: Path, network: PatchNetwork
) -> None:
    patches = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    loaded = load_bundle(saved)
    assert torch.equal(loaded.network(patches), network(patches))
    expected = predict_probabilities(network, patches)
    assert torch.equal(predict_probabilities(loaded.network, patches), expected)
    assert not loaded.network.training


def test_the_card_says_what_the_network_is_and_where_it_comes_from(saved: Path) -> None:
    values = json.loads((saved / CARD).read_text(encoding="utf-8"))
    assert values["format"] == 1
    assert values["architecture"] == {
        "encoder": "mobilenet_v2",
        "classes": ["Non-tumor", "Tumor"],
        "hidden_units": 100,
        "dropout": 0.5,
        "size_px": 64,
    }
    assert values["mpp"] == 0.5
    assert values["normalisation"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert values["slides"] == ["a.svs", "b.svs"]
    assert values["round"] == 2
    assert values["metrics"] == {"dice": 0.75}
    assert Recipe.model_validate(values["recipe"]) == RECIPE
    assert values["versions"]["qpannot"] == __version__
    assert values["versions"]["torch"] == importlib.metadata.version("torch")
    assert sorted(path.name for path in saved.iterdir()) == [CARD, WEIGHTS]


def test_a_network_that_lies_channels_last_can_be_saved(
    tmp_path: Path, network: PatchNetwork
) -> None:
    patches = torch.rand(2, 3, 64, 64)
    expected = network(patches)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        save(tmp_path / "one", network)
    finally:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    assert torch.equal(load_bundle(tmp_path / "one").network(patches), expected)


def test_a_bundle_is_loaded_without_a_network(
    saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    def connect(*_: object) -> None:
        raise AssertionError("no network is needed")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(socket.socket, "connect", connect)
    # However it was trained: the recipe is a record.
    assert json.loads((saved / CARD).read_text())["recipe"]["network"]["weights"] == "imagenet"
    load_bundle(saved)


def test_nothing_is_overwritten(saved: Path, network: PatchNetwork) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(QpannotError, match="already something at"):
        save(saved, network)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_failure_while_saving_leaves_nothing_behind(
    tmp_path: Path, network: PatchNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> bool:
        if path.name == CARD:
            raise OSError(28, "No space left on device")
        return write_atomically(path, data)

    monkeypatch.setattr("qpannot.models.folders.write_atomically", full)
    with pytest.raises(QpannotError, match="No space left on device"):
        save(tmp_path / "models" / "one", network)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_bundle_appears_in_one_step_at_the_very_end(
    tmp_path: Path, network: PatchNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(QpannotError, match="Permission denied"):
        save(tmp_path / "one", network)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_before_the_end_leaves_no_bundle_and_saving_again_works(
    tmp_path: Path, network: PatchNetwork
) -> None:
    # As a process that was killed leaves it.
    left = tmp_path / f".one.{os.getpid()}.tmp"
    left.mkdir()
    (left / WEIGHTS).write_bytes(b"half of")
    with pytest.raises(QpannotError, match=r"no model: it has no model\.json"):
        load_bundle(tmp_path / "one")
    load_bundle(save(tmp_path / "one", network))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_network_for_other_patches_than_the_recipes_is_refused(
    tmp_path: Path, network: PatchNetwork
) -> None:
    other = RECIPE.model_copy(update={"patches": PatchSettings(size_px=128)})
    with pytest.raises(ValueError, match="patches of 64 px, the recipe for 128 px"):
        save_bundle(tmp_path / "one", network, other, slides=[], metrics={})


def test_a_metric_that_is_no_number_is_refused(tmp_path: Path, network: PatchNetwork) -> None:
    with pytest.raises(ValueError, match="finite"):
        save(tmp_path / "one", network, metrics={"dice": float("nan")})
    assert not (tmp_path / "one").exists()


def test_changed_weights_are_noticed(saved: Path) -> None:
    data = bytearray((saved / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (saved / WEIGHTS).write_bytes(data)
    with pytest.raises(QpannotError, match="SHA-256 differs"):
        load_bundle(saved)


def test_missing_weights_are_an_error(saved: Path) -> None:
    (saved / WEIGHTS).unlink()
    with pytest.raises(QpannotError, match=r"weights\.safetensors cannot be read"):
        load_bundle(saved)


def test_weights_that_do_not_fit_the_card_are_reported(saved: Path, network: PatchNetwork) -> None:
    state = dict(network.state_dict())
    state["head.4.weight"] = torch.zeros(5, 100)
    state["head.9.weight"] = torch.zeros(1)
    del state["head.0.bias"]
    write_weights(saved, state)
    with pytest.raises(QpannotError) as caught:
        load_bundle(saved)
    message = caught.value.message
    assert "head.0.bias is missing" in message
    assert "head.9.weight is unknown" in message
    assert "head.4.weight is (5, 100), not (2, 100)" in message
    assert "written with qpannot" in message


def test_a_card_with_another_normalisation_than_the_weights_is_an_error(saved: Path) -> None:
    change_card(saved, lambda values: values["normalisation"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(QpannotError, match="another normalisation"):
        load_bundle(saved)


def test_a_bundle_of_a_newer_qpannot_asks_for_an_upgrade(saved: Path) -> None:
    change_card(saved, lambda values: values.update(format=2, brand_new="key"))
    with pytest.raises(QpannotError, match="newer qpannot") as caught:
        load_bundle(saved)
    assert "pip install --upgrade qpannot" in str(caught.value.hint)


def test_every_problem_of_a_card_is_named(saved: Path) -> None:
    def spoil(values: dict[str, Any]) -> None:
        del values["mpp"]
        values["colour"] = "blue"
        values["architecture"]["classes"] = ["Tumor", "Tumor"]

    change_card(saved, spoil)
    with pytest.raises(QpannotError) as caught:
        read_card(saved)
    for name in ("mpp: ", "colour: ", "architecture: "):
        assert name in caught.value.message


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"format": 1', "\udcff"])
def test_a_card_that_is_no_card_is_an_error(saved: Path, text: str) -> None:
    (saved / CARD).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(QpannotError, match=r"model\.json is (no JSON|not what it should be)"):
        load_bundle(saved)


def test_a_pickle_in_place_of_the_weights_is_not_read(saved: Path, network: PatchNetwork) -> None:
    torch.save(network.state_dict(), saved / WEIGHTS)
    digest = hashlib.sha256((saved / WEIGHTS).read_bytes()).hexdigest()
    change_card(saved, lambda values: values.update(weights_sha256=digest))
    with pytest.raises(QpannotError, match="is no safetensors file"):
        load_bundle(saved)


def test_the_network_can_be_exported_as_a_graph() -> None:
    # The smallest encoder timm has; what is ours around it is the same for all.
    network = patch_network("test_resnet", CLASSES, weights=None, size_px=64).eval()
    patches = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(network, (patches,), dynamic_shapes=({0: batch},))
    more = torch.cat([patches, patches])
    torch.testing.assert_close(program.module()(more), network(more))
