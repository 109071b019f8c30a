"""The figures, in the paper's numbering, each from tidy tables.

`titles` maps every platform to its printed name, which says where it is emulated
(`ecc.evidence.names.platform_title`).
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecc.errors import UserError
from ecc.evidence import names, style
from ecc.evidence.plan import FIGURES, Plan, shown_platforms, title
from ecc.evidence.tables import NO_LIMITS, comparison
from ecc.metrics import WORDS, from_table

Tables = Mapping[str, pd.DataFrame]
Titles = Mapping[str, str]
LINES = (("-", (0, (5, 1.5))), (":", (0, (2, 1.5))))  # Adam and NNLS, of each form
STAGE_NAMES = {
    "before_finetuning": "before fine-tuning",
    "after_finetuning": "after fine-tuning",
}


def draw(key: str, tables: Tables, titles: Titles) -> Figure:
    """A figure of the paper by its key in `ecc.evidence.plan.FIGURES`.

    `tables` are those of `ecc.evidence.tables` by name: accuracy_at_budget, widths,
    energy_model_errors, energy_model_history; a figure reads only the ones that it needs.
    Raises UserError where they hold nothing for this figure.
    """
    plan = FIGURES[key]
    tables = {name: _unlimited(frame) for name, frame in tables.items()}
    with style.theme():
        figure = KINDS[plan.kind](tables, titles, plan)
    if figure is None:
        subjects = " or ".join(plan.subjects)
        raise UserError(f"{title(key)} has no data: the run has no results for {subjects}")
    return figure


def _unlimited(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs that had one budget alone: the paper's figures show no others."""
    return frame[frame["limits"] == NO_LIMITS] if "limits" in frame else frame


def error_history(tables: Tables, titles: Titles, plan: Plan) -> Figure | None:
    """Relative test error of the bilinear model along Adam's iterations (Figures 2 and 9).

    The optimum by non-negative least squares is a dashed line of the same colour.
    """
    history, errors = tables["energy_model_history"], tables["energy_model_errors"]
    history = history[(history["fit"] == "adam") & (history["iteration"] > 0)]
    shown = _panels_of(history[history["model"].isin(names.FORMS)], plan.subjects, "network")
    if not shown:
        return None
    figure, axes = style.panels([names.panel_title(key, titles) for key in shown])
    marks = zip(names.FORMS.items(), style.marks(list(names.FORMS)).values(), LINES, strict=True)
    forms = [(model, label, mark["color"], lines) for (model, label), mark, lines in marks]
    drawn = []
    for one, ((network, platform), frame) in zip(axes, shown.items(), strict=True):
        best = errors[(errors["network"] == network) & (errors["platform"] == platform)]
        best = best[best["fit"] == "nnls"].set_index("model")["relative_test_error"]
        for model, label, colour, (line, dashes) in forms:
            run = frame[frame["model"] == model]
            x, y = run["iteration"], run["relative_test_error"]
            if len(run):
                one.plot(x, y, color=colour, ls=line, lw=1.6, label=f"{label}, Adam")
            if model in best:
                one.axhline(best[model], color=colour, ls=dashes, lw=1, label=f"{label}, NNLS")
            drawn += [*y, *best[best.index == model]]
        one.set(xscale="log", xlabel="iteration of Adam")
    _label_rows(axes, "relative test error")
    if max(drawn) > 4 * min(drawn):  # a narrow range would have no labels on a logarithmic axis
        for one in axes:
            style.logarithmic(one, "y", digits="13")
    style.legend(figure, axes)
    return figure


def hidden_layers(tables: Tables, titles: Titles, plan: Plan) -> Figure | None:
    """Relative test error against hidden layers after the features of the chain (Figures 3, 10)."""
    errors = tables["energy_model_errors"]
    errors = errors[errors["fit"] == "adam"]
    layers = {"bilinear_chain": 0, "mlp1": 1, "mlp2": 2, "mlp3": 3}
    errors = errors[errors["model"].isin(layers) & errors["network"].isin(plan.subjects)]
    errors = errors.assign(layers=errors["model"].map(layers)).sort_values("layers")
    networks = [network for network in plan.subjects if (errors["network"] == network).any()]
    if not networks:
        return None
    figure, axes = style.panels([names.name(network) for network in networks])
    marks = style.marks(list(titles), first="jetson_tx2")
    for one, network in zip(axes, networks, strict=True):
        for platform, frame in errors[errors["network"] == network].groupby("platform"):
            mark = marks[platform]
            one.plot("layers", "relative_test_error", data=frame, label=titles[platform], **mark)
        one.set(xlabel="hidden layers (0: bilinear)", xlim=(-0.3, 3.3), xticks=range(4))
    shown = errors[errors["network"].isin(networks)]["relative_test_error"]
    axes[0].set_ylim(0, 1.1 * shown.max())
    _label_rows(axes, "relative test error")
    style.legend(figure, axes)
    return figure


def accuracy(tables: Tables, titles: Titles, plan: Plan) -> Figure | None:
    """Accuracy against the energy budget, all methods, one panel a platform (Figures 4, 5, 7, 8).

    Of segmentation it is the mean IoU (Table 2). Points are means over seeds, bars their minimum
    and maximum; a line is the dense accuracy.
    """
    runs = from_table(tables["accuracy_at_budget"])
    methods = sorted(runs["method"].unique())  # of all experiments, so that figures share marks
    shown = _panels_of(runs, plan.subjects, "experiment")
    if not shown:
        return None
    figure, axes = style.panels([_dense_title(key, f, titles) for key, f in shown.items()])
    ends = []
    for one, frame in zip(axes, shown.values(), strict=True):
        spread = comparison(frame)
        spread = spread[spread["stage"] == plan.stage]
        metric = frame["metric"].iloc[0]
        unit, scale = style.unit(frame["dense_energy_j"], metric)
        tightest = []
        for rank, (method, mark) in enumerate(style.marks(methods).items()):
            points = spread[spread["method"] == method].sort_values("budget_j")
            if len(points):
                points = points.assign(budget=points["budget_j"] * scale)
                order = 4 - rank / 20
                style.means(one, "budget", points, label=names.name(method), zorder=order, **mark)
                end = points["budget"].iloc[0], points["mean"].iloc[0]
                tightest.append((*end, names.name(method), mark["color"]))
        ends.append(tightest)
        one.axhline(frame["dense_accuracy"].mean(), color="black", lw=0.9, zorder=2)
        one.set_xlabel(f"{WORDS[metric]} budget ({unit})")
        one.xaxis.set_major_locator(MaxNLocator(6))
        one.margins(x=0.08)
    score = next(iter(shown.values()))["score"].iloc[0]
    _label_rows(axes, f"{score} {STAGE_NAMES[plan.stage]}")
    for one, tightest in zip(axes, ends, strict=True):
        style.label_lines(one, tightest, "left")
    return figure


def kept_widths(tables: Tables, titles: Titles, plan: Plan) -> Figure | None:
    """Share of channels that ECC keeps, by channel group, one line a budget (Figures 6 and 11).

    Lines are means over seeds, bands their minimum and maximum.
    """
    widths = tables["widths"]
    widths = widths[widths["method"] == "ecc"].assign(kept=widths["width"] / widths["full_width"])
    run = ["experiment", "platform", "budget_fraction", "seed"]
    widths["position"] = widths.groupby(run).cumcount() + 1
    shown = {
        (subject, platform): frame
        for (subject, platform), frame in _panels_of(widths, plan.subjects, "experiment").items()
        if platform in shown_platforms(plan, _platforms(widths, subject))
    }
    if not shown:
        return None
    figure, axes = style.panels([names.panel_title(key, titles) for key in shown])
    most = 0
    for one, frame in zip(axes, shown.values(), strict=True):
        budgets = sorted(frame["budget_fraction"].unique(), reverse=True)
        for budget, mark in zip(budgets, style.ramp(len(budgets)), strict=True):
            kept = frame[frame["budget_fraction"] == budget].groupby("position")["kept"]
            place = np.array(sorted(kept.groups))
            size = 3.5 if len(place) <= 20 else 2.2
            one.plot(place, kept.mean(), label=f"{budget:.3g}", markersize=size, **mark)
            one.fill_between(place, kept.min(), kept.max(), color=mark["color"], alpha=0.15, lw=0)
        one.set(xlabel="channel group, in forward order", ylim=(0, 1.05))
        one.set_xlim(0.5, frame["position"].max() + 0.5)
        one.xaxis.set_major_locator(MaxNLocator(min(14, frame["position"].max()), integer=True))
        one.legend(
            title="budget / dense energy",
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=min(4, len(budgets)),
            frameon=False,
            handlelength=2.4,
            columnspacing=0.9,
            handletextpad=0.4,
        )
        most = max(most, len(budgets))
    style.make_room(figure, len(axes[::2]) * (1 + -(-most // 4)))
    _label_rows(axes, "width / full width")
    return figure


KINDS: dict[str, Callable[[Tables, Titles, Plan], Figure | None]] = {
    "error_history": error_history,
    "hidden_layers": hidden_layers,
    "accuracy": accuracy,
    "kept_widths": kept_widths,
}


def _panels_of(
    frame: pd.DataFrame, subjects: Iterable[str], column: str
) -> dict[tuple[str, str], pd.DataFrame]:
    """Parts of a table by (subject, platform), subjects in the given order."""
    parts = dict(list(frame.groupby([column, "platform"])))
    return {key: parts[key] for subject in subjects for key in parts if key[0] == subject}


def _platforms(frame: pd.DataFrame, experiment: str) -> list[str]:
    return list(frame.loc[frame["experiment"] == experiment, "platform"].unique())


def _dense_title(key: tuple[str, str], frame: pd.DataFrame, titles: Titles) -> str:
    energy_j = frame["dense_energy_j"].mean()
    unit, scale = style.unit([energy_j], frame["metric"].iloc[0])
    dense = (
        f"black line: dense, {frame['dense_accuracy'].mean():.3f} at {energy_j * scale:.3g} {unit}"
    )
    return f"{names.panel_title(key, titles)}\n{dense}"


def _label_rows(axes: list[Axes], label: str) -> None:
    for one in axes[::2]:
        one.set_ylabel(label)
