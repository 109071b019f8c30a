"""EAP's energy of dense networks by layer and data type, and networks compared."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from ecc.data.photographs import crops
from ecc.errors import UserError
from ecc.evidence import eap_layers
from ecc.evidence.eap_layers import PARTS
from ecc.finegrained import dense_layers
from ecc.networks import Network
from ecc.platforms.eyeriss import EYERISS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dense():
    """A small grouped AlexNet on an accelerator that shares weights among four images."""
    network = Network("alexnet_grouped", 10, 0.125, (64, 64))
    accelerator = replace(EYERISS, batch=4)
    images = crops((64, 64), 6, seed=0)
    return network, accelerator, images, dense_layers(network, accelerator, images, seed=0)


def test_energy_by_data_type_adds_up_and_zeros_save_some_of_it(dense):
    network, accelerator, _, layers = dense
    assert layers["operation"].tolist() == [op.name for op in network.structure.operations]
    parts = layers[list(PARTS)].sum(axis=1)
    assert np.allclose(parts, layers["energy_mac"])
    whole = accelerator.energy(network.structure, network.full_widths[None])[0]
    assert layers["dense_energy_mac"].sum() * accelerator.mac_j == pytest.approx(whole)
    # The image has no zeros; what follows a rectification has.
    assert (layers["input_density"][:2] == 1).all()
    assert layers["input_density"][2:].between(0.05, 0.95).all()
    assert (layers["energy_mac"][2:] < layers["dense_energy_mac"][2:]).all()
    assert np.allclose(layers["non_skipped_macs"], layers["macs"] * layers["input_density"])


def test_energy_by_layer_is_the_same_again(dense):
    network, accelerator, images, layers = dense
    assert dense_layers(network, accelerator, images, seed=0).equals(layers)


def test_batch_norms_of_untrained_networks_take_the_statistics_of_the_images():
    # With the statistics that layers are made with, activations of deep networks vanish or explode.
    network = Network("resnet50", 10, 0.125, (32, 32))
    layers = dense_layers(network, EYERISS, crops((32, 32), 8, seed=0), seed=0)
    assert layers["input_density"][1:].between(0.1, 0.995).all()


def test_networks_are_compared_with_what_is_published():
    layers = pd.DataFrame(
        {
            "network": ["alexnet_grouped"] * 2 + ["mine"],
            "kind": ["conv", "linear", "conv"],
            "weights": [1.0, 2.0, 4.0],
            "macs": [10.0, 20.0, 40.0],
            "non_skipped_macs": [5.0, 5.0, 5.0],
            "energy_mac": [3e9, 1e9, 2e9],
            "dense_energy_mac": [4e9, 1e9, 3e9],
            **dict.fromkeys(PARTS, 1.0),
        }
    )
    published = pd.read_csv(ROOT / "resources/published/paper_values.csv")
    table = eap_layers.networks(layers, published).set_index("network")
    assert table["weights"].to_dict() == {"alexnet_grouped": 3.0, "mine": 4.0}
    assert table["convolution_fraction"].tolist() == [0.75, 1.0]
    assert table["energy_over_first"].tolist() == [1.0, 0.5]
    assert table.loc["alexnet_grouped", "published_energy_mac"] == 3.97e9
    assert table.loc["alexnet_grouped", "relative_difference"] == pytest.approx(4 / 3.97 - 1)
    assert table.filter(like="published").loc["mine"].isna().all()
    for figure in (
        eap_layers.draw_layers(layers, "Eyeriss (estimated)"),
        eap_layers.draw_networks(table.reset_index(), "Eyeriss (estimated)"),
    ):
        assert figure.get_suptitle() == "Eyeriss (estimated)"


def test_results_of_eap_stand_beside_what_is_estimated_here():
    networks = pd.DataFrame(
        {
            "network": ["alexnet_grouped", "vgg16", "mine"],
            "weights": [6e7, 1.4e8, 1.0],
            "non_skipped_macs": [5e8, 8e9, 1.0],
            "energy_mac": [3e9, 5e10, 1.0],
        }
    )
    stated = pd.read_csv(ROOT / "resources/published/paper_values.csv")
    accuracies = pd.read_csv(ROOT / "resources/published/top5_accuracies.csv")
    table = eap_layers.results(networks, stated, accuracies).set_index(["network", "method"])
    assert table.index.get_level_values("method").tolist() == [
        *("dense", "deep_compression", "eap"),
        *("dense", "dense"),
    ]
    pruned = table.loc[("alexnet_grouped", "eap")]
    assert pruned["top5"] == 0.7956
    assert pruned["energy_mac_fraction"] == pytest.approx(1.06 / 3.97)
    assert pruned.filter(like="here_").isna().all()  # nothing was pruned here
    assert table.loc[("alexnet_grouped", "dense"), "here_energy_mac"] == 3e9
    assert table.loc[("vgg16", "dense"), ["top5", "energy_mac"]].isna().tolist() == [False, True]
    assert table.loc[("mine", "dense"), "top5_source"] == ""
    assert eap_layers.draw_results(table.reset_index(), "Eyeriss").axes[0].get_title() == "Eyeriss"


def test_accuracies_are_those_of_torchvision():
    for row in pd.read_csv(ROOT / "resources/published/top5_accuracies.csv").itertuples():
        package, weights = row.source.split()
        name, version = weights.split(".")
        known = getattr(torchvision.models, name)[version].meta["_metrics"]["ImageNet-1K"]
        assert package == "torchvision"
        assert row.top5 == pytest.approx(known["acc@5"] / 100)


def test_crops_are_normalised_and_too_large_ones_refused():
    images = crops((40, 30), 5, seed=1)
    assert images.shape == (5, 3, 40, 30)
    assert torch.allclose(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(images.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)
    assert torch.equal(images, crops((40, 30), 5, seed=1))
    with pytest.raises(UserError, match="500x40"):
        crops((500, 40), 1, seed=0)


@pytest.mark.parametrize(
    ("size", "words"), [((512, 1024), "512x1024 pixels"), ((64, 128), "ConvTranspose2d")]
)
def test_a_network_without_energy_by_layer_is_named(tmp_path, size, words):
    script = runpy.run_path(str(ROOT / "workflow_scripts/layer_energy.py"))
    erfnet = {"architecture": "erfnet", "classes": 20, "multiplier": 0.25, "size": size}
    with pytest.raises(UserError, match=rf"eap\.dense\.networks: mine: .*{words}"):
        script["layer_energy"](
            {"mine": erfnet}, {"kind": "eyeriss"}, 1, 2, 0, str(tmp_path / "layers.csv")
        )


def test_googlenet_costs_1_92_times_as_much_as_alexnet():
    """EAP's poster: 7.63e9 over 3.97e9. Both are between ours with all zeros skipped, and none."""
    accelerator, totals = replace(EYERISS, batch=48), []
    for architecture in ("alexnet_grouped", "googlenet"):
        network = Network(architecture, 1000)
        layers = dense_layers(network, accelerator, crops(network.size, 4, seed=0), seed=0)
        totals.append((layers["energy_mac"].sum(), layers["dense_energy_mac"].sum()))
        linear = layers["kind"] == "linear"
        assert layers["energy_mac"][~linear].sum() > layers["energy_mac"][linear].sum()
    (alexnet, alexnet_dense), (googlenet, googlenet_dense) = totals
    assert alexnet < 3.97e9 < alexnet_dense
    assert googlenet < 7.63e9 < googlenet_dense
    assert googlenet / alexnet == pytest.approx(1.92, rel=0.15)
