"""ResNet-50 as torchvision has it (He et al., CVPR 2016), at any widths.

The stride of a block is in its 3x3 convolution, not in the first 1x1 one as published.
"""

from collections.abc import Sequence

from torch import nn

from ecc.networks import narrowed

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # inner width, blocks; the stream is 4 times wider
FULL_WIDTHS = (64, *(w for s, n in STAGES for w in (s, s, 4 * s, *(s,) * (2 * n - 2))))
RESIDUAL = "prune"


def build(widths: Sequence[int], classes: int) -> nn.Module:
    """ResNet-50 with `widths` (37,): the stem's, two a block, and one a stage's residual stream,
    in the order of the first layer that writes it.
    """
    return narrowed.build(_full, classes, widths)


def _full(classes: int) -> nn.Module:
    import torchvision  # here: it takes a second or two

    network: nn.Module = torchvision.models.resnet50(weights=None, num_classes=classes)
    return network
