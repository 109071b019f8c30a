"""Uniform width multiplier: the floor that every method must beat.

The largest multiplier alpha whose widths max(lower bound, floor(alpha S)) stay inside the budget;
of each group the channels of largest norm are kept. It trains nothing: its share of the
iterations is added to its fine-tuning.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecc.methods.problem import Compressed, Problem


@dataclass(frozen=True)
class Settings:
    """There is nothing to set."""


def compress(problem: Problem, settings: Settings) -> Compressed:
    """Prunes to the widest uniform multiplier within the budget; returns without training."""
    widths = uniform_widths(problem)
    model = problem.student()
    keep = problem.channels.keep_largest(model, widths)
    problem.channels.mask(model, keep)
    return Compressed(model, keep, pd.DataFrame(), iterations=0)


def uniform_widths(problem: Problem) -> NDArray[np.int64]:
    """The widths (groups,) of the largest multiplier within the budget.

    Widths change only where alpha S crosses an integer, so the candidates are finite: they are
    searched by bisection, exactly where energy grows with the widths.
    """
    full, smallest = problem.full_widths, problem.smallest
    steps = np.unique(np.concatenate([np.arange(1, width + 1) / width for width in full]))
    low, high = -1, len(steps) - 1  # steps[low] is inside the budget (-1: the smallest widths)
    while low < high:
        middle = (low + high + 1) // 2
        if problem.joules(_widths(steps[middle], full, smallest)) <= problem.budget_j:
            low = middle
        else:
            high = middle - 1
    return _widths(steps[low], full, smallest) if low >= 0 else smallest.copy()


def _widths(
    multiplier: float, full: NDArray[np.int64], smallest: NDArray[np.int64]
) -> NDArray[np.int64]:
    # The small constant keeps (k/S)*S from falling below the integer k by rounding.
    widths = np.floor(multiplier * full + 1e-9).astype(np.int64)
    return np.asarray(np.maximum(smallest, widths))
