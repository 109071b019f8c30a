"""Fuzzing of everything that a user hands over: each is taken with its meaning, or refused in one
line that names the key or the file.

    python -m tests.fuzz                               # 1,000 configurations, then 1,000 files
    python -m tests.fuzz --seed 3 --configurations 200 --files 0
    python -m tests.fuzz --seed 3 --configurations 200 --files 0 --index 71     # that one again

Configurations are those of config.yaml and configs/, changed at one place or two by what
configs/schema.yaml says of it (`tests.fuzz.configurations`), and dry-run by Snakemake
(`tests.fuzz.planning`). Whether each has to be refused is told by the schema and by
`tests.fuzz.oracle`; a value that is taken has to change the plan. A dozen of them go through the
command line as well, which has to say the same.

Files are the recorded campaigns, journals, tables, records, manifests and weights that are read
(`tests.fuzz.files`), damaged (`tests.fuzz.damage`), and files of weights with code in them, which
must not run.

The run ends at the first that goes wrong, with exit code 1 and the command that repeats it. The
same seed and numbers give the same cases.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from . import planning
from .configurations import DEFAULT, Case

COMMANDS = 12  # configurations that go through the command line as well, of 20 each at most one
_judge: planning.Judge


class WrongError(Exception):
    """Something is neither taken with its meaning nor refused as it should be."""


def configurations(cases: Sequence[Case], given: argparse.Namespace, counts: Counter[str]) -> None:
    """Plans all cases, and counts them; raises WrongError for the first that goes wrong."""
    planning.warm()
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        with context.Pool(given.workers, _begin, (folder,)) as pool:
            for index, (verdict, wrong) in enumerate(pool.imap(_judged, cases)):
                counts["tried"] += 1
                counts[verdict] += 1
                if wrong:
                    counts["wrong"] += 1
                    _tell("configurations", index, f"{wrong}\n{_told(cases[index])}", given)
        place = planning.folder(Path(folder) / "command")
        some = min(COMMANDS, -(-len(cases) // 20))
        chosen = random.Random(given.seed).sample(range(len(cases)), some)
        for index in chosen:
            one = planning.plan(cases[index], place)
            other = planning.by_command(cases[index], place)
            counts["by the command line as well"] += 1
            if not planning.agree(one, other):
                wrong = f"the command says\n{other.output}\nin process\n{one.output}"
                counts["wrong"] += 1
                _tell("configurations", index, f"{wrong}\n{_told(cases[index])}", given)


def _begin(folder: str) -> None:
    global _judge
    _judge = planning.Judge(Path(tempfile.mkdtemp(dir=folder)))


def _judged(case: Case) -> tuple[str, str]:
    return _judge(case)


def _told(case: Case) -> str:
    """The case as a user would have it: what was changed, and the files that were."""
    known = planning.known_configurations()
    changed = [
        f"--- {name}\n{text}"
        for name, text in case.files.items()
        if known.texts.get(name) != text and (len(text) < 4000 or name != DEFAULT)
    ]
    return "\n".join([f"on {', '.join(case.files)}", case.what, *changed])


def files(given: argparse.Namespace, counts: Counter[str]) -> None:
    """Damages, reads and counts files; raises WrongError for the first that goes wrong."""
    import torch

    from . import files as targets

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = targets.Files(Path(folder))
        for index in range(given.files) if given.index is None else [given.index]:
            outcome = found.outcome(given.seed, index)
            counts["tried"] += 1
            counts[outcome.verdict] += 1
            if given.index is not None:
                print(outcome)
            if outcome.wrong:
                counts["wrong"] += 1
                _tell("files", index, f"{outcome.wrong}\n{outcome.what}", given)
        for what, wrong in targets.with_code(Path(folder) / "code"):
            counts["wrong" if wrong else "with code in them, not run"] += 1
            if wrong:
                _tell("files", None, f"{wrong}\n{what}", given)


def _tell(what: str, index: int | None, wrong: str, given: argparse.Namespace) -> None:
    """Without an index it is a file with code in it, which are read after every run of files."""
    count = getattr(given, what) if index is not None else 1
    other = "files" if what == "configurations" else "configurations"
    again = f"--seed {given.seed} --{what} {count} --{other} 0"
    place = f"{what} with code in them" if index is None else f"{what} {index} of {count}"
    if index is not None:
        again += f" --index {index}"
    text = f"{place}: {wrong}\nagain: python -m tests.fuzz {again}"
    if not given.go_on:
        raise WrongError(text)
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--configurations", type=int, default=1000, metavar="N")
    parser.add_argument("--files", type=int, default=1000, metavar="N")
    parser.add_argument("--index", type=int, help="one case alone")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--go-on", action="store_true", help="after one that is wrong")
    given = parser.parse_args(arguments)
    wrong = 0
    if given.configurations:
        cases = planning.known_configurations().cases(given.seed, given.configurations)
        if given.index is not None:
            cases = cases[given.index : given.index + 1]
            print(_told(cases[0]))
        wrong += _summed("configurations", partial(configurations, cases), given)
    if given.files:
        wrong += _summed("files", files, given)
    return int(wrong > 0)


def _summed(
    what: str, tried: Callable[[argparse.Namespace, Counter[str]], None], given: argparse.Namespace
) -> int:
    """Prints the counts, also where it ends at the first that is wrong; returns how many were."""
    started, counts = time.monotonic(), Counter[str]()
    try:
        tried(given, counts)
    finally:
        _say(what, counts, given, time.monotonic() - started)
    return counts["wrong"]


def _say(what: str, counts: Counter[str], given: argparse.Namespace, seconds: float) -> None:
    keys = {
        "configurations": ("tried", "accepted", "refused", "wrong", "by the command line as well"),
        "files": ("tried", "read", "refused", "wrong", "with code in them, not run"),
    }
    told = ", ".join(f"{counts[key]} {key}" for key in keys[what])
    print(f"{what}, seed {given.seed}: {told}; {seconds:.0f} s", flush=True)


def end() -> NoReturn:
    try:
        sys.exit(main())
    except WrongError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    end()
