"""ECC that is early: without its ingredients it is ECC, and each does what it says."""

import numpy as np
import pytest
import torch

from ecc.errors import UserError
from ecc.methods import compress

OFF = {"exponent": 1.0, "ramp": 0.7, "rate": 1.0}


def weights(result):
    return list(result.model.state_dict().values())


def test_without_its_ingredients_it_is_ecc(tiny_problem):
    faithful = compress("ecc", tiny_problem(0.5), {})
    plain = compress("ecc_early", tiny_problem(0.5), OFF)
    assert all(torch.equal(a, b) for a, b in zip(weights(faithful), weights(plain), strict=True))
    assert faithful.history.equals(plain.history)


@pytest.mark.parametrize("switched", [{"exponent": 2.0}, {"ramp": 0.3}, {"rate": 3.0}])
def test_every_ingredient_alone_makes_a_difference(tiny_problem, switched):
    one, other = (
        weights(compress("ecc_early", tiny_problem(0.5), settings))
        for settings in (OFF, OFF | switched)
    )
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_rate_is_a_factor_of_the_learning_rate(tiny_problem):
    problem = tiny_problem(0.5)
    history = compress("ecc_early", problem, {"rate": 2.5}).history
    expected = 2.5 * problem.training.learning_rate
    assert history["learning_rate"].to_numpy() == pytest.approx(expected)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 3.0])
def test_energy_falls_by_the_power_of_what_is_left(tiny_problem, exponent):
    problem = tiny_problem(0.4, iterations=100)
    # No group is held back by the trust region.
    settings = OFF | {"ramp": 0.8, "exponent": exponent, "trust": 100.0}
    history = compress("ecc_early", problem, settings).history
    active = history[history["energy_j"] > problem.budget_j]
    left = np.maximum(1 - (active["iteration"] + 1) / 80, 0) ** exponent
    target = (0.4 + 0.6 * left) * problem.joules(problem.full_widths)
    assert len(active) > 10
    assert active["bound_energy_j"].to_numpy() == pytest.approx(target.to_numpy(), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"exponent": 0.0}, "exponent"), ({"rate": -1.0}, "rate"), ({"pace": "brisk"}, "pace")],
)
def test_settings_out_of_range_are_named(tiny_problem, settings, named):
    with pytest.raises(UserError, match=rf"methods\.ecc_early\.{named}"):
        compress("ecc_early", tiny_problem(), settings)
