"""AlexNet as torchvision has it (Krizhevsky, 2014, "One weird trick"), at any widths.

Parameter names are torchvision's, so its weights load where all widths are full.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecc.errors import UserError

FULL_WIDTHS = (64, 192, 384, 256, 256, 4096, 4096)
RESIDUAL = "prune"
MINIMUM_SIZE = 63  # pixels; smaller images vanish in the pooling layers


def build(widths: Sequence[int], classes: int, *, dropout: float = 0.5) -> nn.Module:
    """AlexNet with `widths` (7,) output channels of its five convolutions, fc6 and fc7."""
    return AlexNet(widths, classes, dropout)


class AlexNet(nn.Module):
    """Images (batch, 3, H, W), H and W at least 63, to logits (batch, classes)."""

    def __init__(self, widths: Sequence[int], classes: int, dropout: float):
        super().__init__()
        w1, w2, w3, w4, w5, w6, w7 = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, w1, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(w1, w2, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(w2, w3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(w3, w4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(w4, w5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(w5 * 36, w6),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(w6, w7),
            nn.ReLU(inplace=True),
            nn.Linear(w7, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < MINIMUM_SIZE:
            height, width = images.shape[-2:]
            raise UserError(
                f"alexnet needs images of at least {MINIMUM_SIZE}x{MINIMUM_SIZE} pixels, not "
                f"{height}x{width}: raise the dataset's size, or the network's deployment_size"
            )
        features = self.avgpool(self.features(images))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits
