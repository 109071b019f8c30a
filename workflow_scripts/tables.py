"""Gathers the metrics of all runs and the errors of all energy models into tidy tables."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ecc import runs
from ecc.evidence import tables as evidence
from ecc.logs import job


def tables(
    metrics: Sequence[str],
    errors: Sequence[str],
    history: Sequence[str],
    residuals: Sequence[str],
    dense: Sequence[str],
    published: str,
    methods: str,
    files: Mapping[str, str],
) -> None:
    accuracies = evidence.accuracy_at_budget(metrics)
    compared = evidence.comparison(accuracies)
    made = {
        "accuracy_at_budget": accuracies,
        "comparison": compared,
        "table_01": evidence.table_01(methods, accuracies),
        "table_02": evidence.table_02(compared, pd.read_csv(published)),
        "closing": evidence.closing(metrics),
        "limits": evidence.limits(metrics),
        "widths": evidence.widths(metrics),
        "energy_model_errors": evidence.energy_model_errors(errors),
        "energy_model_history": evidence.energy_model_history(history),
        "energy_model_residuals": evidence.energy_model_residuals(residuals),
        "energy_anchors": evidence.energy_anchors(published, dense),
    }
    for name, frame in made.items():
        runs.write_csv(files[name], frame)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        tables(
            snakemake.input.metrics,
            snakemake.input.errors,
            snakemake.input.history,
            snakemake.input.residuals,
            snakemake.input.dense,
            snakemake.input.published,
            snakemake.input.methods,
            dict(snakemake.output.items()),
        )
