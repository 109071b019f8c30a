"""What of an inference is measured: its energy in joules, or its latency in seconds.

A library that works under a model needs no units: everything inside speaks of energy and joules.
Files that come from a platform whose metric is latency say seconds in their names.
"""

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

Metric = Literal["energy_j", "latency_s"]
METRICS: tuple[Metric, ...] = ("energy_j", "latency_s")
UNITS = {"energy_j": "J", "latency_s": "s", "count": ""}
WORDS = {"energy_j": "energy", "latency_s": "latency", "count": "count"}
PAIRS = (("energy_j", "latency_s"), ("budget_j", "budget_s"))


def in_files(name: str, metric: str) -> str:
    """What a file calls `name` (dense_energy_j, budget_j): dense_latency_s where that is meant."""
    for joules, seconds in PAIRS if metric == "latency_s" else ():
        if name.endswith(joules):
            return name.removesuffix(joules) + seconds
    return name


def in_code(name: str) -> str:
    """The inverse of `in_files`."""
    for joules, seconds in PAIRS:
        if name.endswith(seconds):
            return name.removesuffix(seconds) + joules
    return name


def to_file(values: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """`values` with the names that files of this metric have."""
    return {in_files(name, metric): value for name, value in values.items()}


def from_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the names that code has."""
    return {in_code(name): value for name, value in values.items()}


def to_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Moves values of rows whose column `metric` is latency_s into columns of their own.

    The column `metric` itself is dropped; a table without latencies has no such columns.
    """
    seconds = frame["metric"] == "latency_s"
    frame = frame.drop(columns="metric")
    for column in frame.columns if seconds.any() else ():
        renamed = in_files(column, "latency_s")
        if renamed != column:
            frame.insert(int(frame.columns.get_loc(column)) + 1, renamed, frame[column])
            frame.loc[seconds, column] = float("nan")
            frame.loc[~seconds, renamed] = float("nan")
    return frame


def from_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The inverse of `to_table`, or of a renaming of all columns by `in_files`."""
    if "metric" in frame:
        return frame
    metric = pd.Series("energy_j", index=frame.index)
    for seconds in [column for column in frame.columns if in_code(column) != column]:
        joules = in_code(seconds)
        metric[frame[seconds].notna()] = "latency_s"
        values = frame[joules].fillna(frame[seconds]) if joules in frame else frame[seconds]
        place = frame.columns.get_loc(seconds)
        frame = frame.drop(columns=[name for name in (joules, seconds) if name in frame])
        frame.insert(min(int(place), frame.shape[1]), joules, values)
    return frame.assign(metric=metric)


def pareto(networks: pd.DataFrame) -> "pd.Series[bool]":
    """Which networks no other one beats in accuracy and energy_j: bool, one a row."""
    ordered = networks.sort_values(["energy_j", "accuracy"], ascending=[True, False])
    before = ordered["accuracy"].cummax().shift(fill_value=-1.0)
    return (ordered["accuracy"] > before).reindex(networks.index)
