"""SIGKILL at random moments: of Snakemake alone, of its whole process group, and of single jobs."""

import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults import workspace
from tests.faults.workspace import RESULTS, SMOKE

KINDS = ("main", "group")  # of the whole workflow
JOB = "job"  # one alone, now and then besides
# Moments of kills in units of what a plan (`-n`) takes, which measures the machine and its load:
# half of them while a run starts, half late enough for jobs to end, else no run would get on.
MOMENTS = ((0.3, 1.5, 0.5), (1.5, 6.0, 0.5))  # from, to, probability
# Of these iterations a checkpoint is written: trainings are short, and few kills would meet one.
OFTEN = "training:\n  checkpoint_every: 1\n"
SURELY = 50  # of so many kills, runs go on from some checkpoint
PARTS = ("tables", "figures", "finetuned", "compressed", "dense", "energy_models", "eap", "data")


class WrongError(Exception):
    """What a workflow must not do after a fault."""


def moment(rng: random.Random) -> float:
    """Of a kill after the start of a run, in units of what a plan takes."""
    low, high, _ = rng.choices(MOMENTS, [part for *_, part in MOMENTS])[0]
    return rng.uniform(low, high)


def kill_often(
    folder: Path,
    expected: dict[str, bytes],
    count: int,
    seed: int,
    say: Callable[[str], None],
    counts: Counter[str],
) -> None:
    """Runs the workflow in `folder`, a clone, kills it `count` times, and lets it end.

    A kill counts where a job of the run had begun, and where it was of Snakemake or of its process
    group. Where a run ends before its kill, its tables are compared, some results are deleted, and
    it goes on. Fills `counts`: kills by kind, those before any job, restarts, runs that ended in
    between, and how often a training or a search was `resumed` from its checkpoint. Raises
    WrongError for tables that differ from the `expected` ones, jobs that do not stop, runs that do
    not go on, and where nothing ever was resumed.
    """
    rng = random.Random(seed)
    log, orphans = folder.with_name(f"{folder.name}.log"), 0.0
    (folder / "often.yaml").write_text(OFTEN)
    smoke, stages = (*SMOKE, "often.yaml"), Counter[str]()
    began = time.monotonic()
    workspace.snakemake(folder, *smoke, "-n")
    unit_s = time.monotonic() - began
    while (killed := sum(counts[kind] for kind in KINDS)) < count:
        kind, when = rng.choice((*KINDS, JOB)), unit_s * moment(rng)
        run = workspace.start(folder, log, *smoke)
        counts["starts"] += 1
        with suppress(subprocess.TimeoutExpired):
            run.wait(timeout=when)
        jobs, scripts = workspace.begun(log), workspace.at_work(folder)
        if run.poll() is None and (kind := _kill(run, kind, folder, rng)):
            counts[kind if jobs else "before any job"] += 1
            stages.update(scripts if jobs else [])
            if rng.random() < 0.5:  # at other times the same command comes at once
                seconds = workspace.stopped(folder)
                if seconds is None:
                    raise WrongError("jobs go on a minute after their run was killed")
                orphans = max(orphans, seconds)
            counted = jobs and kind in KINDS
            number = f"kill {killed + 1} of {count}" if counted else "a kill that does not count"
            done = f"{jobs} jobs begun, {workspace.ended(log)} ended, at work {scripts}"
            say(f"{number}: {kind} after {when:.1f} s, {done}")
        else:
            _check_end(run.returncode, log.read_text(), folder, expected)
            counts["ended in between"] += 1
            part = rng.choice(PARTS)
            shutil.rmtree(folder / RESULTS / part)
            say(f"ended before its kill; {part} is deleted")
        counts["resumed"] += log.read_text(errors="replace").count("resumed from")
        workspace.unlock(folder)
    code, output = workspace.snakemake(folder, *smoke)
    counts["starts"] += 1
    counts["resumed"] += output.count("resumed from")
    _check_end(code, output, folder, expected)
    told = ", ".join(f"{number} {name}" for name, number in sorted(stages.items()))
    say(f"scripts at work when they were killed: {told}")
    if count >= SURELY and not counts["resumed"]:
        raise WrongError(f"of {count} kills, no run went on from a checkpoint")
    say(f"orphans stopped within {orphans:.1f} s where they were waited for")


def _kill(run: subprocess.Popen[bytes], kind: str, folder: Path, rng: random.Random) -> str:
    """Which kind of kill it became; "" where the run has ended well. It has ended afterwards."""
    if kind == "main":
        run.kill()
        run.wait()
        return kind
    found = [pid for pid in workspace.jobs(folder) if _is_script(pid)] if kind == JOB else []
    if not found:  # no job is there at this very moment
        workspace.kill_group(run)
        return "group"
    with suppress(psutil.NoSuchProcess):
        psutil.Process(rng.choice(sorted(found))).kill()
    try:
        run.wait(timeout=600)  # Snakemake lets its other jobs end
    except subprocess.TimeoutExpired as error:
        workspace.kill_group(run)
        raise WrongError("the run goes on ten minutes after a job was killed") from error
    return JOB if run.returncode else ""


def _is_script(pid: int) -> bool:
    """Not the shell that has started it."""
    try:
        return "python" in Path(psutil.Process(pid).cmdline()[0]).name
    except (psutil.Error, IndexError):
        return False


def _check_end(code: int, output: str, folder: Path, expected: dict[str, bytes]) -> None:
    if code != 0:
        raise WrongError(f"a run that was not killed fails:\n{output[-3000:]}")
    if names := workspace.moved(folder, expected):
        raise WrongError(f"tables differ: {', '.join(names)}")
    if files := workspace.litter(folder):
        raise WrongError(f"left behind: {', '.join(files[:5])}")
