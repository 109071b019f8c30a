"""Draws what the paper has no figure for: several budgets at once, and how AMC learns."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ecc.evidence import learning, limits, style, tables
from ecc.logs import job


def method_figures(
    table: str, searches: Sequence[str], titles: Mapping[str, str], files: Mapping[str, str]
) -> None:
    """`searches` are the histories of AMC; `files` hold PNG and PDF of every figure, by name."""
    if "limits_png" in files:
        drawn = limits.limits(pd.read_csv(table), titles)
        style.save(drawn, files["limits_png"], files["limits_pdf"])
    if "learning_png" in files:
        drawn = learning.learning(tables.searches(searches), titles)
        style.save(drawn, files["learning_png"], files["learning_pdf"])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        method_figures(
            snakemake.input.limits,
            snakemake.input.searches,
            snakemake.params.titles,
            dict(snakemake.output.items()),
        )
