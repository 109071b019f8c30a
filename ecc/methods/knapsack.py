"""Energy-saliency knapsack: the channels worth most that the budget has room for.

After HALP (Shen et al., NeurIPS 2022), from its mathematics, with an energy model for its latency
table. While the network trains, every channel's saliency is summed up; at each of some steps a
knapsack chooses how many channels every group keeps, the most salient first, under a target that
falls exponentially to the budget.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from ecc.channels import widths_of
from ecc.errors import require
from ecc.methods.problem import Compressed, Problem
from ecc.training import train

Floats = NDArray[np.float64]
Widths = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """`steps` of pruning, spread evenly over the first `ramp` (a fraction) of the iterations.

    `smoothing`: what is left of a saliency after one iteration. `units` is the resolution of
    energies in the knapsack.
    """

    steps: int = 30
    ramp: float = 0.7
    smoothing: float = 0.9
    units: int = 2000

    def __post_init__(self) -> None:
        require(
            self,
            "methods.knapsack.",
            steps=self.steps >= 1,
            ramp=0 < self.ramp <= 1,
            smoothing=0 <= self.smoothing < 1,
            units=self.units >= 10,
        )


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Prunes step by step while training, then trains on with the zeros fixed."""
    model = problem.student()
    pruning = Pruning(problem, model, settings)
    history = train(
        model,
        problem.train,
        problem.distillation(),
        problem.training,
        seed=problem.seed,
        update=pruning,
        checkpoint=problem.checkpoint,
        description="knapsack",
    )
    if problem.joules(widths_of(pruning.keep)) > problem.budget_j:
        pruning.prune(problem.budget_j)  # fewer iterations than steps
    return Compressed(model, pruning.keep, history, problem.training.iterations)


class Pruning:
    """Sums saliencies after every step of the optimizer, and prunes at some of them."""

    def __init__(self, problem: Problem, model: nn.Module, settings: Settings):
        self.problem, self.model, self.settings = problem, model, settings
        self.keep = [torch.ones(int(width), dtype=torch.bool) for width in problem.full_widths]
        self.saliency = [torch.zeros(int(width)) for width in problem.full_widths]
        last = max(1, round(settings.ramp * problem.training.iterations))
        at = np.linspace(0, last, settings.steps + 1)[1:].round().astype(int)
        self.steps = {int(iteration): step for step, iteration in enumerate(at, start=1)}

    def __call__(self, iteration: int, optimizer: Optimizer) -> dict[str, float]:
        with torch.no_grad():
            for group, new in enumerate(saliencies(self.problem, self.model)):
                old = self.saliency[group].to(new.device)
                self.saliency[group] = self.settings.smoothing * old + new
        if step := self.steps.get(iteration + 1):
            dense_j = self.problem.joules(self.problem.full_widths)
            share = (self.problem.budget_j / dense_j) ** (step / self.settings.steps)
            last = step == self.settings.steps
            self.prune(self.problem.budget_j if last else share * dense_j)
        self.problem.channels.mask(self.model, self.keep)
        return {"energy_j": self.problem.joules(widths_of(self.keep))}

    def __repr__(self) -> str:
        problem = self.problem
        prices = problem.energy.gradient(problem.full_widths.astype(float)).tolist()
        return f"Knapsack({self.settings}, {problem.budget_j}, {problem.smallest}, {prices})"

    def prune(self, target_j: float) -> None:
        """Keeps the most salient channels whose energy is at most the target."""
        ranked, values = [], []
        for kept, saliency in zip(self.keep, self.saliency, strict=True):
            worth = saliency.cpu().double().where(kept, torch.tensor(-1.0, dtype=torch.float64))
            order = torch.sort(worth, descending=True, stable=True).indices
            ranked.append(order)
            values.append(worth[order][: int(kept.sum())].numpy())
        widths = choose(self.problem, values, target_j, self.settings.units)
        for kept, order, width in zip(self.keep, ranked, widths, strict=True):
            kept[:] = False
            kept[order[: int(width)]] = True
        self.problem.channels.mask(self.model, self.keep)

    def state(self) -> dict[str, Tensor]:
        state = {f"keep.{group}": kept for group, kept in enumerate(self.keep)}
        return state | {f"saliency.{group}": s for group, s in enumerate(self.saliency)}

    def restore(self, state: dict[str, Tensor]) -> None:
        for group in range(len(self.keep)):
            self.keep[group] = state[f"keep.{group}"]
            self.saliency[group] = state[f"saliency.{group}"]


def saliencies(problem: Problem, model: nn.Module) -> list[Tensor]:
    """|sum over a channel of w dloss/dw|, the first-order loss of dropping it: (S,) a group."""

    def product(weight: Tensor) -> Tensor:
        return weight if weight.grad is None else weight * weight.grad

    return [score.abs() for score in problem.channels.scores(model, product)]


def choose(problem: Problem, values: list[Floats], target_j: float, units: int) -> Widths:
    """Widths (groups,) of largest total value whose energy by the model is at most the target.

    `values` are those of the channels that each group has, in falling order. The knapsack adds up
    energies as if the other groups kept their widths; what this gets wrong is found by asking the
    model, and the capacity is corrected until the true energy just fits.
    """
    now = np.array([len(each) for each in values], dtype=np.int64)
    least = np.minimum(problem.smallest, now)
    if problem.joules(now) <= target_j:
        return now
    costs, worth = [], []
    for group, each in enumerate(values):
        trials = np.tile(now, (now[group] - least[group] + 1, 1))
        trials[:, group] = np.arange(least[group], now[group] + 1)
        energy = problem.energy.energy(trials)
        costs.append(energy - energy[0])
        worth.append(np.concatenate([[0.0], np.cumsum(each)])[least[group] :])
    # A model may err so far that wider costs less: then as if it cost nothing.
    low, high, best = 0.0, float(sum(max(cost[-1], 0) for cost in costs)), least
    for _ in range(12):
        middle = (low + high) / 2
        extra = knapsack(costs, worth, middle, units)
        if problem.joules(least + extra) <= target_j:
            low, best = middle, least + extra
        else:
            high = middle
    return best


def knapsack(costs: list[Floats], values: list[Floats], capacity: float, units: int) -> Widths:
    """The choice of one option a group, (groups,), of largest total value within the capacity.

    Option k of a group costs `costs[group][k]` and is worth `values[group][k]`; option 0 costs
    nothing. Exact by dynamic programming over costs rounded up to `units` parts of the capacity, so
    that the capacity always holds.
    """
    size = units if capacity > 0 else 0
    best = np.zeros(size + 1)  # of the groups so far, for every capacity
    taken = []
    for cost, value in zip(costs, values, strict=True):
        cost = np.maximum(cost, 0)
        scaled = cost / capacity * units if capacity > 0 else np.sign(cost) * units
        need = np.ceil(scaled * (1 - 1e-12)).astype(int)
        found, option = np.full(size + 1, -np.inf), np.zeros(size + 1, dtype=np.int64)
        for k in np.flatnonzero(need <= size):
            trial = best[: size + 1 - need[k]] + value[k]
            better = trial > found[need[k] :]
            found[need[k] :][better] = trial[better]
            option[need[k] :][better] = k
        best = found
        taken.append((need, option))
    chosen, left = np.zeros(len(costs), dtype=np.int64), size
    for group in range(len(costs) - 1, -1, -1):
        need, option = taken[group]
        chosen[group] = option[left]
        left -= need[option[left]]
    return chosen
