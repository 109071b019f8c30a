"""Energy of dense networks by layer and data type, and networks compared (EAP, CVPR 2017)."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ecc.evidence import names, style

PARTS = {
    "inputs_energy_mac": "inputs",
    "weights_energy_mac": "weights",
    "outputs_energy_mac": "partial sums and outputs",
    "macs_energy_mac": "MACs",
}
PUBLISHED = {  # quantity in the published values: column here
    "nonzero_weights": "weights",
    "nonskipped_macs": "non_skipped_macs",
    "normalized_energy": "energy_mac",
}


def networks(layers: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """One row a network: sums over its layers, beside what EAP states of the dense network.

    `convolution_fraction` is the part of the energy that is not of fully connected layers;
    `energy_over_first` is relative to the first network. Networks are matched by name.
    """
    sums = [*PUBLISHED.values(), "macs", "dense_energy_mac", *PARTS]
    frame = layers.groupby("network", sort=False)[sums].sum()
    linear = layers[layers["kind"] == "linear"].groupby("network")["energy_mac"].sum()
    frame["convolution_fraction"] = 1 - linear.reindex(frame.index).fillna(0) / frame["energy_mac"]
    frame["energy_over_first"] = frame["energy_mac"] / frame["energy_mac"].iloc[0]
    stated = published.query("source == 'EAP' and method == 'dense'")
    stated = stated.pivot(index="network", columns="quantity", values="value").astype(float)
    stated = stated.reindex(index=frame.index, columns=list(PUBLISHED))
    for quantity, column in PUBLISHED.items():
        frame[f"published_{column}"] = stated[quantity]
    known = frame["published_energy_mac"]
    frame["relative_difference"] = frame["energy_mac"] / known - 1
    frame["published_energy_over_first"] = known / known.iloc[0]
    return frame.map(lambda value: float(f"{value:.12g}")).reset_index()


def draw_layers(layers: pd.DataFrame, title: str) -> Figure:
    """Energy of every layer by data type, as parts of the network's; a panel a network."""
    shown = list(layers["network"].unique())
    with style.theme():
        figure, axes = style.panels([names.name(name) for name in shown], share_y=False)
        for one, name in zip(axes, shown, strict=True):
            own = layers[layers["network"] == name].reset_index(drop=True)
            _stack(one, own, own["energy_mac"].sum())
            one.set_xlabel("layer, in forward order")
            one.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            one.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for one in axes[::2]:
            one.set_ylabel("part of the network's energy")
        figure.suptitle(title, fontsize=8)
        style.legend(figure, axes)
    return figure


def draw_networks(table: pd.DataFrame, title: str) -> Figure:
    """Energy against weights, with the published values, and what convolutions take of it."""
    with style.theme():
        figure, (cloud, bars) = style.panels(
            ["energy and weights", "energy by kind of layer"], False
        )
        colours = sns.color_palette("colorblind", 10)
        for source, marker, face, label in (
            ("", "o", colours[0], "estimated here"),
            ("published_", "D", "none", "published by EAP"),
        ):
            x, y = table[f"{source}weights"] / 1e6, table[f"{source}energy_mac"] / 1e9
            cloud.plot(x, y, marker, color=colours[0], markerfacecolor=face, label=label)
        for row in table.itertuples():
            cloud.annotate(
                names.name(row.network),
                (row.weights / 1e6, row.energy_mac / 1e9),
                (0, -9),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        cloud.set(xlabel="weights (millions)", ylabel="energy (of $10^9$ MACs)")
        style.logarithmic(cloud, "x", "y")
        cloud.margins(0.2)
        place, part = range(len(table))[::-1], table["convolution_fraction"]
        bars.barh(place, part, color=colours[2], label="convolutions")
        bars.barh(place, 1 - part, left=part, color=colours[1], label="fully connected layers")
        for y, value in zip(place, part, strict=True):
            bars.text(value / 2, y, f"{value:.1%}", ha="center", va="center", color="white")
        bars.set_yticks(place, [names.name(name) for name in table["network"]])
        bars.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        bars.set_xlabel("part of the network's energy")
        bars.grid(visible=False, axis="y")
        figure.suptitle(title, fontsize=8)
        style.legend(figure, [cloud, bars])
    return figure


def _stack(axes: Axes, layers: pd.DataFrame, total: float) -> None:
    """Bars of parts of `total`; fully connected layers have a grey ground."""
    base, place = pd.Series(0.0, index=layers.index), layers.index + 1
    for (part, label), colour in zip(
        PARTS.items(), sns.color_palette("colorblind", len(PARTS)), strict=True
    ):
        height = layers[part] / total
        axes.bar(place, height, bottom=base, width=0.8, color=colour, label=label, lw=0)
        base = base + height
    for row in layers.index[layers["kind"] == "linear"]:
        axes.axvspan(row + 0.5, row + 1.5, color="0.9", lw=0, zorder=0, label="fully connected")
    axes.set_xlim(0.4, len(layers) + 0.6)
    axes.grid(visible=False, axis="x")
