"""Methods that spend an energy budget: one file each, one line in `METHODS`.

A method sees the dense network, an energy model and training data; never a platform, never
validation images.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import fields, replace
from importlib import import_module
from types import ModuleType
from typing import Any

from ecc.errors import UserError
from ecc.methods.problem import Compressed, Limit, Problem


class Methods(MutableMapping[str, ModuleType]):
    """Modules of this package by name, imported when they are asked for: some cost a second."""

    def __init__(self, *names: str):
        self._modules: dict[str, ModuleType | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> ModuleType:
        module = self._modules[name] or import_module(f"{__name__}.{name}")
        self._modules[name] = module
        return module

    def __setitem__(self, name: str, module: ModuleType) -> None:
        self._modules[name] = module

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


# A method's module has its `Settings` and `compress(problem, settings)`. One that handles limits
# itself sets SEVERAL_BUDGETS; the others are given the budget that binds as the only one.
METHODS = Methods(
    "amc",
    "eap",
    "ecc",
    "ecc_outputs",
    "knapsack",
    "lcp",
    "evolution",
    "netadapt",
    "uniform",
)

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
