"""Removes the lock that a killed run has left, unless another run is at work in this folder.

Of processes of another machine nothing is known here: a lock that a run took there stays. Jobs
that outlive their run stop by themselves; their end is waited for, so that none of them writes
beside the next run.
"""

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

WAIT_S = 60.0  # a job notices within seconds, unless it is still importing torch


def running(folder: Path) -> list[int]:
    """Process ids of snakemake in `folder`."""
    return _processes(
        folder, lambda words: any(Path(word).name == "snakemake" for word in words[:3])
    )


def left(folder: Path) -> list[int]:
    """Process ids of jobs in `folder`."""
    return _processes(folder, lambda words: any(".snakemake/scripts/" in word for word in words))


def _processes(folder: Path, wanted: Callable[[list[str]], bool]) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder) and wanted(process.info["cmdline"] or [])
    ]


if __name__ == "__main__":
    locks = list(Path(".snakemake/locks").glob("*"))
    host = Path(".snakemake/host")  # written by the workflow as it starts
    if locks and host.exists() and (other := host.read_text()) != socket.gethostname():
        sys.exit(
            f"a run on {other} has locked this folder: wait for it, or, where it is gone, "
            f"delete {host}"
        )
    if locks and (others := running(Path.cwd())):
        sys.exit(f"snakemake runs here already (process {others[0]}): wait for it, or stop it")
    until = time.monotonic() + WAIT_S
    while locks and (jobs := left(Path.cwd())):
        if time.monotonic() > until:
            sys.exit(f"a job of a killed run is still at work (process {jobs[0]}): stop it")
        time.sleep(0.2)
    for lock in locks:
        lock.unlink(missing_ok=True)
