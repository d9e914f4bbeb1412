from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from qpannot.errors import UsageError
from qpannot.models import predict_probabilities
from qpannot.models.refinement import (
    DESIGNS,
    RefinementArchitecture,
    RefinementNetwork,
    count_as_keras,
    refinement_loss,
    refinement_network,
)
from qpannot.models.refinement.attention import ChannelAttention, PositionAttention
from qpannot.models.refinement.doubleunet import SqueezeExcite

SMP = "smp:unet/resnet18"


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(5)


def trained_numbers(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def outputs_of(network: RefinementNetwork, images: Tensor) -> tuple[Tensor, ...]:
    outputs = network(images)
    assert isinstance(outputs, tuple)
    return outputs


@pytest.mark.parametrize(
    ("design", "millions", "as_keras", "trained"),
    [
        ("unet", 11.58, 11_581_782, 11_563_410),
        ("agunet", 7.68, 7_677_275, 7_659_915),
        # Trained are the 81,920 numbers of the position attention's projections as well.
        ("dagunet", 9.99, 9_992_680, 10_064_456),
        ("doubleunet", 16.04, 16_040_204, 16_010_100),
    ],
)
def test_a_design_has_the_papers_number_of_parameters(
    design: str, millions: float, as_keras: int, trained: int
) -> None:
    network = refinement_network(design)
    assert round(count_as_keras(network) / 1e6, 2) == millions
    assert (count_as_keras(network), trained_numbers(network)) == (as_keras, trained)


def test_unet_lr_lacks_only_the_weights_of_the_heatmap() -> None:
    with_heatmap, without = refinement_network("unet"), refinement_network("unet", channels=3)
    assert count_as_keras(with_heatmap) - count_as_keras(without) == 3 * 3 * 8
    assert without.eval()(torch.rand(1, 3, 256, 256)).shape == (1, 2, 256, 256)


@pytest.mark.parametrize(
    ("design", "size", "scales"),
    [
        ("unet", (256, 512), [1]),
        ("agunet", (384, 128), [1, 2, 4, 8, 16, 32, 64]),
        ("dagunet", (128, 256), [1, 2, 4, 8, 16, 32, 64]),
        ("doubleunet", (256, 512), [1, 1]),
        (SMP, (96, 64), [1]),
    ],
)
def test_all_outputs_are_there_to_be_taught_and_one_map_to_be_used(
    design: str, size: tuple[int, int], scales: list[int]
) -> None:
    network = refinement_network(design, classes=3)
    images = torch.rand(1, 4, *size)
    outputs = outputs_of(network, images)
    expected = [(1, 3, size[0] // scale, size[1] // scale) for scale in scales]
    assert [tuple(output.shape) for output in outputs] == expected
    with torch.no_grad():
        used = network.eval()(images)
    assert isinstance(used, Tensor)
    assert used.shape == (1, 3, *size)
    assert used.isfinite().all()


@pytest.mark.parametrize("design", [*DESIGNS, SMP])
def test_gradients_reach_every_parameter(design: str) -> None:
    network = refinement_network(design)
    for module in network.modules():
        if isinstance(module, PositionAttention | ChannelAttention):
            nn.init.ones_(module.gamma)  # starts at 0, where nothing is attended to yet
        elif isinstance(module, SqueezeExcite):
            nn.init.constant_(module.squeeze.weight, 0.1)  # of few units all may be off
    height = network.multiple if design in DESIGNS else 64
    width = 256  # where agunet and dagunet have two positions at the bottom: one attends to itself
    targets = torch.randint(0, 2, (2, height, width))
    torch.autograd.backward(refinement_loss(network(torch.rand(2, 4, height, width)), targets))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias just before batch norm changes nothing.
        assert parameter.ndim == 1 or parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("design", [SMP, "smp:deeplabv3plus/resnet18"])
def test_a_single_slide_teaches_a_network_that_pools_it_to_one_value(design: str) -> None:
    network = refinement_network(design, size_px=32)
    pooled = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and ("layer4" in name or "aspp.0.convs.4" in name)
    }

    def means() -> dict[str, Tensor]:
        state = network.state_dict()
        return {name: state[f"{name}.running_mean"].clone() for name in pooled}

    before = means()
    (found,) = outputs_of(network, torch.rand(1, 4, 32, 32))
    torch.autograd.backward(found.sum())
    assert found.isfinite().all()
    after = means()
    stayed = [torch.equal(after[name], before[name]) for name in pooled]
    assert any(stayed)  # one value has no spread to be remembered
    assert all(layer.training for layer in pooled.values())
    network(torch.rand(2, 4, 32, 32))  # two have
    assert not any(torch.equal(own, before[name]) for name, own in means().items())


@pytest.mark.parametrize("design", [*DESIGNS, SMP])
def test_a_network_built_again_from_its_architecture_takes_its_weights(design: str) -> None:
    network = refinement_network(design, size_px=256)
    images = torch.rand(2, 4, 256, 256)
    with torch.no_grad():
        network(images)  # so that it has statistics of its own
    card = network.architecture.model_dump_json()
    again = RefinementNetwork(RefinementArchitecture.model_validate_json(card))
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images[:1]), network.eval()(images[:1]))


def test_the_same_seed_makes_the_same_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(11)
        states.append(refinement_network("dagunet").state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_every_channel_and_the_first_output_of_doubleunet_matter() -> None:
    network = refinement_network("doubleunet", size_px=256).eval()
    images = torch.rand(1, 4, 256, 256)
    with torch.no_grad():
        before = network(images)
        for channel in range(4):
            changed = images.clone()
            changed[:, channel] = 0
            assert not torch.equal(network(changed), before)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and layer.out_channels == 2:
                nn.init.constant_(layer.bias, 3.0)  # type: ignore[arg-type] # it has one
                layer.bias[0] = -3.0  # type: ignore[index]
                break
        assert not torch.equal(network(images), before)


def test_bytes_and_their_fractions_give_the_same() -> None:
    network = refinement_network("agunet").eval()
    images = torch.randint(0, 256, (1, 4, 128, 128), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(images.float() / 255))


def test_probabilities_of_every_pixel_sum_to_one() -> None:
    network = refinement_network("agunet", classes=3).train()
    probabilities = predict_probabilities(network, torch.rand(1, 4, 128, 256))
    assert probabilities.shape == (1, 3, 128, 256)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 128, 256))
    assert network.training


@pytest.mark.parametrize(
    ("design", "size", "padded"),
    [
        ("unet", (1024, 1000), "1024 x 1024"),
        ("dagunet", (130, 128), "256 x 128"),
        ("doubleunet", (128, 128), "256 x 256"),
        ("smp:fpn/resnet18", (64, 33), "64 x 64"),
    ],
)
def test_images_of_another_size_are_refused_with_the_size_to_pad_to(
    design: str, size: tuple[int, int], padded: str
) -> None:
    network = refinement_network(design)
    with pytest.raises(ValueError, match=rf"multiples of \d+ px.*pad them to {padded}"):
        network(torch.rand(1, 4, *size))


def test_images_of_other_channels_or_types_are_refused() -> None:
    network = refinement_network("agunet")
    with pytest.raises(ValueError, match=r"\(N, 4, H, W\), not \(1, 3, 128, 128\)"):
        network(torch.rand(1, 3, 128, 128))
    with pytest.raises(ValueError, match=r"uint8 or floats, not torch\.int64"):
        network(torch.zeros(1, 4, 128, 128, dtype=torch.int64))


@pytest.mark.parametrize(
    ("design", "size_px", "said"),
    [
        ("agunett", 1024, "Did you mean agunet"),
        ("unet", 1000, "to a multiple of 256"),
        ("smp:unett/resnet18", 1024, "Did you mean unet"),
        ("smp:unet/resnet19", 1024, "Did you mean resnet18"),
        ("smp:unet", 1024, "smp:decoder/encoder"),
        ("smp:unet/tu-no_such", 1024, "cannot be built"),
        ("smp:fpn/resnet18", 100, "to a multiple of 32"),
        ("smp:dpt/tu-vit_tiny_patch16_224", 256, "cannot take images of 256 px"),
    ],
)
def test_a_design_that_cannot_be_had_is_a_usage_error_with_a_way_out(
    design: str, size_px: int, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        refinement_network(design, size_px=size_px)
    assert caught.value.hint


def test_an_architecture_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="depth"):
        RefinementArchitecture.model_validate({"design": "unet", "depth": 4})
    with pytest.raises(ValidationError, match="classes"):
        refinement_network("unet", classes=1)
