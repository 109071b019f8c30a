"""Energy models: what a network would cost at any widths, fitted to measured samples.

A method sees a platform through one of these alone. Importing this package does not import torch,
which takes seconds; the functions that need it do.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ecc.counts import COUNTS, Count
from ecc.energy import fitting, lookup, mlp, model
from ecc.energy.bilinear import BilinearChain, BilinearGraph
from ecc.energy.lookup import LookUp, tabulate
from ecc.energy.mlp import Mlp
from ecc.energy.model import EnergyModel, relative_error
from ecc.energy.residuals import residuals
from ecc.energy.sampling import read_samples, sample, sample_chunk, split
from ecc.errors import UserError
from ecc.structure import Structure, draw_widths

__all__ = [
    "FITS",
    "KINDS",
    "BilinearChain",
    "BilinearGraph",
    "EnergyModel",
    "LookUp",
    "Mlp",
    "draw_widths",
    "fit",
    "limit_models",
    "load",
    "read_samples",
    "relative_error",
    "residuals",
    "sample",
    "sample_chunk",
    "split",
    "tabulate",
]

KINDS: dict[str, type[EnergyModel]] = {
    "bilinear_chain": BilinearChain,
    "bilinear_graph": BilinearGraph,
    "mlp1": Mlp,
    "mlp2": Mlp,
    "mlp3": Mlp,
    "lookup": LookUp,
}

# (structure, train, test, **settings) -> (model, history), by kind of model and fit
FITS: dict[tuple[str, str], Callable[..., tuple[EnergyModel, pd.DataFrame]]] = {
    ("bilinear_chain", "adam"): partial(fitting.adam, BilinearChain),
    ("bilinear_chain", "nnls"): partial(fitting.least_squares, BilinearChain),
    ("bilinear_graph", "adam"): partial(fitting.adam, BilinearGraph),
    ("bilinear_graph", "nnls"): partial(fitting.least_squares, BilinearGraph),
    ("mlp1", "adam"): partial(mlp.fit, 1),
    ("mlp2", "adam"): partial(mlp.fit, 2),
    ("mlp3", "adam"): partial(mlp.fit, 3),
    ("lookup", "nnls"): lookup.fit,
}


def fit(
    kind: str,
    fit: str,
    structure: Structure,
    widths: ArrayLike,
    energy_j: ArrayLike,
    settings: Mapping[str, Any],
    *,
    test: tuple[ArrayLike, ArrayLike],
) -> tuple[EnergyModel, pd.DataFrame]:
    """Fit an energy model to widths (n, groups) and joules (n,).

    Returns the model and its history: `iteration`, `relative_test_error` on `test`, which has
    widths and joules that the fit does not see; one row where the fit is in closed form.
    Raises UserError for an unknown kind, fit or setting, and for too few samples.
    """
    if (kind, fit) not in FITS:
        known = ", ".join(f"{name} by {how}" for name, how in FITS)
        raise UserError(f"energy model '{kind}' by '{fit}' is unknown: known are {known}")
    fitter = FITS[kind, fit]
    parameters = inspect.signature(fitter).parameters.values()
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name in settings:
        if name not in allowed:
            raise UserError(
                f"{kind} by {fit}: unknown setting '{name}': known are {', '.join(allowed) or '-'}"
            )
    train, held = (
        (np.asarray(w, dtype=np.int64), np.asarray(e, dtype=np.float64))
        for w, e in ((widths, energy_j), test)
    )
    return fitter(structure, train, held, **settings)


def load(path: str | Path, structure: Structure) -> EnergyModel:
    """The energy model in a file.

    Raises UserError where it is absent, damaged, of a later format, or of another network.
    """
    return model.load(path, structure, KINDS)


def limit_models(structure: Structure, files: Mapping[str, str]) -> dict[str, EnergyModel | Count]:
    """What limits are kept on, by name: the energy models in `files`, and all counts."""
    models = {name: load(file, structure) for name, file in files.items()}
    return {**models, **{name: Count(name, structure) for name in COUNTS}}
