"""Budgets that hold on the device: a network that measures more than its budget is narrowed on.

An energy model errs by a percent or so, so that a network inside its budget by the model may be
outside by measurement. Its modelled energy is then lowered by as much as the model erred, it is
measured again, and so on; the batch norms of all networks take new statistics, and fine-tuning
follows.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ecc.channels import Channels, widths_of
from ecc.energy import EnergyModel
from ecc.measuring.interface import Buildable
from ecc.metrics import Metric
from ecc.platforms import Platform
from ecc.runs import named_seed
from ecc.training import Split, calibrate, device_of

Widths = NDArray[np.int64]
ACCEPTED, AIMED = 2.0, 3.0  # standard errors of the measured mean below the budget
# Of the modelled energy, in one round: more than any usable model errs. One reading that is far off
# must not cost the network, for what is narrowed is never widened again.
LARGEST_STEP = 0.1
BATCHES, IMAGES = 4, 64  # of which batch norms take their statistics


@dataclass
class Open:
    """A network that is to keep some channels; `measured_j` has the measured mean of every round.

    `closed`: whether the last mean is inside the budget by two of its standard errors; None where
    the platform cannot measure these widths. Joules are seconds where the platform measures those.
    """

    model: nn.Module
    keep: list[Tensor]
    budget_j: float
    measured_j: list[float]
    closed: bool | None = False

    @property
    def widths(self) -> Widths:
        return widths_of(self.keep)

    @property
    def rounds(self) -> int:
        """How often it was narrowed for this budget: after every measurement but the last."""
        return max(len(self.measured_j) - 1, 0)


def close(
    platform: Platform,
    network: Buildable,
    channels: Channels,
    energy: EnergyModel,
    networks: Sequence[tuple[nn.Module, list[Tensor], float]],
    *,
    smallest: Widths,
    rounds: int,
    repeats: int,
    seed: int,
    journal: Path | None = None,
) -> list[Open]:
    """Measures networks (model, channels kept, budget), and chooses what is left of those over.

    At most `rounds` times, each a campaign of the platform that measures what is open `repeats`
    times. No group falls below `smallest` (groups,): a network that cannot be narrowed any more is
    not measured until noise is kind. Models stay as they are: see `narrow`.
    """
    found = [Open(*each, measured_j=[]) for each in networks]
    waiting = found
    for number in range(rounds + 1):
        left = waiting
        if not left:
            break
        widths = np.array([each.widths for each in left])
        for each, known in zip(left, platform.known(network.structure, widths), strict=True):
            if not known:
                each.closed = None
        left, waiting = [each for each in left if each.closed is False], []
        if not left:
            break
        rows = np.repeat([each.widths for each in left], repeats, axis=0)
        samples = platform.measure(
            network, rows, seed=seed + number, journal=journal and journal / f"round-{number}"
        ).reshape(-1, repeats)
        for each, values in zip(left, samples, strict=True):
            mean = float(values.mean())
            error = float(values.std(ddof=1)) / repeats**0.5 if repeats > 1 else 0.0
            each.measured_j.append(mean)
            each.closed = mean + ACCEPTED * error <= each.budget_j
            if not each.closed and number < rounds:
                aim = max((each.budget_j - AIMED * error) / mean, 1 - LARGEST_STEP)
                keep = narrowed(
                    channels, each.model, each.keep, energy, aim * _joules(energy, each), smallest
                )
                if (widths_of(keep) < each.widths).any():
                    each.keep = keep
                    waiting.append(each)
    return found


@dataclass
class Closed:
    """What is left of a network that has several budgets, and how each of them ended, by name.

    `metrics` are what the platforms of these names measure.
    """

    keep: list[Tensor]
    budgets: dict[str, Open] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)

    @property
    def closed(self) -> bool | None:
        """False where one is not, None where one could not be measured."""
        all_of = [each.closed for each in self.budgets.values()]
        return False if False in all_of else None if None in all_of else True

    def record(self, before: Widths, accuracy_before: float, accuracy: float) -> dict[str, Any]:
        """How it went, for the record of a run: each budget, whether all are closed, the cost.

        `before` (groups,) are the widths before closing; accuracies are of hold-out images, before
        and after, both with statistics by `narrow`. Measurements are in the unit of the metric.
        """
        return {
            "budgets": {
                name: {
                    "metric": self.metrics[name],
                    "budget": each.budget_j,
                    "rounds": each.rounds,
                    "measured": each.measured_j,
                    "closed": each.closed,
                }
                for name, each in self.budgets.items()
            },
            "closed": self.closed,
            "holdout_accuracy_before": accuracy_before,
            "holdout_accuracy_after": accuracy,
            "widths_before": before.tolist(),
            "widths": widths_of(self.keep).tolist(),
        }


def close_all(
    meters: Mapping[str, tuple[Platform, EnergyModel]],
    network: Buildable,
    channels: Channels,
    networks: Sequence[tuple[nn.Module, Mapping[str, float]]],
    *,
    smallest: Widths,
    rounds: int,
    repeats: int,
    seed: int,
    journal: Path | None = None,
) -> list[Closed]:
    """Closes budgets on several platforms: `networks` are models and their budgets by platform.

    `meters` are the platforms with the models of what they measure, in the order of closing: each
    goes on from what the last one kept, for fewer channels never need more. The rest is as in
    `close`.
    """
    found = [Closed(channels.kept(model)) for model, _ in networks]
    for place, (name, (platform, energy)) in enumerate(meters.items()):
        having = [number for number, (_, budgets) in enumerate(networks) if name in budgets]
        closed = close(
            platform,
            network,
            channels,
            energy,
            [(networks[i][0], found[i].keep, networks[i][1][name]) for i in having],
            smallest=smallest,
            rounds=rounds,
            repeats=repeats,
            seed=named_seed(seed, name) if place else seed,
            journal=journal and journal / name if place else journal,
        )
        for number, result in zip(having, closed, strict=True):
            found[number].budgets[name], found[number].keep = result, result.keep
            found[number].metrics[name] = platform.metric
    return found


def narrow(
    model: nn.Module,
    channels: Channels,
    keep: Sequence[Tensor],
    split: Split,
    *,
    seed: int,
    device: str,
) -> None:
    """Masks a network down to what it keeps, in place, and renews its batch-norm statistics.

    The old ones belong to more channels, and much of the accuracy goes with them. Where nothing is
    to be masked they are renewed as well: methods that train while they compress have current ones,
    uniform pruning has not, and none is to gain by it. They are of BATCHES of training images.
    """
    channels.mask(model, keep)
    batches = itertools.islice(split.batches(IMAGES, seed), BATCHES)
    calibrate(model, [images for images, _ in batches], device_of(device))


def narrowed(
    channels: Channels,
    model: nn.Module,
    keep: Sequence[Tensor],
    energy: EnergyModel,
    target_j: float,
    smallest: Widths,
) -> list[Tensor]:
    """The channels kept, fewer by those that are worth least, until the model says `target_j`.

    Worth: the share of its group's squared norm that a channel has, for every joule that it saves.
    Where all groups are at their smallest widths, the energy stays above the target.
    """
    kept = [each.clone() for each in keep]
    shares = [
        (norms.square() / norms.square().sum()).where(each, norms.new_tensor(float("inf")))
        for norms, each in zip(channels.norms(model), kept, strict=True)
    ]
    while (joules := float(energy.energy(widths_of(kept)))) > target_j:
        widths = widths_of(kept)
        free = np.flatnonzero(widths > smallest)
        if not free.size:
            break
        fewer = widths - np.eye(len(widths), dtype=np.int64)[free]
        saved = joules - energy.energy(fewer)
        least = np.array([float(shares[group].min()) for group in free])
        # A group that saves nothing by the model is no use, whatever its channels are worth.
        price = np.where(saved > 0, least / np.where(saved > 0, saved, 1), np.inf)
        if np.isinf(price.min()):
            break
        group = int(free[price.argmin()])
        channel = int(shares[group].argmin())
        kept[group][channel] = False
        shares[group][channel] = float("inf")
    return kept


def _joules(energy: EnergyModel, network: Open) -> float:
    return float(energy.energy(network.widths))
