"""Budgets: joules of one inference, given directly or relative to the dense network's energy.

Seconds, where the metric of the platform is latency.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.metrics import UNITS, WORDS

ABSOLUTE = {"joules": "energy_j", "seconds": "latency_s"}
KINDS = ("dense", "reducible", *ABSOLUTE)


@dataclass(frozen=True)
class Budget:
    """`dense`: a fraction of dense energy; `reducible`: of what lies between the smallest
    reachable energy and dense; `joules` and `seconds`: themselves.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.value <= 0 or (self.kind not in ABSOLUTE and self.value > 1):
            allowed = "above 0" if self.kind in ABSOLUTE else "above 0 and at most 1"
            raise UserError(f"{self.kind}: {self.value} must be {allowed}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From an entry of `budgets` in the config, such as {dense: 0.5}."""
        given = [kind for kind in KINDS if kind in settings]
        if len(given) != 1:
            raise UserError(f"give exactly one of {', '.join(KINDS)}, not {dict(settings)}")
        return cls(given[0], float(settings[given[0]]))

    @classmethod
    def from_label(cls, label: str) -> Self:
        kind, _, value = label.partition("-")
        return cls(kind, float(value))

    @property
    def label(self) -> str:
        """As in paths: dense-0.5, reducible-0.3, joules-0.0247."""
        return f"{self.kind}-{self.value!r}"

    def check(self, metric: str) -> None:
        """Raises UserError where the budget is in another unit than a platform's metric."""
        if ABSOLUTE.get(self.kind, metric) != metric:
            known = next(kind for kind, of in ABSOLUTE.items() if of == metric)
            raise UserError(f"a budget in {self.kind}, where {WORDS[metric]} is measured: {known}")

    def resolve(
        self, dense_energy_j: float, minimum_energy_j: float, metric: str = "energy_j"
    ) -> float:
        """The budget in joules, or seconds by `metric`.

        Raises UserError where it is below the smallest reachable energy or above dense energy.
        """
        self.check(metric)
        unit = UNITS[metric]
        if self.kind in ABSOLUTE:
            budget_j = self.value
        elif self.kind == "dense":
            budget_j = self.value * dense_energy_j
        else:
            budget_j = minimum_energy_j + self.value * (dense_energy_j - minimum_energy_j)
        if budget_j < minimum_energy_j:
            raise UserError(
                f"budget {self.label} ({budget_j:.6g} {unit}) cannot be reached: "
                f"the smallest reachable {WORDS[metric]} is {minimum_energy_j:.6g} {unit} "
                f"(dense: {minimum_energy_j / dense_energy_j:.4g})"
            )
        if budget_j > dense_energy_j:
            raise UserError(
                f"budget {self.label} is above the {WORDS[metric]} of the dense network, "
                f"{dense_energy_j:.6g} {unit}: nothing would be compressed"
            )
        return budget_j


def lower_bounds(full_widths: NDArray[np.int64], smallest_width: float) -> NDArray[np.int64]:
    """Smallest widths allowed (groups,): a fraction of the full ones, at least one channel."""
    bounds: NDArray[np.int64] = np.ceil(smallest_width * full_widths).astype(np.int64)
    return bounds.clip(min=1)
