"""Evolution: of architectures, with its tables and figures, and of widths as a method."""

import math
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ecc import checkpoints, evolution, methods
from ecc.config import load
from ecc.counts import Count
from ecc.errors import UserError
from ecc.evidence import evolution as evidence
from ecc.evolution import Evaluator, Settings, Space, Study
from ecc.evolution.network import build
from ecc.evolution.study import TRIES, hypervolume
from ecc.methods.evolution import calibrate, scaled_to_budget
from ecc.metrics import pareto
from ecc.platforms import PLATFORMS, estimates, make
from ecc.training import TrainingSettings
from tests.conftest import CLASSES, MemorySplit

SPACE = Space(
    layers=3,
    types=["conv", "separable", "residual"],
    widths=[4, 8],
    kernels=[1, 3],
    strides=[1, 2],
    poolings=["none", "max", "average"],
    dropouts=[0.0, 0.1],
    units=[0, 6],
)
SETTINGS = Settings(population=6, generations=3, largest_macs=1e9)


ROOT = Path(__file__).parents[1]


class Known:
    """Costs that follow from the genes, without networks; dies at the network `fatal`."""

    def __init__(self, fatal=None):
        self.asked, self.fatal = [], fatal

    def __call__(self, genomes):
        for genes in genomes:
            if len(self.asked) == self.fatal:
                raise KeyboardInterrupt
            architecture = SPACE.decode(genes)
            self.asked.append(str(architecture))
            size = sum(layer.width * layer.kernel for layer in architecture.layers)
            yield {
                "accuracy": 1 - 1 / size,
                "validation_accuracy": 0.5,
                "energy_j": size * 1e-3,
                "parameters": size,
                "latency_s": size * 1e-4,
                "macs": float(macs(genes)),
            }


def macs(genes):
    return float(sum(layer.width for layer in SPACE.decode(genes).layers))


def study(arm, evaluate, checkpoint=None, fingerprint="one", settings=SETTINGS, size=macs):
    return Study(
        SPACE,
        arm,
        settings,
        evaluate,
        size,
        seed=3,
        checkpoint=checkpoint,
        fingerprint=fingerprint,
    )


def test_every_genome_is_a_network_that_trains():
    stream = np.random.default_rng(0)
    lower, upper = SPACE.bounds
    for genes in [lower, upper, *(SPACE.draw(stream) for _ in range(10))]:
        assert (genes >= lower).all()
        assert (genes <= upper).all()
        network = build(SPACE.decode(genes), CLASSES, seed=1)
        logits = network(torch.randn(2, 3, 8, 8))
        assert logits.shape == (2, CLASSES)
        logits.sum().backward()
        assert all(weight.grad is not None for weight in network.parameters())


def test_genes_of_layers_that_are_not_there_are_silent():
    _, upper = SPACE.bounds
    genes = upper.copy()
    genes[0] = 1
    others = genes.copy()
    others[1 + len(SPACE._choices) : -2] = 0
    assert SPACE.decode(genes) == SPACE.decode(others)
    assert len(SPACE.decode(genes).layers) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [({"types": ["dense"]}, "space.types"), ({"kernels": [2]}, "space.kernels 2")],
)
def test_a_space_without_networks_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        Space(**{**vars(SPACE), **change})


@pytest.mark.parametrize("arm", ["accuracy", "energy"])
def test_a_killed_study_ends_as_one_that_was_not(arm, tmp_path):
    whole = Known()
    expected = study(arm, whole).run()
    checkpoint = tmp_path / "evaluated.jsonl"
    for fatal in (2, 9):
        with pytest.raises(KeyboardInterrupt):
            study(arm, Known(fatal), checkpoint).run()
    with checkpoint.open("a") as file:
        file.write('{"architecture": "half')
    last = Known()
    for mine, theirs in zip(study(arm, last, checkpoint).run(), expected, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)
    assert len(last.asked) == len(whole.asked) - 2 - 9
    assert len(set(whole.asked)) == len(whole.asked)  # none is trained twice
    again = Known()
    study(arm, again, checkpoint, fingerprint="another").run()
    assert len(again.asked) == len(whole.asked)


def test_what_a_damaged_file_holds_is_evaluated_again(tmp_path):
    whole, path = Known(), tmp_path / "evaluated.jsonl"
    expected = study("energy", whole, path).run()
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace('"accuracy": 0.', '"accuracy": 0.0')
    path.write_text("\n".join(lines) + "\n")
    again = Known()
    for mine, theirs in zip(study("energy", again, path).run(), expected, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)
    assert len(again.asked) == len(whole.asked) - 4


def test_what_is_too_large_is_not_trained():
    asked = Known()
    small = Settings(population=6, generations=3, largest_macs=12)
    networks, history = study("accuracy", asked, settings=small).run()
    assert (networks["macs"] <= 12).all()
    assert len(history) == 4


def test_a_space_without_small_networks_is_soon_refused():
    traced = []

    def count(genes):
        traced.append(genes)
        return macs(genes)

    with pytest.raises(UserError, match="largest_macs 1: none of"):
        study("accuracy", Known(), settings=Settings(600, 3, 1), size=count).run()
    assert len(traced) <= TRIES


@pytest.mark.parametrize("arm", ["accuracy", "energy"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_every_generation_has_as_many_new_networks(arm, share):
    settings = load(ROOT / "configs/evolution.yaml")["evolution"]["digits"]
    space = Space(**settings["space"])

    def size(genes):
        return sum(layer.width for layer in space.decode(genes).layers)

    def evaluate(genomes):
        for genes in genomes:
            own = 1.0 + size(genes)
            yield {"accuracy": 1 - 1 / own, "validation_accuracy": 0, "energy_j": own}

    limits = Settings(12, 7, share * 6 * max(space.widths))
    networks, history = Study(space, arm, limits, evaluate, size, seed=0).run()
    assert networks["architecture"].is_unique
    assert networks.groupby("generation").size().tolist() == [12] * 8
    assert history["evaluations"].tolist() == [12 * (n + 1) for n in range(8)]
    first = Study(space, "energy", limits, evaluate, size, seed=0)._first()
    assert [" ".join(map(str, genes)) for genes in first] == list(networks["genome"][:12])


@pytest.mark.parametrize("arm", ["accuracy", "energy"])
@pytest.mark.parametrize(("widths", "networks"), [([4], 1), ([4, 8], 2)])
def test_evolution_ends_where_the_space_has_no_more_networks(arm, widths, networks):
    whole = {key: value[:1] for key, value in vars(SPACE).items() if key != "layers"}
    space = Space(layers=1, **(whole | {"widths": widths}))

    def evaluate(genomes):
        return ({"accuracy": 0.5, "energy_j": 1.0} for _ in genomes)

    found, history = Study(space, arm, SETTINGS, evaluate, lambda genes: 1.0, seed=0).run()
    assert len(found) == networks
    assert history["generation"].tolist() == [0]


def test_evolution_improves_what_it_is_for():
    _, history = study("accuracy", Known()).run()
    assert history["accuracy"].is_monotonic_increasing
    assert history["accuracy"].iloc[-1] > history["accuracy"].iloc[0]
    _, both = study("energy", Known()).run()
    assert both["hypervolume"].is_monotonic_increasing
    with pytest.raises(UserError, match="arm 'speed'"):
        study("speed", Known())


def test_front_and_hypervolume_agree_with_brute_force():
    stream = np.random.default_rng(2)
    frame = pd.DataFrame(stream.integers(0, 8, (40, 2)) / 8, columns=["accuracy", "energy_j"])
    pairs = frame.to_numpy()
    beaten = [
        any(((p[0] >= a) & (p[1] <= e) & ((p[0] > a) | (p[1] < e))) for p in pairs)
        for a, e in pairs
    ]
    front = pareto(frame)
    assert {tuple(pair) for pair in pairs[front]} == {
        tuple(pair) for pair, lost in zip(pairs, beaten, strict=True) if not lost
    }
    # Cells of 1/8 that some network dominates: higher error and energy, below the reference.
    cells = sum(
        any((1 - p[0] <= row / 8) & (p[1] <= column / 8) for p in pairs)
        for row, column in product(range(8), repeat=2)
    )
    assert hypervolume(frame, 1.0) == pytest.approx(cells / 64)


def evaluator(platform="jetson_tx2"):
    splits = {name: MemorySplit(count=32, seed=i) for i, name in enumerate(("train", "holdout"))}
    return Evaluator(
        space=SPACE,
        platform=PLATFORMS[platform],
        size=(16, 16),
        validation=MemorySplit(count=32, seed=5),
        training=TrainingSettings(iterations=3, learning_rate=1e-3),
        seed=0,
        **splits,
    )


@pytest.mark.parametrize("platform", ["jetson_tx2", "eyeriss"])
def test_costs_are_those_of_the_platform(platform):
    own = evaluator(platform)
    genes = SPACE.bounds[1]
    network = build(SPACE.decode(genes), CLASSES, seed=0)
    cost = own.cost(genes)
    assert cost.parameters == sum(weight.numel() for weight in network.parameters())
    convolutions = []

    def count(module, inputs, output):
        area = output.shape[-1] * output.shape[-2] if output.dim() == 4 else 1
        convolutions.append(module.weight.numel() * area)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, 16, 16))
    assert cost.macs == own.macs(genes) == sum(convolutions)
    assert cost.energy_j > 0
    assert math.isnan(cost.latency_s) if platform == "eyeriss" else cost.latency_s > 0


def test_only_a_training_that_diverges_gets_nothing_right():
    own, genes = evaluator(), SPACE.bounds[0]
    wild = replace(own.training, learning_rate=1e30, iterations=20)
    row = replace(own, training=wild).row(genes)
    assert row["accuracy"] == row["validation_accuracy"] == 0
    assert row["energy_j"] == own.cost(genes).energy_j
    absent = replace(own, training=replace(own.training, device="cuda:99"))
    with pytest.raises(UserError, match="device 'cuda:99'"):
        absent.row(genes)


def test_processes_find_what_one_finds():
    genomes = [SPACE.draw(np.random.default_rng(seed)) for seed in range(3)]
    rows = []
    for count in (1, 2):
        with evolution.workers(evaluator(), evaluator, count) as evaluate:
            rows.append(list(evaluate(genomes)))
    assert rows[0] == rows[1]


def test_fingerprint_tells_apart_what_decides_results(monkeypatch):
    own = evaluator()
    before = own.fingerprint
    assert own.fingerprint == evaluator().fingerprint
    longer = replace(own.training, iterations=4)
    others = [evaluator("gtx1080ti"), replace(own, data="other labels"), replace(own, seed=1)]
    for other in [*others, replace(own, size=(8, 8)), replace(own, training=longer)]:
        assert own.fingerprint != other.fingerprint
    elsewhere = replace(own.training, device="cpu", checkpoint_every=7)
    assert own.fingerprint == replace(own, training=elsewhere).fingerprint
    monkeypatch.setattr(checkpoints, "LIBRARY", "of an edited file")
    assert own.fingerprint != before


@pytest.mark.parametrize(
    "entry",
    [{"kind": "published_tx2"}, {"kind": "jetson_tx2", "metric": "latency"}, {"kind": "simulated"}],
    ids=["published", "latency", "simulated"],
)
def test_a_platform_that_tells_no_energy_of_new_networks_is_refused(entry):
    settings = {"platform": "mine", "space": vars(SPACE), "deployment_size": [8, 8]}
    platform = make("mine", entry)
    assert not estimates(platform)
    with pytest.raises(UserError, match="'mine' cannot tell the energy of a new network"):
        evolution.evaluator(None, platform, settings, {}, 0, "")
    assert all(estimates(PLATFORMS[name]) for name in ("eyeriss", "gtx1080ti", "jetson_tx2"))


def test_tables_and_figures(tmp_path):
    for arm in ("accuracy", "energy"):
        folder = tmp_path / "tiny" / arm / "seed3"
        folder.mkdir(parents=True)
        for name, frame in zip(("networks", "history"), study(arm, Known()).run(), strict=True):
            frame.to_csv(folder / f"{name}.csv", index=False)
    tables = {
        name: evidence.gather(sorted(tmp_path.rglob(f"{name}.csv")))
        for name in ("networks", "history")
    }
    assert set(tables["networks"]["arm"]) == {"accuracy", "energy"}
    assert (tables["history"]["seed"] == 3).all()
    near = evidence.nearly_as_good(tables["networks"]).set_index(["arm", "margin"])
    run = tables["networks"][tables["networks"]["arm"] == "accuracy"]
    inside = run[run["accuracy"] >= run["accuracy"].max() - 0.02]
    row = near.loc[("accuracy", 0.02)]
    assert row["networks"] == len(inside)
    assert row["range_energy_j"] == pytest.approx(
        inside["energy_j"].max() / inside["energy_j"].min()
    )
    for name, draw in evidence.FIGURES.items():
        figure = draw(tables[evidence.TABLE_OF[name]], {"tiny": "emulated Jetson TX2"})
        titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        assert any("emulated Jetson TX2" in title for title in titles)
        assert all(axes.get_lines() for axes in figure.axes)


def test_figures_do_without_times_that_no_platform_tells():
    networks, _ = study("accuracy", Known()).run()
    networks = networks.assign(study="tiny", latency_s=float("nan"))
    near = evidence.nearly_as_good(networks)
    assert near[["saved_latency_s", "range_latency_s"]].isna().all(axis=None)
    assert near[["saved_energy_j", "range_energy_j"]].notna().all(axis=None)
    alone = evidence.nearly_as_good(networks.nlargest(1, "accuracy"))
    assert (alone["networks"] == 1).all()
    assert alone[["saved_energy_j", "range_energy_j"]].isna().all(axis=None)
    figure = evidence.spread(networks, {"tiny": "Eyeriss (estimated)"})
    assert [axes.get_xlabel() for axes in figure.axes] == list(evidence.COSTS.values())[:2]


@pytest.mark.parametrize("fill", [False, True])
def test_scaled_widths_are_inside_the_budget_and_no_smaller_than_they_must_be(tiny_problem, fill):
    problem = tiny_problem(0.5)
    stream = np.random.default_rng(1)
    drawn = stream.uniform(1, problem.full_widths, (50, len(problem.full_widths)))
    scaled = scaled_to_budget(problem, drawn, fill)
    energy = problem.energy.energy(scaled)
    assert (energy <= problem.budget_j).all()
    assert (scaled >= problem.smallest).all()
    assert (scaled <= problem.full_widths).all()
    rounded = np.rint(drawn).astype(int)
    was_inside = problem.energy.energy(rounded) <= problem.budget_j
    if not fill:
        assert (scaled[was_inside] == rounded[was_inside]).all()
        assert was_inside.any()
    else:
        assert (scaled >= scaled_to_budget(problem, drawn, False)).all()


def test_history_counts_generations_from_0_and_names_the_unit_of_several_budgets(tiny_problem):
    problem = tiny_problem(0.9)
    parameters = Count("parameters", problem.channels.structure)
    dense = float(parameters.energy(problem.full_widths))
    small = {"stages": 2, "population": 4, "generations": 2, "calibration": 1}
    alone = methods.compress("evolution", problem, small).history
    limited = replace(problem, limits=(methods.Limit("parameters", parameters, 0.4 * dense),))
    both = methods.compress("evolution", limited, small).history
    for history in (alone, both):
        assert history["generation"].tolist() == [0, 1, 2] * 2
    assert {"stage_budget_j", "energy_j"} <= set(alone)
    assert {"binding_stage_budget_j", "binding_energy_j"} <= set(both)
    assert (both["binding_energy_j"] <= both["binding_stage_budget_j"]).all()
    assert not {"stage_budget_j", "energy_j"} & set(both)


def test_calibration_takes_the_mean_over_batches():
    model = nn.Sequential(nn.BatchNorm2d(3))
    batches = [torch.randn(5, 3, 4, 4) + shift for shift in (1.0, 3.0)]
    calibrate(model, batches, torch.device("cpu"))
    expected = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    assert torch.allclose(model[0].running_mean, expected, atol=1e-6)
    assert model[0].momentum == 0.1


def test_settings_out_of_range_are_named():
    from ecc.methods.evolution import Settings as Widths

    for key, value in {"stages": 0, "population": 1, "shared": 1.5}.items():
        with pytest.raises(UserError, match=f"methods.evolution.{key}"):
            partial(Widths, **{key: value})()
