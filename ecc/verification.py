"""Whether budgets hold: the energy of given widths, measured again on the platform."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecc.energy import EnergyModel
from ecc.measuring.interface import Buildable
from ecc.platforms import Platform
from ecc.runs import named_seed

Row = dict[str, float | bool | None]


def verify(
    platform: Platform,
    network: Buildable,
    model: EnergyModel,
    widths: ArrayLike,
    budgets_j: ArrayLike,
    *,
    repeats: int,
    seed: int,
    journal: Path | None = None,
) -> list[Row]:
    """Measured energy of slim networks against the energy model and their budgets.

    Widths (n, groups) and budgets (n,) of n networks; the mean of `repeats` measurements each, all
    in one campaign. What a recorded platform has not measured is None, and so is what follows.
    """
    rows, budgets = np.atleast_2d(np.asarray(widths)), np.asarray(budgets_j, dtype=np.float64)
    known = platform.known(network.structure, rows)
    measured: NDArray[np.float64] = np.full(len(rows), np.nan)
    if known.any():
        repeated = np.repeat(rows[known], repeats, axis=0)
        energy = platform.measure(network, repeated, seed=seed, journal=journal)
        measured[known] = energy.reshape(-1, repeats).mean(axis=1)
    modelled = [float(model.energy(row)) for row in rows]
    return [_row(*values) for values in zip(modelled, measured.tolist(), budgets, strict=True)]


def verify_limits(
    limited: Sequence[Mapping[str, float]],
    models: Mapping[str, EnergyModel],
    on: Mapping[str, Platform],
    network: Buildable,
    widths: ArrayLike,
    *,
    repeats: int,
    seed: int,
    journal: Path,
) -> list[dict[str, Row]]:
    """The same of the limits of n networks, by name: in the unit of what each is a limit on.

    Those of `on` are measured there. The others are counts, which are what their model says.
    """
    rows = np.atleast_2d(np.asarray(widths))
    found: list[dict[str, Row]] = [{} for _ in limited]
    for name in sorted({name for each in limited for name in each}):
        having = [number for number, each in enumerate(limited) if name in each]
        limits = [limited[number][name] for number in having]
        if name in on:
            checked = verify(
                on[name],
                network,
                models[name],
                rows[having],
                limits,
                repeats=repeats,
                seed=named_seed(seed, name),
                journal=journal / name,
            )
        else:
            counts = [float(models[name].energy(rows[number])) for number in having]
            checked = [_row(each, each, limit) for each, limit in zip(counts, limits, strict=True)]
        for number, limit, row in zip(having, limits, checked, strict=True):
            found[number][name] = {
                "limit": limit,
                "modelled": row["modelled_energy_j"],
                "measured": row["measured_energy_j"] if name in on else None,
                "within_limit": row["within_budget"],
            }
    return found


def _row(modelled_j: float, measured_j: float, budget_j: float) -> Row:
    if np.isnan(measured_j):
        found: Row = dict.fromkeys(("measured_energy_j", "relative_model_error", "within_budget"))
    else:
        found = {
            "measured_energy_j": measured_j,
            "relative_model_error": (modelled_j - measured_j) / measured_j,
            "within_budget": bool(measured_j <= budget_j),
        }
    return {"modelled_energy_j": modelled_j, **found}
