"""MobileNet-v1 (Howard et al., 2017) with the constants of the authors' TensorFlow code.

Padding is TensorFlow's "SAME" (more at the bottom and right where it is odd), activations are
ReLU6, batch normalisation has epsilon 0.001 and, unless set otherwise, decay 0.9997.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

FULL_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
MINIMUM_WIDTH = 8  # the authors' `min_depth`: no multiplier makes a layer narrower
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
RESIDUAL = "prune"


def build(widths: Sequence[int], classes: int, *, batch_norm_momentum: float = 0.0003) -> nn.Module:
    """MobileNet-v1 with `widths` (14,): the stem's and the 13 pointwise convolutions' outputs.

    `batch_norm_momentum` is PyTorch's, one minus TensorFlow's decay; 0.0003 needs tens of
    thousands of steps before the running statistics can be used.
    """
    return MobileNet(widths, classes, batch_norm_momentum)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: output size is ceil(input / stride).

    With padding_mode "constant" the zeros are always an operation of their own.
    """

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        before_after = [_same_padding(size, kernel, stride) for size in input.shape[:1:-1]]
        even = all(before == after for before, after in before_after)
        if even and self.padding_mode == "zeros":
            (width, _), (height, _) = before_after
            return functional.conv2d(
                input, self.weight, self.bias, self.stride, (height, width), groups=self.groups
            )
        padded = functional.pad(input, [amount for pair in before_after for amount in pair])
        return functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, momentum: float, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=0.001, momentum=momentum),
        nn.ReLU6(inplace=True),
    )


class MobileNet(nn.Module):
    """Images (batch, 3, H, W) to logits (batch, classes)."""

    def __init__(self, widths: Sequence[int], classes: int, momentum: float):
        super().__init__()
        self.stem = _convolution(3, widths[0], 3, 2, momentum)
        self.blocks = nn.Sequential()
        for inputs, outputs, stride in zip(widths, widths[1:], STRIDES, strict=False):
            depthwise = _convolution(inputs, inputs, 3, stride, momentum, groups=inputs)
            pointwise = _convolution(inputs, outputs, 1, 1, momentum)
            self.blocks.append(nn.Sequential(depthwise, pointwise))
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(images))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits
