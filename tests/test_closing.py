"""Budgets that hold by measurement: narrowed step by step, no further than needed, and said so."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ecc.channels import widths_of
from ecc.closing import BATCHES, IMAGES, LARGEST_STEP, close, close_all, narrow, narrowed
from ecc.counts import Count
from ecc.platforms import Deployed


@dataclass
class Device:
    """Measures what an energy model says times `factor`; knows widths as `known` says."""

    energy: object
    factor: float
    noise: float = 0.0
    metric: str = "energy_j"
    known_widths: bool = True
    asked: int = 0

    def known(self, structure, widths):
        return np.full(len(widths), self.known_widths)

    def measure(self, network, widths, *, seed, first=0, journal=None):
        self.asked += 1
        draws = np.random.default_rng(seed).standard_normal(len(widths))
        return self.factor * self.energy.energy(widths) * (1 + self.noise * draws)


@pytest.fixture
def problem(tiny_problem):
    return tiny_problem(0.6)


def run(problem, device, *, budgets=(0.6,), rounds=4, repeats=9):
    channels = problem.channels
    dense_j = problem.joules(problem.full_widths)
    networks = []
    for share in budgets:
        model = problem.student()
        channels.mask(model, channels.keep_largest(model, [6, 9, 7]))
        networks.append((model, channels.kept(model), share * dense_j))
    return close(
        device,
        Deployed(channels.structure),
        channels,
        problem.energy,
        networks,
        smallest=problem.smallest,
        rounds=rounds,
        repeats=repeats,
        seed=3,
    )


def test_a_network_inside_its_budget_is_left_as_it_is(problem):
    device = Device(problem.energy, 1.0)
    (found,) = run(problem, device, budgets=[0.9])
    assert found.closed
    assert found.widths.tolist() == [6, 9, 7]
    assert (len(found.measured_j), device.asked) == (1, 1)


@pytest.mark.parametrize("factor", [1.02, 1.1, 1.5])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_what_measures_more_is_narrowed_until_it_is_inside(problem, factor, noise):
    (found,) = run(problem, Device(problem.energy, factor, noise), budgets=[0.45], rounds=6)
    assert found.closed
    assert found.measured_j[0] > found.budget_j >= found.measured_j[-1]
    assert (found.widths >= problem.smallest).all()
    # The network is masked only when it is narrowed.
    channels = problem.channels
    assert channels.count(found.model).tolist() == [6, 9, 7]
    narrow(found.model, channels, found.keep, problem.train, seed=0, device="cpu")
    assert channels.count(found.model).tolist() == found.widths.tolist()
    # With one channel more in any group it would have been over, or within the errors aimed at.
    for group in np.flatnonzero(found.widths < [6, 9, 7]):
        wider = found.widths.copy()
        wider[group] += 1
        assert factor * problem.joules(wider) > found.budget_j * (1 - 4 * noise / 3 - 1e-9)


def test_networks_are_measured_together_and_only_while_they_are_open(problem):
    device = Device(problem.energy, 1.1)
    share = problem.joules([6, 9, 7]) / problem.joules(problem.full_widths)
    found = run(problem, device, budgets=[0.9, 1.05 * share, 1.01 * share])
    assert [each.closed for each in found] == [True, True, True]
    assert [len(each.measured_j) for each in found] == [1, 2, 2]
    assert device.asked == 2


def test_a_device_that_cannot_be_satisfied_is_said(problem):
    (found,) = run(problem, Device(problem.energy, 100.0), rounds=40)
    assert found.closed is False
    assert found.widths.tolist() == problem.smallest.tolist()
    # Once at the smallest widths, not until noise is kind.
    assert (np.diff(found.measured_j) < 0).all()
    assert len(found.measured_j) < 41


def test_widths_that_cannot_be_measured_are_neither_inside_nor_outside(problem):
    device = Device(problem.energy, 1.1, known_widths=False)
    (found,) = run(problem, device)
    assert found.closed is None
    assert (found.measured_j, device.asked) == ([], 0)


def test_limits_are_closed_after_the_budget_and_each_is_told(problem, tmp_path):
    channels, model = problem.channels, problem.student()
    channels.mask(model, channels.keep_largest(model, [6, 9, 7]))
    energy_j, parameters = problem.joules([6, 9, 7]), Count("parameters", channels.structure)
    board, clock = Device(problem.energy, 1.05), Device(parameters, 1.2, metric="latency_s")
    limit = float(parameters.energy([6, 9, 7]))

    def run(**budgets):
        (found,) = close_all(
            {"board": (board, problem.energy), "clock": (clock, parameters)},
            Deployed(channels.structure),
            channels,
            [(model, budgets)],
            smallest=problem.smallest,
            rounds=5,
            repeats=4,
            seed=3,
            journal=tmp_path,
        )
        return found

    only = run(board=energy_j)
    both = run(board=energy_j, clock=limit)
    told = both.record(np.array([6, 9, 7]), 0.5, 0.4)
    assert told["widths"] == widths_of(both.keep).tolist()
    assert told["closed"]
    for name, metric in (("board", "energy_j"), ("clock", "latency_s")):
        found = told["budgets"][name]
        assert (found["metric"], found["closed"]) == (metric, True)
        assert found["measured"][-1] <= found["budget"] < found["measured"][0]
        assert found["rounds"] == len(found["measured"]) - 1 > 0
    assert only.closed
    assert list(only.budgets) == ["board"]
    assert both.closed
    assert both.budgets["board"].measured_j == only.budgets["board"].measured_j
    assert (widths_of(both.keep) <= widths_of(only.keep)).all()
    assert 1.2 * parameters.energy(widths_of(both.keep)) <= limit
    assert 1.2 * parameters.energy(widths_of(only.keep)) > limit
    assert run(board=energy_j, clock=1.0).closed is False
    clock.known_widths = False
    assert run(board=energy_j, clock=limit).closed is None


def test_the_least_norm_of_a_group_goes_first(problem):
    channels, model = problem.channels, problem.student()
    keep = channels.keep_largest(model, problem.full_widths)
    target = 0.8 * problem.joules(problem.full_widths)
    kept = narrowed(channels, model, keep, problem.energy, target, problem.smallest)
    assert problem.joules(widths_of(kept)) <= target
    for norms, mask in zip(channels.norms(model), kept, strict=True):
        if not mask.all():
            assert norms[~mask].max() <= norms[mask].min()
    assert all(mask.all() for mask in keep)  # what was given is as it was


def test_choices_are_kept_as_numbers_of_channels(problem):
    channels = problem.channels
    keep = channels.keep_largest(problem.student(), [3, 5, 2])
    numbers = [each.nonzero().flatten().tolist() for each in keep]
    assert all(map(torch.equal, keep, channels.keeping(numbers)))


def test_one_reading_that_is_far_off_does_not_cost_the_network(problem):
    @dataclass
    class Outlier(Device):
        def measure(self, network, widths, *, seed, first=0, journal=None):
            joules = super().measure(network, widths, seed=seed)
            if self.asked == 1:
                joules[0] *= 9
            return joules

    before = problem.joules([6, 9, 7])
    (found,) = run(problem, Outlier(problem.energy, 1.0), budgets=[0.5])
    assert found.closed
    # Less than a step, and the channel that crosses it.
    assert problem.joules(found.widths) > (1 - LARGEST_STEP) * before - 0.1 * before


@pytest.mark.parametrize("before", [(6, 9, 7), (4, 6, 5)], ids=["narrowed", "kept as it is"])
def test_every_network_has_statistics_of_its_own(problem, before):
    channels, model = problem.channels, problem.student()
    channels.mask(model, channels.keep_largest(model, before))
    keep = channels.keep_largest(model, [4, 6, 5])
    narrow(model, channels, keep, problem.train, seed=0, device="cpu")
    slim = channels.slim(model, channels.kept(model)).train()
    for module in slim.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    stream = problem.train.batches(IMAGES, 0)
    for _ in range(BATCHES):
        slim(next(stream)[0])
    expected = [m.running_mean for m in slim.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    found = channels.slim(model, channels.kept(model))
    means = [m.running_mean for m in found.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(means, expected, strict=True))
