"""What every method is given and what it returns, and the budget arithmetic they share."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from ecc.channels import Channels, widths_of
from ecc.errors import UserError
from ecc.training import Distillation, Split, TrainingSettings


class EnergyModel(Protocol):
    """Joules of one inference at any widths s (..., groups), and their derivative."""

    def energy(self, widths: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]: ...

    def gradient(self, widths: NDArray[np.float64]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Problem:
    """Spend at most `budget_j` joules an inference, and lose as little accuracy as possible.

    `lower_bounds` (groups,) are the smallest widths allowed; `training.iterations` is what a
    method may spend. Hold-out images come from the training data.
    """

    dense: nn.Module
    channels: Channels
    energy: EnergyModel
    budget_j: float
    train: Split
    holdout: Split
    training: TrainingSettings
    seed: int = 0
    lower_bounds: NDArray[np.int64] = field(default_factory=lambda: np.array([], dtype=np.int64))
    checkpoint: Path | None = None

    @property
    def full_widths(self) -> NDArray[np.int64]:
        return self.channels.structure.full_widths

    @property
    def smallest(self) -> NDArray[np.int64]:
        """Smallest widths allowed (groups,): the lower bounds, or one channel a group."""
        bounds = self.lower_bounds if len(self.lower_bounds) else np.ones_like(self.full_widths)
        return np.maximum(bounds, 1)

    def joules(self, widths: NDArray[np.int64] | NDArray[np.float64]) -> float:
        """Energy of one inference by the model."""
        return float(self.energy.energy(widths))

    def check(self) -> None:
        """Raises UserError where no widths meet the budget, or where dense already does."""
        smallest, dense = self.joules(self.smallest), self.joules(self.full_widths)
        if self.budget_j < smallest:
            raise UserError(
                f"budget {self.budget_j:.6g} J is below {smallest:.6g} J, the smallest energy that "
                "can be reached: raise the budget or lower the lower bound"
            )
        if self.budget_j > dense:
            raise UserError(
                f"budget {self.budget_j:.6g} J is above {dense:.6g} J, the dense network's energy: "
                "nothing to compress"
            )

    def student(self) -> nn.Module:
        """A copy of the dense network, to be compressed."""
        return copy.deepcopy(self.dense)

    def distillation(self) -> Distillation:
        """The loss that all methods train with; the teacher is the dense network."""
        return Distillation(self.dense)


@dataclass(frozen=True)
class Compressed:
    """A masked network and what it took; `iterations` of training were spent."""

    model: nn.Module
    keep: Sequence[Tensor]
    history: pd.DataFrame
    iterations: int

    @property
    def widths(self) -> NDArray[np.int64]:
        return widths_of(self.keep)


class FixedZeros:
    """Training update that keeps dropped channels at zero."""

    def __init__(self, channels: Channels, model: nn.Module, keep: Sequence[Tensor]):
        self.channels, self.model, self.keep = channels, model, keep
        channels.mask(model, keep)

    def __call__(self, iteration: int, optimizer: Optimizer) -> dict[str, float]:
        self.channels.mask(self.model, self.keep)
        return {}

    def __repr__(self) -> str:
        return f"FixedZeros({widths_of(self.keep).tolist()})"

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to restore: the zeros are given."""
