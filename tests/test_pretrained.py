"""Published weights: every layout that is read gives the same network, all else is refused."""

import pickle
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from train_dense import train_dense

from ecc import data, runs
from ecc.errors import UserError
from ecc.networks import Network
from ecc.networks.pretrained import load_published
from ecc.training import evaluate

MOBILENET = Network("mobilenet", 11, 0.25, (32, 32))
ERFNET = Network("erfnet", 20, 0.25, (32, 64), {"trunk": 0.25})


def filled(network, seed=0):
    """A network whose statistics and weights all differ from those of a fresh one."""
    torch.manual_seed(seed)
    model = network.build().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model


def tensorflow_names(model):
    """The model's tensors as the authors' checkpoint has them."""
    arrays = {"global_step": np.array(3)}
    rename = {"weight": "gamma", "bias": "beta"}
    rename |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    for name, tensor in model.state_dict().items():
        path = name.split(".")
        if path[-1] == "num_batches_tracked":
            continue
        if path[0] == "classifier":
            own = "MobilenetV1/Logits/Conv2d_1c_1x1/"
            if path[1] == "weight":
                arrays[own + "weights"] = tensor.T[None, None].numpy()
            else:
                arrays[own + "biases"] = tensor.numpy()
            continue
        stem = path[0] == "stem"
        kind = "" if stem else ("_depthwise", "_pointwise")[int(path[2])]
        layer = f"MobilenetV1/Conv2d_{0 if stem else int(path[1]) + 1}{kind}/"
        if path[-2] == "1":
            arrays[layer + "BatchNorm/" + rename[path[-1]]] = tensor.numpy()
        elif kind == "_depthwise":
            arrays[layer + "depthwise_weights"] = tensor.permute(2, 3, 0, 1).numpy()
            arrays[layer + "depthwise_weights/RMSProp"] = tensor.permute(2, 3, 0, 1).numpy()
        else:
            arrays[layer + "weights"] = tensor.permute(2, 3, 1, 0).numpy()
    return arrays


def hugging_face_names(model):
    found = {}
    for name, tensor in model.state_dict().items():
        path = name.split(".")
        if path[0] != "classifier":
            part = ("convolution", "normalization")[int(path[-2])]
            number = None if path[0] == "stem" else 2 * int(path[1]) + int(path[2])
            layer = "conv_stem" if number is None else f"layer.{number}"
            name = f"mobilenet_v1.{layer}.{part}.{path[-1]}"
        found[name] = tensor.contiguous()
    return found


def same_outputs(network, one, other):
    images = torch.randn(2, 3, *network.size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.equal(one(images), other.eval()(images))


def write_npz(model, folder):
    path = folder / "mobilenet.npz"
    np.savez(path, **tensorflow_names(model))
    return path


def write_hugging_face(model, folder):
    path = folder / "model.safetensors"
    save_file(hugging_face_names(model), path)
    return path


def write_parallel(model, folder):
    path = folder / "weights.pth"
    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, path)
    return path


def write_nested(model, folder):
    path = folder / "checkpoint.pth.tar"
    torch.save({"epoch": 149, "state_dict": model.state_dict()}, path)
    return path


@pytest.mark.parametrize("write", [write_npz, write_hugging_face, write_parallel, write_nested])
def test_mobilenet_comes_back_from_every_layout(tmp_path, write):
    model = filled(MOBILENET)
    loaded = load_published(write(model, tmp_path), "mobilenet", MOBILENET.build())
    assert same_outputs(MOBILENET, model, loaded)


@pytest.mark.parametrize("write", [write_parallel, write_nested])
def test_erfnet_has_its_authors_names(tmp_path, write):
    model = filled(ERFNET)
    loaded = load_published(write(model, tmp_path), "erfnet", ERFNET.build())
    assert same_outputs(ERFNET, model, loaded)
    names = set(model.state_dict())
    assert {"encoder.initial_block.conv.weight", "encoder.layers.1.conv3x1_1.weight"} <= names
    assert {"encoder.output_conv.weight", "decoder.layers.0.bn.running_var"} <= names


@pytest.mark.parametrize("architecture", ["alexnet", "vgg16", "squeezenet", "resnet50"])
def test_torchvisions_names_are_ours(tmp_path, architecture):
    network = Network(architecture, 7, 1.0, (64, 64))
    own = {"squeezenet": "squeezenet1_0"}.get(architecture, architecture)
    published = getattr(torchvision.models, own)(weights=None, num_classes=7)
    ours = network.build().state_dict()
    assert {name: tensor.shape for name, tensor in published.state_dict().items()} == {
        name: tensor.shape for name, tensor in ours.items()
    }


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("write", [write_npz, write_hugging_face, write_parallel])
def test_a_truncated_file_is_named(tmp_path, write):
    path = write(filled(MOBILENET), tmp_path)
    cut(path)
    with pytest.raises(UserError, match=rf"{path.name} is (truncated|no file)") as caught:
        load_published(path, "mobilenet", MOBILENET.build())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"some text", bytes(range(256)) * 4, b"\x80\x02}q\x00."])
def test_what_is_no_file_of_weights_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.\w+ (is|has|holds)") as caught:
        load_published(path, "mobilenet", MOBILENET.build())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [10, 50, 100, 300, 5000])
def test_files_of_the_old_format_may_end_anywhere(tmp_path, length):
    path = tmp_path / "weights.pth"
    torch.save(MOBILENET.build().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"weights\.pth is"):
        load_published(path, "mobilenet", MOBILENET.build())


def test_torchvisions_googlenet_is_another_one(tmp_path):
    published = torchvision.models.googlenet(weights=None, num_classes=5, init_weights=False)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    network = Network("googlenet", 5, 1.0, (64, 64))
    with pytest.raises(UserError, match=r"5x5; take it as it is by architecture: torchvision"):
        load_published(tmp_path / "weights.pth", "googlenet", network.build())


def test_another_networks_weights_are_refused(tmp_path):
    path = write_parallel(filled(ERFNET), tmp_path)
    with pytest.raises(UserError, match=r"has no stem.0.weight: these are weights of another"):
        load_published(path, "mobilenet", MOBILENET.build())
    more = {**MOBILENET.build().state_dict(), "head.weight": torch.ones(2)}
    torch.save(more, path)
    with pytest.raises(UserError, match=r"has head.weight, which the network has not"):
        load_published(path, "mobilenet", MOBILENET.build())


def test_other_widths_and_classes_are_refused(tmp_path):
    path = write_npz(filled(Network("mobilenet", 12, 0.25, (32, 32))), tmp_path)
    with pytest.raises(UserError, match=r"classifier.weight is 12x256, the network's 11x256"):
        load_published(path, "mobilenet", MOBILENET.build())


def test_what_is_not_finite_is_refused(tmp_path):
    model = filled(MOBILENET)
    with torch.no_grad():
        model.classifier.bias[3] = float("nan")
    with pytest.raises(UserError, match=r"classifier.bias is not finite"):
        load_published(write_parallel(model, tmp_path), "mobilenet", MOBILENET.build())


class Malicious:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def test_code_in_a_file_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": Malicious()}, path)
    with pytest.raises(UserError, match="more than tensors"):
        load_published(path, "mobilenet", MOBILENET.build())
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UserError):
        load_published(path, "mobilenet", MOBILENET.build())
    np.savez(tmp_path / "weights.npz", a=np.array([Malicious()], dtype=object))
    with pytest.raises(UserError):
        load_published(tmp_path / "weights.npz", "mobilenet", MOBILENET.build())
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nowhere.pth"):
        load_published(tmp_path / "nowhere.pth", "erfnet", ERFNET.build())


def test_published_weights_are_the_dense_network_of_an_experiment(tmp_path):
    dataset = {"kind": "fractals", "classes": 11, "train": 2, "holdout": 1, "validation": 3}
    data.prepare(dataset, tmp_path / "data")
    model, out = filled(MOBILENET), tmp_path / "dense"
    weights = write_hugging_face(model, tmp_path)
    train_dense(
        str(tmp_path / "data" / "manifest.json"),
        network={"architecture": "mobilenet", "classes": 11, "multiplier": 0.25, "size": (32, 32)},
        dataset=dataset,
        training={"iterations": 0, "device": "cpu", "weights": str(weights)},
        weights=str(weights),
        seed=0,
        model=str(out / "model.safetensors"),
        history=str(out / "history.csv"),
        metrics=str(out / "metrics.json"),
    )
    written = load_file(out / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in model.state_dict().items())
    validation = data.load(dataset, tmp_path / "data").validation
    assert runs.read_json(out / "metrics.json")["dense_accuracy"] == evaluate(model, validation)
    assert pd.read_csv(out / "history.csv").empty


def test_torchvisions_weights_are_downloaded(monkeypatch):
    published = torchvision.models.squeezenet1_0(weights=None)
    asked = []

    def get(self, *args, **kwargs):
        asked.append((self.url, kwargs))
        return published.state_dict()

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", get)
    network = Network("squeezenet", 1000, 1.0, (64, 64))
    loaded = load_published("torchvision", "squeezenet", network.build())
    assert same_outputs(network, published.eval(), loaded)
    [(url, given)] = asked
    assert "squeezenet1_0" in url
    assert given == {"check_hash": True, "weights_only": True}
    with pytest.raises(UserError, match="torchvision has no weights for erfnet, only for alexnet"):
        load_published("torchvision", "erfnet", ERFNET.build())


def test_without_a_network_the_address_is_told(monkeypatch):
    def unreachable(self, *args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", unreachable)
    model = Network("alexnet", 1000, 1.0, (64, 64)).build()
    with pytest.raises(UserError, match=r"https://\S*alexnet\S* cannot be downloaded"):
        load_published("torchvision", "alexnet", model)
