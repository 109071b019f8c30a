"""What every method is given and what it returns, and the budget arithmetic they share."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ecc import processors
from ecc.channels import Channels, widths_of
from ecc.errors import UserError
from ecc.training import Distillation, Split, TrainingSettings, device_of

Widths = NDArray[np.float64] | NDArray[np.int64]


class EnergyModel(Protocol):
    """Joules of one inference at any widths s (..., groups), and their derivative.

    That of a limit may be in another unit: seconds, bytes, parameters, MACs.
    """

    def energy(self, widths: Widths) -> NDArray[np.float64]: ...

    def gradient(self, widths: NDArray[np.float64]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Limit:
    """One more budget beside that of energy: `model` may be at most `budget`, in its unit."""

    name: str
    model: EnergyModel
    budget: float


@dataclass
class Effort:
    """What a method has used so far: training images, and passes over hold-out images."""

    images_seen: int = 0
    evaluations: int = 0
    images_evaluated: int = 0


@dataclass(frozen=True)
class Problem:
    """Spend at most `budget_j` joules an inference, and lose as little accuracy as possible.

    `lower_bounds` (groups,) are the smallest widths allowed; `training.iterations` is what a
    method may spend. Hold-out images come from the training data. `limits` are further budgets.
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
    limits: tuple[Limit, ...] = ()
    effort: Effort = field(default_factory=Effort)

    @property
    def full_widths(self) -> NDArray[np.int64]:
        return self.channels.structure.full_widths

    @property
    def smallest(self) -> NDArray[np.int64]:
        """Smallest widths allowed (groups,): the lower bounds, or one channel a group."""
        bounds = self.lower_bounds if len(self.lower_bounds) else np.ones_like(self.full_widths)
        return np.maximum(bounds, 1)

    def joules(self, widths: Widths) -> float:
        """Energy of one inference by the model."""
        return float(self.energy.energy(widths))

    def of_statistics(self, batches: int) -> list[Tensor]:
        """Batches of training images for batch-norm statistics of candidates, the same for all.

        Each counts as an iteration; none where the network has no batch norms.
        """
        if not any(isinstance(module, _BatchNorm) for module in self.dense.modules()):
            return []
        stream = self.train.batches(self.training.batch_size, self.seed + 104_729)
        return [images for images, _ in itertools.islice(stream, batches)]

    def check(self) -> None:
        """Raises UserError where no widths meet a budget, or where dense already meets all."""
        smallest, dense = self.joules(self.smallest), self.joules(self.full_widths)
        if self.budget_j < smallest:
            raise UserError(
                f"budget {self.budget_j:.6g} J is below {smallest:.6g} J, the smallest energy that "
                "can be reached: raise the budget or lower the lower bound"
            )
        full = self.full_widths
        bound = any(float(limit.model.energy(full)) > limit.budget for limit in self.limits)
        if self.budget_j > dense and not bound:
            met = ", and all limits are met" if self.limits else ""
            raise UserError(
                f"budget {self.budget_j:.6g} J is above {dense:.6g} J, the dense network's energy "
                f"by the energy model{met}: nothing to compress"
            )
        for limit in self.limits:
            least = float(limit.model.energy(self.smallest))
            if limit.budget < least:
                raise UserError(
                    f"limit {limit.name} of {limit.budget:.6g} is below {least:.6g}, the smallest "
                    "that can be reached: raise it or lower the lower bound"
                )

    def counted(self) -> "Problem":
        """The same problem, whose splits keep a new account, `effort`."""
        effort = Effort()
        train = Counted(self.train, effort, training=True)
        holdout = Counted(self.holdout, effort, training=False)
        return replace(self, train=train, holdout=holdout, effort=effort)

    def some_holdout(self, count: int) -> Split:
        """At most `count` hold-out images, spread evenly, in memory: to choose is no effort."""
        every = self.holdout.split if isinstance(self.holdout, Counted) else self.holdout
        return Counted(Some(every, count, self.seed), self.effort, training=False)

    def binding(self) -> "Problem":
        """The same problem with one budget in place of several: the one that binds."""
        if not self.limits:
            return self
        own = Limit("energy", self.energy, self.budget_j)
        return replace(self, energy=Binding((own, *self.limits)), limits=())

    def inside(self, widths: Widths) -> bool:
        """Whether widths (groups,) meet the energy budget and all limits."""
        return self.joules(widths) <= self.budget_j and all(
            float(limit.model.energy(widths)) <= limit.budget for limit in self.limits
        )

    def student(self) -> nn.Module:
        """A copy of the dense network, to be compressed, on the device and in training's layout."""
        model, device = copy.deepcopy(self.dense), device_of(self.training.device)
        layout = processors.layout(model, self.training.channels_last, device)
        return model.to(device).to(memory_format=layout)

    def distillation(self) -> Distillation:
        """The loss that all methods train with; the teacher is the dense network."""
        return Distillation(self.dense, self.train.task)


class Binding:
    """Several budgets as one: the largest share of a budget that is used, in units of the first.

    It is inside the first budget exactly where all are inside theirs.
    """

    def __init__(self, limits: Sequence[Limit]):
        self.limits, self.budget = limits, limits[0].budget

    def energy(self, widths: Widths) -> NDArray[np.float64]:
        shares = [limit.model.energy(widths) / limit.budget for limit in self.limits]
        return np.asarray(np.max(shares, axis=0) * self.budget)

    def gradient(self, widths: NDArray[np.float64]) -> NDArray[np.float64]:
        """That of the budget that binds, (groups,) at one vector of widths."""
        shares = [float(limit.model.energy(widths)) / limit.budget for limit in self.limits]
        limit = self.limits[int(np.argmax(shares))]
        return limit.model.gradient(widths) * (self.budget / limit.budget)


class Counted:
    """A split that counts what is asked of it."""

    def __init__(self, split: Split, effort: Effort, *, training: bool):
        self.split, self.effort, self.training = split, effort, training
        self.classes, self.task = split.classes, split.task
        self.fingerprint = getattr(split, "fingerprint", "")

    def __len__(self) -> int:
        return len(self.split)

    def batches(
        self, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # A run that resumes saw the batches before `start` in its former life. Counted at once: it
        # may need no more.
        self.effort.images_seen += start * batch_size
        return self._seen(self.split.batches(batch_size, seed, start))

    def _seen(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in batches:
            self.effort.images_seen += len(images)
            yield images, labels

    def ordered(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.effort.evaluations += not self.training
        for images, labels in self.split.ordered(batch_size):
            if self.training:
                self.effort.images_seen += len(images)
            else:
                self.effort.images_evaluated += len(images)
            yield images, labels


class Some:
    """Some images of a split, in memory: one drawn from each of `count` equal parts of its order.

    So all classes have their share where images are sorted by class, and where they are not.
    """

    def __init__(self, split: Split, count: int, seed: int):
        self.classes, self.task = split.classes, split.task
        count = min(count, len(split))
        ends = np.arange(count + 1) * len(split) // count
        drawn = np.random.default_rng([seed, 31]).integers(ends[:-1], ends[1:])
        chosen = np.isin(np.arange(len(split)), drawn)
        found, seen = [], 0
        for images, labels in split.ordered(256):
            here = torch.from_numpy(chosen[seen : seen + len(labels)])
            found.append((images[here], labels[here]))
            seen += len(labels)
        self.images, self.labels = (torch.cat(part) for part in zip(*found, strict=True))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        raise RuntimeError("hold-out images are never trained on")

    def ordered(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(self), batch_size):
            part = slice(first, first + batch_size)
            yield self.images[part], self.labels[part]


@dataclass(frozen=True)
class Compressed:
    """A masked network and what it took; `iterations` of training were spent."""

    model: nn.Module
    keep: Sequence[Tensor]
    history: pd.DataFrame
    iterations: int
    effort: Effort = field(default_factory=Effort)

    @property
    def widths(self) -> NDArray[np.int64]:
        return widths_of(self.keep)


def evenly(iterations: int, parts: int) -> Iterator[int]:
    """Whole iterations for each of `parts` that add up to all of them."""
    for index in range(parts):
        yield (index + 1) * iterations // parts - index * iterations // parts


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
