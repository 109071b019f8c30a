"""What a job costs beside its work: by Snakemake as jobs grow, and by the start of its script.

    python -m benchmarks.job_overhead --output overhead.csv

Jobs that end at once (`immediate.smk`) run on two cores in a temporary directory, as many as
`--jobs` says; a second table has the seconds that scripts take to start, their imports and, of
those that train, a first step of the optimizer: median, shortest and longest of `--repeats`, taken
in turns, and the median seconds of the processor, which other work on the machine disturbs less.
`percent_of_a_minute` is what start and Snakemake (of the most jobs) take together of a job of a
minute, in seconds of the processor. With `--most-percent` exit code 1 says that one takes more.
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
TRAINING = ("compress", "finetune", "train_dense")
SCRIPTS = (*TRAINING, "close_budgets", "sample_energy", "tables", "claims")
STEP = """
import torch, ecc.training
model = torch.nn.Linear(1, 1)
optimizer = ecc.training.adam(model, ecc.training.TrainingSettings(iterations=1))
model(torch.ones(1, 1)).backward()
optimizer.step()
"""
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
    busy = _processor_s() - before
    return {
        "jobs": jobs,
        "cores": cores,
        "seconds": seconds,
        "cpu_seconds": busy,
        "core_seconds_per_job": seconds * cores / jobs,
        "cpu_seconds_per_job": busy / jobs,
    }


def starts(scripts: tuple[str, ...], repeats: int) -> pd.DataFrame:
    """Seconds of a process that imports a script and, where it trains, steps once."""
    taken: dict[str, list[float]] = {script: [] for script in scripts}
    busy: dict[str, list[float]] = {script: [] for script in scripts}
    for _ in range(repeats):
        for script in scripts:
            started, before = time.monotonic(), _processor_s()
            code = f"import workflow_scripts.{script}" + STEP * (script in TRAINING)
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
            taken[script].append(time.monotonic() - started)
            busy[script].append(_processor_s() - before)
    rows = [
        (
            name,
            statistics.median(seconds),
            min(seconds),
            max(seconds),
            statistics.median(busy[name]),
        )
        for name, seconds in taken.items()
    ]
    return pd.DataFrame(rows, columns=["script", "median_s", "min_s", "max_s", "median_cpu_s"])


def _processor_s() -> float:
    """Seconds of the processor that ended child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="*", default=JOBS)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most-percent", type=float, help="of a minute that a job may cost")
    parser.add_argument("--output", type=Path, help="CSV file of the first table")
    given = parser.parse_args()
    rows = pd.DataFrame([overhead(jobs, given.cores) for jobs in given.jobs])
    print(rows.round(3).to_string(index=False))
    started = starts(SCRIPTS, given.repeats)
    own = started["median_cpu_s"] + rows["cpu_seconds_per_job"].iloc[-1]
    started["percent_of_a_minute"] = 100 * own / MINUTE_S
    print(started.round(2).to_string(index=False))
    if given.output is not None:
        rows.to_csv(given.output, index=False)
    if given.most_percent is not None and (most := own.max() / MINUTE_S * 100) > given.most_percent:
        sys.exit(f"a job costs {most:.1f} % of a minute, more than {given.most_percent:g} %")


if __name__ == "__main__":
    main()
