"""Channel groups: slim equals masked, counts equal widths, any network groups as it should."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from ecc.channels import Channels, trace, widths_of
from ecc.errors import UserError
from ecc.networks import Network


class Branches(nn.Module):
    """A concatenation, a residual addition after it, a transposed convolution and a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.inner = nn.Conv2d(10, 5, 3, padding=1)
        self.outer = nn.Conv2d(5, 7, 3, padding=1)
        self.skip = nn.Conv2d(10, 7, 1)
        self.up = nn.ConvTranspose2d(7, 3, 2, stride=2)
        self.head = nn.Linear(3 * 16, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.norm(torch.cat([self.left(images), self.right(images)], 1)))
        x = torch.relu(self.outer(torch.relu(self.inner(x))) + self.skip(x))
        logits: Tensor = self.head(torch.relu(self.up(x)).flatten(1))
        return logits


# name: (builder, image size, image channels, residual)
NETWORKS = {
    "alexnet": (Network("alexnet", 10, 0.125).build, (64, 64), 3, "prune"),
    "mobilenet": (Network("mobilenet", 10, 0.25).build, (32, 32), 3, "prune"),
    "erfnet": (Network("erfnet", 5).build, (32, 64), 3, "keep"),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), (32, 32), 3, "prune"),
    "resnet18_kept": (lambda: torchvision.models.resnet18(num_classes=10), (32, 32), 3, "keep"),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), (32, 32), 3, "prune"),
    "branches": (Branches, (2, 2), 1, "prune"),
}


def randomise(model):
    """Biases, and batch norms as after a training, so that nothing is lost by being zero or one."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, 0, 0.2)
    return model


@pytest.fixture(scope="module", params=NETWORKS)
def traced(request):
    build, size, image_channels, residual = NETWORKS[request.param]
    torch.manual_seed(0)
    model = randomise(build()).eval()
    channels = trace(model, size, residual=residual, image_channels=image_channels)
    return model, channels, size, image_channels, residual


def masked_copy(model, channels, keep):
    masked = copy.deepcopy(model)
    channels.mask(masked, keep)
    return masked


def random_keep(full, kind):
    keep = []
    for width in full:
        kept = torch.rand(int(width)) < torch.rand(1)
        if kind == "one channel":
            kept[:] = False
        kept[torch.randint(int(width), (1,))] = True
        keep.append(kept)
    return keep


@pytest.mark.parametrize("kind", ["random", "one channel"])
def test_slim_equals_masked(traced, kind):
    model, channels, size, image_channels, residual = traced
    torch.manual_seed(1)
    keep = random_keep(channels.structure.full_widths, kind)
    masked = masked_copy(model, channels, keep)
    slim = channels.slim(masked, keep)
    images = torch.randn(2, image_channels, *size)
    with torch.no_grad():
        expected, result, dense = masked(images), slim(images), model(images)
    scale = expected.abs().max()
    assert (result - expected).abs().max() <= 1e-5 * scale
    assert (dense - expected).abs().max() > 1e-2 * scale
    # The channels that are counted, and the arithmetic that is left, are what the widths say.
    widths = widths_of(keep)
    assert np.array_equal(channels.count(masked), widths)
    own = trace(slim, size, residual=residual, image_channels=image_channels).structure
    assert own.macs().tolist() == channels.structure.macs(widths).tolist()
    assert own.weights().tolist() == channels.structure.weights(widths).tolist()


def test_slimming_leaves_the_masked_network_alone(traced):
    model, channels, *_ = traced
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    channels.slim(model, channels.keep_largest(model, channels.structure.full_widths // 2 + 1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_kept_are_those_that_were_masked(traced):
    model, channels, *_ = traced
    torch.manual_seed(2)
    keep = random_keep(channels.structure.full_widths, "random")
    kept = channels.kept(masked_copy(model, channels, keep))
    assert all(torch.equal(a, b) for a, b in zip(kept, keep, strict=True))


def test_losing_every_channel_of_a_group_is_refused(traced):
    model, channels, *_ = traced
    keep = [torch.ones(int(width), dtype=torch.bool) for width in channels.structure.full_widths]
    keep[-1][:] = False
    name = channels.structure.groups[-1].name
    with pytest.raises(UserError, match=f"'{name}' would lose all"):
        channels.slim(model, keep)


def groups_of(name):
    build, size, image_channels, residual = NETWORKS[name]
    return trace(build(), size, residual=residual, image_channels=image_channels).structure


def test_erfnet_keeps_its_residual_streams():
    structure = groups_of("erfnet")
    assert structure.full_widths.tolist() == [64] * 15 + [128] * 24 + [64] * 6 + [16] * 6
    assert [group.name.split(".")[-1] for group in structure.groups[:3]] == [
        "conv3x1_1", "conv1x3_1", "conv3x1_2"
    ]  # fmt: skip


def test_residual_channels_are_one_group_or_none():
    pruned, kept = groups_of("resnet18"), groups_of("resnet18_kept")
    # Four residual streams, the first with the stem in it, and the inside of eight blocks.
    assert len(pruned.groups) == 12
    assert [group.name for group in kept.groups] == [
        f"layer{stage}.{block}.conv1" for stage in range(1, 5) for block in range(2)
    ]


def test_concatenation_is_read_as_two_groups():
    structure = groups_of("branches")
    operations = {operation.name: operation for operation in structure.operations}
    left, right = (operations[name].writes for name in ("left", "right"))
    assert {*operations["inner"].reads} == {*operations["skip"].reads} == {left, right}
    assert operations["outer"].writes == operations["skip"].writes
    assert operations["head"].columns == 16


def test_depthwise_kernels_go_with_their_channel():
    structure = groups_of("mobilenet")
    for operation in structure.operations:
        if operation.kind == "depthwise":
            assert operation.reads == (operation.writes,)


def test_columns_of_a_flattened_channel_go_together():
    network = Network("alexnet", 10, 0.125, (64, 64))
    model = network.build()
    keep = [torch.ones(int(width), dtype=torch.bool) for width in network.full_widths]
    keep[4][3] = False
    network.channels.mask(model, keep)
    zero = torch.nonzero((model.classifier[1].weight == 0).all(dim=0)).flatten()
    assert zero.tolist() == list(range(3 * 36, 4 * 36))


def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3))
    return model, trace(model, (8, 8))


def test_norms_are_those_of_the_columns():
    model, channels = small()
    expected = model[2].weight.detach().pow(2).sum(dim=(0, 2, 3)).sqrt()
    assert torch.allclose(channels.norms(model)[0], expected)
    (keep,) = channels.keep_largest(model, [2])
    assert set(torch.nonzero(keep).flatten().tolist()) == set(expected.topk(2).indices.tolist())


def test_equal_norms_keep_the_first_channels():
    model, channels = small()
    nn.init.ones_(model[2].weight)
    (keep,) = channels.keep_largest(model, [3])
    assert keep.tolist() == [True] * 3 + [False] * 3


def test_a_channel_comes_back_with_its_weights():
    model, channels = small()
    (keep,) = channels.keep_largest(model, [3])
    channels.mask(model, [keep])
    assert channels.count(model).tolist() == [3]
    with torch.no_grad():
        model[2].weight[:, ~keep] = 1e-20
    assert channels.count(model).tolist() == [6]


def test_depthwise_kernel_alone_does_not_drop_a_channel():
    network = Network("mobilenet", 10, 0.25, (32, 32))
    model = network.build()
    with torch.no_grad():
        model.blocks[0][0][0].weight[0] = 0
    assert np.array_equal(network.channels.count(model), network.full_widths)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        raise ValueError("several\nlines")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "nothing to prune"),
        (nn.Sequential(nn.ReLU()), "cannot be traced|nothing to prune"),
        (Untraceable(), "cannot be traced at 8x8"),
        (nn.Sequential(nn.Conv2d(3, 4, 9), nn.Conv2d(4, 4, 1)), "cannot be traced at 8x8"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(5, 2)), "cannot be traced"),
    ],
    ids=["one layer", "no layer", "raises", "too small", "shapes"],
)
def test_a_network_without_groups_is_refused_in_one_line(model, named):
    with pytest.raises(UserError, match=named) as raised:
        trace(model, (8, 8))
    assert "\n" not in str(raised.value)


def test_tracing_leaves_the_network_alone():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 3))
    assert isinstance(trace(model, (8, 8)), Channels)
    assert model.training
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
