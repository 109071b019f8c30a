"""Rounds of pruning single weights until accuracy falls below a threshold.

Yang, Chen, Sze, EAP, CVPR 2017: layers in order of their energy, each pruned with the layers before
it already pruned, then the whole network trained with its zeros fixed; and again.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from ecc import checkpoints
from ecc.errors import require
from ecc.finegrained.densities import densities
from ecc.finegrained.filters import largest, prune_filters
from ecc.methods.recording import Recordable, Recorder, layer_of
from ecc.training import (
    Loss,
    Split,
    TrainingSettings,
    evaluate,
    identity_of_loss,
    identity_of_split,
    train,
)

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


@dataclass(frozen=True)
class Study:
    """What the rounds of a network need.

    `names` are the layers, in forward order. `training` is one round's, with the zeros fixed.
    Accepted are rounds whose hold-out accuracy is at least `required` - threshold.
    """

    model: nn.Module
    names: Sequence[str]
    energy: Energy
    loss: Loss
    train_on: Split
    holdout: Split
    settings: Settings
    training: TrainingSettings
    required: float
    seed: int

    def rounds(self, begun: Round | None = None, checkpoint: Path | None = None) -> Iterator[Round]:
        """Prunes a copy of the network round by round; yields it as given as round 0 first.

        The first round that is not accepted is the last one. With `begun`, an accepted round, it
        goes on after that one. A training has a checkpoint of its own beside `checkpoint`.
        """
        current = copy.deepcopy(self.model if begun is None else begun.model)
        state = begun or self._state(0, current)
        if begun is None:
            yield state
        while state.number < self.settings.rounds and state.accepted:
            number = state.number + 1
            tolerance = self.settings.tolerance * self.settings.growth ** (number - 1)
            now = replace(self.settings, tolerance=tolerance)
            # No round of one seed has the stream of another's.
            energy_j, seed = state.energy_j, self.seed + 7919 * number
            prune_once(current, self.names, energy_j, self.train_on, now, seed=seed)
            beside = checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{number}")
            train(
                current,
                self.train_on,
                self.loss,
                self.training,
                seed=seed,
                update=FixedWeights(current, self.names),
                checkpoint=beside,
                description=f"round {number}",
            )
            state = self._state(number, current)
            yield state
            if beside is not None:  # whoever keeps rounds has kept this one
                beside.unlink(missing_ok=True)

    @property
    def fingerprint(self) -> str:
        """Of everything that decides the rounds: those of another study must not be used."""
        training = self.training.deciding
        splits = [identity_of_split(split) for split in (self.train_on, self.holdout)]
        some = np.random.default_rng(0).random((8, 2, len(self.names)))
        joules = [
            self.energy(weights, inputs).tolist() for weights, inputs in [*some, some[0] ** 0]
        ]
        own = self.names, self.settings, training, self.required, self.seed, splits, joules
        networks = checkpoints.identity(self.model), identity_of_loss(self.loss)
        return checkpoints.digest((checkpoints.LIBRARY, own, networks), {})

    def _state(self, number: int, model: nn.Module) -> Round:
        device = str(next(model.parameters()).device)
        accuracy = evaluate(model, self.holdout, device=device)
        images = (images for images, _ in self.holdout.ordered(256))
        weights, inputs = densities(model, self.names, images)
        energy_j = self.energy(weights, inputs)
        logger.info("round %d: %.6g J, hold-out accuracy %.4f", number, energy_j.sum(), accuracy)
        accepted = accuracy >= self.required - self.settings.threshold
        return Round(number, copy.deepcopy(model), weights, inputs, energy_j, accuracy, accepted)


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
