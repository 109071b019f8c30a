"""Whether a budget holds: the energy of given widths, measured again on the platform."""

import numpy as np
from numpy.typing import ArrayLike

from ecc.energy import EnergyModel
from ecc.platforms import HasStructure, Platform


def mean_energy(
    platform: Platform,
    network: HasStructure,
    widths: ArrayLike,
    *,
    repeats: int,
    seed: int,
    first: int,
) -> float:
    """Joules of one inference at widths (groups,), the mean of `repeats` measurements.

    The noise is that of draws `first` and following of `seed`.
    """
    rows = np.repeat(np.atleast_2d(widths), repeats, axis=0)
    return float(platform.measure(network, rows, seed=seed, first=first).mean())


def verify(
    model: EnergyModel, widths: ArrayLike, measured_j: float, budget_j: float
) -> dict[str, float | bool]:
    """Measured energy of a slim network against the energy model and the budget, for metrics."""
    modelled_j = float(model.energy(widths))
    return {
        "modelled_energy_j": modelled_j,
        "measured_energy_j": measured_j,
        "relative_model_error": (modelled_j - measured_j) / measured_j,
        "within_budget": measured_j <= budget_j,
    }
