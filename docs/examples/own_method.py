"""A method of one's own: widths by energy and norm, greedily, then training with the zeros fixed.

    .venv/bin/python docs/examples/own_method.py

Beside uniform pruning, on one budget, in seconds on one core; docs/methods/README.md explains it.
"""

import sys
from dataclasses import dataclass

import numpy as np
from compress_digits import main  # it finds `ecc` too, and so comes before it
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.methods import METHODS, Compressed, Problem
from ecc.methods.problem import FixedZeros
from ecc.training import train


@dataclass(frozen=True)
class Settings:
    """`step`: channels that a group loses at a time."""

    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1:
            raise UserError(f"methods.greedy.step: {self.step} must be at least 1")


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Chooses widths, then spends all iterations on the network that they leave."""
    model = problem.student()
    keep = problem.channels.keep_largest(model, greedy_widths(problem, settings))
    zeros = FixedZeros(problem.channels, model, keep)
    given = problem.train, problem.distillation(), problem.training
    history = train(model, *given, seed=problem.seed, update=zeros, checkpoint=problem.checkpoint)
    return Compressed(model, keep, history, problem.training.iterations)


def greedy_widths(problem: Problem, settings: Settings) -> NDArray[np.int64]:
    """Widths (groups,): narrows the group that saves most joules for its norm, until inside."""
    ranked = [norm.sort(descending=True).values for norm in problem.channels.norms(problem.dense)]
    shares = [(norm.cumsum(0) / norm.sum()).tolist() for norm in ranked]  # of the k + 1 largest
    widths, one = problem.full_widths, np.eye(len(shares), dtype=int)
    while not problem.inside(widths):
        narrower = np.maximum(widths - settings.step * one, problem.smallest)  # row g: group g is
        saved_j = problem.joules(widths) - problem.energy.energy(narrower)
        pairs = zip(shares, widths, narrower.diagonal(), strict=True)
        lost = np.array([share[wide - 1] - share[narrow - 1] for share, wide, narrow in pairs])
        worth = np.where(widths > problem.smallest, saved_j / np.maximum(lost, 1e-9), -np.inf)
        widths = narrower[worth.argmax()]
    return widths


if __name__ == "__main__":
    METHODS["greedy"] = sys.modules[__name__]  # the registry line, for this run alone
    print(main(methods=("uniform", "greedy")).round(4).to_string())
