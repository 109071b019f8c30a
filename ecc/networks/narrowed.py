"""Architectures of torchvision at any widths: the full network is traced, and slimmed.

Nothing of an architecture is written down again but its widths. Parameter names are torchvision's.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import nn

from ecc.channels import Channels, trace
from ecc.errors import UserError

SIZE = (224, 224)  # of the trace; channels do not depend on it


def build(full: Callable[[int], nn.Module], classes: int, widths: Sequence[int]) -> nn.Module:
    """The network that `full(classes)` makes, at `widths` (groups,), freshly initialised.

    Weights are drawn as torchvision does for ResNet and VGG (He et al., ICCV 2015, by a layer's
    outputs; fully connected ones with a deviation of 0.01), after slimming, so that a narrow
    network is not a part of a wide one's draw. Raises UserError for widths above the full ones.
    """
    network, channels = _traced(full, classes)
    try:
        keep = channels.first(widths)
    except UserError as error:
        raise UserError(f"{error}: use a multiplier of at most 1") from error
    model = channels.slim(network, keep).to_empty(device="cpu").train()
    for module in model.modules():
        _initialise(module)
    return model


@cache
def _traced(full: Callable[[int], nn.Module], classes: int) -> tuple[nn.Module, Channels]:
    """The full network without memory for its weights, and its channels."""
    with torch.device("meta"):
        network = full(classes)
    return network, trace(network, SIZE)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
