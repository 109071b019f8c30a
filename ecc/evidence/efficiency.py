"""Where the time of a run went: by rule, and how well its jobs filled the cores.

All of it is wall clock, which no second run repeats. A job's end is when its benchmark file was
written, its start as many seconds before as the file says.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

RULES = ["rule", "jobs", "seconds", "share", "cpu_load", "peak_memory_mb"]
RUN = [
    *("jobs", "cores", "wall_seconds", "paused_seconds", "core_seconds", "parallel_efficiency"),
    *("critical_path_seconds", "critical_path"),
]
# Without a job for so long, Snakemake was not running: that time is a pause, not a wait.
PAUSE_S = 60.0
DIGITS = 4  # benchmark files have as many
ALL = "all"  # threads of a job that holds all cores


@dataclass(frozen=True)
class Job:
    """`name` is that of its benchmark file; seconds since the epoch; `load` in cores, NaN where
    the job was too short to be watched.
    """

    rule: str
    name: str
    seconds: float
    ended: float
    load: float = math.nan
    memory_mb: float = math.nan

    @property
    def started(self) -> float:
        return self.ended - self.seconds


def read(folder: str | Path) -> list[Job]:
    """The jobs whose benchmark files are in `folder`, <rule>/<job>.tsv, the last run of each.

    Those of an earlier configuration too: nobody removes the files of jobs that it alone had.
    """
    found = []
    for path in sorted(Path(folder).glob("*/*.tsv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if rows:
            took, ended = rows[-1], path.stat().st_mtime
            load, memory = _number(took["mean_load"]) / 100, _number(took["max_rss"])
            found.append(Job(path.parent.name, path.stem, float(took["s"]), ended, load, memory))
    return found


def by_rule(jobs: Sequence[Job]) -> pd.DataFrame:
    """A row a rule, the longest first; `cpu_load` in cores, mean over the seconds watched."""
    rules = defaultdict(list)
    for job in jobs:
        rules[job.rule].append(job)
    total = math.fsum(job.seconds for job in jobs)
    rows = []
    for rule, own in rules.items():
        seconds = math.fsum(job.seconds for job in own)
        watched = [job for job in own if not math.isnan(job.load)]
        busy = math.fsum(job.load * job.seconds for job in watched)
        over = math.fsum(job.seconds for job in watched)
        memory = max((job.memory_mb for job in own if not math.isnan(job.memory_mb)), default=None)
        share = seconds / total if total else 0.0
        rows.append((rule, len(own), seconds, share, busy / over if over else None, memory))
    frame = pd.DataFrame(rows, columns=RULES).round(DIGITS)
    return frame.sort_values(["seconds", "rule"], ascending=[False, True], ignore_index=True)


def of_run(
    jobs: Sequence[Job],
    experiments: Mapping[str, Mapping[str, str]],
    threads: Mapping[str, int | str],
    cores: int = 0,
) -> pd.DataFrame:
    """One row: the wall clock from the first start to the last end without pauses, and the part of
    all cores' time in it that jobs held: threads times seconds, summed.

    `experiments` have the network and dataset of each, by name. `threads` has the jobs that hold
    more than one, by the start of their names, <rule>/<names>: a number, or ALL. `cores` may be
    fewer than jobs held at once, where other machines ran them: the larger number counts.
    """
    held = [(job, _threads(job, threads)) for job in jobs]
    cores = max(cores, _most_at_once([(job, n) for job, n in held if n != ALL]))
    seconds = math.fsum(job.seconds * (cores if n == ALL else int(n)) for job, n in held)
    wall, paused = _wall(jobs)
    path = critical_path(jobs, experiments)
    row = (
        *(len(jobs), cores, wall, paused, seconds, seconds / (wall * cores) if wall else None),
        *(math.fsum(job.seconds for job in path), " > ".join(f"{j.rule} {j.name}" for j in path)),
    )
    return pd.DataFrame([row], columns=RUN).round(DIGITS)


def critical_path(jobs: Sequence[Job], experiments: Mapping[str, Mapping[str, str]]) -> list[Job]:
    """The chain of jobs that waited for each other which took longest: what a run takes however
    many cores it has.
    """
    named: dict[tuple[str, ...], list[Job]] = defaultdict(list)
    for job in jobs:
        names = _names(job)
        for count in range(len(names) + 1):
            named[job.rule, *names[:count]].append(job)
    needs = _needs(experiments)

    @cache
    def longest(job: Job) -> tuple[float, tuple[Job, ...]]:
        before = [one for key in needs(job) for one in named[key]]
        seconds, path = max(map(longest, before), default=(0.0, ()), key=lambda found: found[0])
        return seconds + job.seconds, (*path, job)

    return list(max(map(longest, jobs), default=(0.0, ()), key=lambda found: found[0])[1])


def _needs(
    experiments: Mapping[str, Mapping[str, str]],
) -> Callable[[Job], Iterator[tuple[str, ...]]]:
    """What a job waits for: (rule, start of its names) of others. Stages that are not there, and
    experiments of another configuration, have no jobs.
    """
    of_evidence = {
        "tables": ("verify_energy", "fit_energy_models"),
        "figures": ("tables",),
        "method_figures": ("tables",),
        "timings": ("verify_energy",),
        "measurements": ("sample_energy",),
        "eap_figures": ("eap_pruning", "layer_energy"),
        "evolution_figures": ("evolve",),
    }

    def needs(job: Job) -> Iterator[tuple[str, ...]]:
        names = _names(job)
        entry = experiments.get(names[0], {})
        network, dataset = entry.get("network", ""), entry.get("dataset", "")
        match job.rule:
            case "sample_chunk":
                yield "trace_network", names[1]
            case "sample_energy":
                yield "trace_network", names[1]
                yield "check_sensor", names[0]
                yield "sample_chunk", *names
            case "fit_energy_models":
                yield "sample_energy", *names
            case "resolve_budgets":
                yield "fit_energy_models", names[1], network
            case "train_dense":
                yield "prepare_data", dataset
            case "eap_pruning":
                yield "train_dense", names[0]
            case "compress":
                yield "train_dense", names[0]
                yield "resolve_budgets", *names[:2]
            case "close_budgets":
                yield "compress", *names
            case "finetune":
                yield "compress", *names
                yield "close_budgets", *names[:3]
            case "verify_energy":
                yield "finetune", *names
            case rule:
                yield from ((other,) for other in of_evidence.get(rule, ()))

    return needs


def _names(job: Job) -> tuple[str, ...]:
    """The names in a job's name; a budget and seed, which have hyphens of their own, are one."""
    return tuple(job.name.split("-", 3))


def _threads(job: Job, threads: Mapping[str, int | str]) -> int | str:
    names = _names(job)
    keys = (f"{job.rule}/{'-'.join(names[:count])}" for count in (2, 1))
    return next((threads[key] for key in keys if key in threads), 1)


def _most_at_once(held: Sequence[tuple[Job, int | str]]) -> int:
    # Ends before starts at the same moment: one job follows the other.
    moves = [(job.started, 1, int(n)) for job, n in held] + [(j.ended, 0, -int(n)) for j, n in held]
    now = most = 1
    now = 0
    for _, _, change in sorted(moves):
        now += change
        most = max(most, now)
    return most


def _wall(jobs: Sequence[Job]) -> tuple[float, float]:
    """Seconds from the first start to the last end that are no pause, and those that are."""
    spans = sorted((job.started, job.ended) for job in jobs)
    if not spans:
        return 0.0, 0.0
    paused, until = 0.0, spans[0][1]
    for started, ended in spans:
        if started - until > PAUSE_S:
            paused += started - until
        until = max(until, ended)
    return until - spans[0][0] - paused, paused


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:  # a dash, or NA
        return math.nan
