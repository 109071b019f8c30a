"""Genomes: the hyper-parameters of a network's layers as whole numbers.

Genes are the number of layers; of each layer that there may be its type, width, kernel, stride and
pooling; dropout and the units of a fully connected layer. All but the first are positions in the
lists of the space. Genes of layers beyond the number of layers are silent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError

TYPES = ("conv", "separable", "residual")
POOLINGS = ("none", "max", "average")

Genes = NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """A convolution, a depthwise separable one, or one with a shortcut; then a pooling by two."""

    type: str
    width: int
    kernel: int
    stride: int
    pooling: str

    def __str__(self) -> str:
        pooling = "" if self.pooling == "none" else f"+{self.pooling}"
        return f"{self.type}{self.kernel}x{self.kernel}-{self.width}/{self.stride}{pooling}"


@dataclass(frozen=True)
class Architecture:
    """What a genome stands for; without `units` there is no hidden fully connected layer."""

    layers: tuple[Layer, ...]
    dropout: float
    units: int

    def __str__(self) -> str:
        return " ".join([*map(str, self.layers), f"dropout{self.dropout:g}", f"fc{self.units}"])


@dataclass(frozen=True)
class Space:
    """The architectures that can be evolved: at most `layers` layers, and what each may be.

    Raises UserError for what no network can be built with.
    """

    layers: int
    types: Sequence[str]
    widths: Sequence[int]
    kernels: Sequence[int]
    strides: Sequence[int]
    poolings: Sequence[str]
    dropouts: Sequence[float]
    units: Sequence[int]

    def __post_init__(self) -> None:
        for key, known in (("types", TYPES), ("poolings", POOLINGS)):
            for value in getattr(self, key):
                if value not in known:
                    raise UserError(f"space.{key} '{value}': known are {', '.join(known)}")
        if even := [kernel for kernel in self.kernels if kernel % 2 == 0]:
            raise UserError(f"space.kernels {even[0]}: must be odd, so that sizes stay whole")

    @property
    def bounds(self) -> tuple[Genes, Genes]:
        """Smallest and largest value of every gene."""
        of_layer = [len(choices) - 1 for choices in self._choices]
        ends = [len(self.dropouts) - 1, len(self.units) - 1]
        upper = np.array([self.layers, *of_layer * self.layers, *ends], dtype=np.int64)
        lower = np.zeros_like(upper)
        lower[0] = 1
        return lower, upper

    def decode(self, genes: Sequence[int] | Genes) -> Architecture:
        """The architecture of a genome (genes,)."""
        count, *others = map(int, genes)
        of_layer = np.reshape(others[:-2], (self.layers, len(self._choices)))
        layers = tuple(
            Layer(*(choices[gene] for choices, gene in zip(self._choices, row, strict=True)))
            for row in of_layer[:count]
        )
        return Architecture(layers, self.dropouts[others[-2]], self.units[others[-1]])

    def draw(self, stream: np.random.Generator) -> Genes:
        """A random genome, every gene uniform."""
        lower, upper = self.bounds
        return stream.integers(lower, upper, endpoint=True)

    @property
    def _choices(self) -> tuple[Sequence[Any], ...]:
        return self.types, self.widths, self.kernels, self.strides, self.poolings
