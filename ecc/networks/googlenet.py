"""GoogLeNet (Szegedy et al., CVPR 2015) without auxiliary classifiers, at any widths.

torchvision's, but that its branch of 3x3 convolutions has 5x5 ones as published: 6,990,272 weights.
Batch normalisation stands where the published network has biases.
"""

from collections.abc import Sequence

from torch import nn

from ecc.networks import narrowed

MODULES = (  # 1x1; 1x1, 3x3; 1x1, 5x5; 1x1 after pooling
    *((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    *((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)),
    *((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
    *((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
FULL_WIDTHS = (64, 64, 192, *(width for module in MODULES for width in module))
RESIDUAL = "prune"


def build(widths: Sequence[int], classes: int) -> nn.Module:
    """GoogLeNet with `widths` (57,): three of the stem, then six an inception module."""
    return narrowed.build(_full, classes, widths)


def _full(classes: int) -> nn.Module:
    from torchvision.models.googlenet import Inception, googlenet  # here: a second or two

    network: nn.Module = googlenet(
        weights=None, num_classes=classes, aux_logits=False, init_weights=False
    )
    for module in network.modules():
        if isinstance(module, Inception):
            narrow = module.branch3[1].conv
            module.branch3[1].conv = nn.Conv2d(
                narrow.in_channels, narrow.out_channels, 5, padding=2, bias=False
            )
    return network
