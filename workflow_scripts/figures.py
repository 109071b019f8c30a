"""Draws the figures in the paper's numbering from the tables, as PNG and PDF."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ecc.evidence import figures as evidence, style
from ecc.logs import job


def figures(
    tables: Sequence[str], names: Sequence[str], titles: Mapping[str, str], files: Sequence[str]
) -> None:
    """`files` hold PNG and PDF of every name, and nothing else."""
    frames = {Path(table).stem: pd.read_csv(table) for table in tables}
    for name in names:
        own = [file for file in files if Path(file).stem == name]
        style.save(evidence.draw(name, frames, titles), *own)


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        figures(
            snakemake.input.tables,
            snakemake.params.names,
            snakemake.params.titles,
            list(snakemake.output),
        )
