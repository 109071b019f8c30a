"""The configuration: what it accepts, what it says when it does not, and how overlays merge."""

import copy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ecc import config, data
from ecc.budgets import Budget, Range, lower_bounds
from ecc.data import scenes
from ecc.errors import UserError
from ecc.networks import ARCHITECTURES
from ecc.tasks import CLASSIFICATION

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "configs/schema.yaml"
COMPLETE = ("config.yaml", "configs/eap.yaml", "configs/evolution.yaml", "configs/complete.yaml")
OVERLAYS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path != SCHEMA)


@pytest.fixture
def default():
    return config.load(ROOT / "config.yaml")


def put(settings, path, value):
    """A copy of `settings` with `value` at `path`."""
    changed = copy.deepcopy(settings)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_default_and_overlays_are_valid(overlay):
    config.check(config.load(ROOT / "config.yaml", overlay), SCHEMA)


BAD = {
    ("energy", "sampels"): (3, ["energy.sampels", "unknown", "did you mean samples?"]),
    ("energy", "samples"): ("1e4", ["energy.samples", "YAML reads 1e4 as text", "write 10000"]),
    ("training", "learning_rate"): ("1e-3", ["training.learning_rate", "write 1.0e-3"]),
    ("training", "checkpoint_every"): (3.0, ["training.checkpoint_every", "write 3"]),
    ("training", "weight_decay"): (-1, ["training.weight_decay", "-1", "at least 0"]),
    ("training", "batch_size"): (2.5, ["training.batch_size", "2.5", "whole number"]),
    ("training", "channels_last"): ("yes!", ["training.channels_last", "true or false"]),
    ("training", "schedule"): ("cosin", ["training.schedule", "did you mean cosine?"]),
    ("training", "dropout"): (float("nan"), ["training.dropout", "true or false"]),
    ("networks", "mobilenet", "multiplier"): (float("nan"), ["multiplier", "finite"]),
    ("energy", "test_samples"): (10000, ["energy.test_samples", "less than", "10000"]),
    ("energy", "networks"): (["mobilnet"], ["energy.networks[0]", "did you mean mobilenet?"]),
    ("energy", "platforms"): (["tx2"], ["energy.platforms[0]", "'tx2'", "jetson_tx2"]),
    ("energy", "models", 1, "model"): ("bilinear_chain", ["energy.models", "bilinear_chain_adam"]),
    ("energy", "models", 2, "iterations"): (5, ["energy.models[2].iterations", "unknown"]),
    ("platforms", "gtx1080ti", "chunks"): (4, ["platforms.gtx1080ti.chunks", "unknown"]),
    ("platforms", "gtx1080ti", "kind"): ("gtx1080", ["platforms.gtx1080ti.kind", "gtx1080ti?"]),
    ("platforms", "gtx1080ti", "samples"): (500, ["test_samples", "2000", "gtx1080ti (500)"]),
    ("energy", "sweeps", 0, "network"): ("vgg", ["energy.sweeps[0].network", "'vgg'"]),
    ("datasets", "fractals", "kind"): ("fractal", ["datasets.fractals.kind", "fractals?"]),
    ("datasets", "digits", "classes"): (10, ["datasets.digits.classes", "unknown"]),
    ("methods", "ecc", "rho"): (1, ["methods.ecc.rho", "unknown", "rho1"]),
    ("experiments", 0, "name"): ("alexnet", ["experiments", "alexnet", "more than once"]),
    ("experiments", 0, "network"): ("alexnet", ["experiments[0].dataset", "60", "1000"]),
    ("experiments", 0, "dataset"): ("fractal", ["experiments[0].dataset", "fractals?"]),
    ("experiments", 0, "methods"): (["ecc", "eec"], ["experiments[0].methods[1]", "'eec'"]),
    ("experiments", 0, "platforms"): (["gtx"], ["experiments[0].platforms[0]", "gtx1080ti"]),
    ("experiments", 0, "energy_model"): ("bilinear", ["experiments[0].energy_model"]),
    ("experiments", 0, "seeds"): ([0, 0], ["experiments[0].seeds", "twice"]),
    ("experiments", 0, "budgets"): ([], ["experiments[0].budgets", "at least 1"]),
    ("experiments", 0, "budgets", 0): ({}, ["experiments[0].budgets[0]", "exactly one"]),
    ("experiments", 0, "budgets", 1): ({"dense": 2}, ["budgets[1].dense", "2", "at most 1"]),
    ("experiments", 0, "budgets", 2): (
        {"dense": 0.5, "platform": "eyeriss"},
        ["budgets[2].platform", "'eyeriss'"],
    ),
    ("experiments", 0, "dense"): ({"iteration": 5}, ["dense.iteration", "did you mean"]),
    ("batch",): (["method"], ["batch[0]", "budget, seed"]),
    ("device",): ("gpu", ["device", "'gpu'"]),
    ("sed",): (1, ["sed", "did you mean seed?"]),
    ("energy",): (None, ["energy", "a mapping"]),
}


@pytest.mark.parametrize("path", BAD, ids=lambda path: ".".join(map(str, path)))
def test_errors_are_one_line_that_names_the_key_and_what_is_allowed(default, path):
    value, words = BAD[path]
    with pytest.raises(UserError) as error:
        config.check(put(default, path, value), SCHEMA)
    message = str(error.value)
    assert "\n" not in message
    for word in ("config key", *words):
        assert word in message


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("space", "kernels"), [3, 2], "space.kernels[1]: 2 is not allowed (An odd number"),
        (("space", "kernels"), [3.0], "space.kernels[0]: YAML reads 3.0 as a fraction: write 3"),
        (("space", "layers"), 6.0, "space.layers: YAML reads 6.0 as a fraction: write 6"),
        (("dataset",), "fractal", "dataset: 'fractal' is unknown: use one of digits, fractals"),
        (("platform",), "tx2", "platform: 'tx2' is unknown: use one of "),
        (("dataset",), "streets", "dataset: streets labels every pixel: name data that labels"),
    ],
)
def test_errors_name_the_key_of_a_study_of_evolution(path, value, words):
    study = config.load(ROOT / "config.yaml", ROOT / "configs/evolution.yaml")
    with pytest.raises(UserError) as error:
        config.check(put(study, ("evolution", "digits", *path), value), SCHEMA)
    assert str(error.value).startswith(f"config key evolution.digits.{words}")


@pytest.mark.parametrize(
    ("number", "network", "classes", "dataset", "words"),
    [
        (2, "erfnet_embedded", 60, "fractals", "fractals labels images, networks.erfnet_embedded"),
        (1, "alexnet_embedded", 20, "streets", "streets labels pixels, networks.alexnet_embedded"),
    ],
)
def test_labels_of_pixels_and_of_images_do_not_mix(
    default, number, network, classes, dataset, words
):
    wrong = put(default, ("experiments", number, "dataset"), dataset)
    wrong = put(wrong, ("networks", network, "classes"), classes)
    with pytest.raises(UserError, match=rf"config key experiments\[{number}\].dataset: {words}"):
        config.check(wrong, SCHEMA)


def test_the_complete_run_is_the_default_with_amc_and_limits(default):
    complete = config.load(*(ROOT / part for part in COMPLETE))
    config.check(complete, SCHEMA)
    *same, limited = complete["experiments"]
    assert limited["budgets"][0]["limits"]
    for ours, others in zip(same, default["experiments"], strict=True):
        assert set(ours["methods"]) == {*others["methods"], "amc"}
        assert {**ours, "methods": []} == {**others, "methods": []}


def test_single_weights_of_the_complete_run_have_seeds_that_decide_claims(default):
    complete = config.load(*(ROOT / part for part in COMPLETE))
    assert len(config.eap_seeds(complete)) >= 2
    del complete["eap"]["seeds"]
    assert config.eap_seeds(config.check(complete, SCHEMA)) == config.eap_seeds(default) == [0]
    for wrong in ([], [0, 0], [-1], [0.5], 0):
        with pytest.raises(UserError, match=r"config key eap\.seeds"):
            config.check(put(complete, ("eap", "seeds"), wrong), SCHEMA)


def test_single_weights_are_pruned_of_networks_that_classify():
    study = config.load(ROOT / "config.yaml", ROOT / "configs/eap.yaml")
    with pytest.raises(UserError, match=r"config key eap.experiment: streets labels every pixel"):
        config.check(put(study, ("eap", "experiment"), "erfnet"), SCHEMA)


def test_duplicate_budgets_are_refused_where_they_meet(default):
    path = ("experiments", 0, "budgets")
    apart = [{"dense": 0.5, "platform": name} for name in ("gtx1080ti", "jetson_tx2")]
    config.check(put(default, path, apart), SCHEMA)
    with pytest.raises(UserError, match=r"dense-0\.5 is there more than once"):
        config.check(put(default, path, [*apart, {"dense": 0.5}]), SCHEMA)
    with pytest.raises(UserError, match="none for platform jetson_tx2"):
        config.check(put(default, path, apart[:1]), SCHEMA)


def test_overlay_merges_mappings_and_replaces_lists():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert config.merge(base, {"a": {"c": [9]}, "e": {"f": 0}}) == {
        "a": {"b": 1, "c": [9]},
        "d": 3,
        "e": {"f": 0},
    }
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_stage_replaces_what_it_names(default):
    merged = config.stage(default, {"iterations": 7, "learning_rate": 0.5})
    assert merged == {
        **default["training"],
        "device": default["device"],
        "iterations": 7,
        "learning_rate": 0.5,
    }


def test_networks_of_experiments_get_the_models_that_are_used(default):
    models = config.energy_models(default)
    assert models["mobilenet"] == default["energy"]["models"]
    assert [config.model_label(model) for model in models["mobilenet_embedded"]] == [
        default["experiments"][0]["energy_model"]
    ]
    assert {network for _, network in config.sampled(default)} == set(models)


budgets = st.builds(
    Budget,
    st.sampled_from(["dense", "reducible", "joules"]),
    st.floats(0, 1, exclude_min=True, allow_nan=False),
)


@given(budgets)
def test_label_tells_the_budget(budget):
    assert Budget.from_label(budget.label) == budget
    assert "/" not in budget.label


@given(budgets)
def test_resolved_budget_is_reachable_or_refused(budget):
    dense_j, minimum_j = 0.05, 0.01
    joules = {"joules": budget.value, "dense": budget.value * dense_j}.get(budget.kind, minimum_j)
    if joules < minimum_j:
        with pytest.raises(UserError, match=r"smallest reachable energy is 0\.01 J"):
            budget.resolve(Range(dense_j, minimum_j))
    elif joules > dense_j:
        with pytest.raises(UserError, match=r"above the energy of the dense network, 0\.05 J"):
            budget.resolve(Range(dense_j, minimum_j))
    else:
        assert minimum_j <= budget.resolve(Range(dense_j, minimum_j)) <= dense_j


@given(st.lists(st.integers(1, 4096), min_size=1), st.floats(0, 1))
def test_lower_bounds_are_between_one_and_full_width(widths, fraction):
    full = np.array(widths)
    bounds = lower_bounds(full, fraction)
    assert (bounds >= 1).all()
    assert (bounds <= full).all()
    assert (bounds >= fraction * full).all()


def test_what_is_said_of_datasets_is_what_they_are():
    """Planning asks without importing torch, so that it is written down beside the registry."""
    fixed = {name for name, kind in data.DATASETS.items() if "classes" not in kind.defaults}
    assert set(config.CLASSES) == fixed
    every_class = dict.fromkeys((*scenes.CLASSES, "void"), 1)
    manifest = {"splits": {"train": {"pixels_by_class": every_class}}}
    segmented = {
        name for name, kind in data.DATASETS.items() if kind.task(manifest) != CLASSIFICATION
    }
    assert set(config.SEGMENTED) == segmented
    assert set(config.SEGMENTING) <= set(ARCHITECTURES)
