"""Gathers what runs and jobs took: the two tables that no second run repeats."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ecc import provenance, runs
from ecc.evidence import tables
from ecc.logs import job


def timings(metrics: Sequence[str], benchmarks: Sequence[str], file: str, equal_terms: str) -> None:
    """`benchmarks` are Snakemake's, <rule>/<job>.tsv; they are of this machine."""
    hardware = tables.in_words(provenance.hardware())
    jobs = [
        {
            "what": f"{Path(path).parent.name} {Path(path).stem}",
            "seconds": measured["s"],
            "peak_memory_mb": measured["max_rss"],
            "hardware": hardware,
        }
        for path in benchmarks
        for measured in pd.read_csv(path, sep="\t", na_values="-").to_dict("records")
    ]
    runs.write_csv(file, tables.timings(metrics, pd.DataFrame(jobs)))
    runs.write_csv(equal_terms, tables.equal_terms(metrics))


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        timings(
            snakemake.input.metrics,
            snakemake.input.benchmarks,
            snakemake.output.timings,
            snakemake.output.equal_terms,
        )
