"""How figures look: sizes, marks that are told apart in grey, files of the same bytes."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ecc.metrics import UNITS
from ecc.runs import temporary

COLUMN_IN, PAGE_IN, ROW_IN, ENTRY_IN = 3.35, 6.9, 2.2, 0.17
# Of a panel, and of letters and lines of the text in it.
PANEL_IN, LETTER_IN, LINE_IN = (2.75, 1.4), 0.052, 0.115
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (1, 2.5)),
    (0, (8, 1, 2, 1)),
    (0, (2, 2)),
    (0, (4, 4)),
)
# The light colours of the palette come last: thin lines in them are hard to see on white.
COLOURS = (0, 1, 2, 3, 4, 5, 7, 9, 6, 8)


def theme() -> AbstractContextManager[None]:
    """Settings in which a figure must be made and saved."""
    sizes = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 8.0)
    sizes |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7.5)
    lines = {"lines.linewidth": 1.2, "lines.markersize": 4.5, "axes.linewidth": 0.7}
    ticks = {f"{axis}tick.{part}": 0.6 for axis in "xy" for part in ("major.width", "minor.width")}
    ticks |= {"xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 2}
    files = {"pdf.fonttype": 42, "savefig.dpi": 300, "svg.hashsalt": "ecc"}
    base = {key: mpl.rcParamsDefault[key] for key in mpl.rcParams if "backend" not in key}
    grid = sns.axes_style("whitegrid", {"xtick.bottom": True, "grid.color": "0.9"})
    settings: Any = {**base, **grid, **sizes, **lines, **ticks, **files}
    context: AbstractContextManager[None] = mpl.rc_context(settings)
    return context


def panels(
    titles: Sequence[str], share_y: bool | Literal["row"] = True
) -> tuple[Figure, list[Axes]]:
    """One panel a title: alone at column width, else two abreast at page width."""
    columns = min(len(titles), 2)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=((COLUMN_IN, PAGE_IN)[columns - 1], rows * ROW_IN))
    figure.set_layout_engine("constrained", w_pad=0.06)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel()
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title)
    for axes in grid[len(titles) :]:
        axes.remove()
    return figure, list(grid[: len(titles)])


def means(axes: Axes, x: str, table: pd.DataFrame, **kind: Any) -> None:
    """A line through `mean` along column `x`, with bars from `min` to `max`."""
    spread = [table["mean"] - table["min"], table["max"] - table["mean"]]
    axes.errorbar(table[x], table["mean"], yerr=spread, capsize=2, elinewidth=0.8, **kind)


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend below all panels, every label once, in as many columns as fit."""
    entries: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    longest = max(map(len, entries))
    columns = min(len(entries), max(1, int(figure.get_figwidth() * 16 / (longest + 7))))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=2.8,
    )
    make_room(figure, -(-len(entries) // columns))


def label_lines(
    axes: Axes, ends: Sequence[tuple[float, float, str, Any]], side: Literal["left", "right"]
) -> None:
    """Names lines at their ends (x, y, name, colour), beside the data and clear of each other.

    To be called once all panels that share an axis are drawn.
    """
    (first, last), (low, high) = axes.get_xlim(), axes.get_ylim()
    ticks = [tick for tick in axes.get_xticks() if first <= tick <= last]
    share = LETTER_IN * (max(len(name) for _, _, name, _ in ends) + 2) / PANEL_IN[0]
    room = (last - first) * share / (1 - share)
    axes.set_xlim(*((first - room, last) if side == "left" else (first, last + room)))
    axes.set_xticks(ticks)  # none where no data are
    ordered = sorted(ends, key=lambda end: end[1])
    places = _apart([(y - low) / (high - low) for _, y, _, _ in ordered], LINE_IN / PANEL_IN[1])
    for (x, y, name, colour), place in zip(ordered, places, strict=True):
        darker = [0.75 * part for part in to_rgb(colour)]  # pink on white is hard to read
        axes.annotate(
            name,
            (x, y),
            (share - 0.03 if side == "left" else 1 - share + 0.03, place),
            textcoords="axes fraction",
            ha="right" if side == "left" else "left",
            va="center",
            fontsize=7,
            color=darker,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (1 if side == "left" else 0, 0.5),
            },
        )


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places of an axes, moved so that they are `gap` apart, in clusters about the mean
    of their own, and inside while there is room.
    """
    clusters: list[list[float]] = []
    for place in places:
        clusters.append([place])
        while len(clusters) > 1:
            below, above = map(_around_mean, clusters[-2:], [gap] * 2)
            if above[0] - below[-1] >= gap - 1e-9:
                break
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    moved = [place for cluster in clusters for place in _around_mean(cluster, gap)]
    floor, ceiling = gap / 2, 1 - gap / 2
    for index, place in enumerate(moved):
        moved[index] = max(place, floor)
        floor = moved[index] + gap
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved


def _around_mean(places: Sequence[float], gap: float) -> list[float]:
    middle = sum(places) / len(places)
    return [middle + (index - (len(places) - 1) / 2) * gap for index in range(len(places))]


def make_room(figure: Figure, entries: int) -> None:
    """Lengthens a figure by some rows of a legend, so that the panels keep their height."""
    figure.set_figheight(figure.get_figheight() + ENTRY_IN * entries)


def marks(keys: Collection[str], first: str = "ecc") -> dict[str, dict[str, Any]]:
    """Colour, marker and line style of each key: `first` in front, the others in their order."""
    ordered = sorted(keys, key=lambda key: key != first)
    palette = sns.color_palette("colorblind", 10)
    return {
        key: {
            "color": palette[COLOURS[i % len(COLOURS)]],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": DASHES[i % len(DASHES)],
        }
        for i, key in enumerate(ordered)
    }


def ramp(count: int) -> list[dict[str, Any]]:
    """Marks for an ordered quantity, from dark to light."""
    palette = sns.color_palette("viridis", count + 1)[:count] if count > 1 else ["black"]
    return [
        {"color": palette[i], "marker": MARKERS[i % 10], "linestyle": DASHES[i % 10]}
        for i in range(count)
    ]


def logarithmic(axes: Axes, *directions: str, digits: str = "125") -> None:
    """Logarithmic scales (`directions`: x, y) with labels such as 0.5 and 20, not powers of ten.

    Labelled are the ticks that begin with one of `digits`.
    """

    def text(value: float, _: object) -> str:
        return f"{value:g}" if f"{value:e}"[0] in digits else ""

    for direction in directions:
        axes.set(**{f"{direction}scale": "log"})
        axis = getattr(axes, f"{direction}axis")
        axis.set_major_formatter(FuncFormatter(text))
        axis.set_minor_formatter(FuncFormatter(text))


def unit(values: Iterable[float], metric: str = "energy_j") -> tuple[str, float]:
    """Thousandths below one joule or second: the unit, and what values are multiplied with."""
    whole = UNITS[metric]
    return (f"m{whole}", 1e3) if max(values) < 1 else (whole, 1.0)


def save(figure: Figure, *paths: str | Path) -> None:
    """Writes PNG (300 dpi) or PDF by suffix, without dates: the same figure has the same bytes."""
    none = {
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    for path in map(Path, paths):
        with temporary(path) as draft, theme():
            figure.savefig(draft, format=path.suffix[1:], metadata=none[path.suffix])
