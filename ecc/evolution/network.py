"""The torch network of an architecture that was evolved."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecc.evolution.genome import Architecture, Layer


class Evolved(nn.Module):
    """Images (batch, channels, height, width) of any size to logits (batch, classes)."""

    def __init__(self, architecture: Architecture, classes: int, image_channels: int = 3):
        super().__init__()
        self.features, inputs = nn.Sequential(), image_channels
        for layer in architecture.layers:
            self.features.append(_block(inputs, layer))
            if layer.pooling != "none":
                # Ceiling: an image of one pixel stays one.
                kind = nn.MaxPool2d if layer.pooling == "max" else nn.AvgPool2d
                self.features.append(kind(2, ceil_mode=True))
            inputs = layer.width
        self.classifier = nn.Sequential(nn.Dropout(architecture.dropout))
        if architecture.units:
            self.classifier += nn.Sequential(nn.Linear(inputs, architecture.units), nn.ReLU())
            inputs = architecture.units
        self.classifier.append(nn.Linear(inputs, classes))

    def forward(self, images: Tensor) -> Tensor:
        # The mean over positions: the fully connected layers are the same at every image size.
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits


class Residual(nn.Module):
    """A convolution beside a shortcut, which is a 1x1 convolution where shapes differ."""

    def __init__(self, inputs: int, layer: Layer):
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, layer.width, layer.kernel, layer.stride),
            nn.ReLU(),
            _convolution(layer.width, layer.width, layer.kernel, 1),
        )
        same = inputs == layer.width and layer.stride == 1
        self.shortcut = (
            nn.Identity() if same else _convolution(inputs, layer.width, 1, layer.stride)
        )

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.body(features) + self.shortcut(features))


def _block(inputs: int, layer: Layer) -> nn.Module:
    width, kernel, stride = layer.width, layer.kernel, layer.stride
    if layer.type == "residual":
        return Residual(inputs, layer)
    if layer.type == "separable":
        depthwise = _convolution(inputs, inputs, kernel, stride, groups=inputs)
        return nn.Sequential(depthwise, nn.ReLU(), _convolution(inputs, width, 1, 1), nn.ReLU())
    return nn.Sequential(_convolution(inputs, width, kernel, stride), nn.ReLU())


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def build(
    architecture: Architecture, classes: int, *, seed: int, image_channels: int = 3
) -> Evolved:
    """The network with initial weights that follow from the seed."""
    torch.manual_seed(seed)
    return Evolved(architecture, classes, image_channels)
