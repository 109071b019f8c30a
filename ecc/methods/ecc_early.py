"""ECC that is early at its budget: an improvement of `ecc`, kept apart from the faithful method.

The optimisation problem, the scores, the proximal operator and the duals are those of `ecc`. What
differs, each with a setting that switches it off:

- `exponent`, `ramp`: energy falls early, and fast first, so that most iterations train the final
  widths. (A polynomial schedule, as Zhu and Gupta, To prune or not to prune, 2017, for sparsity.)
- `rate`: learning rate of the compression, relative to the one that it is given. Fine-tuning ends
  with small steps; before it they may be larger.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from ecc.errors import UserError
from ecc.methods import ecc
from ecc.methods.problem import Compressed, Problem

SEVERAL_BUDGETS = True


@dataclass(frozen=True)
class Settings(ecc.Settings):
    """Those of `ecc`, and:

    `exponent`: at a time t in [0, 1] of the ramp, (1 - t) ** exponent of the way to the budget is
    left, at the automatic pace; 1 is the line of `ecc`. `rate`: factor of the learning rate.
    """

    method: ClassVar[str] = "ecc_early"

    ramp: float = 0.3
    exponent: float = 2.0
    rate: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("exponent", "rate"):
            if getattr(self, key) <= 0:
                raise UserError(f"methods.{self.method}.{key} must be above 0")


def compress(problem: Problem, settings: Settings) -> Compressed:
    """As `ecc.compress`, on the other schedule and at the other learning rate."""
    rate = settings.rate * problem.training.learning_rate
    problem = replace(problem, training=replace(problem.training, learning_rate=rate))
    return ecc.run(problem, Solver(problem, problem.student(), settings))


class Solver(ecc.Solver):
    """That of ECC, with another way to the budget."""

    settings: Settings

    def _left(self, iteration: int) -> float:
        return float(super()._left(iteration) ** self.settings.exponent)
