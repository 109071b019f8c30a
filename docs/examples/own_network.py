"""A network of one's own, as own_network.yaml uses it: any torch network, written as usual.

Nothing of this project is needed here. Channels may meet in sums and concatenations.
"""

import torch
from torch import Tensor, nn


def build(num_classes: int, width: int = 32, blocks: int = 2) -> nn.Module:
    """`num_classes` is the number of outputs; the others are `options` of the configuration."""
    return Net(num_classes, width, blocks)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Block(nn.Module):
    """Two views of the input, 3x3 and 5x5, side by side, added to the input itself."""

    def __init__(self, width: int):
        super().__init__()
        self.near = convolution(width, width // 2, 3)
        self.far = convolution(width, width // 2, 5)
        self.joined = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        views = torch.cat([self.near(x), self.far(x)], 1)
        return torch.relu(x + self.joined(views))


class Net(nn.Module):
    """Images (batch, 3, height, width) to logits (batch, classes), at any height and width."""

    def __init__(self, classes: int, width: int, blocks: int):
        super().__init__()
        stages = [convolution(3, width, 3, stride=2)]
        for inputs in (width, 2 * width):
            stages += [Block(inputs) for _ in range(blocks)]
            stages.append(convolution(inputs, 2 * inputs, 3, stride=2))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stages(images).mean((2, 3)))
