"""AMC: a wall that no episode passes, least squares that is one, a search that resumes."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st

from ecc.energy import BilinearGraph
from ecc.energy.bilinear import graph_features
from ecc.methods import compress
from ecc.methods.amc import Features, Settings, Wall
from ecc.methods.ddpg import BATCH, Agent
from ecc.methods.problem import Problem
from ecc.methods.reconstruction import RIDGE, Reconstruction, least_squares
from ecc.methods.recording import Recorder
from ecc.networks import Network

FAST = {"warm_up": 5, "batches": 1, "positions": 4}
STRUCTURES = {
    name: Network(name, 10, multiplier=0.25, size=(64, 128)).structure
    for name in ("mobilenet", "alexnet", "erfnet")
}


@dataclass(frozen=True)
class Traced:
    structure: object


def spent(structure, coefficients, share, smallest=0.0):
    """A problem that is only asked for energies."""
    energy = BilinearGraph(structure, np.asarray(coefficients))
    full = structure.full_widths
    bounds = np.maximum(np.ceil(smallest * full), 1).astype(np.int64)
    low, high = float(energy.energy(bounds)), float(energy.energy(full))
    nothing = dict.fromkeys(["dense", "train", "holdout", "training"])
    budget_j = low + share * (high - low)
    return Problem(
        **nothing, channels=Traced(structure), energy=energy, budget_j=budget_j, lower_bounds=bounds
    )


def walk(wall, shares):
    decided = []
    for share in shares:
        decided.append(wall.width(decided, share))
    return np.array(decided)


@given(
    st.sampled_from(sorted(STRUCTURES)),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.1, 0.2, 0.6]),
    st.sampled_from([1, 4, 8]),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_no_episode_exceeds_the_budget(name, seed, share, ratio, multiple):
    structure, stream = STRUCTURES[name], np.random.default_rng(seed)
    coefficients = stream.exponential(size=1 + len(graph_features(structure).names))
    problem = spent(structure, coefficients, share, smallest=stream.choice([0.0, 0.2]))
    wall = Wall(problem, ratio, multiple)
    for _ in range(3):
        widths = walk(wall, stream.random(len(structure.groups)))
        assert problem.joules(widths) <= problem.budget_j
        assert (widths >= problem.smallest).all()
        assert (widths <= problem.full_widths).all()


NARROW = {
    "mobilenet": Network("mobilenet", 10, multiplier=0.03125, size=(32, 32)).structure,
    "alexnet": Network("alexnet", 10, multiplier=0.0625, size=(64, 64)).structure,
    "erfnet": Network("erfnet", 10, multiplier=0.125, size=(64, 128)).structure,
}


@pytest.mark.parametrize(
    ("name", "budget", "ratio", "multiple", "count"),
    [
        ("mobilenet", 0.02, 0.2, 1, 20_000),
        ("mobilenet", 0.3, 0.2, 8, 20_000),
        ("mobilenet", 0.2, 0.0, 2, 20_000),
        ("alexnet", 0.1, 0.0, 1, 18_000),
        ("alexnet", 0.2, 0.2, 8, 18_000),
        ("erfnet", 0.1, 0.2, 1, 2_000),
        ("erfnet", 0.2, 0.0, 4, 2_000),
    ],
)
def test_a_hundred_thousand_random_episodes_stay_inside(name, budget, ratio, multiple, count):
    """In all; on narrow networks, whose widths are few enough to ask for them all."""
    structure, stream = NARROW[name], np.random.default_rng(count + multiple)
    coefficients = stream.exponential(size=1 + len(graph_features(structure).names))
    problem = spent(structure, coefficients, budget)
    wall = Wall(problem, ratio, multiple)
    bound, block = 0, 1000
    for _ in range(0, count, block):
        shares = stream.random((block, len(structure.groups)))
        episodes = np.zeros((block, 0), dtype=np.int64)
        for share in shares.T:
            episodes = np.column_stack([episodes, wall.widths(episodes, share)])
        assert np.array_equal(walk(wall, shares[0]), episodes[0])
        assert (episodes >= wall.least).all()
        assert (episodes <= structure.full_widths).all()
        assert problem.energy.energy(episodes).max() <= problem.budget_j
        wanted = np.maximum(shares * structure.full_widths, wall.least)
        bound += int((episodes < wanted - multiple).any(axis=1).sum())
    assert bound > count / 10  # the wall had something to do


class Drawn:
    """Energies of three groups without any order: wider is as often cheaper."""

    def __init__(self, seed):
        self.table = np.random.default_rng(seed).random((9, 9, 9))

    def energy(self, widths):
        return self.table[tuple(np.moveaxis(np.asarray(widths), -1, 0))]


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([1, 2, 4]))
@hypothesis_settings(max_examples=100, deadline=None)
def test_no_episode_exceeds_the_budget_where_energy_does_not_grow_with_width(seed, share, multiple):
    nothing = dict.fromkeys(["dense", "train", "holdout", "training"])
    full = np.array([8, 8, 8])
    energy, stream = Drawn(seed), np.random.default_rng(seed)
    low = float(energy.energy(np.ones(3, dtype=int)))
    channels = Traced(SimpleNamespace(full_widths=full))
    problem = Problem(**nothing, channels=channels, energy=energy, budget_j=low + share * (1 - low))
    wall = Wall(problem, 0.0, multiple)
    for _ in range(5):
        widths = walk(wall, stream.random(3))
        assert problem.joules(widths) <= problem.budget_j
        assert (widths >= 1).all()
        assert (widths <= full).all()


def test_the_wall_is_the_closed_form_where_energy_is_affine():
    structure = STRUCTURES["mobilenet"]
    stream = np.random.default_rng(1)
    problem = spent(
        structure, stream.exponential(size=1 + len(graph_features(structure).names)), 0.3
    )
    wall, decided = Wall(problem, 0.2, 1), []
    for group, full in enumerate(problem.full_widths):
        ends = np.tile(wall.least, (2, 1))
        ends[:, :group] = decided
        ends[:, group] = 0, 1
        offset, one = problem.energy.energy(ends)
        closed = int(np.floor((problem.budget_j - offset) / (one - offset) + 1e-9))
        assert wall.width(decided, 1.0) == min(max(closed, wall.least[group]), full)
        decided.append(wall.width(decided, stream.random()))


@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_a_budget_with_room_for_all_lets_an_agent_keep_all(tiny_problem, multiple):
    problem = tiny_problem(1.0)
    wall = Wall(problem, 0.2, multiple)
    assert walk(wall, [1.0] * 3).tolist() == problem.full_widths.tolist()


def test_a_minimum_that_the_budget_has_no_room_for_gives_way():
    problem = spent(
        STRUCTURES["alexnet"],
        np.ones(9)[: 1 + len(graph_features(STRUCTURES["alexnet"]).names)],
        0.01,
    )
    assert np.array_equal(Wall(problem, 0.5, 1).least, problem.smallest)


def test_states_are_fractions(tiny_problem):
    problem = tiny_problem(0.5)
    features = Features(problem)
    for decided in ([], [3], [3, 5]):
        state = features.of(decided, 0.5, problem.smallest)
        assert state.shape == (Features.SIZE,)
        assert ((state >= 0) & (state <= 1)).all()


def test_agent_learns_which_action_is_rewarded():
    agent, stream = Agent(3, 1000, seed=0), np.random.default_rng(0)
    states = torch.zeros(1, 3)
    for _ in range(4 * BATCH):
        action = torch.rand(1, generator=torch.Generator().manual_seed(len(agent.memory)))
        agent.memory.add(states, action, -float((action - 0.8) ** 2))
    for _ in range(1500):
        agent.update(stream)
    assert agent.act(np.zeros(3)) == pytest.approx(0.8, abs=0.12)


def test_least_squares_is_that_of_numpy():
    stream = np.random.default_rng(0)
    inputs, outputs = stream.normal(size=(500, 12)), stream.normal(size=(500, 5))
    exact = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    found = least_squares(inputs.T @ inputs, inputs.T @ outputs, np.zeros((12, 5)))
    assert found == pytest.approx(exact, abs=5e-3)


def test_refitted_layers_are_nearer_to_the_dense_network(tiny_problem):
    problem = tiny_problem(0.5)
    dense, model = problem.student().eval(), problem.student().eval()
    stream = problem.train.batches(50, 0)
    images = [next(stream)[0] for _ in range(6)]
    recorder = Recorder(images, 4, seed=0)
    reconstruction = Reconstruction(problem.channels, dense, recorder)
    keep = problem.channels.keep_largest(model, [5, 8, 7])
    problem.channels.mask(model, keep)

    def weights():
        """By layer, (k, filters)."""
        found = {name: model.get_parameter(f"{name}.weight").detach() for name in layers}
        return {name: weight.flatten(1).double().numpy().T.copy() for name, weight in found.items()}

    # A 1x1 kernel, a 3x3 one and a linear layer over 2x2 places, and the groups that they read.
    layers = {"layers.6": (0, 1), "layers.9": (1, 9), "layers.13": (2, 4)}
    assert set(reconstruction.systems) == set(layers)
    before = weights()
    reconstruction.refit(model, keep)
    after = weights()
    for name, (group, area) in layers.items():
        inputs, outputs = recorder.inputs(dense, name)[0], recorder.outputs(dense, name)
        errors = [np.square(outputs - inputs @ found[name]).sum() for found in (before, after)]
        assert errors[1] < 0.95 * errors[0]
        kept = np.repeat(keep[group].numpy(), area)
        assert not after[name][~kept].any()
        # The ridge as further equations: sqrt(penalty) W = sqrt(penalty) W_dense.
        read, start = inputs[:, kept].astype(float), before[name][kept]
        hold = np.sqrt(RIDGE * np.square(read).sum(axis=0).mean())
        left = np.vstack([read, hold * np.eye(len(start))])
        right = np.vstack([outputs, hold * start])
        exact = np.linalg.lstsq(left, right, rcond=None)[0]
        assert after[name][kept] == pytest.approx(exact, abs=1e-5)
    assert problem.channels.count(model).tolist() == [5, 8, 7]


def test_layers_are_recorded_together_as_one_by_one_and_in_one_pass(tiny_problem):
    problem = tiny_problem()
    model, stream = problem.student().eval(), problem.train.batches(50, 0)
    recorder = Recorder([next(stream)[0] for _ in range(3)], 4, seed=0)
    names = [reader.layer for readers in problem.channels.readers for reader in readers]
    names = [n for n in names if getattr(model.get_submodule(n), "groups", 1) == 1]
    passes = []
    handle = model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = list(recorder.by_batch(model, names))
    handle.remove()
    assert len(names) > 1
    assert len(passes) == 3
    for name in names:
        inputs, outputs = (np.concatenate([seen[name][i] for seen in found]) for i in (0, 1))
        assert np.array_equal(inputs, recorder.inputs(model, name)[0])
        assert np.array_equal(outputs, recorder.outputs(model, name))


def sorted_by_class(split):
    order = torch.argsort(split.labels, stable=True)
    split.images, split.labels = split.images[order], split.labels[order]
    return split


@pytest.mark.parametrize("by_class", [True, False])
def test_some_holdout_images_are_of_all_classes(tiny_problem, memory_split, by_class):
    """Whether a split is sorted by class, as those on disk are, or in turn, as those of tests."""
    split = memory_split(count=200)
    holdout = sorted_by_class(split) if by_class else split
    problem = tiny_problem(holdout=holdout).counted()
    some = problem.some_holdout(100)
    images, labels = (torch.cat(part) for part in zip(*some.ordered(33), strict=True))
    assert len(some) == len(images) == 100
    assert len(torch.unique(images, dim=0)) == 100
    counts = torch.bincount(labels, minlength=4)
    assert (counts == 25).all() if by_class else (counts > 10).all()
    again = torch.cat([labels for _, labels in problem.some_holdout(100).ordered(100)])
    assert torch.equal(labels, again)
    assert len(problem.some_holdout(1000)) == 200


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_no_episode_of_a_whole_search_exceeds_the_budget(tiny_problem, fraction):
    problem = tiny_problem(fraction)
    settings = {**FAST, "episodes": 12, "multiple": 1, "holdout_images": 8}
    result = compress("amc", problem, settings)
    spent_j = result.history["energy_j"]
    assert len(spent_j) == 12
    assert spent_j.max() <= problem.budget_j * (1 + 1e-12)
    assert spent_j.max() > 0.9 * problem.budget_j  # the wall had something to do
    best = result.history["holdout_accuracy"].idxmax()
    assert spent_j[best] == pytest.approx(problem.joules(result.widths), rel=1e-12)


@pytest.mark.parametrize(("asked", "used"), [(0, 32), (7, 7), (100, 32)])
def test_images_evaluated_are_those_of_the_episodes(tiny_problem, asked, used):
    problem = tiny_problem()
    settings = {**FAST, "episodes": 6, "holdout_images": asked}
    effort = compress("amc", problem, settings).effort
    assert (effort.evaluations, effort.images_evaluated) == (6, 6 * used)
    assert effort.images_seen == 50  # by least squares
    # Chosen images are read once, and stay in memory.
    assert problem.holdout.asked["ordered"] == (1 if asked else 6)


def test_noise_that_decays_to_nothing_leaves_the_agent_to_itself(tiny_problem):
    settings = {**FAST, "episodes": 20, "decay": 1e-30, "batches": 0, "holdout_images": 4}
    noise = compress("amc", tiny_problem(), settings).history["noise"]
    assert noise.iloc[-1] == noise.dropna().min() > 0


def test_settings_are_the_published_ones_by_default():
    """He et al., section 4 and the published code; widths are multiples of 8."""
    settings = Settings()
    assert (settings.episodes, settings.warm_up) == (400, 100)
    assert (settings.noise, settings.decay) == (0.5, 0.95)
    assert (settings.smallest_ratio, settings.multiple) == (0.2, 8)
    assert (settings.batches, settings.positions, settings.holdout_images) == (60, 10, 0)


def test_only_episodes_of_the_agent_have_noise(tiny_problem):
    settings = {**FAST, "episodes": 8, "decay": 1.0}
    noise = compress("amc", tiny_problem(), settings).history["noise"]
    assert noise.isna().tolist() == [True] * 5 + [False] * 3
    assert (noise[5:] == 0.5).all()
