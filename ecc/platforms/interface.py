"""What every platform offers, and the width vectors that it accepts."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecc.errors import UserError
from ecc.structure import Structure

Array = NDArray[np.float64]


class HasStructure(Protocol):
    """A network as an emulated platform sees it; a real sensor builds and runs it as well."""

    @property
    def structure(self) -> Structure: ...


@dataclass(frozen=True)
class Deployed:
    """The structure of a network at its deployment size, where the network itself is not needed."""

    structure: Structure


class Platform(Protocol):
    """A device, or the emulation of one, that tells the energy of one inference."""

    @property
    def name(self) -> str: ...

    @property
    def emulated(self) -> bool: ...

    @property
    def description(self) -> str:
        """One line for figures and tables."""
        ...

    def measure(
        self, network: HasStructure, widths: ArrayLike, *, seed: int, first: int = 0
    ) -> Array:
        """Joules of one inference, (n,), for integer widths (n, groups).

        Sample k takes draw `first` + k of the noise that belongs to `seed`, so that chunks measure
        what one call over all rows measures. Raises UserError where widths are not within [1, S].
        """
        ...


def checked_widths(structure: Structure, widths: ArrayLike) -> NDArray[np.int64]:
    """Widths (n, groups) as integers; raises UserError where they cannot be the network's."""
    given = np.asarray(widths)
    full = structure.full_widths
    if given.ndim != 2 or given.shape[1] != full.size:
        raise UserError(
            f"widths have the shape {given.shape}: give one row a configuration "
            f"and {full.size} columns, one for each channel group"
        )
    if given.dtype.kind not in "iuf":
        raise UserError(f"widths are of type {given.dtype}: give whole numbers")
    wrong = ~((given >= 1) & (given <= full) & (given == np.floor(given)))
    if wrong.any():
        row, column = map(int, np.argwhere(wrong)[0])
        raise UserError(
            f"width {given[row, column]} of group {structure.groups[column].name} (row {row}) "
            f"is not a whole number from 1 to {full[column]}"
        )
    return given.astype(np.int64, order="C")
