"""How long the workflow takes to plan, and the memory it needs, as its graph grows.

    python -m benchmarks.graph_scale --output planned.csv
    python -m benchmarks.graph_scale --jobs 10000 --chunks 1000 --most-seconds 60 --most-mb 2048
    python -m benchmarks.graph_scale --jobs 10000 -- --rerun-triggers mtime

Every graph is that of the whole workflow: one experiment on two emulated platforms whose runs are
jobs of their own (`batch: []`), and samples taken in chunks (`energy.chunk`). Compression jobs are
methods x budgets x seeds x platforms; each has one of fine-tuning. Nothing runs: the plan is that
of `snakemake -n -q`, in a process of its own, with a results folder in a temporary directory. What
follows `--` goes to Snakemake.

Prints a table: compression jobs, chunks, all jobs of the plan, seconds from the start of the
process to its end, those of the processor, the peak memory (resident set), milliseconds a job.
Exit code 1 says that a plan took more than `--most-seconds`, `--most-cpu-seconds` (for a machine
that is busy otherwise) or `--most-mb`.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
PLATFORMS = ["gtx1080ti", "jetson_tx2"]
METHODS = ["ecc", "netadapt", "amc", "knapsack", "uniform"]
BUDGETS = 20
JOBS = (100, 300, 1000, 3000, 10000)


def overlay(jobs: int, chunks: int, results: str) -> dict[str, Any]:
    """A configuration with so many compression jobs and chunks, or a few more of each."""
    runs = -(-jobs // (len(PLATFORMS) * len(METHODS)))
    budgets = min(BUDGETS, runs)
    samples = 10_000
    each = max(1, chunks // len(PLATFORMS))
    return {
        "results": results,
        "batch": [],
        "energy": {
            "platforms": PLATFORMS,
            "networks": [],
            "samples": samples,
            "chunk": -(-samples // each),
            "sweeps": [],
        },
        "experiments": [
            {
                "name": "mobilenet",
                "network": "mobilenet_embedded",
                "dataset": "fractals",
                "platforms": PLATFORMS,
                "methods": METHODS,
                "energy_model": "bilinear_graph_nnls",
                "smallest_width": 0.2,
                "closing_rounds": 3,
                "budgets": [
                    {"reducible": round(0.1 + 0.8 * number / budgets, 4)}
                    for number in range(budgets)
                ],
                "seeds": list(range(-(-runs // budgets))),
                "dense": {"iterations": 1500},
                "compression": {"iterations": 200},
                "finetuning": [{"loss": "distillation", "iterations": 80}],
            }
        ],
    }


def plan(jobs: int, chunks: int, options: list[str]) -> dict[str, float]:
    """Plans one graph: a row of the table. Ends where Snakemake refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "overlay.yaml")
        file.write_text(yaml.safe_dump(overlay(jobs, chunks, f"{folder}/results")))
        command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "--nolock"]
        command += ["--configfile", str(file), *options, "--quiet", "rules", "host", "reason"]
        with Path(folder, "log").open("w+") as log:
            started = time.monotonic()
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.monotonic() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            said = log.read()
    if process.returncode:
        sys.exit(said[-2000:])
    stats = said.split("Job stats:")[-1]
    counts = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}
    return {
        "compression_jobs": sum(n for rule, n in counts.items() if rule.startswith("compress_")),
        "chunks": counts["sample_chunk"],
        "jobs": counts["total"],
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_mb": used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        "ms_per_job": 1000 * seconds / counts["total"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=JOBS, help="of compression")
    parser.add_argument("--chunks", type=int, help="of samples; a tenth of the jobs unless given")
    parser.add_argument("--most-seconds", type=float, default=math.inf)
    parser.add_argument("--most-cpu-seconds", type=float, default=math.inf)
    parser.add_argument("--most-mb", type=float, default=math.inf)
    parser.add_argument("--output", type=Path, help="CSV file of the table")
    parser.add_argument("options", nargs="*", help="of Snakemake, after --")
    given = parser.parse_args()
    rows = []
    for jobs in given.jobs:
        chunks = given.chunks or max(2, jobs // 10)
        rows.append(plan(jobs, chunks, given.options))
        print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False, header=len(rows) == 1))
    if given.output is not None:
        pd.DataFrame(rows).to_csv(given.output, index=False)
    limits = {"seconds": given.most_seconds, "cpu_seconds": given.most_cpu_seconds}
    limits["peak_memory_mb"] = given.most_mb
    over = [
        f"{row['compression_jobs']} jobs: {name} {row[name]:.1f}, more than {most:g}"
        for row in rows
        for name, most in limits.items()
        if row[name] > most
    ]
    sys.exit("\n".join(over) or 0)


if __name__ == "__main__":
    main()
