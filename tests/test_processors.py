"""What training does otherwise on processors changes no result."""

import pytest
import torch
from torch import nn

from ecc.processors import padded_beforehand


@pytest.mark.parametrize("side", [1, 2, 3, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_beforehand_changes_neither_outputs_nor_gradients(side, stride):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, stride, 1, groups=8).to(memory_format=torch.channels_last)
    images = torch.randn(4, 8, side, side).requires_grad_()
    found = []
    for device in ("meta", "cpu"):  # left as it is, padded
        with padded_beforehand(nn.Sequential(layer), torch.device(device)):
            outputs = layer(images)
            assert layer.padding_mode == ("constant" if device == "cpu" and side < 3 else "zeros")
        gradients = torch.autograd.grad(outputs.square().sum(), [images, layer.weight, layer.bias])
        found.append([outputs, *gradients])
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)


def test_layers_come_back_as_they_were():
    depthwise, other = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 8, 3, 1, 1)
    mirrored = nn.Conv2d(8, 8, 3, 1, 1, groups=8, padding_mode="reflect")
    model = nn.Sequential(depthwise, other, mirrored)
    with pytest.raises(RuntimeError), padded_beforehand(model, torch.device("cpu")):
        model(torch.randn(1, 8, 1, 1))  # too small to be mirrored
    assert [layer.padding_mode for layer in model] == ["zeros", "zeros", "reflect"]
    assert not any(layer._forward_pre_hooks for layer in model)
