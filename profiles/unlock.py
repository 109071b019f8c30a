"""Removes the lock that a killed run has left, unless another run is at work in this folder."""

import sys
from pathlib import Path

import psutil


def running(folder: Path) -> list[int]:
    """Process ids of snakemake in `folder`."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder)
        and any(Path(word).name == "snakemake" for word in (process.info["cmdline"] or [])[:3])
    ]


if __name__ == "__main__":
    locks = list(Path(".snakemake/locks").glob("*"))
    if locks and (others := running(Path.cwd())):
        sys.exit(f"snakemake runs here already (process {others[0]}): wait for it, or stop it")
    for lock in locks:
        lock.unlink()
