"""SqueezeNet 1.0 as torchvision has it (Iandola et al., 2016), at any widths."""

from collections.abc import Sequence

from torch import nn

from ecc.networks import narrowed

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
FULL_WIDTHS = (96, *(w for squeeze, expand in FIRES for w in (squeeze, expand, expand)))
RESIDUAL = "prune"


def build(widths: Sequence[int], classes: int) -> nn.Module:
    """SqueezeNet with `widths` (25,): its first convolution, then three a fire module."""
    return narrowed.build(_full, classes, widths)


def _full(classes: int) -> nn.Module:
    import torchvision  # here: it takes a second or two

    network: nn.Module = torchvision.models.squeezenet1_0(weights=None, num_classes=classes)
    return network
