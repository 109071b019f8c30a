"""ECC: compression as optimisation under an energy constraint (Yang, Zhu, Liu, CVPR 2019).

    minimise loss(W)  subject to  phi(w_u) <= s_u for each channel group u,  E(s) <= B     (Eq. 2)

solved by the paper's hybrid of ADMM and Adam (Section 3.3) on the augmented Lagrangian

    loss(W) + sum_u rho1/2 [phi(w_u) - s_u]_+^2 + y_u (phi(w_u) - s_u)
            + rho2/2 [E(s) - B]_+^2 + z (E(s) - B),     y >= 0, z >= 0.                      (Eq. 4)

Energies are divided by the dense network's, and rho1 and rho2 are given relative to the scores of
channels, so that one setting serves all networks, platforms and learning rates. Every further
limit (latency, memory, parameters, MACs) adds the last line once more, with a rho2 and a z of its
own: E, B, rho2 and z are vectors (limits,), energy first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.optim import Optimizer

from ecc.channels import widths_of
from ecc.errors import UserError, require
from ecc.methods.checkpoint import priced
from ecc.methods.problem import Compressed, Limit, Problem, Widths
from ecc.training import train

Floats = NDArray[np.float64]
PACES = ("automatic", "fixed")
STATE = ("s", "y", "z", "rho1", "rho2")
SEVERAL_BUDGETS = True  # limits have dual variables of their own here


@dataclass(frozen=True)
class Settings:
    """`rho1`: penalty of a channel beyond s, in units of the score of its group's median channel.

    `rho2`: penalty of energy over budget, in units of the median channel's price of a joule.
    `pace` "automatic": E(s) falls linearly to the budget over the first `ramp` (a fraction) of the
    iterations, no group faster than `trust` times as fast as all would have to; "fixed": the
    paper's gradient step with rate `beta` and the gradient's norm clipped at `clip`.
    """

    method: ClassVar[str] = "ecc"

    rho1: float = 3.0
    rho2: float = 1.0
    pace: str = "automatic"
    ramp: float = 0.7
    trust: float = 4.0
    beta: float = 3.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.pace not in PACES:
            known = ", ".join(PACES)
            raise UserError(f"methods.{self.method}.pace '{self.pace}': known are {known}")
        require(
            self,
            f"methods.{self.method}.",
            rho1=self.rho1 > 0,
            rho2=self.rho2 > 0,
            beta=self.beta > 0,
            clip=self.clip > 0,
            ramp=0 < self.ramp <= 1,
            trust=self.trust >= 1,
        )


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Compresses until E(phi(W)) meets the budget, then trains on with the zeros fixed.

    If the given iterations do not suffice (at a fixed pace that is too slow), s is lowered at the
    end and the channels of smallest norm are dropped, so that the budget holds in any case.
    """
    return run(problem, Solver(problem, problem.student(), settings))


def run(problem: Problem, solver: "Solver") -> Compressed:
    """All iterations of training, with the solver's update after each step."""
    history = train(
        solver.model,
        problem.train,
        problem.distillation(),
        problem.training,
        seed=problem.seed,
        update=solver,
        checkpoint=problem.checkpoint,
        description="ecc",
    )
    keep = solver.finish()
    return Compressed(solver.model, keep, history, problem.training.iterations)


class Solver:
    """One iteration of Algorithm 1 after the gradient step: W's proximal operator, s, y, z."""

    def __init__(self, problem: Problem, model: nn.Module, settings: Settings):
        self.problem, self.model, self.settings = problem, model, settings
        self.channels = problem.channels
        self.full = problem.full_widths.astype(float)
        self.lower = problem.smallest.astype(float)
        self.limits = (Limit("energy", problem.energy, problem.budget_j), *problem.limits)
        self.dense = np.array([limit.model.energy(self.full) for limit in self.limits])
        self.budgets = np.array([limit.budget for limit in self.limits]) / self.dense
        self.s = self.full.copy()
        self.y = np.zeros_like(self.s)
        self.z = np.zeros_like(self.budgets)
        self.phi = problem.full_widths
        # Set from the first scores.
        self.rho1, self.rho2 = np.zeros_like(self.s), np.zeros_like(self.budgets)
        self.keep: list[Tensor] | None = None  # fixed zeros, once the budget is met

    def __call__(self, iteration: int, optimizer: Optimizer) -> dict[str, float]:
        if self.keep is not None:
            self.channels.mask(self.model, self.keep)
            return self._report()
        alpha = float(optimizer.param_groups[0]["lr"])
        scores = channel_scores(self.problem, self.model, optimizer, self._diagonal)
        if iteration == 0:
            self._scale(scores)
        keep = []
        for group, score in enumerate(scores):
            self.y[group] = trim(self.y[group], score, self.s[group], alpha)
            keep.append(
                proximal_operator(score, self.s[group], self.y[group], self.rho1[group], alpha)
                & (score > 0)
            )
        masks = [torch.from_numpy(kept) for kept in keep]
        self.phi = widths_of(masks)
        self.channels.mask(self.model, masks)
        if self.problem.inside(self.phi):
            self.keep = masks
            return self._report()
        self._update_bounds(iteration)
        self.y = np.maximum(self.y + self.rho1 * (self.phi - np.floor(self.s)), 0)
        self.z = np.maximum(self.z + self.rho2 * (self._used(self.s) - self.budgets), 0)
        return self._report()

    def __repr__(self) -> str:
        return f"ECC({self.settings}, {priced(self.problem)})"

    def finish(self) -> list[Tensor]:
        """The channels kept; where the budget is not met yet, drops the least until it is."""
        if self.keep is None:
            widths = self._between(1.0)
            if not self.problem.inside(widths):
                low, high = 0.0, 1.0  # inside the budget, outside
                for _ in range(50):
                    middle = (low + high) / 2
                    inside = self.problem.inside(self._between(middle))
                    low, high = (middle, high) if inside else (low, middle)
                widths = self._between(low)
            self.keep = self.channels.keep_largest(self.model, widths)
            self.channels.mask(self.model, self.keep)
        return self.keep

    def state(self) -> dict[str, Tensor]:
        state = {name: torch.from_numpy(getattr(self, name).copy()) for name in STATE}
        for group, kept in enumerate(self.keep or []):
            state[f"keep.{group}"] = kept
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        self.s, self.y, self.z, self.rho1, self.rho2 = (state[n].numpy().copy() for n in STATE)
        if "keep.0" in state:
            self.keep = [state[f"keep.{group}"] for group in range(len(self.s))]
            self.phi = widths_of(self.keep)

    def _diagonal(self, weight: Tensor, optimizer: Optimizer) -> Tensor:
        return adam_diagonal(weight, optimizer)

    def _left(self, iteration: int) -> float:
        """Automatic pace: what share of the way to the budget is left after this iteration."""
        iterations = self.settings.ramp * self.problem.training.iterations
        return max(1 - (iteration + 1) / max(iterations, 1), 0)

    def _targets(self, iteration: int) -> Floats:
        """Automatic pace: what E(s) may be after this iteration, (limits,)."""
        return np.asarray(self.budgets + (1 - self.budgets) * self._left(iteration))

    def _scale(self, scores: list[Floats]) -> None:
        # The rate of the whole training, not that of the first iteration, which may be warming up.
        alpha = self.problem.training.learning_rate
        medians = np.array([np.median(score) for score in scores]) / alpha
        self.rho1 = self.settings.rho1 * medians
        for limit, slope in enumerate(self._slopes(self.s)):
            if (priced := slope > 0).any():
                self.rho2[limit] = self.settings.rho2 * np.median(medians[priced] / slope[priced])

    def _update_bounds(self, iteration: int) -> None:
        """Lowers s (Eq. 10), after raising z so that E(s) must fall (Section 3.3.3)."""
        slopes, used = self._slopes(self.s), self._used(self.s)
        over = np.maximum(used - self.budgets, 0)
        # A limit that is ahead of its schedule has no price: the groups that it would narrow are
        # not those that the others need. A single one keeps its own, which moves no width.
        several = self.settings.pace == "automatic" and len(self.z) > 1
        targets = self._targets(iteration)
        if several:
            ahead = used <= targets
            self.z[ahead] = over[ahead] = 0
        pull = self.rho1 * np.maximum(self.phi - self.s, 0) + self.y
        g1 = (self.rho2 * over) @ slopes - pull
        for limit in np.flatnonzero(self._used(self.phi) > self.budgets).tolist():
            slope, free = slopes[limit], (self.s > self.lower) & (slopes[limit] > 0)
            if not free.any() or (several and self._used(self.s)[limit] <= targets[limit]):
                continue
            others = g1 + np.where(np.arange(len(self.z)) == limit, 0, self.z) @ slopes
            # epsilon is relative: beside a large y an absolute one would be lost to rounding.
            prices = np.maximum(-others[free], 0) * (1 + 1e-3) / slope[free]
            self.z[limit] = max(self.z[limit], prices.min(), 1e-3 * self.rho2[limit])
            if self.settings.pace == "automatic":
                self._follow_pace(targets[limit], limit, others, slope, free)
        if self.settings.pace == "fixed":
            free = (self.s > self.lower) & (slopes > 0).any(axis=0)
            step = np.where(free, np.maximum(g1 + self.z @ slopes, 0), 0)
            norm = float(np.linalg.norm(step))
            step *= min(1.0, self.settings.clip / norm) if norm > 0 else 0.0
            self.s = np.maximum(self.s - self.settings.beta * step, self.lower)

    def _follow_pace(
        self, target: float, limit: int, g1: Floats, slope: Floats, free: NDArray[np.bool_]
    ) -> None:
        """The smallest z, and the step of s with it, for which E(s) is on schedule.

        The sign of g1 + z g2 says which groups are worth narrowing at the price z; each moves by
        at most the trust region, so that its dual y can tell in time what its channels are worth.
        """
        iterations = max(self.settings.ramp * self.problem.training.iterations, 1)
        if self._used(self.s)[limit] <= target:
            return
        region = np.where(free, self.settings.trust / iterations * self.full, 0)
        prices = np.where(free, -g1 / np.where(slope > 0, slope, 1), np.inf)
        # At first all are equal but for rounding, which may not decide whose turn it is.
        order = np.argsort(prices.astype(np.float32), kind="stable")
        s = self.s.copy()
        for group in order[: int(free.sum())]:
            self.z[limit] = max(self.z[limit], -g1[group] / slope[group])
            narrowed = s.copy()
            narrowed[group] = max(s[group] - region[group], self.lower[group])
            if self._used(narrowed)[limit] <= target:
                s[group] = self._solve(s, limit, group, narrowed[group], target)
                break
            s = narrowed
        self.s = s

    def _solve(self, s: Floats, limit: int, group: int, narrowest: float, target: float) -> float:
        """The width of one group for which E(s) meets the target, between `narrowest` and s."""

        def excess(width: float) -> float:
            trial[group] = width
            return float(self._used(trial)[limit]) - target

        trial = s.copy()
        return float(brentq(excess, narrowest, s[group], xtol=1e-6 * self.full[group]))

    def _between(self, share: float) -> Floats:
        """Whole widths at a share of the way from the smallest ones to s."""
        widths: Floats = np.floor(self.lower + share * (self.s - self.lower))
        return widths

    def _used(self, widths: Widths) -> Floats:
        """E(s), each limit as a fraction of the dense network's: (limits,)."""
        used = np.array([limit.model.energy(widths) for limit in self.limits], dtype=float)
        return np.asarray(used / self.dense)

    def _slopes(self, widths: Floats) -> Floats:
        """The gradients of E(s), as fractions too: (limits, groups)."""
        slopes = np.array([limit.model.gradient(widths) for limit in self.limits], dtype=float)
        return np.asarray(slopes / self.dense[:, None])

    def _report(self) -> dict[str, float]:
        report = {
            "energy_j": self.problem.joules(self.phi),
            "bound_energy_j": self.problem.joules(self.s),
            "z": float(self.z[0]),
        }
        for limit, z in zip(self.limits[1:], self.z[1:].tolist(), strict=True):
            report[limit.name] = float(limit.model.energy(self.phi))
            report[f"z_{limit.name}"] = z
        report |= {f"s_{group}": value for group, value in enumerate(self.s.tolist())}
        return report | {f"y_{group}": value for group, value in enumerate(self.y.tolist())}


def adam_diagonal(weight: Tensor, optimizer: Optimizer) -> Tensor:
    """D = sqrt(v) + epsilon of the step just taken, v corrected for its bias as in that step."""
    options, state = optimizer.param_groups[0], optimizer.state[weight]
    correction = 1 - options["betas"][1] ** float(state["step"])
    diagonal: Tensor = state["exp_avg_sq"].sqrt().mul_(correction**-0.5).add_(options["eps"])
    return diagonal


@torch.no_grad()
def channel_scores(
    problem: Problem,
    model: nn.Module,
    optimizer: Optimizer,
    diagonal: Callable[[Tensor, Optimizer], Tensor] = adam_diagonal,
) -> list[Floats]:
    """a_i: sum over channel i of D w^2, with D Adam's diagonal (Section 3.3.1): (S,) a group."""

    def weighted(weight: Tensor) -> Tensor:
        return (diagonal(weight, optimizer) * weight).mul_(weight)

    scores = problem.channels.scores(model, weighted)
    return [score.double().cpu().numpy() for score in scores]


def proximal_operator(
    scores: Floats, s: float, y: float, rho1: float, alpha: float
) -> NDArray[np.bool_]:
    """Which channels survive, exactly (Algorithm 2): bool (S,).

    Minimises sum of dropped scores / (2 alpha) + rho1/2 [k - s]_+^2 + y k over all choices of k
    kept channels. Those of largest score are kept; the gain of keeping falls with the rank and its
    price grows, so each channel is decided by its own rank.
    """
    order = np.argsort(-scores, kind="stable")
    price = alpha * rank_penalty(np.arange(1, len(scores) + 1), s, rho1) + 2 * alpha * y
    keep = np.empty(len(scores), dtype=bool)
    keep[order] = scores[order] >= price
    return keep


def rank_penalty(rank: NDArray[np.int64], s: float, rho1: float) -> Floats:
    """rho1 ([r - s]_+^2 - [r - 1 - s]_+^2): what the quadratic term charges for rank r."""
    return np.asarray(rho1 * (np.maximum(rank - s, 0) ** 2 - np.maximum(rank - 1 - s, 0) ** 2))


def trim(y: float, scores: Floats, s: float, alpha: float) -> float:
    """y lowered until at least floor(s) channels survive the proximal operator (Section 3.3.3).

    At rank floor(s) the quadratic term charges nothing, so y may be that channel's score / (2
    alpha) at most.
    """
    rank = int(np.floor(s))
    largest = np.partition(scores, len(scores) - rank)[len(scores) - rank]
    # Rounded down by a hair, so that 2 alpha y never exceeds the score it was made from.
    return min(y, float(largest) / (2 * alpha) * (1 - 1e-12))
