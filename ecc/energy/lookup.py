"""Look-up table: an energy for every operation at a grid of widths, summed over the network.

Yang et al., NetAdapt, ECCV 2018, section 3.3 measures each layer alone. Here the platform is a
black box that measures whole networks, so the entries are found from their sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from ecc.energy.bilinear import BilinearGraph, Features, graph_features
from ecc.energy.fitting import Samples, least_squares, nonnegative, solved
from ecc.energy.model import Array, EnergyModel, write
from ecc.structure import Structure, draw_widths

ROWS = 1_000  # samples in memory at a time


@dataclass(frozen=True)
class LookUp(EnergyModel):
    """E(s) = constant + sum over operations of a table (input width, output width), interpolated.

    `tables_j` (features, knots, knots) hold joules at widths spaced evenly over [1, S]; operations
    that depend on the same widths share a table, and a side that is fixed uses its first knot.
    Between knots the interpolation is bilinear, at a knot its slope is that towards larger widths.
    """

    structure: Structure
    constant_j: float
    tables_j: Array
    kind = "lookup"

    def __post_init__(self) -> None:
        knots = self.tables_j.shape[-1]
        if self.tables_j.shape != (len(self.features.names), knots, knots) or knots < 2:
            raise ValueError(f"tables of shape {self.tables_j.shape}")

    @cached_property
    def features(self) -> Features:
        return graph_features(self.structure)

    def _joules(self, s: Any, xp: Any, array: Callable[[Array], Any]) -> Any:
        left, right = _weights(self.features, self.tables_j.shape[-1], s, xp, array)
        # Two steps: NumPy is slow where one sum runs over three factors.
        rows = (left[..., None] * array(self.tables_j)).sum(-2)
        return (rows * right).sum((-2, -1)) + self.constant_j

    def save(self, path: str | Path) -> None:
        tables = dict(zip(self.features.names, self.tables_j.tolist(), strict=True))
        write(self, path, {"constant_j": self.constant_j, "tables_j": tables})

    @classmethod
    def restore(
        cls, structure: Structure, content: dict[str, Any], tensors: dict[str, Array]
    ) -> Self:
        names = graph_features(structure).names
        tables = np.array([content["tables_j"][name] for name in names], dtype=np.float64)
        return cls(structure, content["constant_j"], tables)


def fit(
    structure: Structure, train: Samples, test: Samples, *, knots: int = 5, ridge: float = 1.0
) -> tuple[LookUp, pd.DataFrame]:
    """Non-negative least squares of relative residuals on the weights of the interpolation.

    The sum over a network leaves entries undetermined (a constant may move from one table to
    another). `ridge` settles them: it draws the entries, as fractions of the mean energy, towards
    the table of the bilinear fit, with the weight of so many samples whose residual is as large.
    """
    widths, energy_j = train
    bilinear, _ = least_squares(BilinearGraph, structure, train, test)
    features, mean_j = bilinear.features, energy_j.mean()
    low, span = _range(features)
    at = low[..., None] + span[..., None] * np.linspace(0, 1, knots)  # (2, features, knots)
    used = (span[..., None] > 0) | (np.arange(knots) == 0)
    entry = used[0][:, :, None] & used[1][:, None, :]
    prior = bilinear.coefficients_j[1:, None, None] * at[0][:, :, None] * at[1][:, None, :]
    start = np.concatenate([bilinear.coefficients_j[:1], prior[entry]]) / mean_j

    gram, moment = ridge * np.eye(start.size), ridge * start
    for first in range(0, len(widths), ROWS):
        rows = slice(first, first + ROWS)
        left, right = _weights(features, knots, widths[rows].astype(float), np, np.asarray)
        design = np.ones((len(left), start.size))
        design[:, 1:] = (left[..., :, None] * right[..., None, :])[:, entry]
        design *= (mean_j / energy_j[rows])[:, None]
        gram += design.T @ design
        moment += design.sum(0)
    solution = nonnegative(gram, moment) * mean_j
    tables = np.zeros(entry.shape)
    tables[entry] = solution[1:]
    model = LookUp(structure, float(solution[0]), tables)
    return model, solved(model.energy(test[0]), test[1])


def tabulate(model: EnergyModel, *, knots: int = 5, queries: int = 10_000, seed: int = 0) -> LookUp:
    """The table nearest to an energy model, which is asked at random widths.

    Exact for a model that is bilinear in the widths of each operation.
    """
    widths = draw_widths(model.structure, queries, seed)
    samples = widths, model.energy(widths)
    return fit(model.structure, samples, samples, knots=knots)[0]


def _range(features: Features) -> tuple[Array, Array]:
    """Smallest value (2, features) of either side, at width 1, and the way from there to 1."""
    low = features.slopes.sum(1) + features.offsets
    return low, np.where(np.isclose(low, 1), 0, 1 - low)


def _weights(
    features: Features, knots: int, s: Any, xp: Any, array: Callable[[Array], Any]
) -> tuple[Any, Any]:
    """Weights of the knots on either side, each (..., features, knots), at widths (..., groups)."""
    low, span = _range(features)
    found = []
    for side, start, way in zip(features.sides(s, array), low, span, strict=True):
        place = (side - array(start)) * array((knots - 1) * (way > 0) / np.where(way > 0, way, 1))
        cell = xp.floor(place).clip(0, knots - 2)
        share = (place - cell)[..., None]
        knot = array(np.arange(knots, dtype=np.float64)) - cell[..., None]
        found.append((knot == 0) * (1 - share) + (knot == 1) * share)
    return found[0], found[1]
