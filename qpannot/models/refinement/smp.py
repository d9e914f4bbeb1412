"""Any decoder with any encoder of segmentation-models-pytorch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qpannot.errors import UsageError
from qpannot.models.refinement.layers import Body, run
from qpannot.torchvision_import import import_torchvision

PREFIX = "smp:"


class SmpBody(Body):
    """A network of segmentation-models-pytorch, from random numbers.

    Parameters
    ----------
    design
        ``smp:decoder/encoder``, as in ``smp:unet/resnet18``; ``smp:fpn/tu-convnext_tiny`` takes
        an encoder of timm.

    Raises
    ------
    UsageError
        When there is no such decoder or encoder, or they do not fit each other or the images.
    """

    def __init__(self, design: str, channels: int, classes: int, size_px: int) -> None:
        super().__init__()
        import_torchvision()
        import segmentation_models_pytorch as smp

        decoder, separator, encoder = design.removeprefix(PREFIX).partition("/")
        if not separator or not encoder:
            raise UsageError(
                f"The design {design!r} names no decoder and encoder.",
                hint="Write smp:decoder/encoder, for example smp:unet/resnet18.",
            )
        if decoder not in smp.MODEL_ARCHITECTURES_MAPPING:
            raise _unknown("decoder", decoder, smp.MODEL_ARCHITECTURES_MAPPING)
        if not encoder.startswith("tu-") and encoder not in smp.encoders.encoders:
            raise _unknown("encoder", encoder, smp.encoders.encoders)
        try:
            self.model = smp.create_model(decoder, encoder, None, channels, classes)
        except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
            raise UsageError(
                f"{design} cannot be built for {channels} channels: {error}",
                hint="Use another encoder or decoder.",
            ) from error
        strict = self.model.requires_divisible_input_shape
        self.multiple = int(self.model.encoder.output_stride) if strict else 1
        for layer in self.model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_pre_hook(_normalise_by_what_is_known)
                layer.register_forward_hook(self._as_all_others, always_call=True)
        self._try(design, channels, classes, size_px)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits, (N, classes, H, W), as the only output."""
        return (run(self.model, images),)

    def _as_all_others(self, layer: nn.Module, *_: object) -> None:
        layer.training = self.training

    def _try(self, design: str, channels: int, classes: int, size_px: int) -> None:
        if size_px % self.multiple:
            return  # said for every design alike
        self.eval()
        # Without numbers: the shapes alone, in no time and no memory.
        numbers = {name: torch.empty_like(value, device="meta") for name, value in self._state()}
        images = torch.empty((1, channels, size_px, size_px), device="meta")
        try:
            with torch.no_grad():
                outputs = torch.func.functional_call(self, numbers, (images,))
        except NotImplementedError:
            return  # an operator that has no shapes of its own; only numbers would tell
        except (ValueError, RuntimeError, AssertionError) as error:
            raise UsageError(
                f"{design} cannot take images of {size_px} px: {error}",
                hint="Set another size, or use another encoder or decoder.",
            ) from error
        finally:
            self.train()
        if outputs[0].shape != (1, classes, size_px, size_px):
            raise UsageError(
                f"{design} makes maps of {outputs[0].shape[-1]} px from images of {size_px} px.",
                hint="Set another size, or use another encoder or decoder.",
            )

    def _state(self) -> Iterable[tuple[str, Tensor]]:
        yield from self.named_parameters()
        yield from self.named_buffers()


def _normalise_by_what_is_known(layer: nn.Module, inputs: tuple[Tensor]) -> None:
    # One value per channel has no spread: the last batch of an epoch, one slide, pooled.
    if inputs[0].numel() == inputs[0].shape[1]:
        layer.training = False


def _unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(nearest)}?" if nearest else f"There are {', '.join(names)}."
    return UsageError(f"segmentation-models-pytorch has no {kind} {name!r}.", hint=meant)
