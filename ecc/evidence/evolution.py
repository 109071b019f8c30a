"""Tables and figures of evolved networks: how much the best differ, fronts, hypervolume."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecc.evidence import style
from ecc.metrics import pareto

ARMS = {"accuracy": "evolved for accuracy", "energy": "evolved for accuracy and energy"}
COSTS = {
    "energy_j": "energy of one inference (mJ)",
    "parameters": "parameters (thousands)",
    "latency_s": "time of one inference (ms)",
}
MARGINS = (0.01, 0.02, 0.05)  # of accuracy, below the best
SHOWN_MARGIN = 0.05
TABLE_OF = {"spread": "networks", "fronts": "networks", "hypervolume": "history"}


def gather(files: Iterable[str | Path]) -> pd.DataFrame:
    """Tables of arms, whose paths end in {study}/{arm}/seed{seed}/{name}.csv, as one."""
    frames = []
    for file in map(Path, files):
        study, arm, seed = file.parts[-4:-1]
        own = pd.read_csv(file).drop(columns=["arm", "seed"], errors="ignore")
        own.insert(0, "study", study)
        own.insert(1, "arm", arm)
        own.insert(2, "seed", int(seed.removeprefix("seed")))
        frames.append(own)
    return pd.concat(frames, ignore_index=True)


def nearly_as_good(networks: pd.DataFrame) -> pd.DataFrame:
    """How much networks differ whose accuracy is within a margin of the best, for each run.

    `saved_*`: what the most accurate network costs over the cheapest nearly as good;
    `range_*`: the largest over the smallest cost among them. Empty where the best one is alone, and
    where a platform tells no times.
    """
    rows = []
    for (study, arm, seed), run in networks.groupby(["study", "arm", "seed"]):
        best = run.loc[run["accuracy"].idxmax()]
        for margin in MARGINS:
            near = run[run["accuracy"] >= best["accuracy"] - margin - 1e-9]
            row = {"study": study, "arm": arm, "seed": seed, "margin": margin}
            row |= {"networks": len(near), "best_accuracy": best["accuracy"]}
            costs = near if len(near) > 1 else near.iloc[:0]  # of none: NaN
            row |= {f"saved_{cost}": best[cost] / costs[cost].min() for cost in COSTS}
            row |= {f"range_{cost}": costs[cost].max() / costs[cost].min() for cost in COSTS}
            rows.append(row)
    return pd.DataFrame(rows)


def spread(networks: pd.DataFrame, platforms: Mapping[str, str]) -> Figure:
    """Accuracy against energy, size and time of the networks evolved for accuracy alone.

    Those within five points of the most accurate one of their run stand out. Time only where a
    platform tells it.
    """
    costs = {cost: label for cost, label in COSTS.items() if networks[cost].notna().any()}
    shown = networks[networks["arm"] == "accuracy"]
    shown = shown if len(shown) else networks
    best = shown.groupby(["study", "seed"])["accuracy"].transform("max")
    near = shown["accuracy"] >= best - SHOWN_MARGIN - 1e-9
    with style.theme():
        titles = [_told(near_cost(shown[near], cost)) for cost in costs]
        figure, axes = style.panels(titles)
        (colour, other), marker = _colours(2), "o"
        for one, (cost, label) in zip(axes, costs.items(), strict=True):
            for of, paint, text in (
                (~near, "0.75", "other networks"),
                (near, colour, f"within {SHOWN_MARGIN * 100:.0f} points of the best"),
            ):
                part = shown[of]
                one.plot(
                    _scaled(part, cost), part["accuracy"], marker, ms=3, color=paint, label=text
                )
            top = shown.loc[shown.groupby(["study", "seed"])["accuracy"].idxmax()]
            one.plot(
                _scaled(top, cost), top["accuracy"], "*", ms=8, color=other, label="best of a run"
            )
            one.set_xlabel(label)
            values = _scaled(shown, cost)
            wide = values.max() > 1e3 * values.min()
            style.logarithmic(one, "x", digits="1" if wide else "125")
        told = "; ".join(f"{study}: {title}" for study, title in platforms.items())
        figure.suptitle(told, fontsize=8)
        _label(figure, axes, "accuracy on hold-out images")
    return figure


def near_cost(near: pd.DataFrame, cost: str) -> float:
    """Largest over smallest cost among networks nearly as good: the median over runs."""
    values = near.groupby(["study", "seed"])[cost]
    return float((values.max() / values.min()).median())


def fronts(networks: pd.DataFrame, platforms: Mapping[str, str]) -> Figure:
    """Error against energy of all networks, and the Pareto front of each arm over its seeds."""

    def draw(one: Axes, part: pd.DataFrame, label: str, mark: dict[str, Any]) -> None:
        energy_mj, error = part["energy_j"] * 1e3, 1 - part["accuracy"]
        one.plot(energy_mj, error, mark["marker"], ms=2, alpha=0.25, color=mark["color"])
        front = part[pareto(part)].sort_values("energy_j")
        x, y = front["energy_j"] * 1e3, 1 - front["accuracy"]
        one.plot(x, y, drawstyle="steps-post", label=label, **mark)
        one.set_xlabel(COSTS["energy_j"])
        style.logarithmic(one, "x")

    return _by_arm(networks, draw, "error on hold-out images", platforms)


def hypervolume(history: pd.DataFrame, platforms: Mapping[str, str]) -> Figure:
    """Hypervolume of (error, energy) along the generations: means over seeds, and their range."""

    def draw(one: Axes, part: pd.DataFrame, label: str, mark: dict[str, Any]) -> None:
        values = part.groupby("generation")["hypervolume"]
        place = list(values.groups)
        one.plot(place, values.mean(), label=label, **mark)
        lowest, highest = values.min(), values.max()
        one.fill_between(place, lowest, highest, color=mark["color"], alpha=0.15, lw=0)
        one.set_xlabel("generation")

    return _by_arm(history, draw, "hypervolume", platforms)


FIGURES: dict[str, Callable[[pd.DataFrame, Mapping[str, str]], Figure]] = {
    "spread": spread,
    "fronts": fronts,
    "hypervolume": hypervolume,
}


def _by_arm(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame, str, dict[str, Any]], None],
    label: str,
    platforms: Mapping[str, str],
) -> Figure:
    """One panel a study, in which `draw` (axes, rows, label, mark) draws each arm that it has."""
    studies = sorted(table["study"].unique())
    with style.theme():
        figure, axes = style.panels([f"{study}: {platforms[study]}" for study in studies])
        for one, study in zip(axes, studies, strict=True):
            for arm, mark in style.marks(list(ARMS), first="accuracy").items():
                part = table[(table["study"] == study) & (table["arm"] == arm)]
                if len(part):
                    draw(one, part, ARMS[arm], mark)
        _label(figure, axes, label)
    return figure


def _told(ratio: float) -> str:
    return f"nearly as good: {ratio:.1f}x from least to most"


def _scaled(frame: pd.DataFrame, cost: str) -> "pd.Series[float]":
    return frame[cost] / 1e3 if cost == "parameters" else frame[cost] * 1e3


def _colours(count: int) -> list[str]:
    return [mark["color"] for mark in style.marks([str(i) for i in range(count)]).values()]


def _label(figure: Figure, axes: list[Axes], label: str) -> None:
    for one in axes[::2]:
        one.set_ylabel(label)
    style.legend(figure, axes)
