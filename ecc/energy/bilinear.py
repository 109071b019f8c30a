"""Bilinear energy models: features that are products of two widths, and their coefficients.

Yang, Zhu, Liu, ECC, CVPR 2019, section 3.2: E(s) = a_0 + sum_j a_j s_j s_{j+1}, a >= 0, with
widths as fractions of the full widths, so that every coefficient is in joules.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from ecc.energy.model import Array, EnergyModel, write
from ecc.structure import Structure

ROWS = 512  # samples at a time, which then stay in a processor's cache


@dataclass(frozen=True)
class Features:
    """Products of two sides, each a width as a fraction of its full width, (..., features).

    A side is affine in s: `slopes` (2, groups, features) and `offsets` (2, features).
    """

    names: tuple[str, ...]
    slopes: Array
    offsets: Array

    def sides(self, s: Any, array: Callable[[Array], Any] = np.asarray) -> tuple[Any, Any]:
        """Both sides (..., features) at widths s (..., groups), NumPy or torch."""
        left, right = (
            s @ array(slopes) + array(offsets)
            for slopes, offsets in zip(self.slopes, self.offsets, strict=True)
        )
        return left, right

    def matrix(self, widths: ArrayLike) -> Array:
        """Design matrix (n, 1 + features): ones for a_0, then the features."""
        s, size = np.asarray(widths), len(self.names)
        affine = np.hstack([*np.concatenate([self.slopes, self.offsets[:, None]], axis=1)])
        design = np.ones((len(s), 1 + size))
        for first in range(0, len(s), ROWS):
            part = np.ones((len(s[first : first + ROWS]), s.shape[1] + 1))
            part[:, :-1] = s[first : first + ROWS]
            sides = part @ affine
            np.multiply(sides[:, :size], sides[:, size:], out=design[first : first + ROWS, 1:])
        return design


def chain_features(structure: Structure) -> Features:
    """The paper's chain: image, s_1, .., s_G, classes; each product of neighbours is a feature.

    A feature is named after the group it writes, the last after the last operation.
    """
    full = structure.full_widths
    nodes = np.pad(np.diag(1 / full), ((0, 0), (1, 1)))
    fixed = np.zeros(len(full) + 2)
    fixed[[0, -1]] = 1
    names = (*(group.name for group in structure.groups), structure.operations[-1].name)
    slopes = np.stack([nodes[:, :-1], nodes[:, 1:]])
    return Features(names, slopes, np.stack([fixed[:-1], fixed[1:]]))


def graph_features(structure: Structure) -> Features:
    """One feature an operation: input width times output width.

    Linear for a depthwise operation and where the other side is fixed. Operations whose features
    are the same share one; those with no prunable width at all are part of the constant.
    """
    size = len(structure.groups)

    def side(groups: Iterable[int], fixed: int) -> Array:
        row = np.zeros(size + 1)
        row[list(groups)] = 1
        row[-1] = fixed
        return row / (row[:-1] @ structure.full_widths + fixed)

    found: dict[frozenset[bytes], tuple[list[str], Array, Array]] = {}
    for operation in structure.operations:
        left = side(operation.reads, operation.fixed_in)
        if operation.kind == "depthwise":
            right = side((), 1)
        elif operation.writes is None:
            right = side((), operation.fixed_out)
        else:
            right = side((operation.writes,), 0)
        if left[:-1].any() or right[:-1].any():
            same = frozenset((left.tobytes(), right.tobytes()))
            found.setdefault(same, ([], left, right))[0].append(operation.name)
    names, lefts, rights = zip(*found.values(), strict=True)
    sides = np.array([lefts, rights])  # (2, features, groups + 1), the last column constant
    slopes = np.ascontiguousarray(sides[:, :, :-1].transpose(0, 2, 1))
    return Features(tuple(map("+".join, names)), slopes, sides[:, :, -1])


@dataclass(frozen=True)
class Bilinear(EnergyModel):
    """E(s) = a_0 + sum_f a_f left_f(s) right_f(s); coefficients a (1 + features,), joules."""

    structure: Structure
    coefficients_j: Array

    @staticmethod
    @abstractmethod
    def form(structure: Structure) -> Features:
        """The features of this form of the model."""

    @cached_property
    def features(self) -> Features:
        return self.form(self.structure)

    def _joules(self, s: Any, xp: Any, array: Callable[[Array], Any]) -> Any:
        left, right = self.features.sides(s, array)
        return (left * right) @ array(self.coefficients_j[1:]) + float(self.coefficients_j[0])

    def gradient(self, s: ArrayLike) -> Array:
        left, right = self.features.sides(np.asarray(s, dtype=np.float64))
        a, (in_left, in_right) = self.coefficients_j[1:], self.features.slopes
        slope: Array = (a * right) @ in_left.T + (a * left) @ in_right.T
        return slope

    def save(self, path: str | Path) -> None:
        constant, *coefficients = self.coefficients_j.tolist()
        names = list(self.features.names)
        write(
            self,
            path,
            {"constant_j": constant, "features": names, "coefficients_j": coefficients},
        )

    @classmethod
    def restore(
        cls, structure: Structure, content: dict[str, Any], tensors: dict[str, Array]
    ) -> Self:
        a = np.array([content["constant_j"], *content["coefficients_j"]], dtype=np.float64)
        return cls(structure, a)


class BilinearChain(Bilinear):
    """The paper's form."""

    kind = "bilinear_chain"
    form = staticmethod(chain_features)


class BilinearGraph(Bilinear):
    """One feature an operation, so that the products are those of connected widths only."""

    kind = "bilinear_graph"
    form = staticmethod(graph_features)
