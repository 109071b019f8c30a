"""Methods that spend an energy budget: one file each, one line in `METHODS`.

A method sees the dense network, an energy model and training data; never a platform, never
validation images.
"""

from collections.abc import Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any

from ecc.errors import UserError
from ecc.methods import ecc, netadapt, uniform
from ecc.methods.problem import Compressed, Problem

# A method's module has its `Settings` and `compress(problem, settings)`.
METHODS: dict[str, ModuleType] = {
    "ecc": ecc,
    "netadapt": netadapt,
    "uniform": uniform,
}

__all__ = ["METHODS", "Compressed", "Problem", "compress"]


def compress(method: str, problem: Problem, settings: Mapping[str, Any]) -> Compressed:
    """Runs a method on a problem; the result is inside the budget by the energy model.

    Raises UserError for an unknown method or setting, and for a budget below what can be reached.
    """
    if method not in METHODS:
        raise UserError(f"unknown method '{method}': known are {', '.join(METHODS)}")
    module = METHODS[method]
    known = [field.name for field in fields(module.Settings)]
    if unknown := sorted(set(settings) - set(known)):
        names = ", ".join(known) or "none"
        raise UserError(f"methods.{method}.{unknown[0]} is unknown: known here are {names}")
    problem.check()
    result: Compressed = module.compress(problem, module.Settings(**settings))
    energy_j = float(problem.energy.energy(result.widths))
    if energy_j > problem.budget_j:
        raise RuntimeError(f"{method} ended at {energy_j} J, over its budget {problem.budget_j} J")
    return result
