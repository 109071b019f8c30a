"""Draws the figures in the paper's numbering from the tables, as PNG and PDF."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ecc.evidence import figures as evidence, style
from ecc.logs import job


def figures(
    tables: Sequence[str], numbers: Sequence[int], titles: Mapping[str, str], files: Sequence[str]
) -> None:
    """`files` hold PNG and PDF of every number, and nothing else."""
    frames = {Path(table).stem: pd.read_csv(table) for table in tables}
    for number in numbers:
        own = [file for file in files if Path(file).stem == f"figure_{number:02}"]
        style.save(evidence.draw(number, frames, titles), *own)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        figures(
            snakemake.input.tables,
            snakemake.params.numbers,
            snakemake.params.titles,
            list(snakemake.output),
        )
