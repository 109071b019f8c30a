"""Networks of the user's own: six of torchvision's through all that is done, and refusals."""

import copy
import re
from functools import cached_property

import numpy as np
import pytest
import torch
from test_workflow import clone, planned, snakemake
from torch import nn

from ecc import energy
from ecc.channels import LAYERS
from ecc.errors import UserError
from ecc.methods import Problem, compress
from ecc.networks import Network
from ecc.platforms import Deployed, get
from ecc.structure import Structure
from ecc.tasks import CLASSIFICATION
from ecc.training import TrainingSettings

CLASSES = 4
DEPLOYED = (128, 128)  # where a budget of 0.6 can be reached by all six; images are smaller
GOOGLENET = {"aux_logits": False, "init_weights": False}
# name: (options, channel groups, operations)
TORCHVISION = {
    "resnet18": ({"weights": None}, 12, 21),
    "resnet50": ({}, 37, 54),
    "mobilenet_v2": ({}, 25, 53),
    "efficientnet_b0": ({}, 40, 82),
    "googlenet": (GOOGLENET, 57, 58),
    "densenet121": ({}, 120, 121),
}


class Subject:
    """One network with what is expensive to make, made once."""

    def __init__(self, name):
        options, self.groups, self.operations = TORCHVISION[name]
        self.network = Network(f"torchvision.models:{name}", CLASSES, 1.0, DEPLOYED, options)
        self.channels, self.structure = self.network.channels, self.network.structure
        torch.manual_seed(0)
        self.model = self.network.build().eval()
        randomise(self.model)

    @cached_property
    def fitted(self):
        """The energy model of 900 samples of an emulated device, and its error on 100 others."""
        device = get("jetson_tx2")
        samples = energy.sample(device, Deployed(self.structure), 1000, seed=0).samples
        widths, joules = samples.filter(like="width_").to_numpy(), samples["energy_j"].to_numpy()
        train, test = (widths[:900], joules[:900]), (widths[900:], joules[900:])
        model, _ = energy.fit("bilinear_graph", "nnls", self.structure, *train, {}, test=test)
        return model, energy.relative_error(model, *test)


class Noise:
    """A split of random images; what is learnt from it does not matter."""

    classes, task = CLASSES, CLASSIFICATION

    def __len__(self):
        return 8

    def batches(self, batch_size, seed, start=0):
        while True:
            yield torch.randn(batch_size, 3, 32, 32), torch.randint(CLASSES, (batch_size,))

    def ordered(self, batch_size):
        yield torch.randn(8, 3, 32, 32), torch.randint(CLASSES, (8,))


@pytest.fixture(scope="module", params=TORCHVISION)
def subject(request):
    return Subject(request.param)


def randomise(model):
    """As after a training, so that nothing is lost by being zero or one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def counted(model, size):
    """Multiply-accumulates of a network that runs, by its layers' own shapes; its parameters."""
    macs = []

    def count(layer, _, output):
        positions = output[0, 0].numel() if output.dim() == 4 else 1
        macs.append(layer.weight.numel() * positions)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, LAYERS)]
    with torch.no_grad():
        model(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return sum(macs), sum(parameter.numel() for parameter in model.parameters())


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_groups_and_operations_come_from_the_trace(subject):
    structure = subject.structure
    assert (len(structure.groups), len(structure.operations)) == (
        subject.groups,
        subject.operations,
    )
    # The classes alone are in no group: every other channel can go.
    assert [op.fixed_out for op in structure.operations if op.writes is None] == [CLASSES]
    assert np.array_equal(subject.network.full_widths, structure.full_widths)


def test_slim_equals_masked_and_is_counted_rightly(subject):
    channels, structure = subject.channels, subject.structure
    widths = np.random.default_rng(3).integers(1, structure.full_widths + 1)
    keep = [torch.zeros(group.width, dtype=torch.bool) for group in structure.groups]
    torch.manual_seed(1)
    for kept, width in zip(keep, widths, strict=True):
        kept[torch.randperm(len(kept))[: int(width)]] = True
    masked = copy.deepcopy(subject.model)
    channels.mask(masked, keep)
    slim = channels.slim(masked, keep)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        dense, expected, output = subject.model(images), masked(images), slim(images)
    assert (output - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (dense - expected).abs().max() > 1e-2 * expected.abs().max()
    assert np.array_equal(channels.count(masked), widths)
    macs, parameters = counted(slim, DEPLOYED)
    assert structure.macs(widths).sum() == macs
    assert structure.parameters(widths) == parameters
    assert shapes(subject.network.build(widths)) == shapes(slim)


def test_the_graph_form_fits_its_energy(subject):
    _, error = subject.fitted
    assert error < 0.015  # 1 % of noise alone leaves 0.008


def test_ecc_meets_a_budget(subject):
    model, _ = subject.fitted
    full = subject.structure.full_widths
    budget_j = 0.6 * float(model.energy(full))
    problem = Problem(
        dense=subject.model,
        channels=subject.channels,
        energy=model,
        budget_j=budget_j,
        train=Noise(),
        holdout=Noise(),
        training=TrainingSettings(iterations=4, batch_size=4, learning_rate=1e-3, device="cpu"),
    )
    compressed = compress("ecc", problem, {})
    assert problem.joules(compressed.widths) <= budget_j
    assert np.array_equal(subject.channels.count(compressed.model), compressed.widths)
    # It is the budget that is met, not undercut, and the device agrees.
    assert problem.joules(compressed.widths) > 0.8 * budget_j
    measured = get("jetson_tx2").energy(subject.structure, [full, compressed.widths])
    assert measured[1] / measured[0] == pytest.approx(0.6, rel=0.1)


HEAD = "import torch\nfrom torch import nn\n\n\n"
SMALL = (
    "def build(num_classes):\n"
    "    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), "
    "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
)
# A network by its layers and its forward, from which each case below differs.
NET = (
    "class Net(nn.Module):\n"
    "    def __init__(self, classes):\n"
    "        super().__init__()\n"
    "        self.first = nn.Conv2d(3, 8, 3, padding=1)\n"
    "        self.second = nn.Conv2d(8, 8, 3, padding=1)\n"
    "        self.norm, self.head = nn.GroupNorm(2, 8), nn.Linear(8, classes)\n"
    "        self.scale = nn.Parameter(torch.ones(8, 1, 1))\n\n"
    "    def forward(self, x):\n"
    "        {}\n\n\n"
    "def build(num_classes):\n"
    "    return Net(num_classes)\n"
)


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """A function that writes a module of the user's and gives the network that it builds."""
    monkeypatch.chdir(tmp_path)
    name = "own_" + re.sub(r"\W", "_", request.node.name)  # no other test has imported it

    def make(text, function="build", size=(32, 32), **options):
        (tmp_path / f"{name}.py").write_text(HEAD + text)
        return Network(f"{name}:{function}", CLASSES, 1.0, size, options)

    return make


def test_a_module_of_the_working_directory_is_enough(own):
    network = own(SMALL)
    assert network.full_widths.tolist() == [8]
    assert network.build([3])[0].out_channels == 3
    assert network.build()[4].out_features == CLASSES
    with pytest.raises(UserError, match="at most 8 channels, not 9"):
        network.build([9])


def test_random_numbers_of_a_caller_are_left_alone(own):
    network = own(SMALL)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert network.channels is network.channels
    assert torch.equal(torch.rand(3), expected)


def test_networks_without_values_are_built_for_sensors(own):
    network = own(SMALL)
    with torch.device("meta"):
        blank = network.build([3])
    assert {parameter.device.type for parameter in blank.parameters()} == {"meta"}
    assert shapes(blank) == shapes(network.build([3]))


def test_a_learned_scale_goes_with_its_channels(own):
    forward = "return self.head(self.second(torch.relu(self.first(x) * self.scale)).mean((2, 3)))"
    network = own(NET.format(forward).replace("nn.GroupNorm(2, 8)", "nn.Identity()"))
    assert [group.name for group in network.structure.groups] == ["first", "second"]
    slim = network.build([3, 5])
    assert slim.scale.shape == (3, 1, 1)
    assert counted(slim, (32, 32))[1] == network.structure.parameters([3, 5])


def test_channels_that_group_norm_sees_together_stay(own):
    forward = "return self.head(self.second(torch.relu(self.norm(self.first(x)))).mean((2, 3)))"
    structure = own(NET.format(forward)).structure
    assert [group.name for group in structure.groups] == ["second"]


def test_channels_of_a_convolution_in_groups_stay(own):
    grouped = SMALL.replace("nn.ReLU()", "nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 6, 1)")
    structure = own(grouped.replace("Linear(8,", "Linear(6,")).structure
    assert [group.width for group in structure.groups] == [6]


RAISES = "def build(num_classes, **options):\n    raise ValueError('too\\nmany')\n"
REFUSED = {
    "module": ("absent.sub:build", "there is no module 'absent' in {cwd} or among the installed"),
    "submodule": ("ecc.absent:build", "there is no module 'ecc.absent' in {cwd}"),
    "function": ("bild", SMALL, "{file} has no function 'bild': did you mean build?"),
    "import": ("build", "import absent_too\n", "imports 'absent_too', which is not installed"),
    "syntax": ("build", "def build(:\n", "importing {name} raised SyntaxError: invalid syntax"),
    "raises": ("build", RAISES, "build(num_classes=4) raised ValueError: too"),
    "keyword": ("build", "def build():\n    pass\n", "raised TypeError: build() got an unexpected"),
    "no network": ("build", "build = dict\n", "build returns a dict, not a torch.nn.Module"),
    "classes": ("build", SMALL.replace("num_classes)", "7)").replace("(7)", "(num_classes)"),
                "output for 2 images is (2, 7) while it is trained, not (2, 4), or that"),
    "maps": ("build", "def build(num_classes):\n    return nn.Conv2d(3, num_classes, 3)\n",
             "output for 2 images is (2, 4, 30, 30) while it is trained, not (2, 4), or that"),
    "outputs": ("build", NET.format("return {'logits': x}"),
                "returns a dict while it is trained, not one tensor (images, classes)"),
    "size": ("build", SMALL.replace("nn.AdaptiveAvgPool2d(1)", "nn.Conv2d(8, 8, 40), "
             "nn.AdaptiveAvgPool2d(1)"), "does not run at 32x32 (Calculated padded input size"),
    "values": ("build", NET.format("return self.head(x.mean((2, 3)) if x.sum() > 0 else x)"),
               "cannot be traced: does not run at 32x32"),
    "nothing": ("build", "def build(num_classes):\n    return nn.Sequential(nn.Flatten(), "
                "nn.Linear(3 * 32 * 32, num_classes))\n", "nothing to prune: no layer's channels"),
    "no layer": ("build", "def build(num_classes):\n    return nn.Sequential(nn.AvgPool2d(32), "
                 "nn.Flatten(), nn.BatchNorm1d(3), nn.ConstantPad1d((0, 1), 0.0))\n",
                 "nothing to prune: the network has no convolution"),
    "twice": ("build", NET.format("return self.head(self.second(self.second(self.first(x))"
              ").mean((2, 3)))"), "layer 'second' runs more than once"),
    "mixed": ("build", NET.format("return self.head(self.second(torch.relu(self.first(x)).softmax("
              "1)).mean((2, 3)))"), "channels cannot be removed, the output is another one then"),
    "fixed": ("build", NET.format("return self.head(self.second(self.first(x).reshape(-1, 8, 1024)"
              ".reshape(-1, 8, 32, 32)).mean((2, 3)))"), "channels cannot be removed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(case, own, tmp_path):
    *given, words = REFUSED[case]
    network = own(given[1], given[0]) if len(given) == 2 else Network(given[0], CLASSES)
    with pytest.raises(UserError) as raised:
        assert network.structure
    message, (name, _, _) = str(raised.value), network.architecture.partition(":")
    assert message.startswith(f"architecture {network.architecture}: ")
    assert words.format(cwd=tmp_path, file=tmp_path / f"{name}.py", name=name) in message
    assert "\n" not in message


def test_a_size_that_suits_is_named(own):
    flat = "nn.Flatten(), nn.Linear(8 * 64 * 64, num_classes)"
    text = SMALL.replace("nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)", flat)
    with pytest.raises(UserError, match="but at 64x64: set another deployment_size"):
        assert own(text).structure
    assert own(text, size=(64, 64)).full_widths.tolist() == [8]


def test_a_multiplier_is_refused():
    with pytest.raises(UserError, match=r"multiplier 0\.5: torchvision.models:resnet18 has full"):
        Network("torchvision.models:resnet18", CLASSES, 0.5)


def test_an_auxiliary_output_is_refused():
    options = {"init_weights": False}
    with pytest.raises(UserError, match="GoogLeNetOutputs while it is trained, not one tensor"):
        assert Network("torchvision.models:googlenet", CLASSES, 1.0, (64, 64), options).structure


def test_what_emulated_energies_leave_out_is_said(own, caplog):
    forward = "return self.head((self.second(self.first(x)).mean((2, 3)) @ self.mixing))"
    text = NET.format(forward).replace("self.scale = nn.Parameter(torch.ones(8, 1, 1))",
                                       "self.mixing = nn.Parameter(torch.ones(8, 8))")  # fmt: skip
    assert len(own(text).structure.groups)
    assert "the network (Net) is neither a convolution nor a fully connected" in caplog.text


EXAMPLE = ("--configfile", "docs/examples/own_network.yaml")


@pytest.mark.workflow
def test_the_workflow_traces_a_network_first_and_again_when_its_files_change(tmp_path):
    folder = clone(tmp_path)
    (folder / "mine").mkdir()
    (folder / "mine/parts.py").write_text(HEAD + SMALL)
    (folder / "mine/net.py").write_text("from .parts import build\n")
    overlay = "networks: {own: {architecture: 'mine.net:%s', deployment_size: [32, 32], options: "
    (folder / "mine.yaml").write_text(overlay % "build" + "{width: 8}}}")
    structure, dense = (f"results/own_network/{path}" for path in (
        "networks/own.json", "dense/mobilenet/model.safetensors"))  # fmt: skip
    code, output = snakemake(folder, *EXAMPLE, "mine.yaml", "--", dense)
    assert code == 1
    refused = "config key networks.own: architecture mine.net:build: build(num_classes=10, width=8)"
    assert f"{refused} raised TypeError" in output
    assert not (folder / dense).parent.exists()
    (folder / "mine/parts.py").write_text(
        HEAD + SMALL.replace("num_classes)", "num_classes, width)", 1)
    )
    code, output = snakemake(folder, *EXAMPLE, "mine.yaml", "--", structure)
    assert code == 0, output
    assert [group.width for group in Structure.read(folder / structure).groups] == [8]
    assert "trace_network" not in planned(snakemake(folder, *EXAMPLE, "mine.yaml", "-n")[1])
    with (folder / "mine/parts.py").open("a") as file:
        file.write("# edited\n")
    jobs = planned(snakemake(folder, *EXAMPLE, "mine.yaml", "-n")[1])
    assert jobs["trace_network"] == jobs["train_dense"] == jobs["tables"] == 1


@pytest.mark.workflow
def test_networks_of_torchvision_are_planned(tmp_path):
    folder = clone(tmp_path)
    (folder / "resnet.yaml").write_text(
        "networks: {own: {architecture: 'torchvision.models:resnet18', options: {width: null}}}"
    )
    code, output = snakemake(folder, *EXAMPLE, "resnet.yaml", "-n")
    assert code == 0, output
    assert planned(output)["trace_network"] == 1
    for change, words in (
        ("multiplier: 0.5", "config key networks.own.multiplier: 0.5 is not allowed (A network of"),
        ("architecture: 'resnet18:'", "config key networks.own.architecture: 'resnet18:' is not"),
        ("architecture: resnet18", "config key networks.own.architecture: 'resnet18' is unknown"),
    ):
        (folder / "wrong.yaml").write_text(f"networks: {{own: {{{change}}}}}")
        code, output = snakemake(folder, *EXAMPLE, "wrong.yaml", "-n")
        assert code == 1
        assert words in output.splitlines()[-1]
