"""Pruning of single weights: tables and figures of its rounds, and of fewer target classes.

After EAP (Yang, Chen, Sze, CVPR 2017): energy against accuracy, and what fewer classes save.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from ecc.errors import UserError
from ecc.evidence import names, style

PARTS = ["weights", "non_skipped_macs", "energy_j"]


def pruning(rounds: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row an arm and round; `_fraction` is of the dense network (round 0).

    `rounds` by arm: round, weights, non_skipped_macs, energy_j, holdout_accuracy, accuracy,
    accepted.
    """
    if not rounds:
        raise UserError("no rounds of pruning were given: name an arm under eap.arms")
    frames = []
    for arm, frame in sorted(rounds.items()):
        frame = frame.sort_values("round")
        shares = {f"{part}_fraction": frame[part] / frame[part].iloc[0] for part in PARTS}
        frames.append(frame.assign(arm=arm, **shares))
    return _rounded(pd.concat(frames, ignore_index=True), "arm")


def classes(rounds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One row a number of classes: the last accepted round of each.

    `_fraction` is of the dense network of the most classes, `_of_pruned` of that network pruned.
    Where no round is accepted, the network was not pruned: round 0.
    """
    if not rounds:
        raise UserError("no numbers of classes were given: name some under eap.classes")
    ordered = sorted(rounds, key=lambda frame: -frame["classes"].iloc[0])
    dense = ordered[0].set_index("round").loc[0]
    rows = [
        frame[frame["accepted"] | (frame["round"] == 0)].sort_values("round").iloc[-1]
        for frame in ordered
    ]
    frame = pd.DataFrame(rows).reset_index(drop=True)
    for part in PARTS:
        frame[f"{part}_fraction"] = frame[part] / dense[part]
        frame[f"{part}_of_pruned"] = frame[part] / frame[part].iloc[0]
    return _rounded(frame, "classes")


def draw_pruning(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy of every round against the energy, and against the weights, that are left."""
    with style.theme():
        figure, axes = style.panels([f"energy, {title}", "weights"])
        marks = style.marks(list(table["arm"].unique()), first="eap")
        for one, part in zip(axes, ("energy_j", "weights"), strict=True):
            for arm, mark in marks.items():
                own = table[table["arm"] == arm]
                one.plot(f"{part}_fraction", "accuracy", data=own, label=names.name(arm), **mark)
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
    """What is left of weights, MACs and energy with fewer classes, at one required accuracy."""
    labels = {"weights": "weights", "non_skipped_macs": "MACs not skipped", "energy_j": "energy"}
    with style.theme():
        figure, axes = style.panels([title])
        marks = style.marks(list(labels), first="energy_j")
        for part, label in labels.items():
            shares = table[f"{part}_of_pruned"]
            axes[0].plot(table["classes"], shares, label=label, **marks[part])
        axes[0].set(xlabel="target classes", ylabel="left, of all classes pruned")
        axes[0].set(xscale="log", ylim=(0, None), xticks=table["classes"])
        axes[0].set_xticklabels(table["classes"].astype(int))
        axes[0].xaxis.set_minor_locator(NullLocator())
        axes[0].invert_xaxis()
        axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        style.legend(figure, axes)
    return figure


def _rounded(frame: pd.DataFrame, first: str) -> pd.DataFrame:
    """The key first, floats to 8 significant digits."""
    floats = frame.select_dtypes("float").columns
    frame[floats] = frame[floats].map(lambda value: float(f"{value:.8g}"))
    return frame[[first, *(name for name in frame.columns if name != first)]]
