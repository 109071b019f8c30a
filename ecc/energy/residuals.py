"""Where an energy model errs: its residuals along the width of every channel group."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ecc.energy.model import EnergyModel

BINS = 10


def residuals(model: EnergyModel, widths: ArrayLike, energy_j: ArrayLike) -> pd.DataFrame:
    """Mean of (modelled - measured) / measured by group and tenth of the full width.

    `widths` (n, groups) and joules (n,) are samples that the fit has not seen. One row for each
    group, in forward order, and each tenth (width_from, width_to] that has samples; `width_from`
    and `width_to` are shares of the full width. The other groups of these samples have any widths.
    """
    measured_j = np.asarray(energy_j, dtype=np.float64)
    relative = model.energy(widths) / measured_j - 1
    shares = np.asarray(widths) / model.structure.full_widths
    tenths = np.ceil(shares * BINS).astype(np.int64)
    rows = [
        {
            "group": group.name,
            "width_from": (tenth - 1) / BINS,
            "width_to": tenth / BINS,
            "samples": int(inside.sum()),
            "mean_relative_residual": relative[inside].mean(),
        }
        for index, group in enumerate(model.structure.groups)
        for tenth in range(1, BINS + 1)
        if (inside := tenths[:, index] == tenth).any()
    ]
    return pd.DataFrame(rows)
