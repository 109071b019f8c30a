"""What every platform offers, and the width vectors that it accepts."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecc.errors import UserError
from ecc.measuring.interface import Buildable
from ecc.metrics import Metric
from ecc.structure import Structure

Array = NDArray[np.float64]


class HasStructure(Protocol):
    """A network as an emulated platform sees it; a real sensor builds and runs it as well."""

    @property
    def structure(self) -> Structure: ...


@dataclass(frozen=True)
class Deployed:
    """A network at its deployment size: its structure, and how to build it where it must run.

    `settings` are those of `ecc.networks.Network`; without them the network cannot be run.
    """

    structure: Structure
    settings: Mapping[str, Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image."""
        height, width = self._settings["size"]
        return int(height), int(width)

    def build(self, widths: NDArray[np.int64]) -> Any:
        """A torch module at widths (groups,)."""
        return self._network.build(widths)

    @property
    def _settings(self) -> Mapping[str, Any]:
        if self.settings is None:
            raise UserError("this platform runs the network: give its settings, not only structure")
        return self.settings

    @cached_property
    def _network(self) -> Any:
        from ecc.networks import Network  # imports torch, which emulated platforms do without

        return Network(**self._settings)


@dataclass(frozen=True)
class Campaign:
    """`windows` are those of a journal (`ecc.measuring.journal`), with raw values; `provenance`
    is its campaign.json.
    """

    windows: pd.DataFrame
    provenance: dict[str, Any]


class Platform(Protocol):
    """A device, or the emulation of one, that tells the energy (or latency) of one inference."""

    @property
    def name(self) -> str: ...

    @property
    def emulated(self) -> bool: ...

    @property
    def metric(self) -> Metric: ...

    @property
    def description(self) -> str:
        """One line for figures and tables."""
        ...

    def measure(
        self,
        network: Buildable,
        widths: ArrayLike,
        *,
        seed: int,
        first: int = 0,
        journal: Path | None = None,
    ) -> Array:
        """Joules (or seconds) of one inference, (n,), for integer widths (n, groups).

        Where a platform draws noise, sample k takes draw `first` + k of what belongs to `seed`, so
        that parts measure what one call over all rows measures. A sensor keeps every sample in the
        folder `journal` when it is taken, and goes on from there.
        Raises UserError where widths are not within [1, S].
        """
        ...

    def sampled(self, structure: Structure) -> NDArray[np.int64] | None:
        """Random widths (n, groups) that were sampled before, or None where any can be."""
        ...

    def known(self, structure: Structure, widths: ArrayLike) -> NDArray[np.bool_]:
        """Which of widths (n, groups) can be measured, (n,)."""
        ...

    def campaign(self, structure: Structure, journal: Path) -> Campaign | None:
        """The windows behind the energies and how they were taken; None where nothing was."""
        ...


class Emulation:
    """What emulated platforms have in common: joules of any widths, at once, without a journal."""

    @property
    def emulated(self) -> bool:
        return True

    metric: Metric = "energy_j"

    def sampled(self, structure: Structure) -> None:
        return None

    def known(self, structure: Structure, widths: ArrayLike) -> NDArray[np.bool_]:
        return np.ones(len(np.asarray(widths)), dtype=bool)

    def campaign(self, structure: Structure, journal: Path) -> None:
        return None


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
