"""Encoders by name: what turns a patch into features.

A name has one source, looked for in this order.

torchvision
    ``mobilenet_v2``, ``inception_v3``, ``vgg16``: H2G-Net's own, with the weights that
    segmentation-models-pytorch took over from it as well.
timm
    Its models, pooled as timm pools them. Its default weights stand for ImageNet's; a tag names
    others (``resnet50.a1_in1k``).
segmentation-models-pytorch
    Those of its encoders that timm does not know (``efficientnet-b0``, ``mit_b2``, ...).
"""

from __future__ import annotations

import difflib
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from qpannot.errors import QpannotError, UsageError
from qpannot.models.weights import (
    HubFile,
    PublishedFile,
    StateDict,
    TorchFile,
    fetch,
    fit_weights,
    read_weights,
)
from qpannot.torchvision_import import import_torchvision

IMAGENET = "imagenet"

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)

SMP_HALF = ("inceptionresnetv2", "inceptionv4", "timm-tf_efficientnet_lite")
"""Of segmentation-models-pytorch's: normalised to [-1, 1] (its 0.4; later it says so online)."""

SMALLEST_PX = {"inception_v3": 75}
"""Smaller patches are enlarged to this first; its convolutions are without padding."""


class Encoder(nn.Module):
    """A network from patches to features, with the normalisation its weights expect.

    The normalisation is part of the network (buffers ``mean`` and ``std``), so that whatever
    carries the weights carries it as well.

    Parameters
    ----------
    body
        From normalised patches (N, 3, H, W) to features (N, channels).
    mean, std
        Of red, green and blue in [0, 1].
    size_px
        Width and height of the patches that will come.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, body: nn.Module, *, mean: Triple, std: Triple, size_px: int
    ) -> None:
        super().__init__()
        self.name = name
        self.body = body
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        smallest = SMALLEST_PX.get(name, 0)
        self.enlarged_px = smallest if size_px < smallest else None
        self.channels = self._count_channels(size_px)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the features of patches.

        Parameters
        ----------
        patches
            (N, 3, H, W): uint8 from 0 to 255, or floats from 0 to 1.

        Returns
        -------
        Tensor
            Floats, (N, channels).

        Raises
        ------
        ValueError
            When they are of another shape or type.
        """
        if patches.ndim != 4 or patches.shape[1] != 3:
            raise ValueError(f"patches must be (N, 3, H, W), not {tuple(patches.shape)}")
        if patches.dtype == torch.uint8:
            patches = patches.to(self.mean.dtype) / 255
        elif not patches.is_floating_point():
            raise ValueError(f"patches must be uint8 or floats, not {patches.dtype}")
        patches = (patches - self.mean) / self.std
        if self.enlarged_px is not None:
            size = (self.enlarged_px, self.enlarged_px)
            patches = functional.interpolate(patches, size, mode="bilinear", antialias=False)
        return cast(Tensor, self.body(patches))

    def _count_channels(self, size_px: int) -> int:
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                features = self(torch.zeros(1, 3, size_px, size_px))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UsageError(
                f"The encoder {self.name} cannot take patches of {size_px} px: {error}",
                hint="Set another patches.size_px, or another network.encoder.",
            ) from error
        finally:
            self.train(training)
        return int(features.shape[1])


def build_encoder(
    name: str, *, weights: str | Path | None, size_px: int, setting: str = "network.weights"
) -> Encoder:
    """Return an encoder.

    Parameters
    ----------
    name
        See the module's text.
    weights
        ``"imagenet"``; a file, safetensors or of ``torch.save``, in the naming of torchvision, timm
        or segmentation-models-pytorch; or ``None`` for random numbers.
    size_px
        Width and height of its patches.
    setting
        Key of the recipe that ``weights`` comes from, for messages.

    Raises
    ------
    UsageError
        When there is no such encoder, or it cannot take such patches.
    QpannotError
        When the weights cannot be had or do not fit. Without a network this takes seconds.
    """
    plan = _plan(name, size_px)
    state, source = None, ""
    if weights == IMAGENET:
        if plan.published is None:
            raise QpannotError(
                f"No ImageNet weights of {name} are published.",
                hint=f"Set {setting} to a file or to null, or use another encoder.",
            )
        path = fetch(plan.published, name, setting)
        state, source = read_weights(path, setting), f"published for {name}"
    elif weights is not None:
        path = Path(weights).expanduser()
        state, source = read_weights(path, setting), f"in {path}"
    body = plan.make()
    if state is not None:
        target = body.encoder if isinstance(body, _DeepestFeatures) else body
        fit_weights(target, state, source, convert=plan.convert and partial(plan.convert, target))
    return Encoder(name, body, mean=plan.mean, std=plan.std, size_px=size_px)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How an encoder is made, and where its weights are."""

    make: Callable[[], nn.Module]
    published: PublishedFile | None
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    convert: Callable[[nn.Module, StateDict], StateDict] | None = None


def _plan(name: str, size_px: int) -> _Plan:
    import_torchvision()
    import timm
    from segmentation_models_pytorch.encoders import encoders as smp_encoders

    if name in _TORCHVISION:
        return _TORCHVISION[name]
    if timm.is_model(name):
        return _timm_plan(name, size_px)
    if name in smp_encoders:
        return _smp_plan(name, smp_encoders[name])
    raise _unknown(name, [*_TORCHVISION, *timm.list_models(), *smp_encoders])


def _unknown(name: str, known: Iterable[str]) -> UsageError:
    nearest = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    return UsageError(
        f"There is no encoder {name!r}.",
        hint=f"{meant}network.encoder is mobilenet_v2, inception_v3, vgg16, or any encoder of "
        "timm or segmentation-models-pytorch.",
    )


def _mobilenet_v2() -> nn.Module:
    model = import_torchvision().models.mobilenet_v2(weights=None)
    model.classifier = nn.Identity()
    return cast(nn.Module, model)


def _inception_v3() -> nn.Module:
    model = import_torchvision().models.inception_v3(
        weights=None, aux_logits=False, transform_input=False, init_weights=True
    )
    model.dropout = nn.Identity()
    model.fc = nn.Identity()
    return cast(nn.Module, model)


def _vgg16() -> nn.Module:
    # Not models.vgg16(): filling its classifier of 120 million weights with numbers takes seconds.
    vgg = import_torchvision().models.vgg
    layers = vgg.make_layers(vgg.cfgs["D"])
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layer.bias))
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(OrderedDict(features=layers, pool=pool, flatten=nn.Flatten()))


def _mobilenet_v2_from_timm(model: nn.Module, state: StateDict) -> StateDict:
    """Give timm's ``mobilenetv2_100`` torchvision's names; it is the same network."""
    names = {
        "conv_stem": "features.0.0",
        "bn1": "features.0.1",
        "conv_head": "features.18.0",
        "bn2": "features.18.1",
    }
    first = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
    other = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1"}
    other |= {"conv_pwl": "2", "bn3": "3"}
    blocks_of_stages = (1, 2, 3, 4, 3, 3, 1)
    blocks = [(stage, i) for stage, count in enumerate(blocks_of_stages) for i in range(count)]
    for number, (stage, i) in enumerate(blocks, start=1):
        for theirs, ours in (first if number == 1 else other).items():
            names[f"blocks.{stage}.{i}.{theirs}"] = f"features.{number}.conv.{ours}"
    renamed = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{kind}"] = value
    return renamed


_TORCHVISION = {
    "mobilenet_v2": _Plan(
        _mobilenet_v2,
        TorchFile("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
        convert=_mobilenet_v2_from_timm,
    ),
    "inception_v3": _Plan(
        _inception_v3,
        TorchFile("https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"),
        # What its weights were trained with; torchvision recalculates ImageNet's to this.
        mean=HALF,
        std=HALF,
    ),
    "vgg16": _Plan(_vgg16, TorchFile("https://download.pytorch.org/models/vgg16-397923af.pth")),
}
"""With torchvision's ``IMAGENET1K_V1`` weights."""


def _timm_plan(name: str, size_px: int) -> _Plan:
    import timm

    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        architecture = name.partition(".")[0]
        raise _unknown(name, timm.list_pretrained(f"{architecture}.*")) from None
    # Transformers are built for one size; their weights are resampled to it.
    sized: dict[str, Any] = {"img_size": size_px} if config and config.fixed_input_size else {}

    def make() -> nn.Module:
        try:
            model = timm.create_model(name, pretrained=False, num_classes=0, **sized)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UsageError(
                f"The encoder {name} cannot be made for patches of {size_px} px: {error}",
                hint="Set another patches.size_px, or another network.encoder.",
            ) from error
        return model

    return _Plan(
        make,
        HubFile(*_repository(config.hf_hub_id)) if config and config.hf_hub_id else None,
        mean=cast(Triple, config.mean) if config else IMAGENET_MEAN,
        std=cast(Triple, config.std) if config else IMAGENET_STD,
        convert=_as_timm_converts,
    )


def _repository(hub_id: str) -> tuple[str, str | None]:
    name, _, revision = hub_id.partition("@")
    return name, revision or None


def _as_timm_converts(model: nn.Module, state: StateDict) -> StateDict:
    """Give older names and other sizes those of the model, as timm itself does on loading."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return cast(StateDict, convert(state, model)) if convert else state


class _DeepestFeatures(nn.Module):
    """An encoder of segmentation-models-pytorch, and the average of its deepest feature map."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, patches: Tensor) -> Tensor:
        return cast(Tensor, self.encoder(patches)[-1].mean(dim=(2, 3)))


def _smp_plan(name: str, settings: Mapping[str, Any]) -> _Plan:
    from segmentation_models_pytorch.encoders import get_encoder

    published = settings["pretrained_settings"].get(IMAGENET)
    half = name.startswith(SMP_HALF)
    return _Plan(
        lambda: _DeepestFeatures(get_encoder(name, weights=None)),
        HubFile(published["repo_id"], published["revision"]) if published else None,
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )
