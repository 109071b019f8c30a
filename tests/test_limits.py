"""Several budgets at once: counts with known answers, what binds, ECC's dual variables."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ecc.budgets import PATTERN, Budget, Range
from ecc.counts import COUNTS, Count
from ecc.energy import BilinearGraph
from ecc.errors import UserError
from ecc.methods import METHODS, Limit, compress
from ecc.methods.problem import Binding
from ecc.networks import Network
from ecc.platforms import make

# Parameters and MACs at 224x224 or 512x1024, as the networks' authors or torchvision count them;
# MobileNet at other widths: those that AMC published (He et al., ECCV 2018).
AMC = [24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752]
FEW = {  # episodes, and candidates of 60 iterations
    "amc": {"episodes": 8, "warm_up": 4, "batches": 1},
    "lcp": {"evaluations": 6, "population": 3, "tournament": 2},
}
STRUCTURE = Network("mobilenet", 10, multiplier=0.25).structure
KNOWN = [
    ("mobilenet", 1000, None, 4_231_976, 568_740_352),
    ("mobilenet", 1000, AMC, 2_408_232, 293_870_000),
    ("alexnet", 1000, None, 61_100_840, 714_188_480),
    ("erfnet", 20, None, 2_066_836, 26_612_727_808),
]


@pytest.mark.parametrize(("architecture", "classes", "widths", "parameters", "macs"), KNOWN)
def test_counts_are_the_published_ones(architecture, classes, widths, parameters, macs):
    size = (512, 1024) if architecture == "erfnet" else (224, 224)
    network = Network(architecture, classes, size=size)
    at = network.full_widths if widths is None else np.array(widths)
    assert Count("parameters", network.structure).energy(at) == parameters
    assert Count("macs", network.structure).energy(at) == macs
    assert sum(p.numel() for p in network.build(at).parameters()) == parameters


def test_memory_is_that_of_parameters_and_the_largest_operation():
    network = Network("alexnet", 1000)
    image, first = 3 * 224 * 224, 64 * 55 * 55
    expected = 4 * (61_100_840 + image + first)
    assert Count("memory", network.structure).energy(network.full_widths) == expected


@pytest.mark.parametrize("name", ["macs", "parameters"])
def test_slopes_of_counts_are_exact(name):
    structure = Network("erfnet", 20, multiplier=0.25, size=(64, 128)).structure
    count, s = Count(name, structure), structure.full_widths * 0.6
    slope = count.gradient(s)
    for group in range(len(s)):
        step = np.zeros(len(s))
        step[group] = 1e-3
        found = (count.energy(s + step) - count.energy(s - step)) / 2e-3
        assert slope[group] == pytest.approx(found, rel=1e-6)


kinds = st.sampled_from(["dense", "reducible", "joules", "seconds", "count"])
values = st.floats(1e-6, 1, allow_subnormal=False)
names = st.sampled_from(["macs", "my_board2", "parameters"])


@given(kinds, values, st.dictionaries(names, st.tuples(kinds, values), max_size=3))
def test_labels_of_limited_budgets_are_read_back(kind, value, limits):
    settings = {kind: value, "limits": {name: dict([limit]) for name, limit in limits.items()}}
    budget = Budget.from_settings(settings)
    assert Budget.from_label(budget.label) == budget
    assert re.fullmatch(PATTERN, budget.label)


def test_limits_are_resolved_in_their_own_unit():
    budget = Budget.from_settings(
        {"dense": 0.5, "limits": {"parameters": {"count": 300}, "board": {"reducible": 0.5}}}
    )
    found = {"parameters": Range(1000, 10, "count"), "board": Range(0.004, 0.002, "latency_s")}
    assert budget.resolve_limits(found) == {"parameters": 300, "board": 0.003}
    with pytest.raises(UserError, match=r"limit on parameters: budget count-5\.0"):
        Budget("dense", 0.5, (("parameters", Budget("count", 5.0)),)).resolve_limits(found)
    with pytest.raises(UserError, match="limit on board: a budget in joules, where latency"):
        Budget("dense", 0.5, (("board", Budget("joules", 5.0)),)).resolve_limits(found)


@pytest.fixture
def limited(tiny_problem):
    """A function that gives the tiny problem with limits, as fractions of the dense counts."""

    def make(fraction, **limits):
        problem = tiny_problem(fraction)
        structure = problem.channels.structure
        found = []
        for name, share in limits.items():
            count = Count(name, structure)
            found.append(Limit(name, count, share * float(count.energy(structure.full_widths))))
        return replace(problem, limits=tuple(found))

    return make


@given(st.lists(st.floats(0.2, 1.0), min_size=3, max_size=3), st.integers(0, 10**6))
def test_binding_budget_is_met_exactly_where_all_are(shares, seed):
    full, rng = STRUCTURE.full_widths, np.random.default_rng(seed)
    counts = [Count(name, STRUCTURE) for name in COUNTS]
    limits = [
        Limit(count.name, count, share * float(count.energy(full)))
        for count, share in zip(counts, shares, strict=True)
    ]
    widths = rng.integers(1, full + 1, size=(50, len(full)))
    inside = np.all([limit.model.energy(widths) <= limit.budget for limit in limits], axis=0)
    assert np.array_equal(Binding(limits).energy(widths) <= limits[0].budget, inside)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "limits", [{"parameters": 0.4}, {"macs": 0.5, "memory": 0.7, "parameters": 0.6}]
)
def test_every_method_keeps_all_limits(limited, method, limits):
    problem = limited(0.9, **limits)
    result = compress(method, problem, FEW.get(method, {}))
    assert problem.inside(result.widths)
    for limit in problem.limits:
        assert limit.model.energy(result.widths) <= limit.budget


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fraction", [1.0, 1.05])
def test_a_limit_alone_is_kept_where_the_budget_leaves_all(limited, method, fraction):
    problem = limited(fraction, parameters=0.5)
    result = compress(method, problem, FEW.get(method, {}))
    assert problem.inside(result.widths)
    assert (result.widths < problem.full_widths).any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_the_dense_network_as_its_budget(tiny_problem, method):
    """By the energy model, of which the measured energy that a budget is relative to may differ."""
    problem = tiny_problem(1.0)
    assert problem.inside(compress(method, problem, FEW.get(method, {})).widths)


def test_budgets_that_leave_the_dense_network_as_it_is_are_refused(limited):
    with pytest.raises(UserError, match=r"above .* by the energy model: nothing to compress"):
        compress("uniform", limited(1.01), {})
    with pytest.raises(UserError, match="all limits are met: nothing to compress"):
        compress("uniform", limited(1.01, parameters=1.0), {})


def test_a_budget_that_only_measurement_binds_is_refused_unless_a_limit_binds():
    own = Range(1.0, 0.5, modelled=0.99)
    count = Range(1000, 10, "count", modelled=1000)
    found = {"parameters": count}
    for value in (0.995, 1.0):
        for limits in ((), (("parameters", Budget("dense", 1.0)),)):
            with pytest.raises(UserError, match=r"by the energy model, 0\.99 J: nothing would be"):
                Budget("dense", value, limits).check_binding(own, found)
        Budget("dense", value, (("parameters", Budget("dense", 0.9)),)).check_binding(own, found)
    Budget("dense", 0.99).check_binding(own, found)


def test_a_limit_that_does_not_bind_changes_nothing_of_ecc(limited, tiny_problem):
    alone = compress("ecc", tiny_problem(0.5), {})
    loose = compress("ecc", limited(0.5, parameters=1.0), {})
    assert np.array_equal(alone.widths, loose.widths)
    assert alone.history["bound_energy_j"].tolist() == loose.history["bound_energy_j"].tolist()


@pytest.mark.parametrize("fraction", [0.7, 0.5, 0.3])
def test_a_limit_that_the_other_budget_keeps_hardly_changes_the_widths_of_ecc(
    limited, tiny_problem, fraction
):
    problem = tiny_problem(fraction)
    alone = compress("ecc", problem, {})
    count = Count("parameters", problem.channels.structure)
    share = 1.02 * float(count.energy(alone.widths) / count.energy(problem.full_widths))
    both = compress("ecc", limited(fraction, parameters=share), {})
    assert np.abs(both.widths - alone.widths).max() <= 1


@pytest.mark.parametrize("pace", ["automatic", "fixed"])
@pytest.mark.parametrize("name", ["parameters", "seconds"])
def test_each_budget_of_ecc_has_its_dual_variable(tiny_problem, name, pace):
    """What is limited by a count, or by a model of another platform, whose metric is latency."""
    problem = tiny_problem(0.5)
    structure = problem.channels.structure
    seconds = BilinearGraph(structure, np.array([0.1, 3.0, 0.5, 0.5, 2.0]) * 1e-4)
    model = {"parameters": Count("parameters", structure), "seconds": seconds}[name]
    limit = Limit(name, model, 0.5 * float(model.energy(structure.full_widths)))
    problem = replace(problem, limits=(limit,))
    history = compress("ecc", problem, {"pace": pace, "beta": 0.3}).history
    for used, budget, z in (
        ("energy_j", problem.budget_j, "z"),
        (name, limit.budget, f"z_{name}"),
    ):
        assert history[used].iloc[0] > budget >= history[used].iloc[-1]
        assert history[z].max() > max(history[z].iloc[0], 0)


def test_impossible_limit_is_named(limited):
    problem = limited(0.9, parameters=1e-6)
    with pytest.raises(UserError, match=r"limit parameters of .* is below"):
        compress("uniform", problem, {})


def test_time_of_an_emulated_device_is_a_platform():
    network = Network("alexnet", 10, multiplier=0.25)
    platform = make("board", {"kind": "jetson_tx2", "metric": "latency"})
    assert platform.metric == "latency_s"
    rows = network.full_widths[None].repeat(200, axis=0)
    measured = platform.measure(network, rows, seed=0)
    exact = make("jetson_tx2", {"kind": "jetson_tx2"}).latency(network.structure, rows[:1])
    assert measured.mean() == pytest.approx(exact[0], rel=0.005)
    assert measured.std() == pytest.approx(0.01 * exact[0], rel=0.3)
    with pytest.raises(UserError, match="eyeriss has no latency"):
        make("board", {"kind": "eyeriss", "metric": "latency"})
