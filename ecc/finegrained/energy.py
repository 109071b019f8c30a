"""Energy of a network with zeros on hardware that skips them, by layer and data type."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecc.finegrained.densities import densities
from ecc.finegrained.rounds import Energy
from ecc.networks import Network
from ecc.platforms.eyeriss import CAUSES, Eyeriss
from ecc.structure import Structure
from ecc.training import calibrate

Array = NDArray[np.float64]


def by_data_type(
    platform: Eyeriss, structure: Structure
) -> Callable[[Array, Array], dict[str, Array]]:
    """Of every operation, in units of one MAC, by the densities of its weights and inputs.

    All arrays are (operations,). What an operation writes is taken to be as dense as what the next
    operation reads of its channels, which is after any rectification, pooling and residual addition
    between the two. These take no energy of their own: what an addition reads is not counted.
    """
    operations = structure.operations
    readers = [
        next(
            (k for k, op in enumerate(operations) if k > row and operation.writes in op.reads), None
        )
        for row, operation in enumerate(operations)
    ]

    def energy(weights: Array, inputs: Array) -> dict[str, Array]:
        outputs = [1.0 if reader is None else inputs[reader] for reader in readers]
        return platform.breakdown(
            structure, weight_density=weights, input_density=inputs, output_density=outputs
        )

    return energy


def of_layers(platform: Eyeriss, structure: Structure) -> Energy:
    """Joules of every operation by the densities of its weights and inputs, (operations,) each."""
    parts = by_data_type(platform, structure)

    def energy(weights: Array, inputs: Array) -> Array:
        energy_j: Array = platform.mac_j * sum(parts(weights, inputs).values(), np.zeros(1))
        return energy_j

    return energy


def dense_layers(network: Network, platform: Eyeriss, images: Tensor, seed: int) -> pd.DataFrame:
    """Energy by data type of a network that is not pruned: a row an operation, in their order.

    EAP, section 3, and its experiment of energy by layer. Weights are initial ones, since zeros of
    feature maps come from rectification, whatever the weights; they are counted on `images`
    (count, 3, height, width) of the deployment size, for which batch norms take their statistics.
    Columns ending in `_mac` are in units of one MAC; `dense_energy_mac` is without any zero.
    """
    torch.manual_seed(seed)
    model, structure = network.build(), network.structure
    calibrate(model, [images], torch.device("cpu"))
    names = [operation.name for operation in structure.operations]
    weights, inputs = densities(model, names, torch.split(images, 8))
    energy, macs = by_data_type(platform, structure), structure.macs()
    parts = energy(weights, inputs)
    whole = energy(np.ones_like(weights), np.ones_like(inputs))
    return pd.DataFrame(
        {
            "operation": names,
            "kind": [operation.kind for operation in structure.operations],
            "weights": structure.weights(),
            "macs": macs,
            "input_density": inputs,
            "non_skipped_macs": macs * weights * inputs,
            **{f"{cause}_energy_mac": parts[cause] for cause in CAUSES},
            "energy_mac": sum(parts.values()),
            "dense_energy_mac": sum(whole.values()),
        }
    )
