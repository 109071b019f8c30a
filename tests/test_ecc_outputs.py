"""ECC by outputs: without its ingredients it is ECC, and each does what it says."""

import numpy as np
import pytest
import torch
from torch import nn

from ecc.channels import trace
from ecc.energy import BilinearGraph
from ecc.energy.bilinear import graph_features
from ecc.errors import UserError
from ecc.methods import compress
from ecc.methods.ecc import adam_diagonal, channel_scores
from ecc.methods.ecc_outputs import Settings, Solver, input_variances
from ecc.tasks import CLASSIFICATION
from ecc.training import TaskLoss, adam, train

OFF = {"exponent": 1.0, "ramp": 0.7, "batches": 0}


def weights(result):
    return list(result.model.state_dict().values())


def test_without_its_ingredients_it_is_ecc(tiny_problem):
    faithful = compress("ecc", tiny_problem(0.5), {})
    plain = compress("ecc_outputs", tiny_problem(0.5), OFF)
    assert all(torch.equal(a, b) for a, b in zip(weights(faithful), weights(plain), strict=True))
    assert faithful.history.equals(plain.history)


@pytest.mark.parametrize("switched", [{"exponent": 2.0}, {"ramp": 0.3}, {"batches": 4}])
def test_every_ingredient_alone_makes_a_difference(tiny_problem, switched):
    one, other = (
        weights(compress("ecc_outputs", tiny_problem(0.5), settings))
        for settings in (OFF, OFF | switched)
    )
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_variances_are_those_of_what_the_dense_layers_read(tiny_problem):
    problem = tiny_problem()
    found = input_variances(problem, 2)
    assert set(found) == {"layers.6", "layers.9", "layers.13"}  # without the depthwise layers.3
    model, values = problem.student().eval(), []
    stream = problem.train.batches(problem.training.batch_size, problem.seed)
    for _, (images, _) in zip(range(2), stream, strict=False):
        with torch.no_grad():
            values.append([model.layers[:end](images) for end in (6, 9, 13)])
    for name, *inputs in zip(("layers.6", "layers.9", "layers.13"), *values, strict=True):
        expected = np.mean([each.transpose(0, 1).flatten(1).numpy().var(1) for each in inputs], 0)
        assert found[name].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_scores_are_variance_times_output_gradient_times_squared_weights(tiny_problem):
    problem = tiny_problem()
    model = problem.student()
    optimizer = adam(model, problem.training)
    train(
        model,
        problem.train,
        TaskLoss(CLASSIFICATION),
        problem.training,
        seed=0,
        optimizer=optimizer,
    )
    variances = input_variances(problem, 2)
    solver = Solver(problem, model, Settings(), variances)
    scores = channel_scores(problem, model, optimizer, solver._diagonal)

    def by_hand(name):
        weight, variance = model.get_parameter(f"{name}.weight"), variances[name].numpy()
        w, d = (t.detach().numpy() for t in (weight, adam_diagonal(weight, optimizer)))
        filters, inputs = w.shape[:2]
        score = np.zeros(inputs)
        for o in range(filters):
            gradient = np.sqrt((d[o] ** 2).mean() / variance.mean())
            for i in range(inputs):
                score[i] += variance[i] * gradient * (w[o, i] ** 2).sum()
        return score

    assert scores[0] == pytest.approx(by_hand("layers.6"), rel=1e-4)
    assert scores[1] == pytest.approx(by_hand("layers.9"), rel=1e-4)
    flattened = by_hand("layers.13").reshape(10, 4).sum(axis=1)
    assert scores[2] == pytest.approx(flattened, rel=1e-4)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 3.0])
def test_energy_falls_by_the_power_of_what_is_left(tiny_problem, exponent):
    problem = tiny_problem(0.4, iterations=100)
    # No group is held back by the trust region.
    settings = OFF | {"ramp": 0.8, "exponent": exponent, "trust": 100.0}
    history = compress("ecc_outputs", problem, settings).history
    active = history[history["energy_j"] > problem.budget_j]
    left = np.maximum(1 - (active["iteration"] + 1) / 80, 0) ** exponent
    target = (0.4 + 0.6 * left) * problem.joules(problem.full_widths)
    assert len(active) > 10
    assert active["bound_energy_j"].to_numpy() == pytest.approx(target.to_numpy(), rel=1e-4)


class Upsampling(nn.Module):
    """A convolution whose outputs are constant, and a transposed one, whose inputs lie first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 5, 2, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * 256, 4),
        )
        nn.init.constant_(self.layers[1].bias, -9.0)

    def forward(self, images):
        return self.layers(images)


def test_constant_inputs_and_transposed_layers_are_ranked_too(tiny_problem):
    dense = Upsampling()
    channels = trace(dense, (8, 8))
    features = len(graph_features(channels.structure).names)
    energy = BilinearGraph(channels.structure, np.ones(1 + features))
    budget_j = 0.6 * float(energy.energy(channels.structure.full_widths))
    result = compress(
        "ecc_outputs",
        tiny_problem(dense=dense, channels=channels, energy=energy, budget_j=budget_j),
        {},
    )
    assert (result.widths >= 1).all()
    assert float(energy.energy(result.widths)) <= budget_j
    assert result.history["z"].map(np.isfinite).all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"exponent": 0.0}, "exponent"), ({"batches": -1}, "batches"), ({"pace": "brisk"}, "pace")],
)
def test_settings_out_of_range_are_named(tiny_problem, settings, named):
    with pytest.raises(UserError, match=rf"methods\.ecc_outputs\.{named}"):
        compress("ecc_outputs", tiny_problem(), settings)
