"""What drifts is divided out, and what is left is told: the repeatability of a campaign."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.measuring.journal import metric_of

Array = NDArray[np.float64]

BANDWIDTH = 1.5  # of the Gaussian weights, in distances of two references
# Noise of 0.5 % against slopes of 5 % and curvatures of 2 % in a bandwidth, squared.
PRIOR = np.diag([0.0, 0.01, 0.06])
CHUNK = 2000  # windows at a time: memory is this times the number of references


def corrected(windows: pd.DataFrame, baseline: int = 5) -> pd.DataFrame:
    """The windows of a journal with a column more, energy_j (or latency_s), without the drift.

    energy_j = raw x baseline / reference: the reference is a smooth curve through the reference
    windows of each segment, the baseline the mean of the first `baseline` ones of the campaign.
    It is a factor, as the gain of a sensor is: of a drift in watts, such as leakage, a network with
    another power than the reference keeps a part.

    The curve is a local parabola with Gaussian weights. Of simulated campaigns (windows of 1.35
    and 3 s with noise 0.42 %, gains that rise by 0 to 10 % in exponentials of 60 s, and loads that
    heat), a line from reference to reference left a standard deviation of 0.44 to 0.57 %: the
    noise of two references is added to every sample. Local lines left less where little drifts,
    but erred by over 1 % at the begin of the steepest; parabolas left 0.42 to 0.55 % (one of twelve
    cases 0.62 %) with half that error. Before the first and after the last reference of a segment,
    which may have been killed, the curve stays as it is there.

    Raises UserError for a segment without a reference.
    """
    metric = metric_of(windows)
    raw = windows[f"raw_{metric}"].to_numpy(dtype=np.float64)
    curve = np.empty(len(windows))
    for segment, rows in windows.groupby("segment").indices.items():
        times, references = _references(windows.iloc[rows])
        if not len(times):
            raise UserError(
                f"segment {segment} of the windows has no reference: delete its lines, and measure "
                "their samples again"
            )
        seconds = windows["started_s"].to_numpy(dtype=np.float64)[rows]
        curve[rows] = _curve(seconds, times, references, _spacing(windows.iloc[rows]))
    return windows.assign(**{metric: raw * _baseline(windows, baseline) / curve})


def repeatability(windows: pd.DataFrame, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What a campaign says of its own precision; None where it cannot be told.

    repeatability is the standard deviation of one sample, a part of one: that of the relative
    differences of blind repeats (at least 3), over the root of 2; reference_spread that of the
    reference network, `_corrected` by the curve through the other references. drift is the range
    of the curve through all of them. All of this says nothing of the sensor's accuracy.
    `provenance` is what `campaign.json` holds.
    """
    settings, segments = provenance["settings"], provenance["segments"]
    if windows.empty:
        return {"samples": 0, "windows": 0, "repeats": 0}
    metric = metric_of(windows)
    whole = corrected(windows, settings["baseline"])
    first, second = _pairs(whole)
    kinds = whole["kind"]
    drifting = references(windows, settings["baseline"])
    own = whole[kinds == "reference"]
    curve = own[f"raw_{metric}"] / own[metric]  # over the baseline
    return {
        "samples": int((kinds == "sample").sum()),
        "windows": len(whole),
        "references": len(drifting),
        "repeats": len(first),
        "repeatability": _difference(first[metric], second[metric]),
        "repeatability_raw": _difference(first[f"raw_{metric}"], second[f"raw_{metric}"]),
        "reference_spread": _deviation(drifting["raw"] / drifting["raw"].mean()),
        "reference_spread_corrected": _deviation(drifting["corrected"].dropna()),
        "drift": float(curve.max() - curve.min()),
        "period_s": [segment.get("period_s") for segment in segments],
        "cross_check": [segment.get("cross_check") for segment in segments],
        "idle_power_w": [segment.get("idle_power_w") for segment in segments],
        "temperature_c": _range(whole["temperature_c"]),
        "clock_mhz": _range(whole["clock_mhz"]),
        "throttled_windows": int((whole["attempts"] - 1)[whole["throttled"] != ""].sum()),
        "capped": float(whole["capped"].astype(float).mean()),
        "samples_per_hour": _pace(whole),
        "metric": metric,
        "batch": provenance["batch"],
        "sensor": provenance["sensor"],
        "device": provenance["device"],
        "driver": provenance.get("meter", {}).get("driver"),
    }


def references(windows: pd.DataFrame, baseline: int = 5) -> pd.DataFrame:
    """The reference windows, relative to the baseline, one row each, in the order of time.

    segment, started_s, raw, and corrected: by the curve through the others of its segment, as a
    window cannot tell how well it corrects itself; NaN where these are fewer than two.
    """
    parts = []
    for segment, rows in windows.groupby("segment"):
        times, values = _references(rows)
        curve = np.full(len(times), np.nan)
        if len(times) > 2:
            curve = _curve(times, times, values, _spacing(rows), leave_out=True)
        relative = values / _baseline(windows, baseline)
        columns = {"segment": segment, "started_s": times, "raw": relative}
        parts.append(pd.DataFrame({**columns, "corrected": values / curve}))
    return pd.concat(parts, ignore_index=True)


def _references(windows: pd.DataFrame) -> tuple[Array, Array]:
    """Seconds and values of the reference windows, in the order of time."""
    rows = windows[windows["kind"] == "reference"].sort_values("window")
    values = rows[["started_s", f"raw_{metric_of(windows)}"]].to_numpy(dtype=np.float64)
    return values[:, 0], values[:, 1]


def _baseline(windows: pd.DataFrame, count: int) -> float:
    return float(_references(windows)[1][:count].mean())


def _spacing(windows: pd.DataFrame) -> float:
    """Seconds from one reference to the next that has samples before it; 1 where none has."""
    rows = windows.sort_values("window")
    is_reference = (rows["kind"] == "reference").to_numpy()
    seconds = rows["started_s"].to_numpy(dtype=np.float64)[is_reference]
    gaps = np.diff(seconds)[np.diff(np.flatnonzero(is_reference)) > 1]
    return float(np.median(gaps)) if len(gaps) else 1.0


def _curve(
    seconds: Array, times: Array, values: Array, spacing: float, *, leave_out: bool = False
) -> Array:
    """The smooth curve through references `values` at `times`, both (references,), at `seconds`.

    Least squares with a prior on slope and curvature, which few references leave open.
    `leave_out`: without the reference at that very moment.
    """
    if len(seconds) > CHUNK:
        parts = np.array_split(seconds, -(-len(seconds) // CHUNK))
        curves = [_curve(part, times, values, spacing, leave_out=leave_out) for part in parts]
        return np.concatenate(curves)
    mean = values.mean()
    distance = times - np.clip(seconds, times[0], times[-1])[:, None]
    # After a long pause the two nearest references still count.
    nearest = np.partition(np.abs(distance), min(1, len(times) - 1), axis=1)
    width = np.maximum(BANDWIDTH * spacing, nearest[:, min(1, len(times) - 1)])
    scaled = distance / width[:, None]
    weights = np.exp(-0.5 * scaled**2)
    if leave_out:
        weights = np.where(distance == 0, 0.0, weights)
    powers = [np.ones_like(scaled), scaled, scaled**2]
    matrix = np.stack([(weights * a * b).sum(axis=1) for a in powers for b in powers], axis=1)
    vector = np.stack([(weights * a) @ (values / mean - 1) for a in powers], axis=1)
    fitted = np.linalg.solve(matrix.reshape(-1, 3, 3) + PRIOR, vector[:, :, None])
    curve: Array = mean * (1 + fitted[:, 0, 0])
    return curve


def _pairs(windows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples and their repeats, row by row: windows of the same widths, in the order of each."""
    keys = [column for column in windows if str(column).startswith("width_")]
    parts = []
    for kind in ("sample", "repeat"):
        rows = windows[windows["kind"] == kind].sort_values("window")
        parts.append(rows.set_index([*(rows[key] for key in keys), rows.groupby(keys).cumcount()]))
    both = parts[1].index.intersection(parts[0].index)
    return parts[0].loc[both], parts[1].loc[both]


def _difference(first: "pd.Series[float]", second: "pd.Series[float]") -> float | None:
    """The mean of the differences is no noise: drift that is left would be hidden by taking it."""
    one, other = first.to_numpy(dtype=np.float64), second.to_numpy(dtype=np.float64)
    if len(one) < 3:
        return None
    relative = 2 * (other - one) / (other + one)
    return float(np.sqrt((relative**2).mean() / 2))


def _deviation(values: "pd.Series[float]") -> float | None:
    return float(values.std()) if len(values) >= 3 else None


def _range(values: "pd.Series[float]") -> list[float] | None:
    known = values.dropna()
    return [float(known.min()), float(known.max())] if len(known) else None


def _pace(windows: pd.DataFrame) -> float | None:
    """Samples an hour, everything between the windows of a segment included."""
    spans = windows.groupby("segment")["started_s"].agg(lambda times: times.max() - times.min())
    samples = int((windows["kind"] == "sample").sum())
    return samples / float(spans.sum()) * 3600 if spans.sum() > 0 else None
