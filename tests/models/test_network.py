from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from qpannot.errors import UsageError
from qpannot.models import build_encoder, count_parameters, patch_network, predict_probabilities
from qpannot.recipe.settings import NetworkSettings

CLASSES = ("Non-tumor", "Tumor")


@pytest.fixture
def patches() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)


def test_mobilenet_v2_has_the_papers_2_39_million_parameters() -> None:
    network = patch_network("mobilenet_v2", CLASSES, weights=None, size_px=64)
    # Keras' own 2,257,984 without its top, and the head's two dense layers and batch norm.
    assert count_parameters(network) == 2_257_984 + (1280 + 1) * 100 + 4 * 100 + (100 + 1) * 2
    assert round(count_parameters(network) / 1e6, 2) == 2.39


def test_inception_v3_has_the_papers_22_million_parameters() -> None:
    network = patch_network("inception_v3", CLASSES, weights=None, size_px=75)
    # Keras' own 21,802,784, which has no scales in its batch norms (17,216 channels).
    keras = 21_802_784 + 17_216
    assert count_parameters(network) == keras + (2048 + 1) * 100 + 4 * 100 + (100 + 1) * 2
    assert round(count_parameters(network) / 1e6, 1) == 22.0


def test_the_head_is_the_papers_in_its_order() -> None:
    network = patch_network("mobilenet_v2", CLASSES, weights=None, size_px=64)
    names = [type(layer).__name__ for layer in network.head]
    assert names == ["Linear", "Dropout", "ReLU", "BatchNorm1d", "Linear"]


def test_the_defaults_are_the_recipes() -> None:
    network = patch_network("mobilenet_v2", CLASSES, weights=None)
    settings = NetworkSettings()
    assert network.architecture.hidden_units == settings.hidden_units
    assert network.architecture.dropout == settings.dropout
    assert network.architecture.encoder == settings.encoder


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "inception_v3", "resnet18", "mit_b0"])
def test_every_source_takes_patches_of_64_px(encoder: str, patches: torch.Tensor) -> None:
    network = patch_network(encoder, ("a", "b", "c"), weights=None, size_px=64)
    logits = network(patches)
    assert logits.shape == (4, 3)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.head.parameters())


def test_a_transformer_is_built_for_the_size_of_the_patches() -> None:
    network = patch_network("vit_tiny_patch16_224", CLASSES, weights=None, size_px=48)
    assert network(torch.zeros(2, 3, 48, 48)).shape == (2, 2)


def test_bytes_and_their_fractions_give_the_same(patches: torch.Tensor) -> None:
    network = patch_network("mobilenet_v2", CLASSES, weights=None, size_px=64).eval()
    torch.testing.assert_close(network(patches), network(patches.float() / 255))


def test_the_network_normalises_by_itself() -> None:
    network = patch_network("mobilenet_v2", CLASSES, weights=None, size_px=32)
    seen: list[torch.Tensor] = []
    network.encoder.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1)
    network.eval()(pixels.expand(1, 3, 32, 32))
    expected = (torch.tensor([124, 116, 104]) / 255 - torch.tensor([0.485, 0.456, 0.406])) / (
        torch.tensor([0.229, 0.224, 0.225])
    )
    torch.testing.assert_close(seen[0][0, :, 5, 7], expected)
    assert {"encoder.mean", "encoder.std"} <= network.state_dict().keys()


@pytest.mark.parametrize(
    ("encoder", "mean"),
    [
        ("mobilenet_v2", 0.485),
        ("inception_v3", 0.5),
        ("vit_tiny_patch16_224", 0.5),
        ("mit_b0", 0.485),
        ("timm-tf_efficientnet_lite0", 0.5),
    ],
)
def test_an_encoder_brings_the_normalisation_its_weights_expect(encoder: str, mean: float) -> None:
    made = build_encoder(encoder, weights=None, size_px=80)
    assert made.mean[0].item() == pytest.approx(mean)


def test_patches_with_their_channels_last_are_refused(patches: torch.Tensor) -> None:
    network = patch_network("mobilenet_v2", CLASSES, weights=None, size_px=64)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), not \(4, 64, 64, 3\)"):
        network(patches.permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match=r"uint8 or floats, not torch\.int64"):
        network(patches.long())


def test_probabilities_sum_to_one_and_leave_the_network_as_it_was(patches: torch.Tensor) -> None:
    network = patch_network("mobilenet_v2", ("a", "b", "c"), weights=None, size_px=64).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    probabilities = predict_probabilities(network, patches)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    # Without dropout and batch statistics a patch has the same answer in any company.
    torch.testing.assert_close(predict_probabilities(network, patches[:1]), probabilities[:1])
    logits = network.eval()(patches)
    torch.testing.assert_close(probabilities, torch.softmax(logits, dim=1))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("mobilenet_v3", "mobilenet_v2"), ("resnet81", "resnet18"), ("eficientnet-b0", "net-b0")],
)
def test_an_unknown_encoder_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"no encoder '{wrong}'") as caught:
        patch_network(wrong, CLASSES, weights=None)
    assert right in str(caught.value.hint)


def test_an_unknown_tag_of_weights_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'resnet50\.a1_in'") as caught:
        patch_network("resnet50.a1_in", CLASSES, weights=None)
    assert "resnet50.a1_in1k" in str(caught.value.hint)


def test_patches_too_small_for_an_encoder_are_an_error_that_says_so() -> None:
    with pytest.raises(UsageError, match="densenet121 cannot take patches of 16 px") as caught:
        patch_network("densenet121", CLASSES, weights=None, size_px=16)
    assert "patches.size_px" in str(caught.value.hint)


def test_classes_must_be_two_and_differ() -> None:
    with pytest.raises(ValidationError, match="differ"):
        patch_network("mobilenet_v2", ("Tumor", "Tumor"), weights=None)
    with pytest.raises(ValidationError, match="at least 2"):
        patch_network("mobilenet_v2", ("Tumor",), weights=None)
