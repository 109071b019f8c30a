"""Sums up where the time of the run went, by the benchmark files of its jobs."""

import os
from collections.abc import Mapping
from pathlib import Path

from ecc import runs
from ecc.evidence import efficiency as evidence
from ecc.logs import job


def efficiency(
    benchmarks: str | Path,
    experiments: Mapping[str, Mapping[str, str]],
    threads: Mapping[str, int | str],
    file: str,
    of_run: str,
    cores: int = 0,
) -> None:
    jobs = evidence.read(benchmarks)
    runs.write_csv(file, evidence.by_rule(jobs))
    runs.write_csv(of_run, evidence.of_run(jobs, experiments, threads, cores))


if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.input, snakemake.output):
        efficiency(
            snakemake.params.benchmarks,
            snakemake.params.experiments,
            snakemake.params.threads,
            snakemake.output.efficiency,
            snakemake.output.run_efficiency,
            int(os.environ.get("ECC_CORES", 0)),
        )
