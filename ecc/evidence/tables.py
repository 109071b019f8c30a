"""Tidy tables from the files that runs leave: sorted, and the same bytes from the same files.

Floats are rounded to 8 significant digits, beyond what is measured and short of what a different
order of summation changes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from ecc import runs
from ecc.errors import UserError
from ecc.metrics import UNITS, from_file, from_table, to_table

ACCURACY = [
    *("experiment", "network", "dataset", "platform", "method", "budget_fraction", "budget_j"),
    *(
        "limits",
        "seed",
        "score",
        "dense_energy_j",
        "dense_accuracy",
        "accuracy_before_finetuning",
        "accuracy",
    ),
    *("modelled_energy_j", "measured_energy_j", "within_budget", "iterations"),
]
VERIFIED = ["modelled_energy_j", "measured_energy_j", "within_budget"]
ERRORS = [
    *("platform", "network", "model", "fit", "relative_test_error"),
    *("train_samples", "test_samples"),
]
HISTORY = ["platform", "network", "model", "fit", "iteration", "relative_test_error"]
RESIDUALS = [
    *("platform", "network", "model", "fit", "group", "width_from", "width_to"),
    *("samples", "mean_relative_residual"),
]
ANCHORS = ["platform", "network", "published_j", "ours_j", "relative_difference"]
WIDTHS = [
    *("experiment", "network", "platform", "method", "budget_fraction", "limits", "seed"),
    *("group", "width", "full_width"),
]
COMPARISON = [
    *("experiment", "platform", "budget_fraction", "budget_j", "limits", "stage", "method"),
    *("score", "seeds", "mean", "std", "min", "max", "minus_ecc"),
]
CLOSING = [
    *("experiment", "platform", "method", "budget_fraction", "limits", "seed", "budget_j"),
    *("closed_on", "unit", "limit", "rounds", "first_measured", "last_measured", "closed"),
    *("holdout_accuracy_before", "holdout_accuracy_after", "channels_dropped"),
]
EQUAL_TERMS = [
    *("experiment", "platform", "method", "runs", "iterations", "images_seen", "evaluations"),
    *("images_evaluated", "seconds", "peak_memory_mb", "peak_gpu_memory_mb"),
    *("accuracy", "hardware"),
]
LIMITS = [
    *("experiment", "platform", "method", "budget_fraction", "limits", "seed", "budget_j"),
    *("modelled_energy_j", "measured_energy_j", "limited", "limit", "modelled", "measured"),
    *("within_limit", "accuracy"),
]
TIMINGS = ["what", "seconds", "peak_memory_mb", "hardware"]
STAGES = {
    "before_finetuning": "accuracy_before_finetuning",
    "after_finetuning": "accuracy",
}
RUN = ["experiment", "network", "platform", "method", "budget_fraction", "limits", "seed"]
NO_LIMITS = "none"
NOT_REPRODUCIBLE = "(wall clock, not reproducible)"

Paths = Iterable[str | Path]


def accuracy_at_budget(metrics: Paths) -> pd.DataFrame:
    """One row a run, from the metrics.json of fine-tuned networks and the energy.json beside them.

    Raises UserError for a run that is missing, there twice, or without a finite number.
    """
    rows = [
        {**run, **_json(file, ["modelled_energy_j"])} for file, run in _verified(metrics).items()
    ]
    return to_table(tidy(pd.DataFrame(rows), [*ACCURACY, "metric"], RUN))


def table_01(methods: Path | str, accuracies: pd.DataFrame) -> pd.DataFrame:
    """Methods as ECC's Table 1 compares them, from the text beside it (`methods`, a CSV file).

    `networks` counts those of this run, which spends an energy budget by every method, whatever
    its authors constrain. The name of a method is that of its entry in the configuration.
    """
    frame = pd.read_csv(methods)
    counts = accuracies.groupby("method").size().reindex(frame["method"], fill_value=0)
    return frame.assign(networks=counts.to_numpy())


def widths(metrics: Paths) -> pd.DataFrame:
    """One row a run and channel group; the groups of a run stay in forward order."""
    rows = [{**run, **_group(group)} for run in _runs(metrics) for group in run["groups"]]
    return tidy(pd.DataFrame(rows, columns=WIDTHS), WIDTHS, RUN)


def comparison(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Methods at every budget before and after fine-tuning, from `accuracy_at_budget`.

    Mean, sample standard deviation (none for one seed), minimum and maximum over the seeds;
    `minus_ecc` is the mean less ECC's at the same budget (none where ECC did not run).
    """
    where = [
        "experiment",
        "platform",
        "budget_fraction",
        "budget_j",
        "limits",
        "metric",
        "score",
        "stage",
    ]
    accuracies = from_table(accuracies)
    long = accuracies.rename(columns={column: stage for stage, column in STAGES.items()}).melt(
        [*where[:-1], "method"], list(STAGES), "stage", "value"
    )
    spread = long.groupby([*where, "method"])["value"].agg(
        seeds="count", mean="mean", std="std", min="min", max="max"
    )
    frame = spread.reset_index()
    ecc = frame[frame["method"] == "ecc"].set_index(where)["mean"].rename("ecc")
    frame = frame.join(ecc, on=where)
    # The accuracies are rounded already: no digits that a mean of them does not have.
    frame["minus_ecc"] = (frame["mean"] - frame["ecc"]).round(8)
    return to_table(tidy(frame, [*COMPARISON, "metric"], [*where, "method"]))


def table_02(compared: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 2 from `comparison`: mean IoU of ERFNet after fine-tuning, over the seeds.

    A row for each method, a column for each platform and budget, the widest first, and beside each
    what the paper has (`paper_`, from paper_values.csv) at its own budget of the same rank: those
    are of other widths and images, so that joules and IoUs differ.
    """
    found = from_table(compared)
    found = found[(found["experiment"] == "erfnet") & (found["stage"] == "after_finetuning")]
    found = found[found["limits"] == NO_LIMITS]
    theirs = published[(published["source"] == "ECC") & (published["experiment"] == "table2")]
    at = theirs["quantity"].str.extract(r"mean_iou_at_(.+)_J$")[0]
    theirs = theirs.assign(budget_j=at.astype(float)).dropna(subset="budget_j")
    columns: dict[str, pd.Series[float]] = {}
    for platform, part in found.groupby("platform"):
        unit = UNITS[part["metric"].iloc[0]]
        ours = _by_budget(part, f"{platform}_{{:.6g}}_{unit}", "mean")
        paper = theirs[theirs["platform"] == platform]
        beside = _by_budget(paper, f"paper_{platform}_{{:.6g}}_J", "value")
        for pair in zip_longest(ours, beside):
            columns |= dict(one for one in pair if one is not None)
    return pd.DataFrame(columns).rename_axis("method").reset_index()


def unlimited(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of budgets without limits; all of them where each budget has some."""
    plain = frame["limits"] == NO_LIMITS
    return frame[plain] if plain.any() else frame


def _by_budget(frame: pd.DataFrame, name: str, value: str) -> list[tuple[str, "pd.Series[float]"]]:
    """`value` of the methods at each budget, the widest first, by a name that tells it."""
    budgets = frame.sort_values("budget_j", ascending=False).groupby("budget_j", sort=False)
    return [(name.format(budget), cell.set_index("method")[value]) for budget, cell in budgets]


def closing(metrics: Paths) -> pd.DataFrame:
    """One row for every budget of a run that was closed by measurement before fine-tuning.

    `closed_on` is the platform of the budget, or of one of its limits, and `limit` its value;
    `rounds` is how often the network was narrowed for it, and `closed` whether the last
    measurement, with two standard errors, is inside; empty where the platform could not measure.
    What all rounds of the run cost is on each of its rows: `holdout_accuracy_*` are of the network
    before it was fine-tuned, both with new batch-norm statistics; `channels_dropped` is the sum
    over its groups.
    """
    rows = []
    for run in _runs(metrics):
        if (found := run.get("closing")) is not None:
            dropped = sum(found["widths_before"]) - sum(found["widths"])
            for name, budget in found["budgets"].items():
                measured = budget["measured"] or [float("nan")]
                told = {
                    "closed_on": name,
                    "unit": UNITS[budget["metric"]],
                    "limit": budget["budget"],
                    "rounds": budget["rounds"],
                    "first_measured": measured[0],
                    "last_measured": measured[-1],
                    "closed": budget["closed"],
                    "channels_dropped": dropped,
                }
                rows.append({**found, **run, **told})
    frame = pd.DataFrame(rows, columns=[*CLOSING, "metric"])
    keys = [*(column for column in RUN if column in CLOSING), "closed_on"]
    return to_table(tidy(frame, [*CLOSING, "metric"], keys))


def limits(metrics: Paths) -> pd.DataFrame:
    """One row for every limit of a run: what is `limited` (a platform or a count), the `limit`, and
    what the slim network has by the model and by measurement, in seconds, joules or bytes. A count
    is what its model says.
    """
    rows = [
        {**run, **verified, **found, "limited": name}
        for file, run in _verified(metrics).items()
        for verified in [_json(file, [*VERIFIED, "limited"])]
        for name, found in verified["limited"].items()
    ]
    frame = pd.DataFrame(rows, columns=[*LIMITS, "metric"])
    keys = [*(column for column in RUN if column in LIMITS), "limited"]
    return to_table(tidy(frame, [*LIMITS, "metric"], keys))


def searches(metrics: Paths) -> pd.DataFrame:
    """The histories of the runs of a searching method, from finetuned metrics.json: one row an
    episode, with the names of its run.
    """
    frames = []
    for path, run in _runs_by_path(metrics).items():
        parts = ["compressed" if part == "finetuned" else part for part in path.parts]
        frame = _csv(Path(*parts).with_name("history.csv"), ["episode", "holdout_accuracy"])
        frames.append(frame.assign(**{key: run[key] for key in [*RUN, "score"]}))
    return pd.concat(frames, ignore_index=True)


def equal_terms(metrics: Paths) -> pd.DataFrame:
    """What each method used, and what it reached: means over budgets and seeds of a platform.

    Iterations and training images are those of compression and fine-tuning; evaluations are passes
    over hold-out images. Seconds are of compression and fine-tuning, without closing, on this
    machine, and no second run repeats them. Peaks of memory are the largest of a run: of its
    process, libraries and data included, and of tensors on a GPU, empty without one.
    """
    rows = [
        {
            **run,
            "images_seen": run["effort"]["images_seen"] + run["effort"]["finetuning_images"],
            "evaluations": run["effort"]["evaluations"],
            "images_evaluated": run["effort"]["images_evaluated"],
            "seconds": run["timings"]["compression_seconds"] + run["timings"]["finetuning_seconds"],
            "peak_memory_mb": run["timings"]["peak_memory_mb"],
            "peak_gpu_memory_mb": run["timings"]["peak_gpu_memory_mb"],
            "hardware": in_words(run["hardware"]),
        }
        for run in _runs(metrics)
    ]
    keys = ["experiment", "platform", "method"]
    means = ["iterations", "images_seen", "evaluations", "images_evaluated", "seconds", "accuracy"]
    how = {
        "runs": ("seed", "size"),
        **{name: (name, "mean") for name in means},
        **{name: (name, "max") for name in ("peak_memory_mb", "peak_gpu_memory_mb")},
        "hardware": ("hardware", "first"),
    }
    frame = pd.DataFrame(rows).groupby(keys, as_index=False).agg(**how)
    return tidy(frame, EQUAL_TERMS, keys)


def energy_model_errors(errors: Paths) -> pd.DataFrame:
    """Relative test errors of all energy models, from their errors.csv."""
    return _gather(errors, ERRORS, ["platform", "network", "model", "fit"])


def energy_model_history(history: Paths) -> pd.DataFrame:
    """Relative test errors along the iterations of all fits, from their history.csv."""
    return _gather(history, HISTORY, ["platform", "network", "model", "fit", "iteration"])


def energy_model_residuals(residuals: Paths) -> pd.DataFrame:
    """Mean relative residuals by width of every group, from their residuals.csv.

    The groups of a model stay in forward order.
    """
    keys = ["platform", "network", "model", "fit"]
    return _gather(residuals, RESIDUALS, keys, unique=[*keys, "group", "width_to"])


def energy_anchors(published: str | Path, dense: Paths) -> pd.DataFrame:
    """Published dense energies against ours, for the networks that have a published one.

    `published` is paper_values.csv, `dense` the dense.json of platforms and networks.
    """
    values = _csv(published, ["source", "experiment", "network", "platform", "quantity", "value"])
    values = values[(values["source"] == "ECC") & (values["experiment"] == "dense")]
    values = values[values["quantity"] == "energy"].rename(columns={"value": "published_j"})
    keys = ["platform", "network"]
    ours = pd.DataFrame([_json(path, [*keys, "dense_energy_j"]) for path in dense])
    frame = ours.reindex(columns=[*keys, "dense_energy_j"]).merge(values, on=keys)
    frame = frame.rename(columns={"dense_energy_j": "ours_j"})
    frame["relative_difference"] = frame["ours_j"] / frame["published_j"] - 1
    return tidy(frame, ANCHORS, keys)


def timings(metrics: Paths, stages: pd.DataFrame) -> pd.DataFrame:
    """Seconds and memory, which no second run repeats, and each row says so.

    `metrics` as above; `stages` has rows of other jobs, with the same columns. The peak memory is
    that of the process during the run.
    """
    rows = [
        {
            "what": f"{stage} {_name(run)}",
            "seconds": run["timings"][f"{stage}_seconds"],
            "peak_memory_mb": run["timings"]["peak_memory_mb"],
            "hardware": in_words(run["hardware"]),
        }
        for run in _runs(metrics)
        for stage in ("compression", "finetuning")
    ]
    frame = pd.concat([pd.DataFrame(rows, columns=TIMINGS), stages], ignore_index=True)
    frame["what"] = frame["what"] + f" {NOT_REPRODUCIBLE}"
    return tidy(frame, TIMINGS, ["what"])


def in_words(hardware: Mapping[str, Any]) -> str:
    return "; ".join(f"{key}: {hardware[key]}" for key in sorted(hardware))


def _runs(paths: Paths) -> list[dict[str, Any]]:
    return list(_runs_by_path(paths).values())


def _runs_by_path(paths: Paths) -> dict[Path, dict[str, Any]]:
    """Checked metrics of all runs: finite numbers, none twice, every method with every seed."""
    of_run = [column for column in ACCURACY if column not in (*VERIFIED, "limits")]
    extra = ["metric", "budget", "groups", "effort", "timings", "hardware"]
    runs: dict[tuple[Any, ...], Path] = {}
    found = {}
    for path in map(Path, paths):
        run = _json(path, [*of_run, *extra])
        run["limits"] = run["budget"].partition("+")[2] or NO_LIMITS
        key = tuple(run[column] for column in RUN)
        if key in runs:
            raise UserError(f"{path} is the same run as {runs[key]}: remove one of the two")
        runs[key] = path
        found[path] = run
    if not found:
        raise UserError("no metrics.json was given: name at least one experiment in the config")
    _refuse_gaps(list(found.values()))
    return found


def _verified(metrics: Paths) -> dict[Path, dict[str, Any]]:
    """Metrics of all runs by their energy.json; one job writes those of a method in an experiment
    on a platform, in the order given.
    """
    found, firsts = {}, dict[tuple[str, ...], Path]()
    for path, run in _runs_by_path(metrics).items():
        file = path.with_name("energy.json")
        job = tuple(run[key] for key in ("experiment", "platform", "method"))
        found[runs.sibling(file, firsts.setdefault(job, file))] = run
    return found


def _refuse_gaps(runs: list[dict[str, Any]]) -> None:
    budgets: dict[str, set[tuple[str, int]]] = {}
    for run in runs:
        budgets.setdefault(_budget(run), set()).add((run["method"], run["seed"]))
    for budget, there in sorted(budgets.items()):
        methods, seeds = ({pair[side] for pair in there} for side in (0, 1))
        for method, seed in sorted(set(product(methods, seeds)) - there):
            raise UserError(
                f"{budget}/{method}/seed{seed}/metrics.json is missing while other methods have "
                "this seed: run the workflow for it"
            )


def _budget(run: dict[str, Any]) -> str:
    return f"{run['experiment']}/{run['platform']}/{run['budget']}"


def _name(run: dict[str, Any]) -> str:
    return f"{_budget(run)}/{run['method']}/seed{run['seed']}"


def _group(group: dict[str, Any]) -> dict[str, Any]:
    return {
        "group": group["name"],
        "width": int(group["width"]),
        "full_width": int(group["full_width"]),
    }


def _json(path: str | Path, keys: Sequence[str]) -> dict[str, Any]:
    values = from_file(runs.read_json(path))
    for key in keys:
        if key not in values:
            raise UserError(f"{path} has no {key}: delete it and run the workflow again")
        if values[key] is None or (
            isinstance(values[key], float) and not math.isfinite(values[key])
        ):
            raise UserError(
                f"{path}: {key} is not a finite number: delete it and run that job again"
            )
    return dict(values)


def _csv(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the workflow so that it is made") from None
    except ValueError:
        raise UserError(f"{path} is not a table: delete it and run the workflow again") from None
    absent = [column for column in columns if column not in frame]
    if absent:
        raise UserError(f"{path} has no column {absent[0]}: delete it and run the workflow again")
    return frame


def _gather(
    paths: Paths, columns: list[str], keys: list[str], unique: list[str] | None = None
) -> pd.DataFrame:
    """One frame of all files, sorted by the keys; a row that `unique`, or the keys, name twice is
    refused.
    """
    frames = []
    for path in paths:
        frame = _csv(path, columns)[columns]
        if frame.isna().to_numpy().any():
            raise UserError(f"{path} has an empty or NaN value: delete it and fit again")
        frames.append(frame.assign(path=str(path)))
    if not frames:
        raise UserError("no errors of energy models were given: name a network under energy")
    frame = pd.concat(frames, ignore_index=True)
    unique = unique or keys
    twice = frame[frame.duplicated(unique)]
    if len(twice):
        raise UserError(f"{twice['path'].iloc[0]} repeats a row for the same {', '.join(unique)}")
    return tidy(frame, columns, keys)


def tidy(frame: pd.DataFrame, columns: list[str], keys: list[str]) -> pd.DataFrame:
    """The columns in order, rows sorted by the keys (stable), floats to 8 significant digits."""
    frame = frame.sort_values(keys, kind="stable", ignore_index=True)[columns]
    floats = frame.select_dtypes("float").columns
    frame[floats] = frame[floats].map(lambda value: float(f"{value:.8g}"))
    return frame
