"""What a job costs beside its work: by Snakemake as jobs grow, and by the start of its script.

    python -m benchmarks.job_overhead --output overhead.csv

Jobs that end at once (`immediate.smk`) run on two cores in a temporary directory, as many as
`--jobs` says; a second table has the seconds that scripts take to start, their imports: median,
shortest and longest of `--repeats`, taken in turns, and the median seconds of the processor, which
other work on the machine disturbs less.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
JOBS = (10, 100, 1000)
SCRIPTS = ("compress", "finetune", "train_dense", "sample_energy", "tables", "claims")
MINUTE_S = 60.0


def overhead(jobs: int, cores: int) -> dict[str, float]:
    """Runs so many jobs that do nothing: a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "snakemake", "--snakefile", "benchmarks/immediate.smk"]
        command += ["--workflow-profile", "profiles/default", "--directory", folder]
        command += ["--cores", str(cores), "--config", f"jobs={jobs}"]
        started, before = time.monotonic(), _processor_s()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
        )
        seconds = time.monotonic() - started
        if done.returncode or len(list(Path(folder).glob("*/done.json"))) != jobs:
            sys.exit(done.stderr[-2000:])
    each = seconds * cores / jobs
    return {
        "jobs": jobs,
        "cores": cores,
        "seconds": seconds,
        "cpu_seconds": _processor_s() - before,
        "core_seconds_per_job": each,
        "percent_of_a_minute": 100 * each / MINUTE_S,
    }


def starts(scripts: tuple[str, ...], repeats: int) -> pd.DataFrame:
    """Seconds of a process that imports a script and ends."""
    taken: dict[str, list[float]] = {script: [] for script in scripts}
    busy: dict[str, list[float]] = {script: [] for script in scripts}
    for _ in range(repeats):
        for script in scripts:
            started, before = time.monotonic(), _processor_s()
            command = [sys.executable, "-c", f"import workflow_scripts.{script}"]
            subprocess.run(command, cwd=ROOT, check=True)
            taken[script].append(time.monotonic() - started)
            busy[script].append(_processor_s() - before)
    rows = []
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        row = (min(seconds), max(seconds), statistics.median(busy[name]), 100 * median / MINUTE_S)
        rows.append((name, median, *row))
    columns = ["script", "median_s", "min_s", "max_s", "median_cpu_s", "percent_of_a_minute"]
    return pd.DataFrame(rows, columns=columns)


def _processor_s() -> float:
    """Seconds of the processor that ended child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="*", default=JOBS)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="CSV file of the first table")
    given = parser.parse_args()
    rows = pd.DataFrame([overhead(jobs, given.cores) for jobs in given.jobs])
    print(rows.round(3).to_string(index=False))
    print(starts(SCRIPTS, given.repeats).round(2).to_string(index=False))
    if given.output is not None:
        rows.to_csv(given.output, index=False)


if __name__ == "__main__":
    main()
