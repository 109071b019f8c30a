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
METHODS = ("dense", "deep_compression", "eap")
LABELS = {  # of an energy and a method of the table of results
    ("here_energy_mac", "dense"): "dense, energy as estimated here",
    ("energy_mac", "dense"): "dense, as published by EAP",
    ("energy_mac", "deep_compression"): "Deep Compression, as published by EAP",
    ("energy_mac", "eap"): "EAP, as published",
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


def results(
    networks: pd.DataFrame, published: pd.DataFrame, accuracies: pd.DataFrame
) -> pd.DataFrame:
    """EAP's table of results, one row a network and method, and what is estimated here beside it.

    `top5` (fraction) and its source; weights, MACs and energy as published, each also as part of
    the network's dense one; `here_` of `networks` (`networks()`), for dense networks alone.
    `accuracies`: network, top5, source, for networks of which EAP states none.
    """
    stated = published[(published["source"] == "EAP") & published["method"].isin(METHODS)]
    stated = stated.pivot(index=["network", "method"], columns="quantity", values="value")
    stated = stated.reindex(columns=["top5", *PUBLISHED]).astype(float).rename(columns=PUBLISHED)
    dense = pd.MultiIndex.from_product([networks["network"], ["dense"]], names=stated.index.names)
    rows = [
        key
        for network in networks["network"]
        for key in ((network, method) for method in METHODS)
        if key in stated.index or key in dense
    ]
    frame = stated.reindex(pd.MultiIndex.from_tuples(rows, names=stated.index.names))
    frame.insert(1, "top5_source", frame["top5"].notna().map({True: "EAP poster", False: ""}))
    for row in accuracies.itertuples():
        if (row.network, "dense") in rows:
            frame.loc[(row.network, "dense"), ["top5", "top5_source"]] = [row.top5, row.source]
    for column in PUBLISHED.values():
        whole = frame[column].xs("dense", level="method").reindex(frame.index, level="network")
        frame[f"{column}_fraction"] = frame[column] / whole
        here = networks.set_index("network")[column].reindex(frame.index, level="network")
        frame[f"here_{column}"] = here.where(frame.index.isin(dense))
    return frame.reset_index()


def draw_results(table: pd.DataFrame, title: str) -> Figure:
    """Top-5 accuracy against energy: as published, dense and pruned, and as estimated here."""
    with style.theme():
        figure, (axes,) = style.panels([title])
        for (column, method), mark in zip(
            LABELS, style.marks(list(LABELS.values())).values(), strict=True
        ):
            own = table[(table["method"] == method) & table[column].notna()]
            label, kind = LABELS[column, method], {**mark, "linestyle": "none"}
            axes.plot(own[column] / 1e9, own["top5"], label=label, **kind)
        for network, own in table.groupby("network", sort=False):
            known = own.dropna(subset="energy_mac").sort_values("energy_mac")
            axes.plot(known["energy_mac"] / 1e9, known["top5"], color="0.6", lw=0.8, zorder=1)
            x = own[["energy_mac", "here_energy_mac"]].stack() / 1e9
            axes.annotate(
                names.name(network),
                ((x.min() * x.max()) ** 0.5, own["top5"].max()),
                (0, 7 if len(known) > 1 else -12),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        axes.set(xlabel="energy (of $10^9$ MACs)", ylabel="top-5 accuracy, published")
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        style.logarithmic(axes, "x")
        axes.margins(0.15, 0.2)
        style.legend(figure, [axes])
    return figure


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
