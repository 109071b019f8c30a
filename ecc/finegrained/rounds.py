"""Rounds of pruning single weights until accuracy falls below a threshold.

Yang, Chen, Sze, EAP, CVPR 2017: layers in order of their energy, each pruned with the layers before
it already pruned, then the whole network trained with its zeros fixed; and again.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from ecc.errors import require
from ecc.finegrained.densities import densities
from ecc.finegrained.filters import largest, prune_filters
from ecc.methods.recording import Recordable, Recorder, layer_of
from ecc.training import Loss, Split, TrainingSettings, evaluate, train

logger = logging.getLogger(__name__)

# Joules of every layer, (layers,), of the densities of weights and inputs, (layers,) each.
Energy = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
ORDERS = ("energy", "forward")
BATCH = 64  # images that are recorded at a time


@dataclass(frozen=True)
class Settings:
    """Round r removes `removed` of a filter's weights and restores some, until `kept` of what it
    had remain or its output error, over the output's mean deviation, is at most `tolerance` *
    `growth`^(r - 1).

    With `local` false a round leaves the largest `kept` of a layer's weights, without restoration
    and least squares. `images` and `positions` of each are what a layer's error is measured on.
    It ends where the hold-out accuracy is more than `threshold` below the required one, or after
    `rounds`.
    """

    order: str = "energy"
    local: bool = True
    removed: float = 0.5
    kept: float = 0.9
    tolerance: float = 0.15
    growth: float = 1.0
    ridge: float = 0.3
    images: int = 512
    positions: int = 2
    threshold: float = 0.01
    rounds: int = 20

    def __post_init__(self) -> None:
        require(
            self,
            "eap: ",
            order=self.order in ORDERS,
            removed=0 < self.removed < 1,
            kept=0 < self.kept < 1,
            tolerance=self.tolerance >= 0,
            growth=self.growth >= 1,
            ridge=self.ridge > 0,
            images=self.images >= 1,
            positions=self.positions >= 1,
            threshold=self.threshold >= 0,
            rounds=self.rounds >= 1,
        )


@dataclass(frozen=True)
class Round:
    """A network after a round (0: as it was given) and what its layers have, (layers,) each."""

    number: int
    model: nn.Module
    weight_density: NDArray[np.float64]
    input_density: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    holdout_accuracy: float
    accepted: bool


class FixedWeights:
    """Training update that keeps weights at zero that are zero when it is made."""

    def __init__(self, model: nn.Module, names: Sequence[str]):
        self.weights = [layer_of(model, name).weight for name in names]
        self.masks = [weight.detach() != 0 for weight in self.weights]

    @torch.no_grad()
    def __call__(self, iteration: int, optimizer: Optimizer) -> dict[str, float]:
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.mul_(mask)
        return {}

    def __repr__(self) -> str:
        return f"FixedWeights({[int(mask.sum()) for mask in self.masks]})"

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to restore: the zeros are those of the weights."""


def rounds(
    model: nn.Module,
    names: Sequence[str],
    energy: Energy,
    loss: Loss,
    train_on: Split,
    holdout: Split,
    settings: Settings,
    training: TrainingSettings,
    *,
    required: float,
    seed: int,
) -> Iterator[Round]:
    """Prunes a copy of `model` round by round; yields the given network as round 0 first.

    `names` are the layers, in forward order. `training` is one round's, with the zeros fixed.
    Accepted are rounds whose hold-out accuracy is at least `required` - threshold; the first that
    is not is the last one yielded.
    """
    current = copy.deepcopy(model)
    number, state = 0, _state(0, current, names, energy, holdout, required - settings.threshold)
    yield state
    while number < settings.rounds and state.accepted:
        number += 1
        tolerance = settings.tolerance * settings.growth ** (number - 1)
        now = replace(settings, tolerance=tolerance)
        prune_once(current, names, state.energy_j, train_on, now, seed=seed + number)
        train(
            current,
            train_on,
            loss,
            training,
            seed=seed + 7919 * number,
            update=FixedWeights(current, names),
            description=f"round {number}",
        )
        state = _state(number, current, names, energy, holdout, required - settings.threshold)
        yield state


def prune_once(
    model: nn.Module,
    names: Sequence[str],
    energy_j: NDArray[np.float64],
    train_on: Split,
    settings: Settings,
    *,
    seed: int,
) -> None:
    """Prunes all layers of `model` in place, those of the highest `energy_j` (layers,) first.

    Y_hat is of the network as it enters, X of the partly pruned one.
    """
    if not settings.local:
        for name in names:
            _prune_by_magnitude(layer_of(model, name), settings.kept)
        return
    original = copy.deepcopy(model)
    batches = train_on.batches(BATCH, seed)
    images = [next(batches)[0] for _ in range(-(-settings.images // BATCH))]
    recorder = Recorder(images, settings.positions, seed=seed)
    by_energy = settings.order == "energy"
    for index in np.argsort(-energy_j, kind="stable") if by_energy else range(len(names)):
        name = names[index]
        inputs, targets = recorder.inputs(model, name), recorder.outputs(original, name)
        _prune_layer(layer_of(model, name), inputs, targets, settings)


@torch.no_grad()
def _prune_layer(
    layer: Recordable,
    inputs: NDArray[np.float32],
    targets: NDArray[np.float32],
    settings: Settings,
) -> None:
    """Each group of a layer: X (groups, n, k), Y_hat (n, filters)."""
    groups = len(inputs)
    filters = layer.weight.detach().cpu().flatten(1).numpy()
    by_group = filters.reshape(groups, -1, filters.shape[1])
    outputs = targets.reshape(len(targets), groups, -1)
    pruned = [
        prune_filters(
            inputs[group],
            outputs[:, group],
            by_group[group],
            removed=settings.removed,
            kept=settings.kept,
            tolerance=settings.tolerance,
            ridge=settings.ridge,
        )
        for group in range(groups)
    ]
    layer.weight.copy_(torch.from_numpy(np.concatenate(pruned)).view_as(layer.weight))


@torch.no_grad()
def _prune_by_magnitude(layer: Recordable, kept: float) -> None:
    """The largest weights of a whole layer stay (Han et al., 2015)."""
    support = largest(layer.weight.detach().cpu().reshape(1, -1).numpy(), 1 - kept)
    layer.weight.mul_(torch.from_numpy(support).view_as(layer.weight))


def _state(
    number: int,
    model: nn.Module,
    names: Sequence[str],
    energy: Energy,
    holdout: Split,
    required: float,
) -> Round:
    device = str(next(model.parameters()).device)
    accuracy = evaluate(model, holdout, device=device)
    weights, inputs = densities(model, names, (images for images, _ in holdout.ordered(256)))
    energy_j = energy(weights, inputs)
    logger.info("round %d: %.6g J, hold-out accuracy %.4f", number, energy_j.sum(), accuracy)
    accepted = accuracy >= required
    return Round(number, copy.deepcopy(model), weights, inputs, energy_j, accuracy, accepted)
