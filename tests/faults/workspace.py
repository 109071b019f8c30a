"""A copy of the repository in which the smoke configuration runs, and what its tables hold."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import psutil

ROOT = Path(__file__).parents[2]
SMOKE = ("--configfile", "configs/smoke.yaml")
RESULTS = "results/smoke"
PARTS = (
    *("Snakefile", "config.yaml", "rules", "workflow_scripts", "ecc", "configs", "profiles"),
    *("docs", "envs", "resources"),
)
# Seconds, and by what it was made, which no second run repeats.
TOOK = (
    *("timings.csv", "equal_terms.csv", "efficiency.csv", "run_efficiency.csv"),
    "provenance.csv",
)
# In front of a shell's script: what it mounts, nobody else sees.
MOUNTS = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
CAN_MOUNT = (
    os.geteuid() == 0
    and shutil.which("unshare") is not None
    and subprocess.run([*MOUNTS, "true"], check=False, capture_output=True).returncode == 0
)
STOPS_S = 60  # an orphan that is importing torch notices afterwards


def clone(folder: Path) -> Path:
    """What a fresh clone has, without anything that a run leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def copy(finished: Path, folder: Path) -> Path:
    """All of a folder in which a run has ended, with the times of its files."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(finished, folder, symlinks=True)
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]


def start(folder: Path, log: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """The workflow as a process group of its own, which writes to `log` what a terminal shows."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command(*arguments),
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


@contextmanager
def started(folder: Path, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The smoke run, until the end of the block at most."""
    run = start(folder, log, *SMOKE, **environment)
    try:
        yield run
    finally:
        if run.poll() is None:
            kill_group(run)


def snakemake(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code, and everything that a terminal would show."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def unlock(folder: Path) -> None:
    """As a user does after a kill."""
    subprocess.run([sys.executable, "profiles/unlock.py"], cwd=folder, check=True)


def kill_group(run: subprocess.Popen[bytes]) -> None:
    """The whole of what `start` has started."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def tables(folder: Path) -> dict[str, bytes]:
    """Contents of all tables but those of what it took."""
    found = sorted((folder / RESULTS / "tables").glob("*.csv"))
    return {path.name: path.read_bytes() for path in found if path.name not in TOOK}


def moved(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """Names of the tables that are not the expected ones."""
    found = tables(folder)
    return [name for name in sorted(expected | found) if expected.get(name) != found.get(name)]


def litter(folder: Path) -> list[str]:
    """What a run that has ended must not leave: half files, checkpoints, seals of no file."""
    results = folder / RESULTS
    found = [*results.rglob("*.part"), *results.rglob("checkpoint*")]
    seals = results.rglob(".*.sha256")
    found += [path for path in seals if not path.with_name(path.stem[1:]).exists()]
    return [str(path.relative_to(folder)) for path in found]


def jobs(folder: Path) -> list[int]:
    """Process ids of scripts at work in `folder`, whoever has started them."""
    return _unlock_module().left(folder)


def begun(log: Path) -> int:
    """Jobs that a run has begun so far, by what it prints."""
    return sum(map(int, re.findall(r"Execute (\d+) jobs", log.read_text(errors="replace"))))


def ended(log: Path) -> int:
    """Jobs that a run has ended so far."""
    return log.read_text(errors="replace").count("Finished jobid: ")


def at_work(folder: Path) -> list[str]:
    """Names of the scripts at work in `folder`, sorted."""
    names = []
    for pid in jobs(folder):
        with suppress(psutil.Error):
            found = re.search(
                r"/scripts/tmp\w+\.(\w+)\.py", " ".join(psutil.Process(pid).cmdline())
            )
            names += [found[1]] if found else []
    return sorted(set(names))


def processes_in(folder: Path) -> list[int]:
    """Process ids of everything at work in `folder`."""
    found = psutil.process_iter(["pid", "cwd"])
    return [process.info["pid"] for process in found if process.info["cwd"] == str(folder)]


def stopped(folder: Path) -> float | None:
    """Seconds until nothing is at work in `folder`; None where something still is after a minute.

    Orphans have to stop by themselves.
    """
    begun = time.monotonic()
    while processes_in(folder):
        if time.monotonic() - begun > STOPS_S:
            return None
        time.sleep(0.1)
    return time.monotonic() - begun


def _unlock_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unlock", ROOT / "profiles/unlock.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
