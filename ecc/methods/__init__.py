"""Methods that spend an energy budget: one file each, one line in `METHODS`.

A method sees the dense network, an energy model and training data; never a platform, never
validation images.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ecc.errors import UserError
from ecc.methods import ecc, netadapt, uniform
from ecc.methods.problem import Compressed, Problem

METHODS: dict[str, Callable[..., Compressed]] = {
    "ecc": ecc.compress,
    "netadapt": netadapt.compress,
    "uniform": uniform.compress,
}

__all__ = ["METHODS", "Compressed", "Problem", "compress"]


def compress(method: str, problem: Problem, settings: Mapping[str, Any]) -> Compressed:
    """Runs a method on a problem; the result is inside the budget by the energy model.

    Raises UserError for an unknown method or setting, and for a budget below what can be reached.
    """
    if method not in METHODS:
        raise UserError(f"unknown method '{method}': known are {', '.join(METHODS)}")
    problem.check()
    result = METHODS[method](problem, **settings)
    energy_j = float(problem.energy.energy(result.widths))
    if energy_j > problem.budget_j:
        raise RuntimeError(f"{method} ended at {energy_j} J, over its budget {problem.budget_j} J")
    return result
