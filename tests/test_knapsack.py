"""The knapsack against brute force, and LcP's ranking."""

import itertools
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st

from ecc.errors import UserError
from ecc.methods import compress, lcp
from ecc.methods.knapsack import choose, knapsack
from ecc.methods.lcp import Ranking
from ecc.training import calibrate

UNITS = 60
groups = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.floats(0, 5)), min_size=0, max_size=3),
    min_size=1,
    max_size=4,
)


@given(groups, st.integers(1, UNITS))
@hypothesis_settings(max_examples=300, deadline=None)
def test_knapsack_is_the_best_of_all_choices(found, scale):
    """Costs are whole units of the capacity, so that rounding up changes nothing."""
    costs = [np.cumsum([0, *(cost for cost, _ in group)]).astype(float) for group in found]
    values = [np.cumsum([0.0, *(value for _, value in group)]) for group in found]
    chosen = knapsack(costs, values, UNITS, UNITS)
    spent = sum(cost[k] for cost, k in zip(costs, chosen, strict=True))
    worth = sum(value[k] for value, k in zip(values, chosen, strict=True))
    assert spent <= UNITS
    best = max(
        sum(value[k] for value, k in zip(values, choice, strict=True))
        for choice in product(*(range(len(cost)) for cost in costs))
        if sum(cost[k] for cost, k in zip(costs, choice, strict=True)) <= UNITS
    )
    assert worth == pytest.approx(best)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_choice_is_inside_and_near_the_best(tiny_problem, share):
    problem = tiny_problem(share)
    stream = np.random.default_rng(3)
    values = [np.sort(stream.exponential(size=int(s)))[::-1] for s in problem.full_widths]
    widths = choose(problem, values, problem.budget_j, 2000)
    assert problem.joules(widths) <= problem.budget_j

    def worth(widths):
        return sum(value[:w].sum() for value, w in zip(values, widths, strict=True))

    every = np.array(list(product(*(range(1, int(s) + 1) for s in problem.full_widths))))
    inside = every[problem.energy.energy(every) <= problem.budget_j]
    assert worth(widths) >= 0.9 * max(worth(row) for row in inside)


class Falling:
    """An energy model that errs: all widths at once cost less than most others."""

    def energy(self, widths):
        total = np.asarray(widths).sum(-1)
        return np.where(total == 30, 10.0, np.where(total == 3, 5.0, 11.0))


def test_choice_is_inside_where_wider_costs_less(tiny_problem):
    problem = replace(tiny_problem(1.0), energy=Falling(), budget_j=7.0)
    values = [np.linspace(1, 0.1, int(s)) for s in problem.full_widths]
    assert problem.full_widths.sum() == 30
    assert choose(problem, values, 7.0, 2000).tolist() == [1, 1, 1]


def test_more_budget_never_costs_worth(tiny_problem):
    problem = tiny_problem(0.5)
    values = [np.linspace(1, 0.1, int(s)) for s in problem.full_widths]
    dense_j = problem.joules(problem.full_widths)
    found = [choose(problem, values, share * dense_j, 2000) for share in (0.3, 0.6, 0.9, 1.0)]
    worth = [sum(value[:w].sum() for value, w in zip(values, row, strict=True)) for row in found]
    assert worth == sorted(worth)
    assert found[-1].tolist() == problem.full_widths.tolist()


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_ranking_prunes_no_more_than_it_must(tiny_problem, share):
    problem = tiny_problem(share, lower_bounds=np.array([2, 1, 1]))
    ranking = Ranking(problem)
    beta = np.random.default_rng(0).normal(size=3)
    widths = ranking.widths(beta)
    assert problem.joules(widths) <= problem.budget_j
    assert (widths >= problem.smallest).all()
    # The channel that went last has the highest score of those that went: with it, it is over.
    gone = {
        group: np.sort(score + shift)[: len(score) - int(width)]
        for group, (score, shift, width) in enumerate(
            zip(ranking.scores, beta, widths, strict=True)
        )
    }
    last = max((g for g in gone if len(gone[g])), key=lambda g: gone[g][-1])
    wider = widths.copy()
    wider[last] += 1
    assert problem.joules(wider) > problem.budget_j


def test_compensation_moves_channels_between_groups(tiny_problem):
    ranking = Ranking(tiny_problem(0.5))
    favoured = ranking.widths(np.array([0.0, 5.0, 0.0]))
    assert favoured[1] == 12
    assert favoured[1] > ranking.widths(np.array([0.0, -5.0, 0.0]))[1]


@pytest.mark.parametrize(("iterations", "each"), [(60, 5), (59, 4), (12, 1)])
def test_lcp_trains_all_candidates_as_long(tiny_problem, monkeypatch, iterations, each):
    """`search` of the iterations need not be a multiple of `evaluations`."""
    spent = []
    monkeypatch.setattr(lcp, "_train", lambda *given: spent.append(given[3]))
    problem = tiny_problem(0.5, iterations=iterations)
    settings = {"evaluations": 6, "population": 3, "tournament": 2, "search": 0.5}
    compress("lcp", problem, settings)
    assert spent == [each] * 6 + [iterations - 6 * each]
    spent.clear()
    effort = compress("lcp", problem, {**settings, "calibration": 3}).effort
    assert spent == [each] * 6 + [iterations - 6 * each - 3]
    assert effort.images_seen == 3 * problem.training.batch_size


def test_lcp_refuses_candidates_that_would_not_be_trained(tiny_problem):
    problem, few = tiny_problem(0.5, iterations=60), {"population": 3, "tournament": 2}
    with pytest.raises(UserError, match=r"methods\.lcp\.evaluations: 31 candidates cannot train"):
        compress("lcp", problem, {**few, "evaluations": 31})
    compress("lcp", problem, {**few, "evaluations": 31, "search": 0.0})  # as it says


def test_lcp_judges_candidates_with_statistics_of_their_own(tiny_problem, monkeypatch):
    """The loss of each is that of its masked network with new batch-norm statistics."""
    problem = tiny_problem(0.5)
    batches = [images for images, _ in itertools.islice(problem.train.batches(8, 1), 2)]
    ranking, beta = Ranking(problem), np.zeros(3)
    model = problem.student()
    problem.channels.mask(model, ranking.keep(beta))
    stale = lcp._loss(problem, model)
    calibrate(model, batches, torch.device("cpu"))
    assert lcp._fitness(problem, ranking, beta, 0, 0, batches)[0] == lcp._loss(problem, model)
    assert lcp._fitness(problem, ranking, beta, 0, 0, [])[0] == stale != lcp._loss(problem, model)


def test_lcp_names_a_tournament_larger_than_the_population(tiny_problem):
    with pytest.raises(UserError, match=r"methods\.lcp\.tournament: 99 .* population of 64"):
        compress("lcp", tiny_problem(), {"tournament": 99})
