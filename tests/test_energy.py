"""Energy models: what they must satisfy whatever the network, and what their files refuse."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import torch
from sample_chunk import sample_chunk
from sample_energy import sample_energy

from ecc import energy
from ecc.energy import bilinear, fitting, lookup
from ecc.errors import UserError
from ecc.files import seal, seal_of
from ecc.platforms import Deployed
from ecc.structure import Group, Operation, Structure


def operation(name, reads, writes, kind="conv", fixed_in=0, fixed_out=0):
    return Operation(
        name=name,
        kind=kind,
        reads=reads,
        writes=writes,
        fixed_in=fixed_in,
        fixed_out=fixed_out,
        columns=1,
        kernel=(3, 3),
        stride=(1, 1),
        in_size=(8, 8),
        out_size=(8, 8),
        groups=1,
        bias=True,
    )


def chain(*widths, depthwise=False):
    """Convolutions in a row, each but the first after a depthwise one if `depthwise`."""
    operations = [operation("conv0", (), 0, fixed_in=3)]
    for group in range(1, len(widths)):
        if depthwise:
            operations.append(operation(f"dw{group}", (group - 1,), group - 1, "depthwise"))
        operations.append(operation(f"conv{group}", (group - 1,), group))
    operations.append(operation("classifier", (len(widths) - 1,), None, "linear", fixed_out=10))
    groups = tuple(Group(f"conv{group}", width) for group, width in enumerate(widths))
    return Structure(groups, tuple(operations), 3, 10)


CHAIN = chain(16, 24, 32, 20, depthwise=True)
BRANCHED = Structure(
    groups=(Group("stem", 8), Group("a", 12), Group("b", 16), Group("join", 10)),
    operations=(
        operation("stem", (), 0, fixed_in=3),
        operation("a", (0,), 1),
        operation("a_again", (0,), 1),
        operation("back", (1,), 0),
        operation("b", (0,), 2),
        operation("join", (1, 2), 3, fixed_in=4),
        operation("head", (), None, fixed_in=64, fixed_out=64),
        operation("classifier", (3,), None, "linear", fixed_out=10),
    ),
    image_channels=3,
    classes=10,
)


def true_model(structure):
    size = 1 + len(bilinear.graph_features(structure).names)
    return bilinear.BilinearGraph(structure, np.random.default_rng(7).uniform(0.001, 0.02, size))


class Noisy:
    """A platform whose energy is bilinear, with 2 % noise."""

    def energy(self, structure, widths):
        return true_model(structure).energy(widths)

    def measure(self, network, widths, *, seed, first=0, journal=None):
        noise = np.random.default_rng(seed).standard_normal(first + len(widths))[first:]
        return self.energy(network.structure, widths) * (1 + 0.02 * noise)

    def sampled(self, structure):
        return None

    def known(self, structure, widths):
        return np.ones(len(widths), dtype=bool)


class Recorded(Noisy):
    """One that was sampled before, at widths that no seed draws here."""

    def __init__(self, count):
        self.count = count

    def sampled(self, structure):
        return energy.draw_widths(structure, self.count, seed=99)


def measure(structure, count, seed=0):
    """A frame of samples."""
    return energy.sample(Noisy(), Deployed(structure), count, repeats=1, seed=seed).samples


def samples(structure, count=600, seed=0):
    frame = measure(structure, count, seed)
    values = frame.to_numpy()
    return values[:, 1:-1].astype(np.int64), values[:, -1]


def small(kind, structure=CHAIN):
    """A model of each kind, quickly fitted."""
    settings = {"iterations": 20, "seed": 3} if kind.startswith("mlp") else {}
    how = "adam" if kind.startswith("mlp") else "nnls"
    train, test = samples(structure), samples(structure, 100, seed=1)
    return energy.fit(kind, how, structure, *train, settings, test=test)[0]


# Sampling


def test_widths_cover_their_range_and_do_not_depend_on_the_count():
    many, few = (energy.draw_widths(CHAIN, count, 5) for count in (3000, 700))
    assert (many[:700] == few).all()
    assert (many.min(0) == 1).all()
    assert (many.max(0) == CHAIN.full_widths).all()
    assert np.allclose(many.mean(0), (1 + CHAIN.full_widths) / 2, rtol=0.05)
    assert not (many[:700] == energy.draw_widths(CHAIN, 700, 6)).all()


def test_sampling_takes_samples_ends_and_sweeps_in_one_call():
    sweep = {"group": CHAIN.groups[1].name, "step": 3}
    taken = energy.sample(Noisy(), Deployed(CHAIN), 40, repeats=200, seed=4, sweeps=[sweep])
    widths = taken.samples.filter(like="width_").to_numpy()
    assert (widths == energy.draw_widths(CHAIN, 40, 4)).all()
    full, exact = CHAIN.full_widths, true_model(CHAIN)
    assert taken.dense_energy_j == pytest.approx(exact.energy(full), rel=0.005)
    assert taken.smallest_energy_j == pytest.approx(exact.energy(np.ones_like(full)), rel=0.005)
    assert list(taken.sweep["width"]) == list(range(3, full[1] + 1, 3))
    for row in taken.sweep.itertuples():
        narrowed = full.copy()
        narrowed[1] = row.width
        assert row.energy_j == pytest.approx(exact.energy(narrowed), rel=0.1)


@pytest.mark.parametrize("settings", [{"metric": "energy"}, {"metric": "latency"}])
@pytest.mark.parametrize("size", [1, 7, 20])
def test_chunks_of_samples_give_the_same_files_as_one_job(settings, size, tmp_path):
    structure, count = chain(8, 6, 4), 20
    (tmp_path / "structure.json").write_text(structure.to_json())
    own = {"platform": "mine", "platform_settings": {"kind": "jetson_tx2", **settings}, "seed": 3}
    chunks = []
    for first in range(0, count, size):
        chunks.append(tmp_path / f"{first}.csv")
        counted = min(size, count - first)
        sample_chunk(
            tmp_path / "structure.json", **own, first=first, count=counted, file=chunks[-1]
        )
        seal(chunks[-1])
    for folder, parts in (("whole", []), ("chunked", chunks)):
        names = {"samples": "samples.csv", "sweep": "sweep.csv", "dense": "dense.json"}
        files = {key: tmp_path / folder / name for key, name in names.items()}
        sample_energy(
            tmp_path / "structure.json",
            **own,
            network="chain",
            network_settings={},
            samples=count,
            repeats=5,
            sweeps=[{"group": structure.groups[1].name}],
            files={**files, "provenance": tmp_path / folder / "provenance.json"},
            chunks=parts,
        )
    for name in names.values():
        written = [(tmp_path / folder / name).read_bytes() for folder in ("whole", "chunked")]
        assert written[0] == written[1]
    assert not any(seal_of(chunk).exists() for chunk in chunks)


def test_chunks_that_are_not_all_samples_are_refused():
    structure = chain(8, 6)
    parts = [energy.sample_chunk(Noisy(), Deployed(structure), 0, 5, seed=0)]
    with pytest.raises(UserError, match="1 chunks are not samples 0 to 9"):
        energy.sample(Noisy(), Deployed(structure), 10, seed=0, chunks=parts)


def test_sampling_refuses_unknown_groups_and_more_than_is_recorded():
    with pytest.raises(UserError, match="there is no group 'conv9'"):
        energy.sample(Noisy(), Deployed(CHAIN), 4, repeats=1, seed=0, sweeps=[{"group": "conv9"}])
    with pytest.raises(UserError, match="9 samples are recorded, 10 are asked for"):
        energy.sample(Recorded(9), Deployed(CHAIN), 10, repeats=1, seed=0)
    taken = energy.sample(Recorded(9), Deployed(CHAIN), 8, repeats=1, seed=0)
    assert (taken.samples.filter(like="width_") == Recorded(9).sampled(CHAIN)[:8]).all().all()


def test_samples_are_read_as_they_were_measured(tmp_path):
    frame = measure(CHAIN, 50)
    frame.to_csv(tmp_path / "samples.csv", index=False)
    widths, joules = energy.read_samples(tmp_path / "samples.csv", CHAIN, minimum=50)
    assert (joules == frame["energy_j"]).all()
    assert (widths == frame.filter(like="width_")).all().all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("energy_j", float("nan"), r"samples.csv: line 5: energy_j must be a finite number"),
        ("energy_j", float("inf"), r"line 5: energy_j must be a finite number"),
        ("energy_j", "n/a joules", r"line 5: energy_j must be a finite number"),
        ("energy_j", 0.0, r"line 5: energy_j must be positive"),
        ("energy_j", -0.1, r"line 5: energy_j must be positive"),
        ("width_1", 25, r"line 5: width_1 must be an integer within"),
        ("width_1", 0, r"line 5: width_1 must be an integer within"),
        ("width_1", 2.5, r"line 5: width_1 must be an integer within"),
        ("sample", 2, r"line 5: sample must occur once"),
    ],
)
def test_values_that_no_measurement_gives_are_refused(tmp_path, column, value, message):
    frame = measure(CHAIN, 50).astype(object)
    frame.loc[3, column] = value
    frame.to_csv(tmp_path / "samples.csv", index=False)
    with pytest.raises(UserError, match=message):
        energy.read_samples(tmp_path / "samples.csv", CHAIN, minimum=50)


def test_files_that_are_not_these_samples_are_refused(tmp_path):
    path = tmp_path / "samples.csv"
    with pytest.raises(UserError, match="cannot be read"):
        energy.read_samples(path, CHAIN, minimum=1)
    measure(CHAIN, 50).to_csv(path, index=False)
    with pytest.raises(UserError, match="50 samples, at least 51"):
        energy.read_samples(path, CHAIN, minimum=51)
    with pytest.raises(UserError, match=r"sample this network \(3 groups\)"):
        energy.read_samples(path, chain(16, 24, 32), minimum=1)
    whole = path.read_bytes()
    for content in (b"", b"\n", whole[:-3], whole[:100], b"\xff\xfe\x00\n", b"a,b\n1,2,3\n"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"samples\.csv: (not a file|line)"):
            energy.read_samples(path, CHAIN, minimum=1)


def test_split_is_a_partition():
    train, test = energy.split(100, 20, seed=1)
    assert sorted([*train, *test]) == list(range(100))
    assert len(test) == 20
    with pytest.raises(UserError, match="100 test samples of 100"):
        energy.split(100, 100, seed=1)


# Features


def test_known_answer_of_the_authors_alexnet():
    """Coefficients of Yang et al.'s published energy model for the Jetson TX2."""
    structure = chain(64, 192, 384, 256, 256, 4096, 4096)
    a = [0.00248206733, 0.00223370781, 0.00753995031, 0.00390925538, 0.00494066952]
    a += [0.00339309988, 0.0161565151, 0.00721406378, 0.00195417996]
    model = bilinear.BilinearChain(structure, np.array(a))
    full = structure.full_widths
    joules = model.energy([full, np.ones(7), full / 2])
    assert joules == pytest.approx([0.049824, 0.002518, 0.015364], abs=1e-6)


@pytest.mark.parametrize("structure", [CHAIN, BRANCHED])
@pytest.mark.parametrize("form", [bilinear.chain_features, bilinear.graph_features])
def test_features_are_one_at_full_widths(structure, form):
    assert np.allclose(form(structure).matrix([structure.full_widths]), 1)


def test_on_a_chain_the_graph_contains_the_chain():
    widths = energy.draw_widths(CHAIN, 50, 0)
    graph, line = (
        form(CHAIN).matrix(widths).T for form in (bilinear.graph_features, bilinear.chain_features)
    )
    for column in line:
        assert any(np.allclose(column, other) for other in graph)
    assert np.linalg.matrix_rank(graph) == len(graph)


def test_operations_with_the_same_feature_share_it():
    features = bilinear.graph_features(BRANCHED)
    assert features.names == ("stem", "a+a_again+back", "b", "join", "classifier")
    s = np.array([2, 3, 5, 7])
    join = (3 + 5 + 4) / (12 + 16 + 4) * 7 / 10
    assert features.matrix([s])[0] == pytest.approx(
        [1, 2 / 8, 2 / 8 * 3 / 12, 2 / 8 * 5 / 16, join, 7 / 10]
    )


# Models

KINDS = ["bilinear_chain", "bilinear_graph", "mlp1", "mlp2", "mlp3", "lookup"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", [CHAIN, BRANCHED], ids=["chain", "branched"])
def test_gradient_is_that_of_the_energy(kind, structure):
    model = small(kind, structure)
    s = np.random.default_rng(1).uniform(1.1, structure.full_widths - 0.1)
    steps = 1e-5 * np.eye(len(s))
    differences = (model.energy(s + steps) - model.energy(s - steps)) / 2e-5
    assert model.gradient(s) == pytest.approx(differences, rel=1e-4, abs=1e-9)
    batch = np.stack([s, structure.full_widths, np.ones(len(s))])
    x = torch.tensor(batch, requires_grad=True)
    joules = model(x)
    joules.sum().backward()
    assert joules.detach().numpy() == pytest.approx(model.energy(batch), rel=1e-12)
    assert x.grad.numpy() == pytest.approx(model.gradient(batch), rel=1e-9, abs=1e-15)
    assert model.energy(batch).shape == (3,)
    assert model.energy(s).shape == ()


def test_importing_needs_no_torch():
    code = "import sys, ecc.energy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Fits


def relative_squares(model, widths, joules):
    return np.mean((model.energy(widths) / joules - 1) ** 2)


@pytest.mark.parametrize("kind", ["bilinear_chain", "bilinear_graph"])
def test_least_squares_meets_the_optimality_conditions(kind):
    widths, joules = samples(BRANCHED)
    joules = joules - 0.9 * joules.min()  # the constant's optimum is then negative
    held = (widths, joules)
    model, history = energy.fit(kind, "nnls", BRANCHED, *held, {}, test=held)
    design = model.features.matrix(widths) / joules[:, None]
    slope = design.T @ (design @ model.coefficients_j - 1)
    scale = np.linalg.norm(design, axis=0) * len(joules) ** 0.5
    bound = model.coefficients_j == 0
    assert bound.any()
    assert (model.coefficients_j >= 0).all()
    assert (slope[bound] >= 0).all()
    assert np.abs(slope[~bound] / scale[~bound]).max() < 1e-9
    assert history["relative_test_error"].tolist() == [
        pytest.approx(energy.relative_error(model, widths, joules))
    ]


def test_least_squares_agrees_with_trying_all_supports():
    random = np.random.default_rng(0)
    for _ in range(20):
        matrix, target = random.normal(size=(30, 5)), random.normal(size=30)
        best = target @ target
        for support in itertools.product([False, True], repeat=5):
            part, *_ = np.linalg.lstsq(matrix[:, support], target, rcond=None)
            if (part >= 0).all():
                best = min(best, np.sum((matrix[:, support] @ part - target) ** 2))
        x = fitting.nonnegative(matrix.T @ matrix, matrix.T @ target)
        assert np.sum((matrix @ x - target) ** 2) == pytest.approx(best)


def test_least_squares_finds_the_truth_without_noise():
    widths, truth = energy.draw_widths(CHAIN, 300, 0), true_model(CHAIN)
    held = widths, truth.energy(widths)
    model, _ = energy.fit("bilinear_graph", "nnls", CHAIN, *held, {}, test=held)
    assert model.coefficients_j == pytest.approx(truth.coefficients_j, rel=1e-6)


@pytest.mark.parametrize("kind", ["bilinear_chain", "bilinear_graph"])
def test_adam_approaches_least_squares_from_above(kind):
    train, test = samples(CHAIN), samples(CHAIN, 200, seed=1)
    settings = {"iterations": 3000, "learning_rate": 5e-3, "weight_decay": 0.0}
    adam, history = energy.fit(kind, "adam", CHAIN, *train, settings, test=test)
    exact, _ = energy.fit(kind, "nnls", CHAIN, *train, {}, test=test)
    assert relative_squares(exact, *train) <= relative_squares(adam, *train)
    absolute, _ = energy.fit(kind, "nnls", CHAIN, *train, {"reweightings": 3}, test=test)
    assert energy.relative_error(absolute, *train) <= energy.relative_error(adam, *train)
    assert energy.relative_error(absolute, *train) <= energy.relative_error(exact, *train)
    assert energy.relative_error(adam, *test) < 1.2 * energy.relative_error(exact, *test)
    assert (adam.coefficients_j >= 0).all()
    assert history["iteration"].iloc[[0, -1]].tolist() == [1, 3000]
    assert history["iteration"].is_monotonic_increasing
    assert history["relative_test_error"].iloc[-1] == pytest.approx(
        energy.relative_error(adam, *test)
    )
    decayed, _ = energy.fit(
        kind, "adam", CHAIN, *train, {**settings, "weight_decay": 1.0}, test=test
    )
    assert np.sum(decayed.coefficients_j**2) < np.sum(adam.coefficients_j**2)


def test_the_unit_of_energy_does_not_matter():
    (widths, joules), test = samples(CHAIN), samples(CHAIN, 50, seed=1)
    for kind, how in energy.FITS:
        settings = {"iterations": 30} if how == "adam" else {}
        one, _ = energy.fit(kind, how, CHAIN, widths, joules, settings, test=test)
        many, _ = energy.fit(kind, how, CHAIN, widths, joules * 1e3, settings, test=test)
        assert many.energy(test[0]) == pytest.approx(1e3 * one.energy(test[0]), rel=1e-4)


@pytest.mark.parametrize("kind", ["mlp1", "mlp3"])
def test_perceptrons_learn_and_are_the_same_for_the_same_seed(kind):
    train, test = samples(CHAIN, 1000), samples(CHAIN, 100, seed=1)

    def fitted(seed):
        settings = {"iterations": 300, "seed": seed}
        return energy.fit(kind, "adam", CHAIN, *train, settings, test=test)

    model, history = fitted(0)
    assert history["relative_test_error"].iloc[-1] < 0.1 < history["relative_test_error"].iloc[0]
    again, other = fitted(0)[0], fitted(1)[0]
    assert (again.energy(test[0]) == model.energy(test[0])).all()
    assert not (other.energy(test[0]) == model.energy(test[0])).all()


@pytest.mark.parametrize("structure", [CHAIN, BRANCHED], ids=["chain", "branched"])
def test_a_table_of_a_bilinear_model_is_that_model(structure):
    model = true_model(structure)
    table = lookup.tabulate(model, knots=4, queries=500)
    widths = energy.draw_widths(structure, 100, 9)
    assert table.energy(widths) == pytest.approx(model.energy(widths), rel=1e-6)


def test_a_table_learns_what_is_not_bilinear():
    structure = chain(33, 33, 33)
    widths, test = (energy.draw_widths(structure, count, 0) for count in (2000, 2200))
    test = test[2000:]

    def joules(s):  # linear between the five knots, as rounding to tiles nearly is
        steps = np.interp(s, [1, 9, 17, 25, 33], [1, 1, 2, 2, 3])
        return 0.01 + 0.01 * (steps[:, 0] * steps[:, 1] + steps[:, 1] * steps[:, 2])

    def error(kind):
        held = test, joules(test)
        model, _ = energy.fit(kind, "nnls", structure, widths, joules(widths), {}, test=held)
        return energy.relative_error(model, *held)

    assert error("lookup") < 0.01 < error("bilinear_graph")
    table = lookup.fit(structure, (widths, joules(widths)), (test, joules(test)))[0]
    assert (table.tables_j >= 0).all()
    assert table.constant_j >= 0


def test_a_group_of_one_channel_is_no_obstacle():
    structure = chain(8, 1, 8)
    for kind in ("bilinear_chain", "bilinear_graph", "lookup"):
        model = small(kind, structure)
        assert energy.relative_error(model, *samples(structure)) < 0.03


def test_what_cannot_be_fitted_is_refused():
    train = samples(CHAIN, 20)

    def refused(kind, how, settings=(), rows=20):
        part = train[0][:rows], train[1][:rows]
        return energy.fit(kind, how, CHAIN, *part, dict(settings), test=train)

    for kind, how in (("bilinear", "nnls"), ("mlp1", "nnls"), ("lookup", "adam")):
        with pytest.raises(UserError, match=r"unknown: known are bilinear_chain by adam"):
            refused(kind, how)
    with pytest.raises(UserError, match=r"unknown setting 'rate': known are iterations, "):
        refused("mlp1", "adam", {"rate": 1})
    with pytest.raises(UserError, match="unknown setting 'iterations'"):
        refused("lookup", "nnls", {"iterations": 10})
    for kind, how in energy.FITS:
        with pytest.raises(UserError, match="4 training samples for"):
            refused(kind, how, rows=4)


# Files


@pytest.mark.parametrize("kind", KINDS)
def test_files(kind, tmp_path):
    """A model returns as it was; other networks, cut files and later formats are refused."""
    path, model = tmp_path / "model", small(kind)
    model.save(path)
    whole = path.read_bytes()
    loaded = energy.load(path, CHAIN)
    assert loaded.kind == kind
    widths = energy.draw_widths(CHAIN, 50, 2)
    assert (loaded.energy(widths) == model.energy(widths)).all()
    assert (loaded.gradient(widths) == model.gradient(widths)).all()
    loaded.save(path)
    assert path.read_bytes() == whole

    other = chain(16, 24, 32, 21, depthwise=True)
    names = rf"{CHAIN.fingerprint[:8]}.* not for .*{other.fingerprint[:8]}"
    with pytest.raises(UserError, match=names):
        energy.load(path, other)
    with pytest.raises(UserError, match="another network"):
        energy.load(path, replace(CHAIN, operations=CHAIN.operations[:-1]))
    for size in (*range(0, min(len(whole) - 2, 1500), 50), len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"model: not an energy model, or truncated"):
            energy.load(path, CHAIN)
    later = whole.replace(b'"version": 1', b'"version": 2').replace(
        b'\\"version\\": 1', b'\\"version\\": 2'
    )
    path.write_bytes(later)
    with pytest.raises(UserError, match="energy model format 2, this version of ecc reads 1"):
        energy.load(path, CHAIN)
    path.write_bytes(whole.replace(kind.encode(), b"q" * len(kind)))
    with pytest.raises(UserError, match=r"qqqq.* is unknown: known are bilinear_chain"):
        energy.load(path, CHAIN)


def test_foreign_files(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(UserError, match="cannot be read"):
        energy.load(path, CHAIN)
    small("bilinear_graph").save(path)
    content = json.loads(path.read_text())
    foreign = [
        b"",
        b"\x80\x04pickle",
        b"[]",
        b'{"format": "zip"}',
        safetensors.numpy.save({"weight": np.ones(3)}),
        json.dumps({**content, "coefficients_j": [1.0]}).encode(),
        json.dumps({**content, "coefficients_j": "many"}).encode(),
        json.dumps({**content, "constant_j": float("nan")}).encode(),
    ]
    for data in foreign:
        path.write_bytes(data)
        with pytest.raises(UserError, match="not an energy model, or truncated"):
            energy.load(path, CHAIN)


def test_residuals_lie_at_the_width_of_each_group():
    widths, joules = samples(CHAIN)
    model, _ = energy.fit(
        "bilinear_chain", "nnls", CHAIN, widths, joules, {}, test=(widths, joules)
    )
    widths = np.array([[1, 24, 16, 20], [16, 12, 17, 2], [2, 12, 32, 20]])
    measured = model.energy(widths) / (1 + np.array([0.1, -0.2, 0.4]))
    found = energy.residuals(model, widths, measured).set_index(["group", "width_to"])
    means = found["mean_relative_residual"]
    assert means["conv0"].to_dict() == pytest.approx({0.1: 0.1, 0.2: 0.4, 1.0: -0.2})
    assert means["conv1"].to_dict() == pytest.approx({0.5: 0.1, 1.0: 0.1})
    assert means["conv2"].to_dict() == pytest.approx({0.5: 0.1, 0.6: -0.2, 1.0: 0.4})
    assert means["conv3"].to_dict() == pytest.approx({0.1: -0.2, 1.0: 0.25})
    assert found["samples"].groupby("group").sum().eq(3).all()
