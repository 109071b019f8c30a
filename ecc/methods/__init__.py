"""Methods that spend an energy budget: one file each, one line in `METHODS`.

A method sees the dense network, an energy model and training data; never a platform, never
validation images.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

from ecc.errors import UserError
from ecc.methods import amc, eap, ecc, ecc_early, evolution, knapsack, lcp, netadapt, uniform
from ecc.methods.problem import Compressed, Limit, Problem

# A method's module has its `Settings` and `compress(problem, settings)`. One that handles limits
# itself sets SEVERAL_BUDGETS; the others are given the budget that binds as the only one.
METHODS: dict[str, ModuleType] = {
    "amc": amc,
    "eap": eap,
    "ecc": ecc,
    "ecc_early": ecc_early,
    "knapsack": knapsack,
    "lcp": lcp,
    "evolution": evolution,
    "netadapt": netadapt,
    "uniform": uniform,
}

__all__ = ["METHODS", "Compressed", "Limit", "Problem", "compress"]


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
    problem = problem.counted()
    problem.check()
    given = problem if getattr(module, "SEVERAL_BUDGETS", False) else problem.binding()
    result: Compressed = module.compress(given, module.Settings(**settings))
    if not problem.inside(result.widths):
        raise RuntimeError(f"{method} ended at {result.widths.tolist()}, over its budget")
    history = result.history
    if given is not problem:
        # What such a method calls joules is the share of the budget that binds.
        history = history.rename(
            columns=lambda name: f"binding_{name}" if name.endswith("_j") else name
        )
    return replace(result, history=history, effort=problem.effort)
