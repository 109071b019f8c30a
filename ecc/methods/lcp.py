"""LcP, layer-compensated pruning (Chin et al., 2018), with energy as the resource.

Channels of all groups are ranked together by a score and beta_l, and the lowest go until the budget
is met. Norms of different groups lie orders of magnitude apart, so scores are the logarithms of
||w_j||^2 relative to its mean over the group: a compensation is a factor. The latent compensations
beta, one a channel group, are found by regularised evolution; the fitness of a candidate is its
hold-out loss after a short training, with batch-norm statistics of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc.channels import widths_of
from ecc.errors import UserError, require
from ecc.methods.checkpoint import Checkpoint
from ecc.methods.problem import Compressed, FixedZeros, Problem
from ecc.training import calibrate, device_of, train

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """The published ones by default: `evaluations` in all, a `population` from which `tournament`
    candidates are drawn, the best of them mutated in a share `mutated` of its groups.

    `sigma` is the standard deviation of the first mutations, of a logarithm; it falls linearly to
    zero. `search` is the share of the iterations that candidates train, as many each; those that
    cannot be shared out evenly are left to the final training. At 0 none trains. `calibration`:
    batches, the same for all, that each takes its batch-norm statistics from; 0: it keeps those
    of training.
    """

    evaluations: int = 400
    population: int = 64
    tournament: int = 16
    mutated: float = 0.1
    sigma: float = 1.0
    search: float = 0.5
    calibration: int = 0

    def __post_init__(self) -> None:
        require(
            self,
            "methods.lcp.",
            evaluations=self.evaluations >= 1,
            population=self.population >= 1,
            tournament=self.tournament >= 1,
            mutated=0 < self.mutated <= 1,
            sigma=self.sigma > 0,
            search=0 <= self.search <= 1,
            calibration=self.calibration >= 0,
        )
        if self.tournament > self.population:
            raise UserError(
                f"methods.lcp.tournament: {self.tournament} cannot be drawn from a population of "
                f"{self.population}: lower it or raise methods.lcp.population"
            )


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Searches the compensations, prunes the dense network by the best, and trains it."""
    ranking = Ranking(problem)
    given = problem.training.iterations
    each = _each(settings, given)
    unsearched = given - int(settings.search * given)
    batches = problem.of_statistics(min(settings.calibration, unsearched))
    rows: list[dict[str, float]] = []
    betas: list[Floats] = []
    with Checkpoint(problem, settings) as checkpoint:
        if saved := checkpoint.restore():
            rows, tensors = saved
            betas = list(tensors["betas"].numpy())
        while (number := len(rows)) < settings.evaluations:
            losses = [row["loss"] for row in rows]
            alive = list(zip(losses, betas, strict=True))[-settings.population :]
            beta = _beta(alive, settings, len(ranking.scores), number, problem.seed)
            loss, widths = _fitness(problem, ranking, beta, each, number, batches)
            betas.append(beta)
            found = {"evaluation": number, "loss": loss, "best": min([loss, *losses])}
            rows.append({**found, "energy_j": problem.joules(widths)})
            checkpoint.save(rows, lambda: {"betas": torch.tensor(np.array(betas))})
        checkpoint.save(rows, lambda: {"betas": torch.tensor(np.array(betas))}, at_once=True)
        model = problem.student()
        keep = ranking.keep(betas[int(np.argmin([row["loss"] for row in rows]))])
        iterations = given - each * settings.evaluations - len(batches)
        _train(problem, model, keep, iterations, problem.seed, checkpoint.of_training())
    return Compressed(model, keep, pd.DataFrame(rows).astype({"evaluation": int}), given)


def _each(settings: Settings, given: int) -> int:
    """Iterations that a candidate trains; raises UserError where all would train none."""
    each = int(settings.search * given) // settings.evaluations
    if settings.search and not each:
        raise UserError(
            f"methods.lcp.evaluations: {settings.evaluations} candidates cannot train an iteration "
            f"each, where all have {int(settings.search * given)} (search: {settings.search:g} of "
            f"{given}): lower it, or raise methods.lcp.search; 0 there trains none"
        )
    return each


def _beta(
    alive: Sequence[tuple[float, Floats]], settings: Settings, groups: int, number: int, seed: int
) -> Floats:
    """The compensations of the next evaluation: at first none, then at random, then bred."""
    # A stream of its own for every evaluation: a resumed search draws the same.
    stream = np.random.default_rng([seed, 17, number])
    if number == 0:
        return np.zeros(groups)
    if number < settings.population:
        return settings.sigma * stream.standard_normal(groups)
    sigma = settings.sigma * (1 - number / settings.evaluations)
    return _mutated(_parent(alive, settings, stream), settings, sigma, stream)


class Ranking:
    """The squared norms of the dense network's channels, relative to their group, ranked."""

    def __init__(self, problem: Problem):
        self.problem = problem
        found = problem.channels.scores(problem.dense, torch.square)
        squares = [score.detach().double().cpu().numpy() for score in found]
        self.scores = [
            np.log(np.maximum(each, 1e-30) / max(each.mean(), 1e-30)) for each in squares
        ]
        self.order = [np.argsort(-score, kind="stable") for score in self.scores]

    def widths(self, beta: Floats) -> NDArray[np.int64]:
        """Widths (groups,) with which the budget is met: as few channels go as have to."""
        least = self.problem.smallest
        # The least channels of a group are no candidates, whatever their scores are.
        ranked = [
            np.sort(score + shift)[: len(score) - int(bound)]
            for score, shift, bound in zip(self.scores, beta, least, strict=True)
        ]
        groups = np.repeat(np.arange(len(ranked)), [len(each) for each in ranked])
        order = groups[np.argsort(np.concatenate(ranked), kind="stable")]

        def without(count: int) -> NDArray[np.int64]:
            gone = np.bincount(order[:count], minlength=len(ranked))
            return np.asarray(self.problem.full_widths - gone, dtype=np.int64)

        low, high = 0, len(order)  # all go: the smallest energy, which is inside
        while low < high:
            middle = (low + high) // 2
            if self.problem.joules(without(middle)) <= self.problem.budget_j:
                high = middle
            else:
                low = middle + 1
        return without(high)

    def keep(self, beta: Floats) -> list[Tensor]:
        """The channels that stay: within a group those of largest norm."""
        keep = []
        for order, width in zip(self.order, self.widths(beta), strict=True):
            chosen = torch.zeros(len(order), dtype=torch.bool)
            chosen[torch.from_numpy(order[: int(width)].copy())] = True
            keep.append(chosen)
        return keep


def _parent(
    alive: Sequence[tuple[float, Floats]], settings: Settings, stream: np.random.Generator
) -> Floats:
    """The best of a tournament."""
    drawn = stream.choice(len(alive), size=min(settings.tournament, len(alive)), replace=False)
    return np.asarray(min((alive[index] for index in drawn), key=lambda found: found[0])[1])


def _mutated(beta: Floats, settings: Settings, sigma: float, stream: np.random.Generator) -> Floats:
    count = max(1, round(settings.mutated * len(beta)))
    where = stream.choice(len(beta), size=count, replace=False)
    child: Floats = beta.copy()
    child[where] += sigma * stream.standard_normal(count)
    return np.asarray(child)


def _fitness(
    problem: Problem,
    ranking: Ranking,
    beta: Floats,
    iterations: int,
    number: int,
    batches: list[Tensor],
) -> tuple[float, NDArray[np.int64]]:
    """Hold-out loss after a short training, and the widths."""
    model, keep = problem.student(), ranking.keep(beta)
    _train(problem, model, keep, iterations, problem.seed + 7919 * (number + 1))
    calibrate(model, batches, device_of(problem.training.device))
    return _loss(problem, model), widths_of(keep)


def _train(
    problem: Problem,
    model: nn.Module,
    keep: Sequence[Tensor],
    iterations: int,
    seed: int,
    checkpoint: Path | None = None,
) -> None:
    mask = FixedZeros(problem.channels, model, keep)
    if iterations:
        train(
            model,
            problem.train,
            problem.distillation(),
            replace(problem.training, iterations=iterations),
            seed=seed,
            update=mask,
            checkpoint=checkpoint,
            description="lcp",
        )


@torch.no_grad()
def _loss(problem: Problem, model: nn.Module) -> float:
    """The task's loss on the hold-out images, summed, over their number."""
    device = device_of(problem.training.device)
    model.to(device).eval()
    total = 0.0
    for images, labels in problem.holdout.ordered(256):
        logits = model(images.to(device))
        total += float(problem.holdout.task.loss(logits, labels.to(device), reduction="sum"))
    return total / len(problem.holdout)
