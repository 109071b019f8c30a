"""Evolution of the widths: NSGA-II (Deb et al., IEEE TEC 6(2), 2002) as a method under a budget.

Young et al. (Evolving Energy Efficient Convolutional Neural Networks, 2019) evolve architectures
for accuracy and energy; here the genome is the width vector of one network, the objectives are
hold-out error and energy, and the budget is a constraint. All candidates share the weights of one
network that was trained at random widths; each gets batch-norm statistics of its own.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as Objectives
from pymoo.core.repair import Repair
from pymoo.indicators.hv import HV
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from torch import Tensor, nn
from torch.func import functional_call

from ecc.channels import Channels
from ecc.errors import UserError
from ecc.methods.checkpoint import Checkpoint
from ecc.methods.problem import Compressed, Problem, evenly
from ecc.training import adam, calibrate, device_of, evaluate, pack, train, unpack

Integers = NDArray[np.int64]
BISECTIONS = 30


@dataclass(frozen=True)
class Settings:
    """Over `stages` the budget falls to what is asked for; in each, `population` networks evolve
    for `generations`, after the share of `shared` (a fraction of the iterations) has trained the
    weights that they have in common. `calibration`: batches that each network takes its batch-norm
    statistics from. `fill`: widths below the budget are widened to it.
    """

    stages: int = 20
    population: int = 40
    generations: int = 2
    shared: float = 0.8
    calibration: int = 4
    fill: bool = True

    def __post_init__(self) -> None:
        least = {"stages": 1, "population": 2, "generations": 1, "calibration": 0}
        for key, limit in least.items():
            if getattr(self, key) < limit:
                value = getattr(self, key)
                raise UserError(f"methods.evolution.{key} {value}: must be at least {limit}")
        if not 0 <= self.shared <= 1:
            raise UserError(f"methods.evolution.shared {self.shared}: must be from 0 to 1")


def compress(problem: Problem, settings: Settings) -> Compressed:
    """The best widths found inside the budget, with the weights that all networks share.

    Iterations are spent on the shared weights, and one for each batch of the calibration.
    """
    shared = SharedWeights(problem, settings)
    population = _first(problem, settings.population)
    dense = problem.joules(problem.full_widths)
    rows: list[dict[str, float]] = []
    best, begun = problem.full_widths, 0
    with Checkpoint(problem, settings) as checkpoint:
        if saved := checkpoint.restore():
            rows, tensors = saved
            begun = int(rows[-1]["stage"]) + 1
            population, best = tensors["population"].numpy(), tensors["best"].numpy()
            shared.restore(begun, tensors)
        for stage in range(begun, settings.stages):
            budget_j = dense * (problem.budget_j / dense) ** ((stage + 1) / settings.stages)
            if stage + 1 == settings.stages:
                budget_j = problem.budget_j
            staged = replace(problem, budget_j=budget_j)
            population = scaled_to_budget(staged, population, settings.fill)
            shared.train(stage, population)
            search = Search(staged, shared)
            population, best = _evolve(search, population, stage, settings, rows), search.best()
            checkpoint.save(rows, partial(_state, shared, population, best))
    model, keep = shared.network(best)
    history = pd.DataFrame(rows).astype({"stage": int, "generation": int, "evaluations": int})
    return Compressed(model, keep, history, shared.iterations)


def _state(shared: "SharedWeights", population: Integers, best: Integers) -> dict[str, Tensor]:
    """What a checkpoint needs besides the history."""
    widths = {"population": torch.tensor(population), "best": torch.tensor(best)}
    return pack(shared.model, shared.optimizer) | widths


class SharedWeights:
    """Weights of networks of many widths; `iterations` of training were spent so far."""

    def __init__(self, problem: Problem, settings: Settings):
        self.problem = problem
        self.model = problem.student()
        self.optimizer = adam(self.model, problem.training)
        norms = problem.channels.norms(self.model)
        # As the dense network ranks them, in training and search: a narrower network's channels
        # are among those of a wider one.
        self.ranks = [norm.argsort(descending=True, stable=True).argsort() for norm in norms]
        given = problem.training.iterations
        self.batches = problem.of_statistics(min(settings.calibration, given))
        self.iterations = len(self.batches)
        training = min(round(settings.shared * given), given - self.iterations)
        self.of_stage = list(evenly(training, settings.stages))

    def train(self, stage: int, population: Integers) -> None:
        """Spends a stage's iterations; each trains one network of the population (n, groups)."""
        problem = self.problem
        iterations = self.of_stage[stage]
        self.iterations += iterations
        if not iterations:
            return
        distillation = problem.distillation()

        def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            # The loop seeds torch for each iteration: a resumed training draws the same widths.
            keep = self._keep(population[int(torch.randint(len(population), ()))])
            narrow = partial(functional_call, model, masked_weights(problem.channels, model, keep))
            return distillation(cast(nn.Module, narrow), images, labels)

        train(
            self.model,
            problem.train,
            loss,
            replace(problem.training, iterations=iterations),
            seed=problem.seed + 7919 * (stage + 1),
            optimizer=self.optimizer,
            description=f"evolution, stage {stage}",
        )

    def restore(self, stages: int, tensors: Mapping[str, Tensor]) -> None:
        """Goes on after the training of some stages, from what a checkpoint has."""
        unpack(self.model, self.optimizer, tensors)
        self.iterations += sum(self.of_stage[:stages])

    def network(self, widths: Integers) -> tuple[nn.Module, list[Tensor]]:
        """The masked network at widths (groups,), with its own statistics, and what it keeps."""
        model, keep = copy.deepcopy(self.model), self._keep(widths)
        self.problem.channels.mask(model, keep)
        calibrate(model, self.batches, device_of(self.problem.training.device))
        return model, keep

    def error(self, widths: Integers) -> float:
        """Hold-out error, a fraction, of the network at widths (groups,)."""
        model, device = self.network(widths)[0], self.problem.training.device
        return 1 - evaluate(model, self.problem.holdout, device=device)

    def _keep(self, widths: Integers) -> list[Tensor]:
        return [rank < int(width) for rank, width in zip(self.ranks, widths, strict=True)]


class Search(Objectives):  # type: ignore[misc]
    """Two objectives of a stage, hold-out error and energy, and its budget as a constraint.

    Energy counts in hundredths of the budget: less than that is no reason to lose accuracy.
    """

    def __init__(self, problem: Problem, shared: SharedWeights):
        self.problem, self.shared = problem, shared
        self.errors: dict[tuple[int, ...], float] = {}
        bounds = {"xl": problem.smallest, "xu": problem.full_widths}
        super().__init__(n_var=len(problem.full_widths), n_obj=2, n_ieq_constr=1, **bounds)

    def _evaluate(self, X: Integers, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        for widths in X:
            if (key := tuple(widths.tolist())) not in self.errors:
                self.errors[key] = self.shared.error(widths)
        errors = [self.errors[tuple(widths.tolist())] for widths in X]
        shares = self.problem.energy.energy(X) / self.problem.budget_j
        out["F"] = np.column_stack([errors, np.ceil(100 * shares)])
        out["G"] = shares - 1

    def best(self) -> Integers:
        """Of the widths evaluated, those inside the budget of smallest error, then largest energy.

        Where no widths are inside, those of smallest energy.
        """
        known = np.array(list(self.errors))
        energy_j = self.problem.energy.energy(known)
        over = np.maximum(energy_j - self.problem.budget_j, 0)
        return np.asarray(
            known[np.lexsort((-energy_j, np.array(list(self.errors.values())), over))[0]]
        )

    def row(self) -> dict[str, float]:
        """What the history holds; the hypervolume is that of all networks of the stage, in units
        of dense energy, with the dense network's energy and error 1 as its reference.
        """
        best, problem = self.best(), self.problem
        shares = problem.energy.energy(np.array(list(self.errors)))
        shares = shares / problem.joules(problem.full_widths)
        points = np.column_stack([list(self.errors.values()), shares])
        return {
            "stage_budget_j": problem.budget_j,
            "evaluations": len(self.errors),
            "holdout_accuracy": 1 - self.errors[tuple(best.tolist())],
            "energy_j": problem.joules(best),
            "hypervolume": float(HV(ref_point=np.ones(2))(points)),
        }


def _evolve(
    search: Search,
    population: Integers,
    stage: int,
    settings: Settings,
    rows: list[dict[str, float]],
) -> Integers:
    """Runs NSGA-II for one stage; adds a row a generation and returns the survivors."""
    algorithm = NSGA2(
        pop_size=settings.population,
        sampling=population,
        crossover=SBX(prob=0.9, eta=5, vtype=float),
        mutation=PM(eta=5, vtype=float),
        repair=WithinBudget(search.problem, settings.fill),
    )
    generations = ("n_gen", settings.generations + 1)  # the first is the population given
    algorithm.setup(search, termination=generations, seed=search.problem.seed + 7919 * stage)
    while algorithm.has_next():
        algorithm.next()
        # It has counted on, from 1.
        rows.append({"stage": stage, "generation": algorithm.n_iter - 2, **search.row()})
    return np.array([individual.X for individual in algorithm.pop])


def _first(problem: Problem, count: int) -> Integers:
    """The full widths, and random ones, uniform from the smallest to them; scaled later."""
    stream = np.random.default_rng([problem.seed, 5])
    drawn = stream.random((count, len(problem.smallest)))
    widths = np.rint(problem.smallest + drawn * (problem.full_widths - problem.smallest))
    widths[0] = problem.full_widths
    return widths.astype(np.int64)


class WithinBudget(Repair):  # type: ignore[misc]
    """Whole widths between the bounds, and inside the budget: none is evaluated in vain."""

    def __init__(self, problem: Problem, fill: bool):
        super().__init__()
        self.problem, self.fill = problem, fill

    def _do(self, problem: Any, X: NDArray[np.float64], **kwargs: Any) -> Integers:
        return scaled_to_budget(self.problem, X, self.fill)


def scaled_to_budget(problem: Problem, widths: NDArray[Any], fill: bool) -> Integers:
    """Scales what widths (n, groups) have above the smallest until they meet the budget.

    Those inside stay as they are, or, with `fill`, are widened as far as the budget allows.
    """
    smallest, full = problem.smallest, problem.full_widths
    excess = np.clip(np.rint(widths), smallest, full) - smallest

    def at(factor: NDArray[np.float64]) -> Integers:
        grown = smallest + np.floor(factor[:, None] * excess + 1e-9).astype(np.int64)
        return np.asarray(np.minimum(grown, full))

    largest = float((full - smallest).max() + 1) if fill else 1.0
    low, high = np.zeros(len(excess)), np.full(len(excess), largest)
    whole = problem.energy.energy(at(high)) <= problem.budget_j
    low[whole] = largest
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = problem.energy.energy(at(middle)) <= problem.budget_j
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return at(low)


def masked_weights(channels: Channels, model: nn.Module, keep: list[Tensor]) -> dict[str, Tensor]:
    """Weights without those that read a dropped channel, through which gradients flow."""
    masks: dict[str, Tensor] = {}
    for group, kept in zip(channels.readers, keep, strict=True):
        for reader in group:
            name = f"{reader.layer}.weight"
            if name not in masks:
                masks[name] = torch.ones_like(reader.weight(model))
            reader.zero(masks[name], ~kept.cpu())
    return {name: model.get_parameter(name) * mask for name, mask in masks.items()}
