"""ERFNet for segmentation (Romera et al., 2018), at any widths of its 51 inner layers.

Parameter names follow the authors' published checkpoints. The residual streams keep their widths,
as in the ECC paper: only the three inner widths of each of the 17 blocks are pruned.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FULL_WIDTHS = (64,) * 15 + (128,) * 24 + (64,) * 6 + (16,) * 6
RESIDUAL = "keep"


def build(widths: Sequence[int], classes: int, *, trunk: float = 1.0) -> nn.Module:
    """ERFNet with `widths` (51,): three inner widths a block, in forward order.

    `trunk` multiplies the residual streams' 16, 64 and 128 channels (at least 8), as the width
    multiplier does the inner widths.
    """
    return ERFNet(widths, classes, trunk)


def streams(trunk: float) -> tuple[int, int, int]:
    """Channels of the residual streams at 1/2, 1/4 and 1/8 of the image's size."""
    low, middle, high = (max(int(width * trunk), 8) for width in (16, 64, 128))
    return low, middle, high


class DownsamplerBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(torch.cat([self.conv(x), self.pool(x)], 1)))


class NonBottleneck1D(nn.Module):
    """Two factorised 3x3 convolutions around a residual of `channels`; `inner` three widths."""

    def __init__(self, channels: int, inner: Sequence[int], dropout: float, dilation: int):
        super().__init__()
        a, b, c = inner
        self.conv3x1_1 = nn.Conv2d(channels, a, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(a, b, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(b, eps=1e-3)
        vertical, horizontal = (dilation, 0), (0, dilation)
        self.conv3x1_2 = nn.Conv2d(b, c, (3, 1), padding=vertical, dilation=(dilation, 1))
        self.conv1x3_2 = nn.Conv2d(c, channels, (1, 3), padding=horizontal, dilation=(1, dilation))
        self.bn2 = nn.BatchNorm2d(channels, eps=1e-3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1x3_1(functional.relu(self.conv3x1_1(x)))))
        outer = self.bn2(self.conv1x3_2(functional.relu(self.conv3x1_2(inner))))
        return functional.relu(self.dropout(outer) + x)


class UpsamplerBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Encoder(nn.Module):
    def __init__(self, inner: Iterator[Sequence[int]], classes: int, trunk: float):
        super().__init__()
        low, middle, high = streams(trunk)
        self.initial_block = DownsamplerBlock(3, low)
        self.layers = nn.ModuleList([DownsamplerBlock(low, middle)])
        self.layers.extend(NonBottleneck1D(middle, next(inner), 0.03, 1) for _ in range(5))
        self.layers.append(DownsamplerBlock(middle, high))
        self.layers.extend(
            NonBottleneck1D(high, next(inner), 0.3, dilation) for dilation in (2, 4, 8, 16) * 2
        )
        # The authors pretrain the encoder through this head; the whole network does not use it,
        # but published checkpoints and parameter counts hold it.
        self.output_conv = nn.Conv2d(high, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.initial_block(images)
        for layer in self.layers:
            features = layer(features)
        return features


class Decoder(nn.Module):
    def __init__(self, inner: Iterator[Sequence[int]], classes: int, trunk: float):
        super().__init__()
        low, middle, high = streams(trunk)
        self.layers = nn.ModuleList([UpsamplerBlock(high, middle)])
        self.layers.extend(NonBottleneck1D(middle, next(inner), 0, 1) for _ in range(2))
        self.layers.append(UpsamplerBlock(middle, low))
        self.layers.extend(NonBottleneck1D(low, next(inner), 0, 1) for _ in range(2))
        self.output_conv = nn.ConvTranspose2d(low, classes, 2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = layer(features)
        scores: Tensor = self.output_conv(features)
        return scores


class ERFNet(nn.Module):
    """Images (batch, 3, H, W), H and W multiples of 8, to scores (batch, classes, H, W)."""

    def __init__(self, widths: Sequence[int], classes: int, trunk: float = 1.0):
        super().__init__()
        inner = iter([tuple(widths[i : i + 3]) for i in range(0, len(widths), 3)])
        self.encoder = Encoder(inner, classes, trunk)
        self.decoder = Decoder(inner, classes, trunk)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.decoder(self.encoder(images))
        return scores
