"""Draws what the paper has no figure for: several budgets at once."""

from collections.abc import Mapping

import pandas as pd

from ecc.evidence import limits, style
from ecc.logs import job


def method_figures(table: str, titles: Mapping[str, str], files: Mapping[str, str]) -> None:
    """`files` hold PNG and PDF of every figure, by name."""
    style.save(limits.limits(pd.read_csv(table), titles), files["limits_png"], files["limits_pdf"])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        method_figures(
            snakemake.input.limits,
            snakemake.params.titles,
            dict(snakemake.output.items()),
        )
