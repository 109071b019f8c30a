"""Draws what the papers have no figure for: energies measured, fine-tuning, fronts, searches."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from ecc import metrics, records
from ecc.evidence import learning, limits, names, overview, style, tables
from ecc.logs import job


def method_figures(
    accuracies: str,
    limited: str,
    residuals: str,
    converged: Sequence[str],
    searches: Sequence[str],
    titles: Mapping[str, str],
    files: Mapping[str, str],
) -> None:
    """`converged` are the history and the metrics of a run of ECC, `searches` the histories of AMC;
    `files` hold PNG and PDF of every figure, by name.
    """
    frame = pd.read_csv(accuracies)
    draw = {
        "measured": lambda: overview.measured(frame, titles),
        "finetuning": lambda: overview.finetuning(frame, titles),
        "fronts": lambda: overview.fronts(frame, titles),
        "residuals": lambda: overview.residuals(pd.read_csv(residuals), titles),
        "convergence": lambda: convergence(*converged, titles),
        "limits": lambda: limits.limits(pd.read_csv(limited), titles),
        "learning": lambda: learning.learning(tables.searches(searches), titles),
    }
    for name, make in draw.items():
        if f"{name}_png" in files:
            style.save(make(), files[f"{name}_png"], files[f"{name}_pdf"])


def convergence(history: str, run: str, titles: Mapping[str, str]) -> Figure:
    told = records.read(run, "fine-tuning")
    full = {group["name"]: group["full_width"] for group in told["groups"]}
    title = names.panel_title((told["experiment"], told["platform"]), titles)
    frame = metrics.from_table(pd.read_csv(history))
    return overview.convergence(frame, full, told["budget_j"], title)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        method_figures(
            snakemake.input.accuracies,
            snakemake.input.limits,
            snakemake.input.residuals,
            snakemake.input.converged,
            snakemake.input.searches,
            snakemake.params.titles,
            dict(snakemake.output.items()),
        )
