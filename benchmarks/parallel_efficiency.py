"""A configuration on one core and on several, each from nothing: what the others bring.

    python -m benchmarks.parallel_efficiency                       configs/smoke.yaml, 1 and 2 cores
    python -m benchmarks.parallel_efficiency --configfile config.yaml --folder results/scaling \\
        --least-efficiency 0.9

The runs write to `cores-1`, `cores-2`, ... in a folder, which must not hold them yet; one is over
before the next begins. Prints a table: cores, seconds from the start of Snakemake to its end, the
efficiency (seconds on one core / (cores x seconds on them)), and what `run_efficiency.csv` of each
run says of itself: the part of all cores' time that jobs held, and its critical path. Exit code 1
says that the efficiency on some number of cores is below `--least-efficiency`.

Cores that share caches, memory and clock, as those of a virtual machine do with whoever else is on
its host, do less each when all of them work. `ceiling` is what they leave to any program: seconds
of a training step in one process alone / those in as many processes as cores, all at once and with
nothing between them, alternately (median of ROUNDS; `--ceiling` asks for it).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import pandas as pd

ROOT = Path(__file__).parents[1]
ROUNDS = 7
# A step of the default run's MobileNet on one thread: the median of some ten seconds of them.
STEPS = """
import torch
from benchmarks.training_speed import round_of
from ecc.networks import Network
from ecc.training import TrainingSettings
torch.set_num_threads(1)
network = Network("mobilenet", 60, 0.25, (32, 32))
settings = TrainingSettings(150, batch_size=64, device="cpu")
print(round_of(network.build(), network, settings)[0])
"""


def ceiling(cores: int) -> float:
    """The efficiency of processes that have nothing to do with each other."""
    if cores == 1:
        return 1.0
    ratios = []
    for _ in range(ROUNDS):
        (alone,) = _step_seconds(1)
        ratios.append(alone / mean(_step_seconds(cores)))
    return median(ratios)


def _step_seconds(processes: int) -> list[float]:
    """Seconds of a step in each of so many processes at once."""
    command = [sys.executable, "-c", STEPS]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return [float(process.communicate()[0]) for process in started]


def run(configfiles: Sequence[str], results: Path, cores: int) -> dict[str, float]:
    """One run: a row of the table."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock"]
    command += ["--configfile", *configfiles, "--config", f"results={results}"]
    results.parent.mkdir(parents=True, exist_ok=True)
    log = results.with_name(f"{results.name}.log")
    started = time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"the run on {cores} cores failed: see {log}")
    told = pd.read_csv(results / "tables" / "run_efficiency.csv").iloc[0]
    return {
        "cores": cores,
        "seconds": seconds,
        "held": told["parallel_efficiency"],
        "critical_path_seconds": told["critical_path_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", nargs="+", default=["configs/smoke.yaml"])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="of the results; a temporary one unless given")
    parser.add_argument("--least-efficiency", type=float, help="needs 1 among the cores")
    parser.add_argument("--ceiling", action="store_true", help="some minutes more")
    parser.add_argument("--output", type=Path, help="CSV file of the table")
    given = parser.parse_args()
    if given.least_efficiency is not None and 1 not in given.cores:
        parser.error("--least-efficiency: the efficiency is against a run on 1 core")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        places = {cores: folder / f"cores-{cores}" for cores in given.cores}
        for place in places.values():
            if place.exists():
                sys.exit(f"{place} is there: remove it, or give another --folder")
        rows = [run(given.configfile, place, cores) for cores, place in places.items()]
    table = pd.DataFrame(rows)
    if 1 in places:
        alone = table.loc[table["cores"] == 1, "seconds"].iloc[0]
        table.insert(2, "efficiency", alone / (table["cores"] * table["seconds"]))
    if given.ceiling:
        table.insert(len(table.columns) - 2, "ceiling", [ceiling(cores) for cores in given.cores])
    print(table.round(3).to_string(index=False))
    if given.output is not None:
        table.to_csv(given.output, index=False)
    if given.least_efficiency is not None and table["efficiency"].min() < given.least_efficiency:
        sys.exit(f"an efficiency is below {given.least_efficiency:g}")


if __name__ == "__main__":
    main()
