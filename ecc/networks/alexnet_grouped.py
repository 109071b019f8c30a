"""AlexNet as published (Krizhevsky et al., NIPS 2012; EAP's), at any widths.

Its convolutions in two groups are halves of their own, as they were on two GPUs, so that a channel
of one half can be dropped without one of the other. That makes two operations of every convolution
and of fc6. Local response normalisation is left out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FULL_WIDTHS = (48, 48, 128, 128, 192, 192, 192, 192, 128, 128, 4096, 4096)
RESIDUAL = "prune"


def build(widths: Sequence[int], classes: int, *, dropout: float = 0.5) -> nn.Module:
    """AlexNet with `widths` (12,) outputs of both halves of conv1 to conv5, of fc6 and fc7."""
    return GroupedAlexNet(widths, classes, dropout)


class Halves(nn.ModuleList):
    """Two convolutions of `inputs` to `outputs` channels each: two tensors to two."""

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        kernel: int,
        stride: int = 1,
        padding: int = 1,
    ):
        pairs = zip(inputs, outputs, strict=True)
        super().__init__(nn.Conv2d(i, o, kernel, stride, padding) for i, o in pairs)

    def forward(self, halves: Sequence[Tensor]) -> list[Tensor]:
        return [functional.relu(one(half)) for one, half in zip(self, halves, strict=True)]


class GroupedAlexNet(nn.Module):
    """Images (batch, 3, H, W), H and W at least 63, to logits (batch, classes)."""

    def __init__(self, widths: Sequence[int], classes: int, dropout: float):
        super().__init__()
        w1, w2, w3, w4, w5 = (widths[i : i + 2] for i in range(0, 10, 2))
        w6, w7 = widths[10:]
        self.conv1 = Halves((3, 3), w1, 11, stride=4, padding=2)
        self.conv2 = Halves(w1, w2, 5, padding=2)
        self.conv3 = Halves((sum(w2), sum(w2)), w3, 3)
        self.conv4 = Halves(w3, w4, 3)
        self.conv5 = Halves(w4, w5, 3)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.fit = nn.AdaptiveAvgPool2d((6, 6))
        # One layer; a trace of torch-pruning does not see through joining and flattening together.
        self.fc6 = nn.ModuleList([nn.Linear(w5[0] * 36, w6), nn.Linear(w5[1] * 36, w6, bias=False)])
        self.fc7 = nn.Linear(w6, w7)
        self.fc8 = nn.Linear(w7, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        halves = [self.pool(half) for half in self.conv1((images, images))]
        both = torch.cat([self.pool(half) for half in self.conv2(halves)], 1)
        halves = self.conv5(self.conv4(self.conv3((both, both))))
        flat = [torch.flatten(self.fit(self.pool(half)), 1) for half in halves]
        sums = [one(self.dropout(half)) for one, half in zip(self.fc6, flat, strict=True)]
        features = functional.relu(sums[0] + sums[1])
        logits: Tensor = self.fc8(self.dropout(functional.relu(self.fc7(features))))
        return logits
