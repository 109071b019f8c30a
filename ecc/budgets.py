"""Budgets: joules of one inference, given directly or relative to the dense network's energy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError

KINDS = ("dense", "reducible", "joules")


@dataclass(frozen=True)
class Budget:
    """`dense`: a fraction of dense energy; `reducible`: of what lies between the smallest
    reachable energy and dense; `joules`: itself.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.value <= 0 or (self.kind != "joules" and self.value > 1):
            allowed = "above 0" if self.kind == "joules" else "above 0 and at most 1"
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

    def resolve(self, dense_energy_j: float, minimum_energy_j: float) -> float:
        """The budget in joules.

        Raises UserError where it is below the smallest reachable energy or above dense energy.
        """
        if self.kind == "joules":
            budget_j = self.value
        elif self.kind == "dense":
            budget_j = self.value * dense_energy_j
        else:
            budget_j = minimum_energy_j + self.value * (dense_energy_j - minimum_energy_j)
        if budget_j < minimum_energy_j:
            raise UserError(
                f"budget {self.label} ({budget_j:.6g} J) cannot be reached: "
                f"the smallest reachable energy is {minimum_energy_j:.6g} J "
                f"(dense: {minimum_energy_j / dense_energy_j:.4g})"
            )
        if budget_j > dense_energy_j:
            raise UserError(
                f"budget {self.label} is above the energy of the dense network, "
                f"{dense_energy_j:.6g} J: nothing would be compressed"
            )
        return budget_j


def lower_bounds(full_widths: NDArray[np.int64], smallest_width: float) -> NDArray[np.int64]:
    """Smallest widths allowed (groups,): a fraction of the full ones, at least one channel."""
    bounds: NDArray[np.int64] = np.ceil(smallest_width * full_widths).astype(np.int64)
    return bounds.clip(min=1)
