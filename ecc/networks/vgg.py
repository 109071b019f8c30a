"""VGG-16 without batch normalisation, as torchvision has it (Simonyan, Zisserman, ICLR 2015)."""

from collections.abc import Sequence

from torch import nn

from ecc.networks import narrowed

FULL_WIDTHS = (64, 64, 128, 128, *(256,) * 3, *(512,) * 6, 4096, 4096)
RESIDUAL = "prune"


def build(widths: Sequence[int], classes: int) -> nn.Module:
    """VGG-16 with `widths` (15,) outputs of its 13 convolutions, fc6 and fc7."""
    return narrowed.build(_full, classes, widths)


def _full(classes: int) -> nn.Module:
    import torchvision  # here: it takes a second or two

    network: nn.Module = torchvision.models.vgg16(weights=None, num_classes=classes)
    return network
