"""What the papers have no figure for: measured energies, fine-tuning, fronts, how ECC converges,
where the energy model errs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ecc.evidence import names, style
from ecc.evidence.tables import unlimited
from ecc.metrics import WORDS, from_table, pareto

Titles = Mapping[str, str]
Panels = dict[tuple[str, str], pd.DataFrame]
TENTHS = np.linspace(0, 1, 11)


def measured(accuracies: pd.DataFrame, titles: Titles) -> Figure:
    """Measured energy of every slim network against its budget: what is below zero is inside.

    Hollow marks are what the energy model says of the same network.
    """
    shown, marks = _shown(accuracies)
    with style.theme():
        figure, axes = style.panels([names.panel_title(key, titles) for key in shown])
        for one, frame in zip(axes, shown.values(), strict=True):
            budgets = np.sort(frame["budget_fraction"].unique())
            methods = [method for method in marks if (frame["method"] == method).any()]
            for place, method in enumerate(methods):
                runs, mark = frame[frame["method"] == method], marks[method] | {"linestyle": ""}
                offset = (place - (len(methods) - 1) / 2) * 0.8 / len(methods)
                at = np.searchsorted(budgets, runs["budget_fraction"]) + offset
                model = runs["modelled_energy_j"] / runs["budget_j"] - 1
                truth = runs["measured_energy_j"] / runs["budget_j"] - 1
                one.plot(at, model, **mark, ms=3.5, mfc="none", mew=0.7, alpha=0.7)
                one.plot(at, truth, **mark, ms=3, label=names.name(method))
            one.axhline(0, color="black", lw=0.9)
            _budget_axis(one, budgets)
            one.yaxis.set_major_formatter(PercentFormatter(1.0))
        for one in axes[::2]:
            one.set_ylabel("energy over budget")
        style.legend(figure, axes)
    return figure


def finetuning(accuracies: pd.DataFrame, titles: Titles) -> Figure:
    """Score before and after fine-tuning: a slope for each method and budget, means of seeds."""
    shown, marks = _shown(accuracies)
    with style.theme():
        figure, axes = style.panels(
            [names.panel_title(key, titles) for key in shown], share_y="row"
        )
        for one, frame in zip(axes, shown.values(), strict=True):
            budgets = np.sort(frame["budget_fraction"].unique())
            scores = frame.groupby(["method", "budget_fraction"])
            means = scores[["accuracy_before_finetuning", "accuracy"]].mean()
            for method, mark in marks.items():
                if method not in means.index:
                    continue
                for place, (before, after) in enumerate(means.loc[method].to_numpy()):
                    label = names.name(method) if place == 0 else None
                    ends = [place - 0.3, place + 0.3], [before, after]
                    one.plot(*ends, **mark | {"linestyle": "-"}, ms=3.5, label=label)
            one.axhline(frame["dense_accuracy"].mean(), color="black", lw=0.9, label="dense")
            _budget_axis(one, budgets)
        for one, frame in list(zip(axes, shown.values(), strict=True))[::2]:
            one.set_ylabel(f"{frame['score'].iloc[0]}, before → after")
        style.legend(figure, axes)
    return figure


def fronts(accuracies: pd.DataFrame, titles: Titles) -> Figure:
    """Score against measured energy of every run, and the Pareto front over all methods."""
    shown, marks = _shown(accuracies)
    with style.theme():
        figure, axes = style.panels(
            [names.panel_title(key, titles) for key in shown], share_y=False
        )
        for one, frame in zip(axes, shown.values(), strict=True):
            unit, scale = style.unit(frame["dense_energy_j"], frame["metric"].iloc[0])
            energy_j = frame["measured_energy_j"].fillna(frame["modelled_energy_j"])
            frame = frame.assign(energy_j=energy_j)
            front = frame[pareto(frame)].sort_values("energy_j")
            steps: dict[str, Any] = {
                "drawstyle": "steps-post",
                "color": "0.6",
                "lw": 1.0,
                "label": "Pareto front",
            }
            one.plot(front["energy_j"] * scale, front["accuracy"], **steps, zorder=1)
            for method, mark in marks.items():
                runs = frame[frame["method"] == method]
                if len(runs):
                    dots = mark | {"linestyle": "", "label": names.name(method)}
                    one.plot(runs["energy_j"] * scale, runs["accuracy"], **dots, ms=3.2)
            one.set_xlabel(f"{WORDS[frame['metric'].iloc[0]]} measured ({unit})")
            one.set_ylabel(f"{frame['score'].iloc[0]}")
            one.xaxis.set_major_locator(MaxNLocator(6))
        style.legend(figure, axes)
    return figure


def convergence(
    history: pd.DataFrame, full: Mapping[str, int], budget_j: float, title: str
) -> Figure:
    """One run of ECC along its iterations: energy, bounds s and duals y of each group, dual z.

    `history` is its history.csv, `full` the full width of each group in forward order.
    """
    unit, scale = style.unit(history["energy_j"])
    at = history["iteration"]
    with style.theme():
        headings = ["energy", "width bounds s", "duals y of the widths", "dual z of the energy"]
        figure, axes = style.panels(headings, share_y=False)
        energy, bounds, duals, dual = axes
        figure.suptitle(title, fontsize=8)
        energy.plot(at, history["energy_j"] * scale, color="C0", label="of the channels left")
        energy.plot(at, history["bound_energy_j"] * scale, color="C1", ls="--", label="of s")
        energy.axhline(budget_j * scale, color="black", lw=0.9, ls=":", label="budget")
        energy.set_ylabel(f"by the model ({unit})")
        energy.legend(frameon=False)
        marks = zip(full.values(), style.ramp(len(full)), strict=True)
        for group, (full_width, mark) in enumerate(marks):
            line: dict[str, Any] = {"color": mark["color"], "lw": 0.8}
            bounds.plot(at, history[f"s_{group}"] / full_width, **line)
            duals.plot(at, history[f"y_{group}"], **line)
        bounds.set_ylabel("s / full width")
        duals.set_ylabel("y (dark: first group)")
        duals.set_yscale("symlog", linthresh=1.0)
        dual.plot(at, history["z"], color="C0")
        dual.set_ylabel("z")
        for one in axes:
            one.set_xlabel("iteration")
    return figure


def residuals(table: pd.DataFrame, titles: Titles) -> Figure:
    """Mean relative residual of the paper's energy model (chain form by Adam; where it was not
    fitted, the first that was) by group, downwards in forward order, and tenth of its full width.
    """
    published = (table["model"] == "bilinear_chain") & (table["fit"] == "adam")
    table = table[published] if published.any() else table
    shown = _ordered(dict(list(table.groupby(["network", "platform"], sort=False))))
    with style.theme():
        headings = [names.panel_title(key, titles) for key in shown]
        figure, axes = style.panels(headings, share_y=False)
        most = table["mean_relative_residual"].abs().max()
        for one, frame in zip(axes, shown.values(), strict=True):
            first = frame[(frame["model"] == frame["model"].iloc[0])]
            first = first[first["fit"] == first["fit"].iloc[0]]
            groups = {group: row for row, group in enumerate(first["group"].unique())}
            image = np.full((len(groups), len(TENTHS) - 1), np.nan)
            tenths = (first["width_to"] * 10).round().astype(int) - 1
            image[first["group"].map(groups), tenths] = first["mean_relative_residual"]
            edges = np.arange(len(groups) + 1) + 0.5
            mesh = one.pcolormesh(TENTHS, edges, image, cmap="RdBu_r", vmin=-most, vmax=most)
            one.grid(visible=False)
            one.invert_yaxis()
            one.set(xlabel="width / full width", ylabel="channel group")
            one.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        label = "modelled less measured energy, of measured"
        figure.colorbar(mesh, ax=axes, label=label, format=PercentFormatter(1.0, 1), shrink=0.9)
    return figure


def _shown(accuracies: pd.DataFrame) -> tuple[Panels, dict[str, dict[str, Any]]]:
    """Runs by experiment and platform, those with one budget alone; marks of all methods."""
    runs = unlimited(from_table(accuracies))
    parts = _ordered(dict(list(runs.groupby(["experiment", "platform"]))))
    return parts, style.marks(sorted(runs["method"].unique()))


def _ordered(parts: Mapping[tuple[str, str], pd.DataFrame]) -> Panels:
    """By network or experiment and platform, the papers' in their order."""
    first = ("mobilenet", "alexnet", "erfnet")
    ordered = sorted(parts, key=lambda key: (*(key[0] != name for name in first), key))
    return {key: parts[key] for key in ordered}


def _budget_axis(axes: Axes, fractions: np.ndarray) -> None:
    axes.set(xlabel="budget / dense energy", xticks=range(len(fractions)))
    axes.set_xticklabels([f"{fraction:.2f}" for fraction in fractions])
    axes.grid(visible=False, axis="x")
