"""Networks: published parameters and MACs, any widths, TensorFlow's padding, known weights."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from ecc.errors import UserError
from ecc.networks import Network
from ecc.networks.mobilenet import SameConv2d

# AMC's MobileNet (He et al., ECCV 2018) without the image's 3 channels.
AMC = (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752)

# Small enough to build in milliseconds; ERFNet has no multiplier of its own and is small anyway.
SMALL = {
    "alexnet": Network("alexnet", 10, 0.125, (64, 64)),
    "mobilenet": Network("mobilenet", 10, 0.25, (32, 32)),
    "erfnet": Network("erfnet", 5, 0.5, (32, 48)),
    "alexnet_grouped": Network("alexnet_grouped", 10, 0.125, (64, 64)),
    "googlenet": Network("googlenet", 10, 0.25, (64, 64)),
    "resnet50": Network("resnet50", 10, 0.125, (32, 32)),
    "squeezenet": Network("squeezenet", 10, 0.25, (32, 32)),
    "vgg16": Network("vgg16", 10, 0.0625, (32, 32)),
}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("architecture", "classes", "multiplier", "size", "expected_parameters", "expected_macs"),
    [
        ("alexnet", 1000, 1.0, (224, 224), 61_100_840, 714_188_480),
        ("mobilenet", 1000, 1.0, (224, 224), 4_231_976, 568_740_352),
        ("mobilenet", 1000, 0.75, (224, 224), None, 325_400_448),
        ("mobilenet", 1000, 0.5, (224, 224), None, 149_497_088),
        ("erfnet", 20, 1.0, (512, 1024), 2_066_836, 26_612_727_808),
        # Weights and biases as torchvision states them (GoogLeNet: below).
        ("squeezenet", 1000, 1.0, (224, 224), 1_248_424, 818_924_576),
        ("vgg16", 1000, 1.0, (224, 224), 138_357_544, 15_470_264_320),
        ("resnet50", 1000, 1.0, (224, 224), 25_557_032, 4_089_184_256),
    ],
)
def test_known_answers(architecture, classes, multiplier, size, expected_parameters, expected_macs):
    network = Network(architecture, classes, multiplier, size)
    assert network.structure.macs().sum() == expected_macs
    assert network.structure.classes == classes
    assert np.array_equal(network.structure.full_widths, network.full_widths)
    if expected_parameters is not None:
        assert parameters(network.build()) == expected_parameters


def test_known_answer_of_amc():
    network = Network("mobilenet", 1000)
    assert network.structure.macs(AMC).sum() == 293_870_000
    assert parameters(network.build(AMC)) == 2_408_232


@pytest.mark.parametrize(
    ("architecture", "weights", "macs"),
    [
        ("alexnet_grouped", 60_954_656, 724_406_816),
        ("googlenet", 6_990_272, 1_582_671_872),
    ],
)
def test_known_answers_of_eap(architecture, weights, macs):
    structure = Network(architecture, 1000).structure
    assert structure.weights().sum() == weights
    assert structure.macs().sum() == macs


@pytest.mark.parametrize("name", SMALL)
def test_built_at_any_widths_is_the_slimmed_network(name):
    network = SMALL[name]
    generator = np.random.default_rng(1)
    for _ in range(2):
        widths = generator.integers(1, network.full_widths + 1)
        model = network.build()
        keep = network.channels.keep_largest(model, widths)
        network.channels.mask(model, keep)
        assert shapes(network.build(widths)) == shapes(network.channels.slim(model, keep))


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_the_structure_are_the_parameters_that_are_built(name):
    network = SMALL[name]
    widths = np.random.default_rng(2).integers(1, network.full_widths + 1)
    model = network.build(widths)
    layers = [
        m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    unused = {"erfnet": 128 * network.classes}.get(name, 0)  # the encoder's own head
    built = sum(layer.weight.numel() for layer in layers)
    assert network.structure.weights(widths).sum() == built - unused


def test_weights_of_torchvision_load_into_alexnet():
    theirs = torchvision.models.alexnet(weights=None, num_classes=7).eval()
    ours = Network("alexnet", 7).build().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "output"),
    [
        # TensorFlow's "SAME": the odd pixel is added at the bottom and the right.
        (8, 3, 2, (0, 1), 4),
        (7, 3, 2, (1, 1), 4),
        (8, 3, 1, (1, 1), 8),
        (7, 1, 1, (0, 0), 7),
        (6, 5, 3, (1, 1), 2),
        (9, 2, 2, (0, 1), 5),
        (5, 1, 3, (0, 0), 2),
    ],
)
def test_same_padding(size, kernel, stride, padding, output):
    convolution = SameConv2d(2, 3, kernel, stride)
    images = torch.randn(1, 2, size, 8)
    # The other side is padded by its own size, so that the two cannot be swapped unseen.
    expected_width = -(-8 // stride)
    total = max((expected_width - 1) * stride + kernel - 8, 0)
    padded = functional.pad(images, (total // 2, total - total // 2, *padding))
    expected = functional.conv2d(padded, convolution.weight, convolution.bias, stride)
    result = convolution(images)
    assert result.shape[2:] == (output, expected_width)
    assert torch.allclose(result, expected, atol=1e-6)


def test_batch_norm_constants():
    def constants(model, name):
        found = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        return {getattr(m, name) for m in found}

    mobilenet = SMALL["mobilenet"].build()
    assert constants(mobilenet, "eps") == {0.001}
    assert constants(mobilenet, "momentum") == {0.0003}
    assert constants(SMALL["erfnet"].build(), "eps") == {0.001}
    faster = Network("mobilenet", 10, 0.25, options={"batch_norm_momentum": 0.1})
    assert constants(faster.build(), "momentum") == {0.1}


def test_no_multiplier_makes_mobilenet_narrower_than_its_minimum():
    assert Network("mobilenet", 10, 0.125).full_widths.tolist() == [
        8, 8, 16, 16, 32, 32, 64, 64, 64, 64, 64, 64, 128, 128
    ]  # fmt: skip
    assert Network("alexnet", 10, 0.001).full_widths.min() == 1


def test_dropout_is_a_setting_of_alexnet():
    model = Network("alexnet", 10, 0.125, options={"dropout": 0.2}).build()
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.2}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Network("vgg", 10), "vgg.*alexnet, alexnet_grouped, erfnet"),
        (lambda: Network("alexnet", 10, 0.1, options={"dropuot": 0.5}).build(), "dropuot"),
        (lambda: Network("alexnet", 10, 0.1, options={"dropout": 2.0}).build(), "dropout"),
        (lambda: Network("alexnet", 10, 0.1).build([1, 2, 3]), "needs 7 widths"),
        (lambda: Network("alexnet", 10, 0.1).build([0, 1, 1, 1, 1, 1, 1]), "at least 1"),
        (lambda: Network("alexnet", 10, 0.1, (32, 32)).structure, "32x32"),
        (lambda: Network("squeezenet", 10, 2.0).build(), "at most 96 channels"),
    ],
    ids=["architecture", "option", "value", "count", "zero", "size", "multiplier"],
)
def test_what_cannot_be_built_is_named_in_one_line(make, named):
    with pytest.raises(UserError, match=named) as raised:
        make()
    assert "\n" not in str(raised.value)
