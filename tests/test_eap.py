"""EAP: restoration and least squares against brute force, zeros that stay, energies that fall."""

from dataclasses import fields, replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st
from torch import nn

from ecc import config
from ecc.channels import trace
from ecc.errors import UserError
from ecc.evidence import eap as evidence
from ecc.finegrained import FewerClasses, Progress, Settings, Study, load_fewer, of_layers, record
from ecc.finegrained.densities import densities
from ecc.finegrained.filters import largest, prune_filters, restore
from ecc.finegrained.rounds import FixedWeights, prune_once
from ecc.methods import compress
from ecc.methods.eap import restoration
from ecc.methods.reconstruction import least_squares
from ecc.methods.recording import Recorder
from ecc.platforms.eyeriss import EYERISS
from ecc.tasks import CLASSIFICATION
from ecc.training import TaskLoss, train

SIZE = (8, 8)


def drawn(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 6))
@hypothesis_settings(max_examples=100, deadline=None)
def test_each_restored_is_the_best_of_all_that_could_be(seed, count, most):
    parts, residual = drawn(seed, count, 7), drawn(seed + 1, 7)
    chosen, errors = restoration(parts, residual, until=0.0, most=most)
    assert len(set(chosen)) == len(chosen) <= most
    restored = []
    for position, best in enumerate(chosen):
        options = {
            index: np.abs(residual - parts[[*restored, index]].sum(axis=0)).sum()
            for index in set(range(count)) - set(restored)
        }
        restored.append(best)
        assert options[best] == pytest.approx(min(options.values()), rel=1e-4)
        assert errors[position + 1] == pytest.approx(options[best], rel=1e-4)
    assert (np.diff(errors) < 0).all()
    left = set(range(count)) - set(chosen)
    if len(chosen) < most:  # it ended because nothing that is left lowers the error
        with_one = [np.abs(residual - parts[[*chosen, i]].sum(axis=0)).sum() for i in left]
        assert min(with_one, default=np.inf) >= errors[-1] * (1 - 1e-5)


def test_restoration_finds_the_only_exact_answer():
    """Orthogonal inputs: each weight's part of the output can be told from all others."""
    inputs, weights = np.eye(6, dtype=np.float32), np.array([3, -1, 0.5, 4, 2, 0], np.float32)
    target = inputs @ weights
    support = largest(weights[None], 0.9)[0]
    assert support.tolist() == [False, False, False, True, False, False]
    for most, kept in [(2, [0, 3]), (3, [0, 3, 4]), (6, [0, 1, 2, 3, 4])]:
        found = restore(inputs, target, weights, support, tolerance=0.0, most=most)
        assert np.flatnonzero(found).tolist() == kept


def test_restoration_ends_at_the_tolerance():
    inputs, weights = drawn(0, 50, 12), drawn(1, 12)
    target = inputs @ weights
    support = largest(weights[None], 0.9)[0]
    scale = np.abs(target - target.mean()).sum()
    sizes = []
    for tolerance in (0.0, 0.2, 0.5, 2.0):
        found = restore(inputs, target, weights, support, tolerance=tolerance, most=12)
        error = np.abs(target - inputs[:, found] @ weights[found]).sum()
        assert error <= tolerance * scale + 1e-3
        sizes.append(found.sum())
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 12
    assert sizes[-1] == support.sum()


def test_magnitude_pruning_is_within_each_filter():
    weights = np.array([[4, -3, 2, 1], [0.4, 0.1, -0.3, 0], [0, 0, 0, 0]], np.float32)
    assert largest(weights, 0.5).tolist() == [
        [True, True, False, False],
        [True, False, True, False],
        [False] * 4,
    ]
    assert largest(weights, 0.99).sum(axis=1).tolist() == [1, 1, 0]


@pytest.mark.parametrize("kept", [0.9, 0.8, 0.7, 0.6, 0.3, 0.1])
def test_no_more_weights_are_kept_than_their_part(kept):
    for tens in range(1, 30):
        support = largest(drawn(0, 1, 10 * tens), 1 - kept)
        assert support.sum() == round(10 * kept) * tens


@given(st.integers(0, 1000), st.integers(1, 5))
@hypothesis_settings(max_examples=50, deadline=None)
def test_least_squares_agrees_with_numpy_and_brute_force(seed, size):
    inputs, target = drawn(seed, 30, size).astype(float), drawn(seed + 1, 30).astype(float)
    start = drawn(seed + 2, size).astype(float)
    system = inputs.T @ inputs, inputs.T @ target
    exact = np.linalg.lstsq(inputs, target, rcond=None)[0]
    assert least_squares(*system, start, 1e-12) == pytest.approx(exact, abs=1e-6)
    # With a ridge: no worse than where it began, and a small step anywhere makes it worse.
    ridge, scale = 0.3, np.trace(system[0]) / size

    def objective(weights):
        far = ((weights - start) ** 2).sum()
        return ((target - inputs @ weights) ** 2).sum() + ridge * scale * far

    found = least_squares(*system, start, ridge)
    assert ((target - inputs @ found) ** 2).sum() <= ((target - inputs @ start) ** 2).sum() + 1e-9
    for step in 1e-3 * drawn(seed + 3, 20, size):
        assert objective(found + step) > objective(found)


def test_filters_pruned_are_sparser_and_refitted():
    inputs, weights = drawn(0, 200, 20), drawn(1, 4, 20)
    weights[:, :5] = 0
    targets = inputs @ weights.T
    pruned = prune_filters(
        inputs, targets, weights, removed=0.8, kept=0.6, tolerance=0.0, ridge=1e-12
    )
    assert ((pruned != 0).sum(axis=1) == 9).all()
    assert not pruned[:, :5].any()
    for row in range(4):
        support = pruned[row] != 0
        exact = np.linalg.lstsq(inputs[:, support], targets[:, row], rcond=None)[0]
        assert pruned[row, support] == pytest.approx(exact, abs=1e-4)
        # Least squares after restoration is closer than what restoration left.
        before = targets[:, row] - inputs[:, support] @ weights[row, support]
        after = targets[:, row] - inputs @ pruned[row]
        assert np.square(after).sum() <= np.square(before).sum() + 1e-3


def test_most_supports_are_in_the_best_tenth_of_their_size():
    """Brute force over all supports of filters, of inputs that depend on each other.

    Their scales differ, of which magnitudes know nothing: those are as good half as often.
    """
    draws, among = 60, np.zeros(2, dtype=int)
    for seed in range(0, 4 * draws, 4):
        inputs = drawn(seed, 300, 8) @ drawn(seed + 1, 8, 8) * np.exp(drawn(seed + 2, 8))
        weights = drawn(seed + 3, 1, 8)
        target = inputs @ weights[0]

        def error(support, inputs=inputs, target=target):
            chosen = inputs[:, support]
            solved = np.linalg.lstsq(chosen, target, rcond=None)[0]
            return np.square(target - chosen @ solved).sum()

        pruned = prune_filters(
            inputs, target[:, None], weights, removed=0.9, kept=0.625, tolerance=0.0, ridge=1e-9
        )
        size = np.count_nonzero(pruned)
        assert 1 <= size <= 5
        every = [error(list(support)) for support in combinations(range(8), size)]
        ours = np.square(target - inputs @ pruned[0]).sum()
        magnitude = error(np.argsort(-abs(weights[0]))[:size])
        among += np.array([ours, magnitude]) <= np.percentile(every, 10) * (1 + 1e-3)
    assert among[0] >= 0.75 * draws
    assert among[1] < 0.65 * draws


@pytest.mark.parametrize("name", ["layers.0", "layers.3", "layers.6", "layers.9", "layers.13"])
def test_recorded_inputs_times_weights_are_the_outputs(tiny_problem, name):
    problem = tiny_problem()
    model = problem.dense
    images = [problem.train.images[:20], problem.train.images[20:32]]
    recorder = Recorder(images, 3, seed=1)
    layer = model.get_submodule(name)
    inputs, outputs = recorder.inputs(model, name), recorder.outputs(model, name)
    filters = layer.weight.detach().flatten(1).numpy().reshape(len(inputs), -1, inputs.shape[2])
    made = np.einsum("gnk,gfk->ngf", inputs, filters).reshape(outputs.shape)
    assert made == pytest.approx(outputs, abs=1e-4)
    assert len(outputs) == 32 * (1 if name == "layers.13" else 3)


class KilledError(Exception):
    pass


class Fatal(TaskLoss):
    """Counts what it is asked for; dies the nth time."""

    def __init__(self, at=None):
        super().__init__(CLASSIFICATION)
        self.asked, self.at = 0, at

    def __call__(self, model, images, labels):
        if self.asked == self.at:
            raise KilledError
        self.asked += 1
        return super().__call__(model, images, labels)


@pytest.fixture
def made(tiny_problem, training_settings):
    """A function that makes a study of the tiny network; returns its structure and problem too."""

    def make(iterations=5, required=0.0, trained=0, loss=None, **changes):
        problem = tiny_problem()
        model = problem.dense
        if trained:
            steps = training_settings(iterations=trained)
            train(model, problem.train, TaskLoss(CLASSIFICATION), steps, seed=0)
        structure = trace(model, SIZE).structure
        given = {"images": 48, "rounds": 3, "threshold": 1.0, **changes}
        found = Study(
            model,
            [operation.name for operation in structure.operations],
            of_layers(EYERISS, structure),
            loss or TaskLoss(CLASSIFICATION),
            problem.train,
            problem.holdout,
            Settings(**given),
            training_settings(iterations=iterations, checkpoint_every=2),
            required=required,
            seed=0,
        )
        return found, structure, problem

    return make


@pytest.fixture
def study(made):
    """A function that runs the rounds of a study, and returns them in its place."""

    def run(**given):
        found, structure, problem = made(**given)
        return list(found.rounds()), structure, problem

    return run


@pytest.mark.parametrize("fatal", [[3], [5, 4], [8, 3, 2], [15]])
def test_a_killed_study_ends_as_a_whole_one(made, tmp_path, fatal):
    """Killed in a training, at its first iteration, several times, and not at all."""
    path, counts = tmp_path / "checkpoint.safetensors", []

    def run(loss, path=None):
        own, structure, problem = made(kept=0.8, loss=loss)
        progress = Progress.of(own, path) if path else Progress()
        found = own.rounds(progress.last, path)
        return record(found, structure, problem.holdout, progress)

    whole = run(Fatal())
    for at in [*fatal, None]:
        loss = Fatal(at)
        try:
            found = run(loss, path)
        except KilledError:
            assert at is not None
        counts.append(loss.asked)
    assert sum(counts) <= 15 + len(fatal)  # of 15 in all; two an iteration are lost at most
    pd.testing.assert_frame_equal(found.rounds, whole.rounds)
    pd.testing.assert_frame_equal(found.layers, whole.layers)
    assert found.last.number == whole.last.number == 3
    states = found.last.model.state_dict(), whole.last.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert list(tmp_path.iterdir()) == [path]


def test_rounds_of_another_study_are_not_used(made, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    own, structure, problem = made()
    record(own.rounds(None, path), structure, problem.holdout, Progress.of(own, path))
    assert Progress.of(own, path).last.number == 3
    for other in (
        replace(own, settings=replace(own.settings, kept=0.8)),
        replace(own, training=replace(own.training, iterations=4)),
        replace(own, required=0.1),
        replace(own, seed=1),
        replace(own, names=own.names[::-1]),
        replace(own, energy=lambda weights, inputs: 2 * own.energy(weights, inputs)),
        replace(own, train_on=FewerClasses(own.train_on, 2)),
        replace(own, loss=Fatal()),
        replace(own, model=made(trained=1)[0].model),
    ):
        progress = Progress.of(other, path)
        assert progress.last is None
        assert not progress.rows
    elsewhere = replace(own.training, device="auto", checkpoint_every=7)
    assert Progress.of(replace(own, training=elsewhere), path).last.number == 3


@pytest.mark.parametrize("changes", [{}, {"order": "forward"}, {"local": False}])
def test_energy_and_weights_fall_along_the_rounds(study, changes):
    found, _, _ = study(kept=0.8, **changes)
    assert [state.number for state in found] == [0, 1, 2, 3]
    weights = np.array([state.weight_density for state in found])
    assert (weights[0] == 1).all()
    assert (np.diff(weights, axis=0) < 0).all()
    assert (np.diff([state.energy_j.sum() for state in found]) < 0).all()


def test_zeros_stay_zero_through_rounds_and_training(study):
    found, structure, _ = study(kept=0.8)
    for operation in structure.operations:
        zeros = [state.model.get_submodule(operation.name).weight == 0 for state in found]
        assert all((later | ~before).all() for before, later in pairwise(zeros))


def test_rounds_end_at_the_threshold(study):
    steps = {"trained": 100, "iterations": 1, "rounds": 20}
    dense = study(**steps)[0][0].holdout_accuracy
    assert dense > 0.7
    pruning = {"kept": 0.5, "removed": 0.9, "tolerance": 0.0, "threshold": 0.1}
    found, _, _ = study(**{**steps, **pruning}, required=dense)
    accepted = [state.accepted for state in found]
    assert accepted[0]
    assert all(accepted[:-1])
    assert len(found) < 21
    assert not accepted[-1]
    assert found[-2].holdout_accuracy >= dense - 0.1 > found[-1].holdout_accuracy
    failing, _, _ = study(required=2.0)
    assert [state.accepted for state in failing] == [False]


def test_layers_go_by_energy_and_see_those_before_them_pruned(tiny_problem, monkeypatch):
    problem = tiny_problem()
    names = ["layers.0", "layers.6", "layers.13"]
    asked = []
    record_inputs = Recorder.inputs

    def inputs(self, model, name):
        asked.append((name, [float((model.get_submodule(n).weight == 0).sum()) > 0 for n in names]))
        return record_inputs(self, model, name)

    monkeypatch.setattr(Recorder, "inputs", inputs)
    settings = Settings(images=32, kept=0.8)
    prune_once(problem.student(), names, np.array([1.0, 3.0, 2.0]), problem.train, settings, seed=0)
    assert asked == [
        ("layers.6", [False, False, False]),
        ("layers.13", [False, True, False]),
        ("layers.0", [False, True, True]),
    ]


def test_fixed_weights_keep_zeros_while_others_train(tiny_problem, training_settings):
    problem = tiny_problem()
    model, names = problem.student(), ["layers.0", "layers.13"]
    for name in names:
        weight = model.get_submodule(name).weight
        weight.data[::2] = 0
    before = {name: model.get_submodule(name).weight.detach().clone() for name in names}
    update = FixedWeights(model, names)
    train(
        model, problem.train, TaskLoss(CLASSIFICATION), training_settings(), seed=0, update=update
    )
    for name in names:
        after = model.get_submodule(name).weight
        assert torch.equal(after == 0, before[name] == 0)
        assert not torch.equal(after, before[name])


def test_densities_are_counted(tiny_problem):
    problem = tiny_problem()
    model = problem.student()
    model.layers[6].weight.data[:3] = 0
    weights, inputs = densities(model, ["layers.0", "layers.6"], problem.holdout.images.split(5))
    assert weights.tolist() == pytest.approx([1.0, 0.75])
    assert inputs[0] == 1.0
    with torch.no_grad():
        read = model.layers[:6](problem.holdout.images)
    assert inputs[1] == pytest.approx(float((read != 0).float().mean()))


def test_energy_without_zeros_is_that_of_the_platform(tiny_problem):
    structure = tiny_problem().channels.structure
    ones = np.ones(len(structure.operations))
    energy = of_layers(EYERISS, structure)
    dense = EYERISS.energy(structure, structure.full_widths[None])[0]
    assert energy(ones, ones).sum() == pytest.approx(dense)
    assert (energy(0.5 * ones, ones) < energy(ones, ones)).all()
    assert (energy(ones, 0.5 * ones) < energy(ones, ones)).all()


def test_fewer_classes_have_only_their_images(tiny_problem):
    split = tiny_problem().train
    few = FewerClasses(split, 2)
    assert len(few) == sum(split.labels < 2) == sum(len(y) for _, y in few.ordered(7))
    stream = few.batches(8, seed=3)
    batches = [next(stream) for _ in range(5)]
    assert all(len(labels) == 8 and (labels < 2).all() for _, labels in batches)
    later = next(few.batches(8, seed=3, start=4))
    assert torch.equal(later[0], batches[4][0])
    with pytest.raises(UserError, match="give 2 to 4"):
        FewerClasses(split, 5)


def test_a_network_of_fewer_classes_gives_the_same_first_logits(tiny_problem):
    problem = tiny_problem()
    full = problem.student().eval()
    small = problem.student()
    small.layers[13] = nn.Linear(40, 2)
    load_fewer(small, full).eval()
    images = problem.holdout.images
    assert torch.allclose(small(images), full(images)[:, :2], atol=1e-6)
    small.layers[13] = nn.Linear(39, 2)
    with pytest.raises(UserError, match=r"layers\.13\.weight"):
        load_fewer(small, full)


def test_tables_and_figures_of_rounds(study):
    found, structure, problem = study(kept=0.8)
    run = record(found, structure, problem.holdout)
    assert run.last.number == 3
    assert len(run.layers) == 4 * len(structure.operations)
    by_round = run.layers.groupby("round")["energy_j"].sum()
    assert by_round.to_numpy() == pytest.approx(run.rounds["energy_j"].to_numpy())
    rounds = run.rounds.assign(seed=0)
    arms = [("magnitude", rounds), ("eap", rounds.assign(seed=1)), ("eap", rounds)]
    table = evidence.pruning(arms)
    pairs = table[["arm", "seed"]].drop_duplicates()
    assert pairs.to_numpy().tolist() == [["eap", 0], ["eap", 1], ["magnitude", 0]]
    assert (table.loc[table["round"] == 0, "energy_j_fraction"] == 1).all()
    assert run.rounds["weights"].iloc[0] == structure.weights().sum()
    fewer = rounds.assign(weights=rounds["weights"] / 2, accepted=[True, True, False, False])
    other = rounds.assign(seed=1, accepted=[True, True, True, False])
    parts = [fewer.assign(classes=2), rounds.assign(classes=4)]
    parts += [fewer.assign(classes=2, seed=1), other.assign(classes=4)]
    classes = evidence.classes(parts)
    assert classes["classes"].tolist() == [4, 4, 2, 2]
    assert classes["seed"].tolist() == [0, 1, 0, 1]
    assert classes["round"].tolist() == [3, 2, 1, 1]
    ratios = fewer["weights"].iloc[1] / rounds["weights"].iloc[[3, 2]]
    assert classes["weights_of_pruned"].iloc[2:].to_numpy() == pytest.approx(ratios.to_numpy())
    for figure in (evidence.draw_pruning(table, "x"), evidence.draw_classes(classes, "x")):
        assert figure.axes
    with pytest.raises(UserError, match="arms"):
        evidence.pruning([])


def test_figures_draw_every_seed_and_name_an_arm_once():
    def rounds(seed, left):
        shares = {part: [1.0, left] for part in evidence.PARTS}
        return pd.DataFrame(
            {"round": [0, 1], "accuracy": [0.9, 0.8], "accepted": True, "seed": seed, **shares}
        )

    lines = [rounds(0, 0.8), rounds(1, 0.6)]
    table = evidence.pruning([(arm, own) for arm in ("eap", "magnitude") for own in lines])
    figure = evidence.draw_pruning(table, "x")
    assert len(figure.axes[0].lines) == 2 * 2 + 1  # and the dense accuracy
    assert len(figure.legends[0].get_texts()) == 2 + 1
    few = [own.assign(classes=2, energy_j=own["energy_j"] / 2) for own in lines]
    few[1]["energy_j"] /= 2
    classes = evidence.classes([own.assign(classes=4) for own in lines] + few)
    (bars,) = (
        one
        for one in evidence.draw_classes(classes, "x").axes[0].containers
        if one.get_label() == "energy"
    )
    at_two = bars.lines[0].get_ydata()[0]
    low, high = bars.lines[2][0].get_segments()[0][:, 1]
    assert (low, at_two, high) == pytest.approx((0.25, 0.375, 0.5))


def test_schema_has_the_settings_of_an_arm():
    schema = config.load(Path(__file__).parents[1] / "configs/schema.yaml")
    assert set(schema["$defs"]["eap_arm"]["properties"]) == {f.name for f in fields(Settings)}


@pytest.mark.parametrize("key", ["removed", "kept", "tolerance", "growth", "ridge", "images"])
def test_settings_out_of_range_are_named(key):
    with pytest.raises(UserError, match=f"eap: {key}: -1"):
        Settings(**{key: -1})


@pytest.mark.parametrize("key", ["removed", "tolerance", "growth", "ridge", "images"])
def test_settings_of_the_method_out_of_range_are_named(tiny_problem, key):
    with pytest.raises(UserError, match=rf"methods\.eap\.{key}: -1"):
        compress("eap", tiny_problem(), {key: -1})


def test_channels_history(tiny_problem):
    problem = tiny_problem(0.4)
    history = compress("eap", problem, {"images": 24}).history
    assert (np.diff(history["energy_j"]) <= 0).all()
    assert (history["energy_j"].iloc[:-1] > problem.budget_j).all()
    assert history["energy_j"].iloc[-1] <= problem.budget_j
    assert history["output_error"].ge(0).all()
    by_round = history.groupby("round")["tolerance"].first()
    assert by_round.to_numpy() == pytest.approx(0.1 * 1.5 ** by_round.index.to_numpy())
    # One more channel in the last group would be over the budget.
    last = history.iloc[-1]
    widths = compress("eap", problem, {"images": 24}).widths
    widths[int(last["group"])] += 1
    assert problem.joules(widths) > problem.budget_j


def test_first_group_pruned_is_that_of_the_highest_energy(tiny_problem):
    problem = tiny_problem(0.9)
    history = compress("eap", problem, {"images": 16}).history
    full, smallest = problem.full_widths, problem.smallest
    savings = []
    for group in range(len(full)):
        narrowed = full.copy()
        narrowed[group] = smallest[group]
        savings.append(problem.joules(full) - problem.joules(narrowed))
    assert history["group"].iloc[0] == int(np.argmax(savings))


def test_least_squares_makes_the_pruned_network_closer(tiny_problem):
    """With hardly any training, refitting alone keeps outputs closer than dropping the same."""
    problem = tiny_problem(0.6, iterations=2)
    result = compress("eap", problem, {"images": 96, "ridge": 1e-3})
    dropped = problem.student()
    problem.channels.mask(dropped, result.keep)
    images = problem.holdout.images
    with torch.no_grad():
        target = problem.dense.eval()(images)
        refitted, plain = (m.eval()(images) for m in (result.model, dropped))
    assert (refitted - target).square().mean() < (plain - target).square().mean()


@pytest.mark.parametrize("settings", [{"images": 1, "positions": 1}, {"growth": 1.05}])
def test_rounds_of_channels_are_few(tiny_problem, training_settings, settings):
    """A single sample has no deviation that an error could be relative to."""
    training = training_settings(iterations=1, batch_size=1)
    problem = tiny_problem(0.2, training=training)
    history = compress("eap", problem, settings).history
    assert history["round"].max() < 200
    assert history["energy_j"].iloc[-1] <= problem.budget_j


def test_a_growth_that_takes_thousands_of_rounds_is_refused(tiny_problem):
    with pytest.raises(UserError, match=r"methods\.eap\.growth: 1\.001"):
        compress("eap", tiny_problem(), {"growth": 1.001})
