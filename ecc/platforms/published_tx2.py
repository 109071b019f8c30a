"""The AlexNet energy model of the Jetson TX2 that the authors of ECC published, as a platform.

Source: Yang, Zhu, Liu, ECC, CVPR 2019, the model file of the authors' code (MIT licence); the
same numbers are in `resources/published/alexnet_tx2_energy_model.csv`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ecc.errors import UserError
from ecc.platforms.interface import Array, Emulation, HasStructure, checked_widths
from ecc.structure import Structure

CHAIN = (3, 64, 192, 384, 256, 256, 4096, 4096, 1000)
CONSTANT_J = 0.00248206733
COEFFICIENTS_J = (
    0.00223370781,  # conv1
    0.00753995031,  # conv2
    0.00390925538,  # conv3
    0.00494066952,  # conv4
    0.00339309988,  # conv5
    0.0161565151,  # fc6
    0.00721406378,  # fc7
    0.00195417996,  # fc8
)


@dataclass(frozen=True)
class PublishedTX2(Emulation):
    """E(s) = a_0 + sum of a_j (s_j / S_j) (s_{j+1} / S_{j+1}), section 3.2, Eq. 3.

    A fitted model, so it has no noise: `measure` is `energy`. Only for AlexNet's widths.
    """

    name: str = "published_tx2"
    description: str = "Jetson TX2 (published AlexNet model)"

    def measure(
        self,
        network: HasStructure,
        widths: ArrayLike,
        *,
        seed: int,
        first: int = 0,
        journal: Path | None = None,
    ) -> Array:
        """Joules of one inference, (n,), for widths (n, 7); `seed` and `first` change nothing."""
        return self.energy(network.structure, widths)

    def energy(self, structure: Structure, widths: ArrayLike) -> Array:
        """Joules of one inference, (n,), for widths (n, 7).

        Raises UserError for another network than AlexNet with its full widths.
        """
        chain = (structure.image_channels, *structure.full_widths.tolist(), structure.classes)
        if chain != CHAIN:
            raise UserError(
                f"platform {self.name} knows AlexNet alone, with the widths {list(CHAIN)}, "
                f"not {list(chain)}: choose another platform or network"
            )
        kept = checked_widths(structure, widths) / structure.full_widths
        sides = np.pad(kept, ((0, 0), (1, 1)), constant_values=1.0)
        # No matrix product: its last digit depends on the number of rows, chunks would differ.
        energy: Array = CONSTANT_J + (sides[:, :-1] * sides[:, 1:] * COEFFICIENTS_J).sum(axis=1)
        return energy


PUBLISHED_TX2 = PublishedTX2()
