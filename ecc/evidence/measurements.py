"""What measuring leaves to be seen: repeatability, drift, and a device's staircase of widths."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ecc.evidence import names, style
from ecc.metrics import WORDS

Key = tuple[str, str]  # platform, network
REPEATABILITY = [
    *("platform", "network", "metric", "device", "sensor", "driver", "batch", "samples"),
    *("windows", "references", "repeats", "repeatability", "repeatability_raw"),
    *("reference_spread", "reference_spread_corrected", "drift", "period_s", "cross_check"),
    *("idle_power_w", "temperature_c", "clock_mhz", "throttled_windows", "capped"),
    "samples_per_hour",
]


def repeatability(found: Mapping[Key, Mapping[str, Any]]) -> pd.DataFrame:
    """One row a campaign, from `ecc.measuring.drift.repeatability`; lists become text."""
    rows = [
        {"platform": platform, "network": network, **{k: _text(v) for k, v in values.items()}}
        for (platform, network), values in sorted(found.items())
    ]
    return pd.DataFrame(rows, columns=REPEATABILITY)


def drift(references: Mapping[Key, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """The reference network over a campaign, before and after its drift is divided out.

    `references` as `ecc.measuring.drift.references` gives them. After: every window is corrected by
    the curve through the others, so that it does not correct itself.
    """
    with style.theme():
        figure, axes = style.panels([_title(key, titles) for key in references], share_y=False)
        marks = style.marks(["before", "after"], first="before")
        for one, frame in zip(axes, references.values(), strict=True):
            longest_s = frame["started_s"].max()
            unit, scale = ("h", 3600) if longest_s > 7200 else ("min", 60)
            for when, column in (("before", "raw"), ("after", "corrected")):
                mark = {**marks[when], "markersize": 2.5}
                percent = 100 * (frame[column] - 1)
                one.plot(frame["started_s"] / scale, percent, label=f"{when} correction", **mark)
            one.axhline(0, color="black", lw=0.6, zorder=1)
            one.set(xlabel=f"time ({unit})", ylabel="off its start (%)")
        style.legend(figure, axes)
    return figure


def staircase(sweeps: Mapping[Key, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Energy (or latency) of networks in which one channel group has every width in turn."""
    shown = {
        (platform, network, group): rows
        for (platform, network), frame in sweeps.items()
        for group, rows in frame.groupby("group")
    }
    with style.theme():
        headings = [f"{_title(key[:2], titles)}\ngroup {key[2]}" for key in shown]
        figure, axes = style.panels(headings, share_y=False)
        for one, rows in zip(axes, shown.values(), strict=True):
            metric = rows["metric"].iloc[0]
            unit, scale = style.unit(rows["energy_j"], metric)
            one.plot(rows["width"], rows["energy_j"] * scale, lw=0.9)
            one.set(xlabel="width", ylabel=f"{WORDS[metric]} ({unit})", xlim=(0, None))
    return figure


def _title(key: Key, titles: Mapping[str, str]) -> str:
    platform, network = key
    return f"{names.name(network)}, {titles[platform]}"


def _text(value: Any) -> Any:
    """Lists as 0.1 or 0.1 .. 0.2: a column holds one value."""
    if not isinstance(value, list):
        return value
    known = [f"{entry:.4g}" for entry in value if entry is not None]
    return " .. ".join(dict.fromkeys(known))
