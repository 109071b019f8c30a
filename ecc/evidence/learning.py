"""How AMC's agent learns: the reward of its episodes."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from ecc.evidence import names, style
from ecc.evidence.tables import NO_LIMITS

WINDOW = 20  # episodes over which rewards are averaged


def learning(histories: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Hold-out accuracy by episode, one panel a platform, one colour a budget, means over seeds.

    `histories` are AMC's, one row an episode, with experiment, platform, budget_fraction, limits
    and seed. Lines are moving averages of all episodes, dashed ones the best so far; the dotted
    line is where the agent takes over from random actions.
    """
    plain = histories[histories["limits"] == NO_LIMITS]
    shown = dict(list((plain if len(plain) else histories).groupby(["experiment", "platform"])))
    with style.theme():
        figure, axes = style.panels([f"{names.name(e)}, {titles[p]}" for e, p in shown])
        for one, frame in zip(axes, shown.values(), strict=True):
            budgets = sorted(frame["budget_fraction"].unique(), reverse=True)
            for budget, mark in zip(budgets, style.ramp(len(budgets)), strict=True):
                runs = frame[frame["budget_fraction"] == budget]
                found = runs.groupby("episode")[["holdout_accuracy", "best"]].mean()
                smooth = found["holdout_accuracy"].rolling(WINDOW, min_periods=1).mean()
                one.plot(smooth, color=mark["color"], lw=1.2, label=f"{budget:.3g}")
                one.plot(found["best"], color=mark["color"], lw=0.8, ls=(0, (4, 2)))
            random = frame[frame["noise"] == frame["noise"].max()]["episode"].max()
            one.axvline(random, color="black", lw=0.7, ls=":")
            one.set(xlabel="episode", xlim=(0, None), ylim=(0, None))
        for one in axes[::2]:
            one.set_ylabel("accuracy on hold-out images")
        style.legend(figure, axes)
        figure.legends[0].set_title("budget / dense energy")
        figure.legends[0].get_title().set_fontsize(7.5)
        style.make_room(figure, 1)
    return figure
