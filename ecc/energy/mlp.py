"""Bilinear features followed by a multilayer perceptron.

Yang, Zhu, Liu, ECC, CVPR 2019, section 4.2: 1 to 3 hidden layers of 128 SELU units after the
bilinear features; with none it is the bilinear model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from ecc.energy.bilinear import Features, chain_features
from ecc.energy.fitting import Samples, checked_features, history, one_thread, recorded
from ecc.energy.model import Array, EnergyModel, relative_error, write
from ecc.structure import Structure

UNITS = 128
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al., 2017


@dataclass(frozen=True)
class Mlp(EnergyModel):
    """A perceptron over the chain's features.

    `layers` are pairs of weights (outputs, inputs) and biases (outputs,), the last in joules.
    """

    structure: Structure
    layers: tuple[tuple[Array, Array], ...]

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"mlp{len(self.layers) - 1}"

    @cached_property
    def features(self) -> Features:
        return chain_features(self.structure)

    def _joules(self, s: Any, xp: Any, array: Callable[[Array], Any]) -> Any:
        left, right = self.features.sides(s, array)
        x = left * right
        for weights, biases in self.layers[:-1]:
            x = x @ array(weights.T) + array(biases)
            x = SELU_SCALE * (x.clip(min=0) + SELU_ALPHA * xp.expm1(x.clip(max=0)))
        weights, biases = self.layers[-1]
        return x @ array(weights[0]) + float(biases[0])

    def save(self, path: str | Path) -> None:
        tensors = {}
        for index, (weights, biases) in enumerate(self.layers):
            tensors[f"weights{index}"], tensors[f"biases{index}"] = weights, biases
        write(self, path, {"layers": len(self.layers)}, tensors)

    @classmethod
    def restore(
        cls, structure: Structure, content: dict[str, Any], tensors: dict[str, Array]
    ) -> Self:
        pairs = [(f"weights{layer}", f"biases{layer}") for layer in range(content["layers"])]
        return cls(structure, tuple((tensors[a], tensors[b]) for a, b in pairs))


def fit(
    hidden: int,
    structure: Structure,
    train: Samples,
    test: Samples,
    *,
    iterations: int = 4_000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> tuple[Mlp, pd.DataFrame]:
    """Adam on the mean squared error of `hidden` layers, in single precision.

    Energies are divided by their mean; features are not standardised: between 0 and 1
    they give a smoother function to start from, which learns faster. Weights start as SELU needs
    them (LeCun normal). Batches are drawn with replacement, unless one holds all samples.
    """
    import torch
    from torch.nn import functional

    from ecc.optimizer import EagerAdam

    features = checked_features(chain_features(structure), train)
    mean_j = train[1].mean()
    inputs = torch.from_numpy(features.matrix(train[0])[:, 1:]).float()
    targets = torch.from_numpy(train[1] / mean_j).float()

    generator = torch.Generator().manual_seed(seed)
    layers = []
    for size, units in pairwise([len(features.names), *[UNITS] * hidden, 1]):
        weights = torch.randn(units, size, generator=generator) / size**0.5
        layers.append((weights.requires_grad_(), torch.zeros(units, requires_grad=True)))
    parameters = [parameter for layer in layers for parameter in layer]
    optimizer = EagerAdam(parameters, learning_rate, weight_decay=weight_decay)

    def model() -> Mlp:
        weights = [[p.detach().numpy().astype(np.float64) for p in layer] for layer in layers]
        weights[-1] = [last * mean_j for last in weights[-1]]
        return Mlp(structure, tuple((slopes, biases) for slopes, biases in weights))

    errors = {}
    record = recorded(iterations)
    with one_thread():
        for iteration in range(1, iterations + 1):
            x, y = inputs, targets
            if batch_size < len(targets):
                rows = torch.randint(len(targets), (batch_size,), generator=generator)
                x, y = inputs[rows], targets[rows]
            for layer in layers[:-1]:
                x = functional.selu(functional.linear(x, *layer))
            x = functional.linear(x, *layers[-1])[:, 0]
            optimizer.zero_grad()
            (x - y).square().mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if iteration in record:
                errors[iteration] = relative_error(model(), *test)
    return model(), history(errors)
