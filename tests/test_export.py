"""Exported networks: what comes back is what went out, what is not one of ours is refused."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors
import torch
import yaml
from safetensors.torch import save_file

import ecc
from ecc import export
from ecc.card import Facts, Images
from ecc.errors import UserError
from ecc.networks import ARCHITECTURES, Network

ROOT = Path(__file__).parents[1]
SIZES = {"alexnet": (64, 64), "alexnet_grouped": (67, 67), "erfnet": (16, 32)}
MANIFEST = {
    "name": "fractals",
    "source": "made by formula",
    "settings": {"kind": "fractals", "normalisation": "symmetric", "seed": 0},
    "classes": ["a", "b", "c", "d", "e"],
    "splits": {"train": {"images": 40, "sha256": "ab12"}},
}


def small(architecture):
    """A network with five classes that builds and runs in a moment."""
    multiplier = 1.0 if architecture == "erfnet" else 0.125
    return Network(architecture, 5, multiplier, size=SIZES.get(architecture, (32, 32)))


def narrow(network):
    """Widths (groups,) of about half the channels, not the same part of every group."""
    full = network.full_widths
    step = 2 if network.architecture == "alexnet_grouped" else 1  # two groups of channels each
    return (full // 2 - step * (np.arange(len(full)) % 2)).clip(step) // step * step


def slim(network):
    """A network at those widths, with weights and statistics as training leaves them."""
    torch.manual_seed(1)
    model = network.build(narrow(network)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return model


def facts(network, **changes):
    names = [group.name for group in network.structure.groups]
    widths = zip(names, narrow(network), network.full_widths, strict=True)
    given = {
        "groups": [{"name": n, "width": int(w), "full_width": int(f)} for n, w, f in widths],
        "method": "ecc",
        "platform": "jetson_tx2",
        "description": "an emulated Jetson TX2",
        "emulated": True,
        "metric": "energy_j",
        "accuracy": 0.8125,
        "accuracy_before_finetuning": 0.5,
        "dense_accuracy": 0.9,
        "budget_j": 0.0082,
        "dense_energy_j": 0.0123456,
        "modelled_energy_j": 0.0081,
        "measured_energy_j": 0.00813,
        "images": Images.from_manifest(MANIFEST),
        "settings": {"seed": 3, "method": {"method": "ecc", "rho1": 3.0}},
    }
    return Facts(**{**given, **changes})


@pytest.fixture(scope="module", params=["alexnet", "erfnet"])
def exported(request, tmp_path_factory):
    """(network, slim model, folder) of a classifier and of a network that segments."""
    network = small(request.param)
    model, folder = slim(network), tmp_path_factory.mktemp(request.param) / "to/take/away"
    export.export(folder, model, network, facts(network))
    return network, model, folder


def scores(model, network, count=2, images=None):
    if images is None:
        images = torch.randn(count, 3, *network.size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return images, model(images)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_comes_back_bit_by_bit(architecture, tmp_path):
    network = small(architecture)
    model = slim(network)
    export._save(tmp_path / export.WEIGHTS, model, network, facts(network))
    draws = torch.get_rng_state()
    again = ecc.load(tmp_path)
    assert torch.equal(draws, torch.get_rng_state())
    assert not again.training
    assert torch.equal(scores(again, network)[1], scores(model, network)[1])
    saved = export.describe(tmp_path)
    assert saved.network == network
    assert saved.widths == narrow(network).tolist()
    assert saved.classes == ["a", "b", "c", "d", "e"]
    assert saved.normalisation == {"mean": [0.5] * 3, "deviation": [0.5] * 3}


def test_all_forms_compute_the_same_in_any_batch(exported):
    network, model, folder = exported
    session = onnxruntime.InferenceSession(folder / export.ONNX)
    program = torch.export.load(folder / export.PROGRAM).module()
    for count in (1, 4):
        images, expected = scores(model, network, count)
        [found] = session.run(["scores"], {"images": images.numpy()})
        assert found.shape == expected.shape
        assert np.abs(found - expected.numpy()).max() <= export.TOLERANCE
        assert (program(images) - expected).abs().max() <= export.TOLERANCE
        assert torch.equal(ecc.load(folder / export.WEIGHTS)(images), expected)


def test_a_network_of_the_users_own_is_built_where_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "exported_own.py").write_text(
        "from torch import nn\n\n\n"
        "def build(num_classes, inner):\n"
        "    layers = nn.Conv2d(3, inner, 3), nn.BatchNorm2d(inner), nn.Conv2d(inner, 6, 3)\n"
        "    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes)\n"
        "    return nn.Sequential(*layers, nn.ReLU(), *pooled)\n"
    )
    network = Network("exported_own:build", 5, size=(16, 16), options={"inner": 8})
    model, folder = slim(network), tmp_path / "folder"
    folder.mkdir()
    export._save(folder / export.WEIGHTS, model, network, facts(network))
    with pytest.raises(UserError, match=r"exported_own:build, code outside of ecc: load it with"):
        ecc.load(folder)
    assert torch.equal(scores(ecc.load(folder, trust=True), network)[1], scores(model, network)[1])


def test_a_network_trained_in_another_layout_is_exported_in_torchs_own():
    network = small("mobilenet")
    model = slim(network)
    changed = copy.deepcopy(model).to(memory_format=torch.channels_last).train()
    plain = export.plain(changed)
    assert changed.training
    assert torch.equal(scores(plain, network)[1], scores(model, network)[1])


def test_card_has_front_matter_and_all_that_was_found(exported):
    network, _, folder = exported
    text = (folder / export.CARD).read_text()
    _, matter, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    matter = yaml.safe_load(matter)
    segments = network.architecture == "erfnet"
    score = "mean IoU" if segments else "accuracy"
    assert matter["license"] == "mit"
    assert matter["pipeline_tag"] == f"image-{'segmentation' if segments else 'classification'}"
    [result] = matter["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.8125
    assert f"| validation {score} | 0.9000 | 0.8125 |" in body
    assert "| energy, budget |  | 0.0082 J |" in body
    assert "| energy, measured | 0.01235 J | 0.00813 J |" in body
    assert "emulated: nothing was measured on hardware" in body
    for told in ("jetson", "rho1: 3.0", "seed: 3", "made by formula", "ab12", "40 train", "MIT"):
        assert told.lower() in body.lower()
    parameters = sum(p.numel() for p in ecc.load(folder).parameters())
    assert f"{parameters:,} |" in body
    for group, width in zip(network.structure.groups, narrow(network), strict=True):
        assert f"| `{group.name}` | {group.width} | {width} |" in body


def test_card_of_the_users_data_on_a_device_that_measures_latency():
    network = small("mobilenet")
    images = Images("folder", classes=["a", "b"])
    given = {"emulated": False, "metric": "latency_s", "measured_energy_j": None}
    text = export.card(
        facts(network, images=images, **given),
        network.structure,
        "mobilenet",
        (32, 32),
        "image-classification",
    )
    assert "license: other" in text
    assert "their terms hold" in text
    assert "| latency, budget |  | 0.0082 s |" in text
    assert "not measured |" in text
    assert "emulated" not in text.split("## Settings")[0].split("on an emulated")[0]


@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
def test_a_form_that_computes_something_else_is_not_written(tmp_path, monkeypatch, wrong):
    network = small("mobilenet")
    model = slim(network)
    monkeypatch.setattr(export, "_program", lambda *_: None)
    form = b"content", lambda images: scores(model, network, images=images)[1] + wrong
    monkeypatch.setattr(export, "_pt2", lambda _: form)
    monkeypatch.setattr(export, "_onnx", lambda _: form)
    with pytest.raises(UserError, match=r"model\.pt2 differs from PyTorch by .* not written"):
        export.export(tmp_path, model, network, facts(network))
    assert not (tmp_path / export.PROGRAM).exists()
    assert not (tmp_path / export.CARD).exists()


@pytest.fixture
def weights(tmp_path):
    """A function that writes a file of weights whose description is changed, and gives its path."""

    def write(change=lambda content: None):
        network, path = small("mobilenet"), tmp_path / export.WEIGHTS
        export._save(path, slim(network), network, facts(network))
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            content = json.loads(file.metadata()["ecc"])
        change(content)
        save_file(tensors, path, {"ecc": json.dumps(content)})
        return path

    return write


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "network format 2, this version of ecc reads 1"),
        ({"format": "another"}, "is no network that ecc exported"),
        ({"network": {"architecture": "lenet"}}, "unknown architecture 'lenet'"),
        ({"network": {"architecture": "os:system", "multiplier": 1.0}}, "os:system, code outside"),
        ({"network": {"colour": "red"}}, "is no network that ecc exported"),
        ({"network": {"options": {"colour": "red"}}}, "has no 'colour'"),
        ({"network": {"classes": 7}}, "does not fit its own widths"),
        ({"widths": [1, 2]}, "needs .* widths"),
        ({"widths": "many"}, "is no network that ecc exported"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_in_one_line(weights, change, words):
    path = weights(lambda content: content.update(merged(content, change)))
    with pytest.raises(UserError, match=words) as refused:
        ecc.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def merged(content, change):
    return {
        key: {**content[key], **value} if isinstance(value, dict) else value
        for key, value in change.items()
    }


def test_truncated_missing_and_foreign_files_are_refused(weights, tmp_path):
    path = weights()
    whole = path.read_bytes()
    for end in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
            ecc.load(path)
    path.write_bytes(b"PK\x03\x04 a pickle of someone's")
    with pytest.raises(UserError, match="truncated or not a safetensors file"):
        ecc.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="is no network that ecc exported"):
        ecc.load(path)
    with pytest.raises(UserError, match="is missing: name the folder"):
        ecc.load(tmp_path / "nowhere")


def test_importing_ecc_takes_neither_torch_nor_onnxruntime():
    code = "import sys, ecc; sys.exit(bool({'torch', 'onnxruntime', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    code = "import sys, ecc; ecc.load; sys.exit(bool({'onnxruntime', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    with pytest.raises(AttributeError, match="'ecc' has no attribute 'compres'"):
        ecc.compres  # noqa: B018
