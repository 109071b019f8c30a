"""From Python: one call does what the workflow does, and says in one line what it cannot do."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from close_budgets import close_budgets
from compress import compress as compress_script
from finetune import finetune as finetune_script
from fit_energy_models import fit_energy_models
from prepare_data import prepare_data
from resolve_budgets import resolve_budgets
from sample_energy import sample_energy
from trace_network import trace_network
from verify_energy import verify_energy

import ecc
from ecc import data, export, platforms, runs
from ecc.errors import UserError
from ecc.metrics import from_file
from ecc.networks import Network
from ecc.training import TrainingSettings, evaluate, load_weights, save_weights

ENTRY = {"architecture": "alexnet", "classes": 4, "multiplier": 0.125, "size": (64, 64)}
NETWORK = Network(**ENTRY)
DATA = {"kind": "fractals", "classes": 4, "size": 64, "train": 12, "holdout": 4, "validation": 6}
TRAINING = TrainingSettings(6, batch_size=8, learning_rate=2e-3, device="cpu")
PHASES = [{**asdict(TRAINING), "loss": "distillation", "iterations": 4, "schedule": "cosine"}]
SETTINGS = ecc.Settings(
    samples=300, test_samples=60, repeats=20, compression=TRAINING, finetuning=PHASES
)
PLATFORM = {"kind": "jetson_tx2"}
NAMES = {"experiment": "tiny", "platform": "jetson_tx2", "method": "ecc"}
BUDGET = {"reducible": 0.4}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """The folder in which the scripts of one experiment with one run have left their files."""
    folder = tmp_path_factory.mktemp("workflow")
    files = {
        name: str(folder / name)
        for name in (
            *("structure.json", "samples.csv", "sweep.csv", "dense.json", "provenance.json"),
            *("model.json", "errors.csv", "fit.csv", "residuals.csv", "budgets.json"),
            "dense.safetensors",
            *("dense_metrics.json", "masked.safetensors", "compression.csv"),
            *("compression.json", "closing.json", "slim.safetensors", "finetuning.csv"),
            *("metrics.json", "energy.json"),
        )
    }
    manifest = str(folder / "data/manifest.json")
    own = {"platform": "jetson_tx2", "platform_settings": PLATFORM}
    prepare_data(DATA, manifest)
    trace_network("alexnet", ENTRY, files["structure.json"])
    sampled = ("samples", "sweep", "dense", "provenance")
    sample_energy(
        files["structure.json"],
        **own,
        network="alexnet",
        network_settings=ENTRY,
        samples=SETTINGS.samples,
        repeats=SETTINGS.repeats,
        sweeps=[],
        seed=0,
        files={name: files[f"{name}.{'csv' if name[0] == 's' else 'json'}"] for name in sampled},
    )
    fit_energy_models(
        files["structure.json"],
        files["samples.csv"],
        [{"model": "bilinear_graph", "fit": "nnls"}],
        test_samples=SETTINGS.test_samples,
        seed=0,
        keys={},
        files=[files["model.json"]],
        errors=files["errors.csv"],
        history=files["fit.csv"],
        residuals=files["residuals.csv"],
    )
    resolve_budgets(
        files["structure.json"],
        "jetson_tx2",
        {"jetson_tx2": (files["dense.json"], files["model.json"])},
        experiment="tiny",
        budgets=["reducible-0.4"],
        smallest_width=SETTINGS.smallest_width,
        output=files["budgets.json"],
    )
    torch.manual_seed(0)
    network, found = NETWORK.build(), data.load(DATA, folder / "data")
    save_weights(Path(files["dense.safetensors"]), network)
    accuracy = evaluate(network, found.validation, device="cpu")
    runs.write_json(files["dense_metrics.json"], {"dense_accuracy": accuracy})
    compress_script(
        manifest,
        files["dense.safetensors"],
        files["budgets.json"],
        files["model.json"],
        {},
        covered=[("reducible-0.4", 0)],
        network=ENTRY,
        dataset=DATA,
        training=asdict(TRAINING),
        method={"method": "ecc"},
        masked=[files["masked.safetensors"]],
        history=[files["compression.csv"]],
        metrics=[files["compression.json"]],
    )
    close_budgets(
        manifest,
        files["budgets.json"],
        {"jetson_tx2": files["model.json"]},
        [files["masked.safetensors"]],
        [files["compression.json"]],
        on={"jetson_tx2": PLATFORM},
        network=ENTRY,
        dataset=DATA,
        device="cpu",
        rounds=SETTINGS.closing_rounds,
        repeats=SETTINGS.repeats,
        seed=0,
        name="tiny/jetson_tx2/ecc",
        journal=str(folder / "closing"),
        files=[files["closing.json"]],
    )
    finetune_script(
        manifest,
        files["dense.safetensors"],
        files["dense_metrics.json"],
        files["budgets.json"],
        covered=[("reducible-0.4", 0)],
        names={**NAMES, "network": "alexnet", "dataset": "fractals"},
        network=ENTRY,
        dataset=DATA,
        phases=PHASES,
        files={
            "masked": [files["masked.safetensors"]],
            "compression": [files["compression.json"]],
            "closing": [files["closing.json"]],
            "slim": [files["slim.safetensors"]],
            "history": [files["finetuning.csv"]],
            "metrics": [files["metrics.json"]],
        },
    )
    verify_energy(
        files["structure.json"],
        {"jetson_tx2": files["model.json"]},
        [files["metrics.json"]],
        on={"jetson_tx2": PLATFORM},
        network=ENTRY,
        repeats=SETTINGS.repeats,
        seed=0,
        name="tiny/jetson_tx2/ecc",
        journal=str(folder / "verified"),
        files=[files["energy.json"]],
    )
    return folder


@pytest.fixture(scope="module")
def dense(workflow):
    return load_weights(workflow / "dense.safetensors", NETWORK.build())


@pytest.fixture
def call(workflow, dense):
    """A function that compresses that network; keywords replace what is given."""

    def compress(**changes):
        given = {"deployed": NETWORK, "budget": BUDGET, "settings": SETTINGS, "name": "tiny"}
        return ecc.compress(dense, workflow / "data", **{**given, **changes})

    return compress


def test_it_does_what_the_workflow_does(workflow, dense, call):
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    found = call()
    metrics = from_file(runs.read_json(workflow / "metrics.json"))
    energy = from_file(runs.read_json(workflow / "energy.json"))
    assert found.widths.tolist() == [group["width"] for group in metrics["groups"]]
    assert found.budget_j == pytest.approx(metrics["budget_j"], rel=1e-9)
    assert found.modelled_energy_j == pytest.approx(energy["modelled_energy_j"], rel=1e-9)
    assert found.measured_energy_j == pytest.approx(energy["measured_energy_j"], rel=1e-12)
    assert found.accuracy == metrics["accuracy"]
    assert found.facts.settings["closing"] == metrics["closing"]
    assert found.dense_accuracy == metrics["dense_accuracy"]
    assert found.facts.accuracy_before_finetuning == metrics["accuracy_before_finetuning"]
    assert len(found.history) == metrics["iterations"]
    assert set(found.history["stage"]) == {"compression", "fine-tuning"}
    theirs = load_weights(workflow / "slim.safetensors", NETWORK.build(found.widths))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    assert all(torch.equal(dense.state_dict()[name], tensor) for name, tensor in before.items())
    assert not found.model.training


def test_a_dataset_and_a_size_are_enough_until_it_is_saved(workflow, dense, tmp_path, call):
    images = data.load(DATA, workflow / "data")
    fewer = replace(SETTINGS, closing_rounds=0)
    platform = platforms.get("jetson_tx2")
    found = ecc.compress(
        dense, images, deployed=(64, 64), platform=platform, budget=BUDGET, settings=fewer
    )
    # Groups are found in the same order, whoever traces them.
    assert found.modelled_energy_j <= found.budget_j
    assert len(found.widths) == len(NETWORK.full_widths)
    with pytest.raises(UserError, match=r"give ecc\.compress"):
        found.save(tmp_path)


def test_a_result_is_saved_with_all_that_decided_it(call, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_program", lambda *_: None)  # the forms have tests of their own
    for form in ("_pt2", "_onnx"):
        monkeypatch.setattr(export, form, lambda _: (b"content", found.model))
    found = call(method="uniform", folder=tmp_path / "scratch", platform=PLATFORM)
    found.save(tmp_path / "network")
    assert list((tmp_path / "scratch").glob("*.safetensors")) == []
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ecc.load(tmp_path / "network")(images), found.model(images))
    card = (tmp_path / "network/README.md").read_text()
    for told in ("method: uniform", "reducible-0.4", "bilinear_graph", "processor", "fractals"):
        assert told in card


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": None}, "give either budget_j"),
        ({"budget_j": 1.0}, "give either budget_j"),
        ({"budget": 1.5}, "dense: 1.5 must be above 0 and at most 1"),
        ({"budget": None, "budget_j": 1e-9}, "the smallest reachable energy is"),
        ({"budget": None, "budget_j": 1e9}, "is above the energy of the dense network"),
        ({"budget": {"seconds": 0.1}}, "a budget in seconds, where energy is measured"),
        ({"budget": {"dense": 0.5, "limits": {"macs": {"dense": 0.5}}}}, "give the budget alone"),
        ({"platform": "abacus"}, "unknown platform 'abacus'"),
        ({"platform": {}}, "unknown platform 'None'"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"method_settings": {"rho3": 1}}, "methods.ecc.rho3 is unknown"),
        ({"deployed": Network("alexnet", 4, 0.25)}, "is not a dense alexnet"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(call, changes, words):
    with pytest.raises(UserError, match=words) as refused:
        call(**changes)
    assert "\n" not in str(refused.value)


def test_data_that_do_not_fit_are_told_of(workflow, dense, tmp_path):
    given = {"deployed": NETWORK, "budget": 0.6, "settings": SETTINGS}
    with pytest.raises(UserError, match=r"has no manifest\.json: give the settings"):
        ecc.compress(dense, tmp_path, **given)
    with pytest.raises(UserError, match="4 outputs, fractals has 5 classes"):
        ecc.compress(dense, {**DATA, "classes": 5}, **given)
