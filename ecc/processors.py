"""What training does otherwise on processors, around what torch 2.15 does badly there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ecc.channels import is_depthwise


def layout(model: nn.Module, channels_last: bool, device: torch.device) -> torch.memory_format:
    """Channels last where asked for; not on processors for strided 1x1 convolutions.

    There torch writes beyond its memory in their backward pass, and the process dies.
    """
    strided = any(
        isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1
        for layer in model.modules()
    )
    if not channels_last or (device.type == "cpu" and strided):
        return torch.contiguous_format
    return torch.channels_last


@contextmanager
def padded_beforehand(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Has depthwise convolutions pad maps smaller than their kernel by an operation of its own.

    The result is the same. With the padding left to the convolution, its backward pass on
    processors takes ten times as long: half of a training step of MobileNet on 32x32 images.
    """

    def choose(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kernel: Any = layer.kernel_size
        small = any(side < taps for side, taps in zip(inputs[0].shape[-2:], kernel, strict=True))
        layer.padding_mode = "constant" if small else "zeros"  # type: ignore[assignment]

    layers = [
        layer
        for layer in model.modules()
        if device.type == "cpu" and is_depthwise(layer) and layer.padding_mode == "zeros"
    ]
    hooks = [layer.register_forward_pre_hook(choose) for layer in layers]
    try:
        yield
    finally:
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            layer.padding_mode = "zeros"  # type: ignore[assignment]
