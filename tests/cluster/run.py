"""Runs the workflow on a Slurm of one node, and compares its tables with those of a local run.

    python tests/cluster/run.py [--configfile FILE ...] [--profile slurm] [--cores 2] [--keep]

As root on Debian, with the requirements of envs/requirements-dev.txt. Prints how many jobs finished
and how many of them Slurm ran, by its own account, and how long both runs took; ends with exit code
1 where anything differs, or where a job was not one of Slurm's.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from slurm import AbsentError, Slurm, StartError, install, running  # noqa: E402
from test_workflow import clone, command, tables  # noqa: E402

# A profile's own numbers are meant for clusters; here every level of the workflow would wait.
SOON = {"slurm": ("--slurm-init-seconds-before-status-checks", "2"), "generic": ()}
# Rules of no work, whose jobs are not sent.
LOCAL = ("all", "closed_")


@dataclass
class Compared:
    """Seconds, how many jobs finished that are not local, Slurm's own list of jobs,
    their states in its queue by number, names of tables, and those of tables that differ.
    """

    local_s: float
    slurm_s: float
    finished: int
    jobs: list[dict[str, str]]
    queue: dict[str, str]
    equal: list[str]
    different: list[str]


def compare(
    folder: Path, configfiles: list[str], cores: int = 2, profile: str = "slurm"
) -> Compared:
    """Runs the workflow locally and on Slurm, each in a copy of its own below `folder`.

    The configuration writes to results/smoke. Raises RuntimeError with the output of a run that
    fails, and slurm.StartError.
    """
    arguments = ["--configfile", *configfiles]
    local, remote = (clone(_made(folder / name)) for name in ("local", "slurm"))
    for copy in (local, remote):
        for file in configfiles:
            shutil.copy(TESTS.parent / file, _made((copy / file).parent))
    local_s, _ = _timed(command(*arguments, "--cores", str(cores)), local)
    with running(cores) as slurm:
        given = ("--workflow-profile", f"profiles/{profile}", *SOON[profile], "--latency-wait", "5")
        started = [*command(*arguments, "--cores", str(cores)), *given]
        slurm_s, output = _timed(started, remote, slurm)
        jobs, queue = slurm.completed(), slurm.queue()
    expected, found = tables(local), tables(remote)
    equal = [name for name in expected if expected[name] == found.get(name)]
    finished = re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output)
    return Compared(
        local_s,
        slurm_s,
        sum(not rule.startswith(LOCAL) for rule in finished),
        jobs,
        queue,
        equal,
        sorted({*expected, *found} - {*equal}),
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _timed(arguments: list[str], folder: Path, slurm: Slurm | None = None) -> tuple[float, str]:
    """Seconds and output of a run in `folder`."""
    started = time.monotonic()
    log = folder / "output"
    with log.open("w") as out:
        run = subprocess.Popen(
            arguments,
            cwd=folder,
            env=slurm.environment if slurm else None,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            code = run.wait()
        finally:
            if run.poll() is None:
                run.kill()
                run.wait()
    output = log.read_text()
    if code:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}:\n{output[-6000:]}")
    return time.monotonic() - started, output


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", nargs="+", default=["configs/smoke.yaml"])
    parser.add_argument("--profile", choices=SOON, default="slurm")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the folders of both runs")
    asked = parser.parse_args()
    # Asked to stop, it still stops what it has started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    try:
        install()
        found = compare(folder, asked.configfile, asked.cores, asked.profile)
    except (AbsentError, StartError, RuntimeError) as error:
        print(error)
        return 1
    finally:
        if asked.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    states = [job["JobState"] for job in found.jobs]
    print(f"local run: {found.local_s:.0f} s; on Slurm: {found.slurm_s:.0f} s")
    print(f"jobs that finished: {found.finished}")
    print(f"jobs of Slurm: {len(states)}, of them completed: {states.count('COMPLETED')}")
    shown = list(found.queue.values())
    print(f"by squeue --states=all: {len(shown)}, {shown.count('COMPLETED')}")
    print(f"tables that are the same bytes: {len(found.equal)}; that differ: {found.different}")
    ran = len(states) == found.finished and set(states) == {"COMPLETED"}
    return int(not ran or bool(found.different) or not found.equal)


if __name__ == "__main__":
    sys.exit(main())
