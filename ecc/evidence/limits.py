"""An energy budget and a limit together: where the networks of each method lie between both."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecc.evidence import names, style
from ecc.metrics import from_table

UNITS = {"macs": ("MMACs", 1e-6), "memory": ("MB", 1e-6), "parameters": ("thousands", 1e-3)}


def limits(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Energy against what is limited, one panel for each pair of them; colour is accuracy.

    `table` is that of `ecc.evidence.tables.limits`; what was not measured is shown by its model.
    Grey lines are the budgets of a run, which meet in a corner: its network must lie left of it and
    below.
    """
    table = from_table(table)
    table["energy"] = table["measured_energy_j"].fillna(table["modelled_energy_j"])
    table["other"] = table["measured"].fillna(table["modelled"])
    shown = dict(list(table.groupby(["experiment", "platform", "limited"])))
    methods = style.marks(sorted(table["method"].unique()))
    with style.theme():
        headings = [
            f"{names.panel_title((experiment, platform), titles)}\n{_limited(name, titles)}"
            for experiment, platform, name in shown
        ]
        figure, axes = style.panels(headings, share_y=False)
        lowest, highest = table["accuracy"].min(), table["accuracy"].max()
        for one, ((_, _, limited), frame) in zip(axes, shown.items(), strict=True):
            unit, scale = style.unit(frame["budget_j"], frame["metric"].iloc[0])
            other, factor = UNITS.get(limited, ("ms", 1e3))
            _corners(one, frame, scale, factor)
            for method, mark in methods.items():
                runs = frame[frame["method"] == method]
                dots = one.scatter(
                    runs["energy"] * scale,
                    runs["other"] * factor,
                    c=runs["accuracy"],
                    cmap="viridis",
                    vmin=lowest,
                    vmax=highest,
                    marker=mark["marker"],
                    s=18,
                    edgecolors="black",
                    linewidths=0.4,
                    zorder=3,
                )
                shape = {"marker": mark["marker"], "color": "0.5", "linestyle": "none"}
                one.plot([], [], label=names.name(method), **shape)
            word = limited if limited in UNITS else "latency"
            one.set(xlabel=f"energy ({unit})", ylabel=f"{word} ({other})")
            one.margins(0.08)
        figure.colorbar(dots, ax=axes, label="accuracy after fine-tuning", shrink=0.9)
        style.legend(figure, axes)
    return figure


def _corners(axes: Axes, frame: pd.DataFrame, scale: float, factor: float) -> None:
    pairs = frame[["budget_j", "limit"]].drop_duplicates()
    left = 0.97 * frame["energy"].min() * scale
    below = 0.97 * frame["other"].min() * factor
    for budget, limit in pairs.itertuples(index=False):
        corner = [budget * scale] * 2 + [left], [below] + [limit * factor] * 2
        axes.plot(*corner, color="0.6", lw=0.8, zorder=1)


def _limited(name: str, titles: Mapping[str, str]) -> str:
    return f"limit on {names.name(name) if name in UNITS else titles[name]}"
