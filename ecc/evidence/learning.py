"""How AMC's agent learns: the reward of its episodes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ecc.evidence import names, style
from ecc.evidence.tables import unlimited

WINDOW = 20  # episodes over which rewards are averaged


def learning(histories: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Hold-out accuracy by episode, one panel a platform and entry of `methods`, one colour a
    budget (named at the end of its line, a share of the dense energy), means over seeds; the score
    is that of the experiment.

    `histories` are AMC's, one row an episode, with experiment, platform, method, budget_fraction,
    limits and seed. Lines are moving averages of all episodes, dashed ones the best so far; the
    dotted line is where the agent takes over from random actions, which have no noise.
    """
    plain = unlimited(histories)
    shown = dict(list(plain.groupby(["experiment", "platform", "method"])))
    several = plain["method"].nunique() > 1
    with style.theme():
        figure, axes = style.panels(
            [
                names.panel_title((experiment, platform), titles)
                + (f"\n{names.name(method)}" if several else "")
                for experiment, platform, method in shown
            ],
            share_y="row",
        )
        ends: list[list[tuple[float, float, str, Any]]] = []
        for one, frame in zip(axes, shown.values(), strict=True):
            ends.append([])
            budgets = sorted(frame["budget_fraction"].unique(), reverse=True)
            for budget, mark in zip(budgets, style.ramp(len(budgets)), strict=True):
                runs = frame[frame["budget_fraction"] == budget]
                found = runs.groupby("episode")[["holdout_accuracy", "best"]].mean()
                smooth = found["holdout_accuracy"].rolling(WINDOW, min_periods=1).mean()
                one.plot(smooth, color=mark["color"], lw=1.2)
                one.plot(found["best"], color=mark["color"], lw=0.8, ls=(0, (4, 2)))
                end = found.index[-1], found["best"].iloc[-1]
                ends[-1].append((*end, f"{budget:.2f} of dense", mark["color"]))
            first = frame[frame["noise"].notna()]["episode"].min()
            one.axvline(first - 0.5, color="black", lw=0.7, ls=":")
            one.set(xlabel="episode", xlim=(0, None))
        for one, frame in list(zip(axes, shown.values(), strict=True))[::2]:
            one.set(ylabel=f"{frame['score'].iloc[0]} on hold-out images", ylim=(0, None))
        for one, named in zip(axes, ends, strict=True):
            style.label_lines(one, named, "right")
    return figure
