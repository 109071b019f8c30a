"""Statistics of accuracies at equal budgets: paired by seed, intervals by bootstrap, ranks, areas.

A cell is one experiment, platform and budget; its values are those of the seeds. Methods are
compared on the same seeds, which share the dense network and the order of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, friedmanchisquare, rankdata, wilcoxon

from ecc.evidence.tables import STAGES, tidy
from ecc.metrics import from_table, to_table

RESAMPLES = 10_000
CONFIDENCE = 0.95
CELL = ["experiment", "platform", "limits", "budget_fraction"]
DIFFERENCES = [
    *("experiment", "platform", "budget_fraction", "budget_j", "limits", "stage", "method"),
    *("seeds", "minus_ecc", "low", "high"),
]
RANKING = [
    *("experiment", "platform", "limits", "stage", "method", "score", "budgets", "seeds"),
    *("area", "area_low", "area_high", "mean_rank", "minus_ecc", "low", "high"),
    *("p_wilcoxon", "p_corrected", "p_friedman"),
]


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval; the ends are NaN where a cell has a single value."""

    mean: float
    low: float
    high: float


def interval(
    cells: Sequence[ArrayLike], weights: ArrayLike | None = None, seed: int = 0
) -> Interval:
    """Weighted sum of the cells' means (equal weights, if none are given) by the bootstrap.

    Seeds are resampled within each cell, 10,000 times; the ends are the 2.5 and 97.5 percentiles.
    Resampling n values gives (n - 1) / n of the variance of their mean, so deviations are
    stretched by sqrt(n / (n - 1)). Of a single cell of three seeds the interval is still too
    narrow, as any bootstrap's; over the budgets of an experiment it is not.
    """
    values = [np.asarray(cell, float) for cell in cells]
    scale = np.full(len(values), 1 / len(values)) if weights is None else np.asarray(weights, float)
    mean = float(sum(w * cell.mean() for w, cell in zip(scale, values, strict=True)))
    if min(map(len, values)) < 2:
        return Interval(mean, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    draws: NDArray[np.float64] = np.full(RESAMPLES, mean)
    for weight, cell in zip(scale, values, strict=True):
        chosen = rng.integers(len(cell), size=(RESAMPLES, len(cell)))
        stretch = np.sqrt(len(cell) / (len(cell) - 1))
        draws += weight * stretch * (cell - cell.mean())[chosen].mean(axis=1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(mean, float(low), float(high))


def differences(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Each method less ECC at every budget and stage, over paired seeds, from accuracy_at_budget.

    Empty where ECC did not run.
    """
    rows = []
    for stage, found in by_stage(accuracies):
        for _, cell in found.groupby(CELL):
            pairs = cell.pivot(index="seed", columns="method", values="value")
            for method in sorted(set(pairs) - {"ecc"}) if "ecc" in pairs else ():
                of = interval([pairs[method] - pairs["ecc"]])
                row = {**cell.iloc[0], "stage": stage, "method": method, "seeds": len(pairs)}
                rows.append(row | {"minus_ecc": of.mean, "low": of.low, "high": of.high})
    columns = [*DIFFERENCES, "metric"]
    frame = pd.DataFrame(rows, columns=columns)
    return to_table(tidy(frame, columns, [*CELL, "stage", "method"]))


def ranking(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Methods of an experiment on a platform over all its budgets, before and after fine-tuning.

    `area` is that under accuracy against budget, over the range of budgets: an accuracy.
    `mean_rank` is of the means over seeds, 1 the best. `p_wilcoxon` is of the signed-rank test of
    `minus_ecc` over budgets and seeds, `p_corrected` the same with the false discovery rate of the
    whole table held (Benjamini, Hochberg), `p_friedman` that all methods are alike over budgets
    and seeds. Runs that share a seed or a budget are not independent: read p as a guide.
    """
    rows = []
    for stage, found in by_stage(accuracies):
        for keys, part in found.groupby(["experiment", "platform", "limits"]):
            table = part.pivot(index=["budget_fraction", "seed"], columns="method", values="value")
            means = table.groupby("budget_fraction").mean()
            ranks = rankdata(-means, axis=1).mean(axis=0)
            blocks = [table[method] for method in table]
            alike = friedmanchisquare(*blocks).pvalue if len(blocks) > 2 else float("nan")
            for method, rank in zip(table, ranks, strict=True):
                area = interval(_cells(table[method]), _trapezoid(means.index))
                row = dict(zip(["experiment", "platform", "limits"], keys, strict=True))
                row |= {"stage": stage, "method": method, "score": part["score"].iloc[0]}
                row |= {"budgets": len(means), "seeds": len(table) // len(means)}
                row |= {"area": area.mean, "area_low": area.low, "area_high": area.high}
                row |= {"mean_rank": rank, "p_friedman": alike}
                if method != "ecc" and "ecc" in table:
                    paired = table[method] - table["ecc"]
                    of = interval(_cells(paired))
                    row |= {"minus_ecc": of.mean, "low": of.low, "high": of.high}
                    row["p_wilcoxon"] = wilcoxon(paired).pvalue if paired.any() else 1.0
                rows.append(row)
    frame = pd.DataFrame(rows, columns=RANKING)
    tested = frame["p_wilcoxon"].notna()
    if tested.any():
        p = frame.loc[tested, "p_wilcoxon"].astype(float)
        frame.loc[tested, "p_corrected"] = false_discovery_control(p)
    return tidy(frame, RANKING, RANKING[:5])


def by_stage(accuracies: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs with their accuracy before, and after fine-tuning as `value`."""
    accuracies = from_table(accuracies)
    return [(stage, accuracies.assign(value=accuracies[key])) for stage, key in STAGES.items()]


def _cells(values: "pd.Series[float]") -> list[NDArray[np.float64]]:
    return [cell.to_numpy() for _, cell in values.groupby("budget_fraction")]


def _trapezoid(budgets: "pd.Index[float]") -> NDArray[np.float64]:
    """Weights of ascending budgets in the mean height of the curve over them."""
    at = budgets.to_numpy(float)
    if len(at) == 1:
        return np.ones(1)
    steps = np.diff(at)
    weights: NDArray[np.float64] = np.append(steps, 0.0) + np.append(0.0, steps)
    return np.asarray(weights / weights.sum())
