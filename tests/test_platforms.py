"""Emulated platforms meet published energies, and behave as measurements and physics do."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecc import platforms
from ecc.errors import UserError
from ecc.networks import Network
from ecc.platforms import Deployed
from ecc.platforms.eyeriss import Eyeriss
from ecc.platforms.published_tx2 import CHAIN, COEFFICIENTS_J, CONSTANT_J
from ecc.structure import Group, Operation, Structure

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "resources" / "published"
DEVICES = ("gtx1080ti", "jetson_tx2")
ANCHORS = pd.read_csv(PUBLISHED / "paper_values.csv").query(
    "experiment == 'dense' and quantity == 'energy'"
)


@pytest.fixture(scope="module")
def networks():
    return {
        "alexnet": Network("alexnet", classes=1000).structure,
        "mobilenet": Network("mobilenet", classes=1001).structure,
        "erfnet": Network("erfnet", classes=20, size=(512, 1024)).structure,
    }


def draw(structure, count, seed=0):
    generator = np.random.default_rng(seed)
    shape = (count, len(structure.groups))
    return generator.integers(1, structure.full_widths, size=shape, endpoint=True)


def operation(name, kind, reads, writes, fixed=(0, 0), kernel=1, stride=1, sizes=(1, 1), **changes):
    square = {"kernel": kernel, "stride": stride, "in_size": sizes[0], "out_size": sizes[1]}
    values = {"columns": 1, "groups": 1, "bias": True, **changes}
    values |= {key: (value, value) for key, value in square.items()}
    return Operation(name, kind, reads, writes, *fixed, **values)


def eap_alexnet():
    """The AlexNet of EAP: convolutions 2, 4 and 5 in two groups."""
    wide = [
        operation("conv1", "conv", (), 0, (3, 0), 11, 4, (227, 55)),
        operation("conv2", "conv", (0,), 1, kernel=5, sizes=(27, 27), groups=2),
        operation("conv3", "conv", (1,), 2, kernel=3, sizes=(13, 13)),
        operation("conv4", "conv", (2,), 3, kernel=3, sizes=(13, 13), groups=2),
        operation("conv5", "conv", (3,), 4, kernel=3, sizes=(13, 13), groups=2),
        operation("fc6", "linear", (4,), 5, columns=36),
        operation("fc7", "linear", (5,), 6),
        operation("fc8", "linear", (6,), None, (0, 1000)),
    ]
    widths = (96, 256, 384, 384, 256, 4096, 4096)
    groups = tuple(Group(op.name, width) for op, width in zip(wide, widths, strict=False))
    return Structure(groups, tuple(wide), 3, 1000)


@pytest.mark.parametrize(
    "row", list(ANCHORS.itertuples()), ids=lambda row: f"{row.platform}-{row.network}"
)
def test_dense_energies_are_the_published_ones(networks, row):
    structure = networks[row.network]
    ours = platforms.get(row.platform).energy(structure, [structure.full_widths])
    assert ours == pytest.approx(row.value, rel=0.02)


def test_emulated_tx2_follows_the_published_alexnet_model(networks):
    structure = networks["alexnet"]
    widths = draw(structure, 10_000)
    published = platforms.get("published_tx2").energy(structure, widths)
    ours = platforms.get("jetson_tx2").energy(structure, widths)
    assert np.abs(ours / published - 1).mean() <= 0.10


@pytest.mark.parametrize(
    ("platform", "network", "budget_j"),
    [
        ("jetson_tx2", "mobilenet", 0.0247 / 2),
        ("jetson_tx2", "erfnet", 0.8542),
        ("gtx1080ti", "erfnet", 1.3843),
    ],
)
def test_tightest_published_budgets_are_reachable(networks, platform, network, budget_j):
    narrowest = np.ones((1, len(networks[network].groups)), dtype=int)
    assert platforms.get(platform).energy(networks[network], narrowest) < budget_j


@pytest.mark.parametrize("network", ["alexnet", "mobilenet", "erfnet"])
@pytest.mark.parametrize("platform", [*DEVICES, "eyeriss"])
def test_energy_never_falls_where_a_group_is_widened(networks, platform, network):
    structure = networks[network]
    narrow = draw(structure, 200)
    wider = narrow.copy()
    groups = np.arange(len(wider)) % narrow.shape[1]
    rows = np.arange(len(wider))
    wider[rows, groups] = np.random.default_rng(1).integers(
        narrow[rows, groups], structure.full_widths[groups], endpoint=True
    )
    device = platforms.get(platform)
    before, after = device.energy(structure, narrow), device.energy(structure, wider)
    assert (after >= before * (1 - 1e-12)).all()


@pytest.mark.parametrize("platform", DEVICES)
def test_causes_of_all_operations_add_up(networks, platform):
    structure = networks["mobilenet"]
    widths = draw(structure, 50)
    device = platforms.get(platform)
    parts = device.operations(structure, widths)
    assert all((part > 0).all() and part.shape == (50, 28) for part in parts.values())
    total = sum(part.sum(axis=1) for part in parts.values())
    np.testing.assert_allclose(total, device.energy(structure, widths), rtol=1e-12)


@pytest.mark.parametrize("platform", DEVICES)
def test_noise_is_one_percent_and_depends_on_seed_and_device_alone(networks, platform):
    network = Deployed(networks["alexnet"])
    widths = draw(network.structure, 10_000)
    device = platforms.get(platform)
    noise = device.measure(network, widths, seed=3) / device.energy(network.structure, widths) - 1
    assert noise.std() == pytest.approx(0.01, rel=0.05)
    assert abs(noise.mean()) < 5e-4
    np.testing.assert_array_equal(
        device.measure(network, widths, seed=3), device.measure(network, widths, seed=3)
    )
    assert (
        device.measure(network, widths, seed=4) != device.measure(network, widths, seed=3)
    ).all()


@pytest.mark.parametrize("platform", list(platforms.PLATFORMS))
def test_chunks_measure_what_one_call_measures(networks, platform):
    network = Deployed(networks["alexnet"])
    widths = draw(network.structure, 200)
    device = platforms.get(platform)
    whole = device.measure(network, widths, seed=7)
    chunks = [
        device.measure(network, widths[start:stop], seed=7, first=start)
        for start, stop in ((0, 1), (1, 70), (70, 200))
    ]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


@pytest.mark.parametrize(
    ("platform", "limit_s"), [("gtx1080ti", 1.0), ("jetson_tx2", 1.0), ("eyeriss", 20.0)]
)
def test_ten_thousand_mobilenets_are_measured_at_once(networks, platform, limit_s):
    network = Deployed(networks["mobilenet"])
    widths = draw(network.structure, 10_000)
    started = time.process_time()
    platforms.get(platform).measure(network, widths, seed=0)
    assert time.process_time() - started < limit_s


def test_published_model_gives_its_known_answers(networks):
    structure = networks["alexnet"]
    full = structure.full_widths
    energy = platforms.get("published_tx2").energy(structure, [full, np.ones_like(full), full // 2])
    assert [round(float(value), 6) for value in energy] == [0.049824, 0.002518, 0.015364]


def test_published_constants_are_those_of_the_recorded_file():
    table = pd.read_csv(PUBLISHED / "alexnet_tx2_energy_model.csv")
    assert table.coefficient_j.tolist() == [CONSTANT_J, *COEFFICIENTS_J]
    widths = [*table.input_width.dropna(), table.output_width.iloc[-1]]
    assert widths == list(CHAIN)


def test_published_model_refuses_another_network(networks):
    structure = networks["mobilenet"]
    with pytest.raises(UserError, match="AlexNet alone"):
        platforms.get("published_tx2").energy(structure, [structure.full_widths])


def test_eyeriss_of_one_weight_is_the_sum_of_its_accesses():
    one = Structure((), (operation("only", "linear", (), None, (1, 1)),), 1, 1)
    table = platforms.get("eyeriss").table(one, np.empty((1, 0)))
    # A value is read at all four levels; the sum of one product is only written to DRAM.
    found = {cause: part.item() for cause, part in table.items()}
    assert found == {"macs": 1, "inputs": 209, "weights": 209, "outputs": 200}


def test_eyeriss_is_near_eap_for_its_alexnet():
    structure = eap_alexnet()
    table = Eyeriss(batch=48).table(structure, [structure.full_widths])
    total = sum(part.sum() for part in table.values())
    # EAP skips zero activations, which are dense here: about half of the 7.2e8 MACs.
    assert 3.97e9 < total < 2 * 3.97e9
    assert table["macs"].sum() == 724_406_816
    by_operation = sum(table.values())[0]
    assert by_operation[:5].sum() > by_operation[5:].sum()
    single = platforms.get("eyeriss").table(structure, [structure.full_widths])
    assert single["weights"].sum() > 1.2e10


def test_eyeriss_names_the_operation_that_does_not_fit():
    huge = operation("wide", "conv", (), None, (1, 1), kernel=3, sizes=(100_000, 100_000))
    with pytest.raises(UserError, match="operation wide"):
        platforms.get("eyeriss").energy(Structure((), (huge,), 1, 1), np.empty((1, 0)))
    large = operation("large", "conv", (), None, (1, 1), kernel=200, sizes=(300, 101))
    with pytest.raises(UserError, match="kernel of 200x200"):
        platforms.get("eyeriss").energy(Structure((), (large,), 1, 1), np.empty((1, 0)))


@pytest.mark.parametrize("platform", list(platforms.PLATFORMS))
@pytest.mark.parametrize("wrong", [0, 65, 2.5, np.nan])
def test_impossible_widths_name_the_group(networks, platform, wrong):
    structure = networks["alexnet"]
    widths = structure.full_widths[None].astype(float)
    widths[0, 0] = wrong
    with pytest.raises(UserError, match=structure.groups[0].name):
        platforms.get(platform).measure(Deployed(structure), widths, seed=0)


def test_wrong_number_of_groups_is_refused(networks):
    with pytest.raises(UserError, match="7 columns"):
        platforms.get("jetson_tx2").measure(Deployed(networks["alexnet"]), [[1, 2]], seed=0)


def test_unknown_platform_lists_the_known_ones():
    with pytest.raises(UserError, match="gtx1080ti, jetson_tx2"):
        platforms.get("tpu")


def test_import_does_not_load_torch():
    code = "import sys, ecc.platforms; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
