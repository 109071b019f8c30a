"""Methods: the proximal operator against brute force, budgets that hold, iterations that add up."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st

from ecc.energy import BilinearGraph, draw_widths, fit
from ecc.energy.lookup import tabulate
from ecc.errors import UserError
from ecc.methods import METHODS, compress, netadapt
from ecc.methods.ecc import Settings, Solver, channel_scores, proximal_operator, trim
from ecc.methods.problem import FixedZeros
from ecc.methods.uniform import uniform_widths
from ecc.tasks import CLASSIFICATION
from ecc.training import TaskLoss, adam, evaluate, train

# What one layer's problem may be: scores (S,), s in [1, S], y >= 0, rho1 > 0, alpha > 0.
SCORES = st.lists(
    st.one_of(st.sampled_from([0.0, 0.25, 1.0]), st.floats(1e-6, 10)), min_size=1, max_size=9
)


@st.composite
def layers(draw):
    scores = np.array(draw(SCORES))
    s = draw(st.one_of(st.integers(1, len(scores)), st.floats(1, len(scores))))
    alpha = draw(st.floats(1e-4, 1.0))
    y, rho1 = (draw(st.floats(0, 5)) / alpha for _ in range(2))
    return scores, float(s), y, rho1, alpha


def objective(keep, scores, s, y, rho1, alpha):
    """What the proximal operator minimises, for rows of keep (n, S)."""
    k = keep.sum(axis=1)
    dropped = (~keep * scores).sum(axis=1)
    return dropped / (2 * alpha) + rho1 / 2 * np.maximum(k - s, 0) ** 2 + y * k


@given(layers())
@hypothesis_settings(max_examples=300, deadline=None)
def test_proximal_operator_is_the_best_of_all_subsets(layer):
    scores, s, y, rho1, alpha = layer
    size = len(scores)
    subsets = (np.arange(2**size)[:, None] >> np.arange(size)) % 2 == 1
    best = objective(subsets, *layer).min()
    ours = objective(proximal_operator(scores, s, y, rho1, alpha)[None], *layer)[0]
    assert ours == pytest.approx(best, rel=1e-9, abs=1e-12)


@given(layers())
@hypothesis_settings(max_examples=300, deadline=None)
def test_trim_leaves_s_channels_and_lowers_y_no_more_than_it_must(layer):
    scores, s, y, rho1, alpha = layer

    def survivors(dual):
        return int(proximal_operator(scores, s, dual, rho1, alpha).sum())

    trimmed = trim(y, scores, s, alpha)
    assert 0 <= trimmed <= y
    assert survivors(trimmed) >= int(s)
    if trimmed < y:
        assert survivors(trimmed * (1 + 1e-9) + 1e-15) < int(s)


def test_scores_are_adams_diagonal_times_squared_weights(tiny_problem):
    problem = tiny_problem()
    model = problem.student()
    optimizer = adam(model, problem.training)
    settings = replace(problem.training, iterations=3, channels_last=False)
    train(model, problem.train, TaskLoss(CLASSIFICATION), settings, seed=0, optimizer=optimizer)
    scores = channel_scores(problem, model, optimizer)
    convolutions = [model.layers[index].weight for index in (3, 6)]

    def weighted(weight):
        second = optimizer.state[weight]["exp_avg_sq"] / (1 - 0.999**3)
        return (second.sqrt() + 1e-8) * weight.detach() ** 2

    depthwise, pointwise = (weighted(weight) for weight in convolutions)
    expected = depthwise.sum(dim=(1, 2, 3)) + pointwise.sum(dim=(0, 2, 3))
    assert scores[0] == pytest.approx(expected.numpy(), rel=1e-4)
    flattened = weighted(model.layers[13].weight).sum(dim=0).view(10, 4).sum(dim=1)
    assert scores[2] == pytest.approx(flattened.numpy(), rel=1e-4)


VARIANTS = {
    "ecc": ("ecc", {}),
    "ecc_fixed": ("ecc", {"pace": "fixed", "beta": 0.3}),
    "ecc_too_slow": ("ecc", {"pace": "fixed", "beta": 1e-4}),
    "ecc_outputs": ("ecc_outputs", {}),
    "ecc_outputs_fixed": ("ecc_outputs", {"pace": "fixed", "beta": 0.3}),
    "netadapt": ("netadapt", {"decay": 0.85}),
    "netadapt_original": (
        "netadapt",
        {"schedule": "original", "reduction": 0.15, "selection": "accuracy_per_energy"},
    ),
    "uniform": ("uniform", {}),
    "amc": ("amc", {"episodes": 12, "warm_up": 5, "batches": 2, "positions": 4}),
    "amc_rounded": ("amc", {"episodes": 6, "warm_up": 3, "batches": 1, "multiple": 4}),
    "eap": ("eap", {"images": 16}),
    "knapsack": ("knapsack", {"steps": 5}),
    "evolution": (
        "evolution",
        {"stages": 2, "population": 4, "generations": 1, "calibration": 1, "shared": 0.8},
    ),
    "lcp": (
        "lcp",
        {"evaluations": 3, "population": 2, "tournament": 2, "search": 0.6, "calibration": 1},
    ),
}


COMPARE = ("amc", "evolution", "lcp", "netadapt")  # candidates on the hold-out images
UNTRAINED = ("amc", "uniform")  # their iterations go to fine-tuning
# Evolution trains shared weights with this share of them, and calibrates with one batch.
SHARED = 0.8


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


@pytest.mark.parametrize("fraction", [0.8, 0.45])
def test_every_method_ends_within_its_budget(tiny_problem, variant, fraction):
    method, settings = variant
    problem = tiny_problem(fraction)
    before = {name: tensor.clone() for name, tensor in problem.dense.state_dict().items()}
    result = compress(method, problem, settings)
    assert problem.joules(result.widths) <= problem.budget_j
    assert (result.widths >= 1).all()
    assert (result.widths <= problem.full_widths).all()
    # The network is masked as the method says, and can be slimmed to those widths.
    channels = problem.channels
    assert np.array_equal(channels.count(result.model), result.widths)
    slim = channels.slim(result.model.eval(), result.keep).eval()
    images = problem.train.images[:8]
    with torch.no_grad():
        expected, slimmed = result.model(images), slim(images)
    assert (slimmed - expected).abs().max() <= 1e-5 * expected.abs().max()
    # The dense network, which is the teacher of others, is as it was.
    assert all(before[name].equal(tensor) for name, tensor in problem.dense.state_dict().items())


@pytest.mark.parametrize("iterations", [1, 3])
def test_budget_holds_with_hardly_any_iterations(tiny_problem, variant, iterations):
    problem, (method, settings) = tiny_problem(0.4, iterations=iterations), variant
    if method == "lcp":  # too few for its candidates, which it says
        settings = {**settings, "search": 0.0}
    result = compress(method, problem, settings)
    assert problem.joules(result.widths) <= problem.budget_j


def test_lower_bounds_are_kept(tiny_problem, variant):
    bounds = np.array([6, 2, 3])
    problem = tiny_problem(0.5, lower_bounds=bounds)
    result = compress(variant[0], problem, variant[1])
    assert problem.joules(result.widths) <= problem.budget_j
    assert (result.widths >= bounds).all()


def test_smallest_energy_can_be_reached(tiny_problem, variant):
    problem = tiny_problem(lower_bounds=np.array([2, 3, 1]))
    problem = replace(problem, budget_j=problem.joules(problem.smallest))
    result = compress(variant[0], problem, variant[1])
    assert np.array_equal(result.widths, problem.smallest)


def test_dense_energy_is_a_budget(tiny_problem, variant):
    if variant[0] == "amc":
        pytest.skip("its agent may choose less than it is allowed")
    result = compress(variant[0], tiny_problem(1.0, iterations=5), variant[1])
    assert np.array_equal(result.widths, [8, 12, 10])


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_result(tiny_problem, variant, seed):
    def run(seed):
        return compress(variant[0], tiny_problem(0.5, iterations=30, seed=seed), variant[1])

    one, other, different = run(seed), run(seed), run(seed + 1)
    weights = [list(result.model.state_dict().values()) for result in (one, other, different)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert np.array_equal(one.widths, other.widths)
    assert one.history.equals(other.history)
    if variant[0] not in UNTRAINED:
        assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_holdout_is_evaluated_and_never_trained_on(tiny_problem, variant):
    problem = tiny_problem(0.5, iterations=30)
    compress(variant[0], problem, variant[1])
    assert problem.holdout.asked["batches"] == 0
    assert problem.train.asked["ordered"] == 0
    # Methods that compare candidates look at the hold-out images, and no others.
    assert (problem.holdout.asked["ordered"] > 0) == (variant[0] in COMPARE)


@pytest.mark.parametrize("iterations", [7, 60, 200])
def test_iterations_spent_are_those_given(tiny_problem, variant, iterations):
    problem = tiny_problem(0.6, iterations=iterations)
    result = compress(variant[0], problem, variant[1])
    spent = {"evolution": min(round(SHARED * iterations) + 1, iterations)}
    spent |= dict.fromkeys(UNTRAINED, 0)
    assert result.iterations == spent.get(variant[0], iterations)
    looked_at = problem.train.asked["batches"]
    assert looked_at == (variant[1]["batches"] if variant[0] == "amc" else result.iterations)


@pytest.mark.parametrize("method", ["ecc", "ecc_outputs", "eap", "knapsack"])
def test_a_run_resumed_after_its_last_iteration_has_seen_the_same_images(
    tiny_problem, training_settings, tmp_path, method
):
    training = training_settings(iterations=30, checkpoint_every=10)
    problem = tiny_problem(training=training, checkpoint=tmp_path / "checkpoint.safetensors")
    first, again = (compress(method, problem, VARIANTS[method][1]) for _ in range(2))
    assert problem.checkpoint.exists()
    assert first.effort == again.effort
    assert again.effort.images_seen == 30 * 8


def test_budget_that_cannot_be_met_names_the_smallest_energy(tiny_problem, variant):
    problem = tiny_problem(lower_bounds=np.array([4, 4, 4]))
    smallest = problem.joules(np.array([4, 4, 4]))
    problem = replace(problem, budget_j=0.99 * smallest)
    with pytest.raises(UserError, match=f"below {smallest:.6g} J, the smallest energy") as raised:
        compress(variant[0], problem, variant[1])
    assert "\n" not in str(raised.value)


def test_budget_above_dense_is_refused(tiny_problem, variant):
    with pytest.raises(UserError, match=r"above .* the dense network's energy"):
        compress(variant[0], tiny_problem(1.01), variant[1])


def test_unknown_method_is_named(tiny_problem):
    with pytest.raises(UserError, match=r"'none'.*ecc, .*netadapt, uniform"):
        compress("none", tiny_problem(), {})


@pytest.mark.parametrize("method", METHODS)
def test_unknown_setting_is_named(tiny_problem, method):
    with pytest.raises(UserError, match="rho9") as raised:
        compress(method, tiny_problem(), {"rho9": 1.0})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("method", "settings", "named"),
    [
        ("ecc", {"pace": "brisk"}, "brisk.*automatic, fixed"),
        ("netadapt", {"schedule": "slow"}, "slow.*geometric, original"),
        ("netadapt", {"selection": "random"}, "random.*accuracy, accuracy_per_energy"),
        ("netadapt", {"decay": 1.0}, "netadapt.decay: 1.0 is out of its range"),
        ("ecc", {"rho1": -1.0}, "ecc.rho1: -1.0 is out of its range"),
        ("ecc_outputs", {"ramp": 0.0}, "ecc_outputs.ramp: 0.0 is out of its range"),
    ],
)
def test_unknown_choice_is_named(tiny_problem, method, settings, named):
    with pytest.raises(UserError, match=named) as raised:
        compress(method, tiny_problem(), settings)
    assert "\n" not in str(raised.value)


def columns(history, prefix):
    return history[[name for name in history if name.startswith(prefix)]].to_numpy()


@pytest.mark.parametrize("pace", ["automatic", "fixed"])
@pytest.mark.parametrize("bounds", [[], [6, 2, 3]])
def test_ecc_history(tiny_problem, pace, bounds):
    problem = tiny_problem(0.5, lower_bounds=np.array(bounds, dtype=int))
    result = compress("ecc", problem, {"pace": pace, "beta": 0.3})
    history = result.history
    assert len(history) == 60
    assert (history["energy_j"] > 0).all()
    # s only falls, and with it E(s); duals are prices.
    s, y = columns(history, "s_"), columns(history, "y_")
    assert (np.diff(s, axis=0) <= 0).all()
    assert (s >= problem.smallest).all()
    assert (s <= problem.full_widths).all()
    assert (np.diff(history["bound_energy_j"]) <= 0).all()
    assert (y >= 0).all()
    assert (history["z"] >= 0).all()
    assert history["energy_j"].iloc[-1] <= problem.budget_j
    # Once the budget is met the channels are fixed.
    met = (history["energy_j"] <= problem.budget_j).to_numpy()
    assert (np.diff(met.astype(int)) >= 0).all()
    assert history["energy_j"][met].nunique() == 1


@pytest.mark.parametrize("pace", ["automatic", "fixed"])
@pytest.mark.parametrize("kind", ["bilinear_chain", "mlp1", "lookup"])
def test_ecc_follows_every_kind_of_energy_model(tiny_problem, kind, pace):
    problem = tiny_problem(0.5)
    structure = problem.channels.structure
    widths = draw_widths(structure, 500, seed=0)
    samples = widths, problem.energy.energy(widths)
    fitting, settings = ("adam", {"iterations": 300}) if kind == "mlp1" else ("nnls", {})
    energy, _ = fit(kind, fitting, structure, *samples, settings, test=samples)
    budget_j = 0.5 * float(energy.energy(problem.full_widths))
    problem = replace(problem, energy=energy, budget_j=budget_j)
    result = compress("ecc", problem, {"pace": pace, "beta": 0.3})
    bounds = result.history["bound_energy_j"].to_numpy()
    assert (np.diff(bounds) <= 0).all()
    assert bounds[-1] < 0.6 * float(energy.energy(problem.full_widths))
    assert problem.joules(result.widths) <= budget_j


def test_automatic_pace_follows_its_schedule(tiny_problem):
    problem = tiny_problem(0.4, iterations=100)
    dense = problem.joules(problem.full_widths)
    history = compress("ecc", problem, {"ramp": 0.8}).history
    active = history[history["energy_j"] > problem.budget_j]
    target = np.maximum(1 - 0.6 * (active["iteration"] + 1) / 80, 0.4) * dense
    # The trust region may hold the bounds back for a while, but never pushes them ahead.
    assert (active["bound_energy_j"] >= target * (1 - 1e-6)).all()
    assert (active["bound_energy_j"] <= target * 1.1).all()
    assert len(active) < 100


class Rounded:
    """An energy model whose gradients are off by rounding, as on another processor."""

    def __init__(self, model, seed):
        self.model, self.energy = model, model.energy
        self.off = 1 + 1e-12 * np.random.default_rng(seed).uniform(-1, 1, 3)

    def gradient(self, widths):
        return self.model.gradient(widths) * self.off


def test_rounding_does_not_decide_which_group_shrinks_first(tiny_problem):
    problem = tiny_problem(0.5, iterations=100)
    narrowed = set()
    for seed in range(20):
        changed = replace(problem, energy=Rounded(problem.energy, seed))
        solver = Solver(changed, changed.student(), Settings(ramp=1.0))
        train(
            solver.model,
            problem.train,
            problem.distillation(),
            replace(problem.training, iterations=1),
            seed=0,
            update=solver,
        )
        narrowed.add(tuple(np.flatnonzero(solver.s < solver.full)))
    assert narrowed == {(0,)}  # all prices are equal: the first group


def test_zeros_stay_once_the_budget_is_met(tiny_problem):
    problem = tiny_problem(0.7, iterations=80)
    model = problem.student()
    solver = Solver(problem, model, Settings())
    counts = []

    class Watched:
        state, restore = solver.state, solver.restore

        def __call__(self, iteration, optimizer):
            report = solver(iteration, optimizer)
            counts.append((solver.keep is not None, *problem.channels.count(model)))
            return report

    loss = problem.distillation()
    train(model, problem.train, loss, problem.training, seed=0, update=Watched())
    fixed = [widths for met, *widths in counts if met]
    assert 0 < len(fixed) < 80
    assert all(widths == fixed[0] for widths in fixed)


def test_fixed_zeros_stay_through_training(tiny_problem):
    problem = tiny_problem()
    model = problem.student()
    keep = problem.channels.keep_largest(model, [3, 4, 5])
    update = FixedZeros(problem.channels, model, keep)
    assert problem.channels.count(model).tolist() == [3, 4, 5]
    settings = replace(problem.training, iterations=10)
    train(model, problem.train, problem.distillation(), settings, seed=0, update=update)
    assert all(a.equal(b) for a, b in zip(problem.channels.kept(model), keep, strict=True))


@pytest.mark.parametrize("schedule", ["geometric", "original"])
@pytest.mark.parametrize("selection", ["accuracy", "accuracy_per_energy"])
def test_netadapt_history(tiny_problem, schedule, selection):
    problem = tiny_problem(0.5)
    choices = {"schedule": schedule, "selection": selection, "decay": 0.9, "reduction": 0.15}
    history = compress("netadapt", problem, choices).history
    dense = problem.joules(problem.full_widths)
    assert (np.diff([dense, *history["energy_j"]]) < 0).all()
    assert (np.diff(history["round"]) >= 0).all()
    assert history["energy_j"].iloc[-1] <= problem.budget_j
    assert history["holdout_accuracy"].between(0, 1).all()
    # Each round ends at its target: 0.9 of the one before.
    if schedule == "geometric":
        ends = history.groupby("round")["energy_j"].last()
        targets = np.maximum(dense * 0.9 ** (ends.index + 1.0), problem.budget_j)
        assert (ends.to_numpy() <= targets * (1 + 1e-12)).all()


@pytest.mark.parametrize("fraction", [0.7, 0.4])
def test_netadapt_chooses_the_same_widths_with_the_table_of_its_energy_model(
    tiny_problem, fraction
):
    problem = tiny_problem(fraction)
    table = replace(problem, energy=tabulate(problem.energy, knots=4, queries=500))
    one, other = (compress("netadapt", given, {"decay": 0.9}) for given in (problem, table))
    assert np.array_equal(one.widths, other.widths)
    assert one.history["group"].tolist() == other.history["group"].tolist()


def test_netadapt_passes_over_a_group_that_costs_nothing(tiny_problem):
    """Narrowing such a group saves no energy, whatever is taken for the best candidate."""
    problem = tiny_problem()
    structure = problem.channels.structure
    energy = BilinearGraph(structure, np.array([0.1, 1.0, 0.0, 0.0, 0.0]))
    smallest = float(energy.energy(np.array([1, 12, 10])))
    problem = replace(problem, energy=energy, budget_j=smallest, lower_bounds=np.array([1, 1, 1]))
    for selection in ("accuracy", "accuracy_per_energy"):
        result = compress("netadapt", problem, {"selection": selection, "decay": 0.7})
        assert problem.joules(result.widths) <= problem.budget_j


class Joint:
    """Energy 4 + s0 s1: of the last group none, and no group alone reaches a low target."""

    def energy(self, widths):
        return 4.0 + np.asarray(widths)[..., 0] * np.asarray(widths)[..., 1]


@pytest.mark.parametrize("selection", ["accuracy", "accuracy_per_energy"])
def test_netadapt_narrows_what_saves_energy_where_no_group_alone_reaches_the_target(
    tiny_problem, selection
):
    problem = tiny_problem(iterations=3, energy=Joint(), budget_j=6.0)
    result = compress("netadapt", problem, {"selection": selection, "decay": 0.05})
    assert sorted(result.history["group"]) == [0, 1]
    assert result.widths[2] == 10


@pytest.mark.parametrize("bounds", [[1, 1, 1], [5, 2, 1]])
@pytest.mark.parametrize("fraction", [0.9, 0.55, 0.3])
def test_uniform_takes_the_largest_multiplier(tiny_problem, fraction, bounds):
    problem = tiny_problem(fraction, lower_bounds=np.array(bounds))
    widths = uniform_widths(problem)
    full = problem.full_widths
    # Every multiplier at which a width changes, in exact arithmetic.
    multipliers = sorted({(k * 120 // width) for width in full for k in range(1, width + 1)})
    candidates = [np.maximum(bounds, m * full // 120) for m in multipliers]
    within = [problem.joules(candidate) <= problem.budget_j for candidate in candidates]
    last = int(np.flatnonzero(within)[-1])
    assert np.array_equal(widths, candidates[last])
    larger = next(c for c in candidates[last:] if not np.array_equal(c, widths))
    assert problem.joules(larger) > problem.budget_j


def test_uniform_keeps_the_largest_channels(tiny_problem):
    problem = tiny_problem(0.5)
    result = compress("uniform", problem, {})
    for norms, keep in zip(problem.channels.norms(problem.dense), result.keep, strict=True):
        assert norms[keep].min() >= norms[~keep].max()


@pytest.mark.parametrize("iterations", [7, 29, 100])
def test_netadapt_trains_all_candidates_of_a_round_as_long(tiny_problem, monkeypatch, iterations):
    """What cannot be shared out so is left to the network that they end in."""
    spent = {}

    def train(*given):
        spent.setdefault(given[5], []).append(given[4])
        return given

    monkeypatch.setattr(netadapt, "_train_masked", train)
    problem = tiny_problem(0.3, iterations=iterations)
    rounds = len(compress("netadapt", problem, {"decay": 0.9}).history)
    assert rounds > 7
    last = spent.pop(max(spent))
    assert sum(map(sum, spent.values())) + sum(last) == iterations
    assert 0 < len(spent) <= iterations // len(problem.full_widths)
    assert all(len(set(of_round)) == 1 for of_round in spent.values())
    assert len(last) == 1


def test_netadapt_judges_a_network_without_changing_it(tiny_problem):
    problem = tiny_problem(0.5)
    model = problem.student()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for group, kept in enumerate(problem.channels.keep_largest(model, problem.smallest)):
        narrow = netadapt._score_of_masked(problem, model, group, kept)
        masked = copy.deepcopy(model)
        problem.channels.mask_group(masked, group, kept)
        assert narrow == evaluate(masked, problem.holdout)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
