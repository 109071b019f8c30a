"""Energy of a network with zeros on hardware that skips them."""

import numpy as np
from numpy.typing import NDArray

from ecc.finegrained.rounds import Energy
from ecc.platforms.eyeriss import Eyeriss
from ecc.structure import Structure


def of_layers(platform: Eyeriss, structure: Structure) -> Energy:
    """Joules of every operation by the densities of its weights and inputs, (operations,) each.

    What an operation writes is as dense as what the next one reads of it.
    """
    operations = structure.operations
    readers = [
        next(
            (k for k, op in enumerate(operations) if k > row and operation.writes in op.reads), None
        )
        for row, operation in enumerate(operations)
    ]

    def energy(weights: NDArray[np.float64], inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        outputs = [1.0 if reader is None else inputs[reader] for reader in readers]
        parts = platform.breakdown(
            structure, weight_density=weights, input_density=inputs, output_density=outputs
        )
        energy_j: NDArray[np.float64] = platform.mac_j * sum(parts.values(), np.zeros(len(weights)))
        return energy_j

    return energy
