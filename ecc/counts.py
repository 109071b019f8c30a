"""What follows from widths without any measurement: parameters, multiply-accumulates, memory.

They have the interface of an energy model, so that a method can keep a limit on each of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecc.structure import Structure

Array = NDArray[np.float64]
BYTES = 4  # of a value, in single precision


def _parameters(structure: Structure, widths: Array) -> Array:
    return structure.parameters(widths)


def _macs(structure: Structure, widths: Array) -> Array:
    return np.asarray(structure.macs(widths).sum(-1))


def _memory(structure: Structure, widths: Array) -> Array:
    """Bytes of all parameters, and of what the largest operation reads and writes for one image.

    What waits for an addition or a concatenation is not counted: the structure does not say when a
    tensor is last read.
    """
    values = structure.parameters(widths) + structure.activations(widths).max(-1)
    return np.asarray(BYTES * values)


COUNTS: dict[str, Callable[[Structure, Array], Array]] = {
    "macs": _macs,
    "memory": _memory,
    "parameters": _parameters,
}


@dataclass(frozen=True)
class Count:
    """A count of `COUNTS`, exact at any widths: parameters, MACs of one image, or bytes."""

    name: str
    structure: Structure

    def energy(self, widths: ArrayLike) -> Array:
        """The count (...,) at widths (..., groups); called energy as that of an energy model."""
        return COUNTS[self.name](self.structure, np.asarray(widths, dtype=np.float64))

    def gradient(self, widths: ArrayLike) -> Array:
        """Its slope (..., groups): a central difference, exact because counts are quadratic.

        Where the largest operation changes, that of memory lies between both slopes.
        """
        s = np.asarray(widths, dtype=np.float64)
        steps = np.eye(s.shape[-1]) / 2
        return self.energy(s[..., None, :] + steps) - self.energy(s[..., None, :] - steps)
