"""Pruning of single weights: tables and figures of its rounds, and of fewer target classes.

After EAP (Yang, Chen, Sze, CVPR 2017): energy against accuracy, and what fewer classes save.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from ecc.errors import UserError
from ecc.evidence import names, style

PARTS = ["weights", "non_skipped_macs", "energy_j"]
THIN: dict[str, Any] = {"lw": 0.8, "ms": 2.5}  # of lines of which every arm has several


def pruning(rounds: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """One row an arm, seed and round; `_fraction` is of the dense network (round 0).

    `rounds` are of an arm and one seed each: seed, round, weights, non_skipped_macs, energy_j,
    holdout_accuracy, accuracy, accepted.
    """
    if not rounds:
        raise UserError("no rounds of pruning were given: name an arm under eap.arms")
    keys = ["arm", "seed"]
    frame = pd.concat([own.assign(arm=arm) for arm, own in rounds])
    frame = frame.sort_values([*keys, "round"], ignore_index=True)
    dense = frame.groupby(keys)[PARTS].transform("first")
    return _rounded(frame.join((frame[PARTS] / dense).add_suffix("_fraction")), keys)


def classes(rounds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One row a number of classes and seed: the last accepted round of each.

    `_fraction` is of the dense network of the most classes, `_of_pruned` of that network pruned
    with the same seed. Where no round is accepted, the network was not pruned: round 0.
    """
    if not rounds:
        raise UserError("no numbers of classes were given: name some under eap.classes")
    every = pd.concat(rounds).sort_values("round")
    most = every["classes"] == every["classes"].max()
    dense = every[most & (every["round"] == 0)].set_index("seed")
    frame = last_accepted(every, ["classes", "seed"])
    frame = frame.sort_values(["classes", "seed"], ascending=[False, True], ignore_index=True)
    pruned = frame[frame["classes"] == frame["classes"].max()].set_index("seed")
    for part in PARTS:
        frame[f"{part}_fraction"] = frame[part] / frame["seed"].map(dense[part])
        frame[f"{part}_of_pruned"] = frame[part] / frame["seed"].map(pruned[part])
    return _rounded(frame, ["classes", "seed"])


def last_accepted(rounds: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The last accepted round of each pruning, told by `keys`; of none, round 0."""
    accepted = rounds[rounds["accepted"] | (rounds["round"] == 0)]
    return accepted.sort_values("round").groupby(keys, sort=False).tail(1)


def draw_pruning(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy of every round against the energy, and against the weights, that are left.

    A line a seed.
    """
    with style.theme():
        figure, axes = style.panels([f"energy, {title}", "weights"])
        marks = style.marks(list(table["arm"].unique()), first="eap")
        for one, part in zip(axes, ("energy_j", "weights"), strict=True):
            for (arm, _), own in table.groupby(["arm", "seed"]):
                label, mark = names.name(arm), marks[arm]
                one.plot(f"{part}_fraction", "accuracy", data=own, label=label, **THIN, **mark)
            one.set_xlabel(f"{part.removesuffix('_j')} left (of dense)")
            one.xaxis.set_major_locator(MaxNLocator(5))
            one.xaxis.set_major_formatter(PercentFormatter(1.0))
        dense = table.loc[table["round"] == 0, "accuracy"].mean()
        for one in axes:
            one.axhline(dense, color="black", lw=0.9, label="dense", zorder=1)
        axes[0].set_ylabel("accuracy after the round")
        style.legend(figure, axes)
    return figure


def draw_classes(table: pd.DataFrame, title: str) -> Figure:
    """What is left of weights, MACs and energy with fewer classes, at one required accuracy.

    Points are means over seeds, bars their minimum and maximum.
    """
    labels = {"weights": "weights", "non_skipped_macs": "MACs not skipped", "energy_j": "energy"}
    with style.theme():
        figure, axes = style.panels([title])
        marks = style.marks(list(labels), first="energy_j")
        for part, label in labels.items():
            left = table.groupby("classes")[f"{part}_of_pruned"]
            seeds = left.agg(["mean", "min", "max"]).reset_index()
            style.means(axes[0], "classes", seeds, label=label, **marks[part])
        numbers = table["classes"].unique()
        axes[0].set(xlabel="target classes", ylabel="left, of all classes pruned")
        top = 1.05 * axes[0].get_ylim()[1]
        axes[0].set(xscale="log", ylim=(0, top), xticks=numbers)
        axes[0].set_xticklabels(numbers)
        axes[0].xaxis.set_minor_locator(NullLocator())
        axes[0].invert_xaxis()
        axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        style.legend(figure, axes)
    return figure


def _rounded(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The keys first, floats to 8 significant digits."""
    floats = frame.select_dtypes("float").columns
    frame[floats] = frame[floats].map(lambda value: float(f"{value:.8g}"))
    return frame[[*keys, *(name for name in frame.columns if name not in keys)]]
