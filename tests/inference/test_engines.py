from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qpannot.errors import QpannotError, UsageError
from qpannot.inference import EngineName, Engines, choosing, predict_heatmap
from qpannot.inference.choosing import TOLERANCE
from qpannot.inference.export import exported
from qpannot.models import Bundle, load_bundle, patch_network, predict_probabilities, save_bundle
from qpannot.recipe import Recipe
from qpannot.slide import open_slide

MakeRecipe = Callable[..., Recipe]
MakeBundle = Callable[..., Bundle]
WriteTruth = Callable[..., Path]

FASTER: tuple[EngineName, ...] = ("onnxruntime", "openvino")


@pytest.fixture
def patches() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The papers' network with random weights, whose batch norms fit them."""
    torch.manual_seed(0)
    network = patch_network("mobilenet_v2", ("a", "b", "c"), weights=None, size_px=64)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (32, 3, 64, 64), dtype=torch.uint8))
    recipe = Recipe()
    recipe = recipe.model_copy(
        update={"patches": recipe.patches.model_copy(update={"size_px": 64})}
    )
    folder = tmp_path_factory.mktemp("models") / "mobilenet"
    save_bundle(folder, network.eval(), recipe, slides=[], metrics={})
    return load_bundle(folder)


def expected_of(bundle: Bundle, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    batch = torch.from_numpy(patches).permute(0, 3, 1, 2)
    found: NDArray[np.float32] = predict_probabilities(bundle.network, batch).numpy()
    return found


@pytest.mark.parametrize("engine", ["torch", *FASTER])
def test_every_engine_gives_the_networks_probabilities(
    engine: EngineName, mobilenet: Bundle, patches: NDArray[np.uint8]
) -> None:
    if engine != "torch":
        pytest.importorskip(engine)
        pytest.importorskip("onnx")
    compared = Engines(mobilenet, engine=engine, threads=1).compared(patches, "slide")
    assert compared.engine.name.startswith(engine)
    found = compared.engine.predict(patches)
    assert found.dtype == np.float32 and found.shape == (11, 3)
    expected = expected_of(mobilenet, patches)
    assert expected.std(axis=0).min() > 1e-3  # or else anything would agree
    assert np.abs(found - expected).max() < TOLERANCE["32"]
    assert (compared.difference is None) == (engine == "torch")
    assert np.allclose(compared.engine.predict(patches[3:4]), expected[3:4], atol=1e-3)


@pytest.mark.parametrize("engine", FASTER)
def test_every_engine_gives_the_same_heatmap(
    engine: EngineName,
    truth: NDArray[np.uint8],
    write_slide_of: WriteTruth,
    make_bundle: MakeBundle,
    make_recipe: MakeRecipe,
) -> None:
    pytest.importorskip(engine)
    pytest.importorskip("onnx")
    bundle, recipe = make_bundle(), make_recipe()
    with open_slide(write_slide_of(truth)) as slide:
        plain, fast = (
            predict_heatmap(slide, bundle, recipe, engines=Engines(bundle, engine=name, threads=2))
            for name in ("torch", engine)
        )
    assert fast.engine.startswith(engine) and plain.engine.startswith("torch")
    assert fast.difference is not None and fast.difference < TOLERANCE["32"]
    assert fast.heatmap.model == plain.heatmap.model
    assert np.allclose(
        fast.heatmap.probabilities,
        plain.heatmap.probabilities,
        atol=TOLERANCE["32"],
        equal_nan=True,
    )


def test_the_fastest_engine_that_is_installed_is_taken(
    make_bundle: MakeBundle, patches: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    bundle = make_bundle()
    if torch.cuda.is_available():
        pytest.skip("where there is a GPU, torch is the fastest engine, and taken first")
    assert Engines(bundle).compared(patches, "slide").engine.name == "openvino (32 bit)"
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    assert Engines(bundle).compared(patches, "slide").engine.name == "torch on cpu (32 bit)"


@pytest.mark.parametrize("engine", FASTER)
def test_an_engine_that_is_asked_for_and_not_installed_is_an_error(
    engine: EngineName, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"{engine} is not installed") as caught:
        Engines(make_bundle(), engine=engine)
    assert "qpannot[fast]" in str(caught.value.hint)


def test_the_network_is_exported_once(make_bundle: MakeBundle, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    bundle = make_bundle()
    path = exported(bundle, tmp_path / "cache")
    before = path.stat().st_mtime_ns
    assert exported(bundle, tmp_path / "cache") == path
    assert path.stat().st_mtime_ns == before
    assert exported(make_bundle("other", gain=9), tmp_path / "cache") != path
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_an_engine_that_gives_something_else_is_not_used(
    make_bundle: MakeBundle, patches: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    bundle = make_bundle()
    other = exported(make_bundle("other", gain=5), bundle.folder)
    other.rename(
        bundle.folder / other.name.replace(other.name[:16], bundle.card.weights_sha256[:16])
    )
    with caplog.at_level(logging.WARNING):
        compared = Engines(bundle, engine="onnxruntime").compared(patches, "slide 7")
    assert compared.engine.name.startswith("torch")
    assert "slide 7" in caplog.text and "differ from torch's" in caplog.text


def test_an_engine_that_cannot_be_loaded_is_not_used(
    make_bundle: MakeBundle, patches: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    bundle = make_bundle()
    exported(bundle, bundle.folder).write_bytes(b"damaged")
    engines = Engines(bundle, engine="onnxruntime")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            compared = engines.compared(patches, "slide")
            assert compared.engine.name.startswith("torch")
    assert caplog.text.count("delete it") == 1
    assert np.array_equal(compared.engine.predict(patches), expected_of(bundle, patches))


def test_bfloat16_is_compared_with_32_bit_and_its_difference_told(
    make_bundle: MakeBundle, patches: NDArray[np.uint8]
) -> None:
    bundle = make_bundle()
    compared = Engines(bundle, engine="torch", precision="bf16").compared(patches, "slide")
    assert compared.engine.name == "torch on cpu (bfloat16)"
    assert compared.difference is not None and 0 < compared.difference <= TOLERANCE["bf16"]
    difference = np.abs(compared.engine.predict(patches) - expected_of(bundle, patches)).max()
    assert difference == pytest.approx(compared.difference, abs=1e-3)


def test_bfloat16_that_differs_too_much_is_not_used(
    make_bundle: MakeBundle, patches: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_bundle(gain=300)  # where a rounding error decides
    with caplog.at_level(logging.WARNING):
        compared = Engines(bundle, engine="torch", precision="bf16").compared(patches, "slide")
    assert compared.engine.name == "torch on cpu (32 bit)"
    assert "bfloat16" in caplog.text


def test_onnxruntime_has_no_bfloat16(make_bundle: MakeBundle) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match="bfloat16"):
        Engines(make_bundle(), engine="onnxruntime", precision="bf16")


def test_a_network_without_numbers_is_an_error_of_the_model(
    make_bundle: MakeBundle, patches: NDArray[np.uint8]
) -> None:
    bundle = make_bundle()
    with torch.no_grad():
        next(bundle.network.parameters()).fill_(torch.inf)
    with pytest.raises(QpannotError, match=r"model: the network gives no numbers.*slide"):
        Engines(bundle, engine="torch").compared(patches, "slide")
