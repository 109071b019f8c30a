"""Compares the files of two runs of the same settings, number by number.

    python -m ecc.evidence.reproduction REFERENCE FOUND [--accuracy 0.1] [--relative 0.03]

Every table (CSV) and every JSON file of REFERENCE has to be in FOUND with the same content, within
tolerance; what moved is listed, and the exit code is then 1. Without tolerances, which one machine
needs none of, numbers have to be the same. What no second run repeats (seconds, memory, hardware,
versions, the commit, the windows of a sensor) is left out; but where a folder has the checksums.txt
of its run, every file that has changed since is listed as well, and any file that has a seal.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ecc import files
from ecc.errors import UserError
from ecc.runs import write_text

MOVED = ["file", "where", "reference", "found"]
# Wall clock; by what it was made; what the run of a sensor was like.
NOT_REPEATED_FILES = {
    *("timings.csv", "equal_terms.csv", "efficiency.csv", "run_efficiency.csv"),
    *("provenance.csv", "repeatability.csv", "provenance.json", "campaign.json", "windows.csv"),
}
LOGS = "logs"  # has <rule>/<job>.log of a run, which tells where its results are
CHECKSUMS = "checksums.txt"
# What comes after the checksums, and what is no result.
NOT_LISTED = {CHECKSUMS, "README.md", "report.html", "benchmarks/checksums/all.tsv"}
NOT_REPEATED = {"seconds", "timings", "peak_memory_mb", "hardware", "versions", "commit"}
SCORES = ("accuracy", "mean", "std", "min", "max", "minus_ecc", "area", "low", "high", "ours")


def compare(
    reference: str | Path, found: str | Path, accuracy: float = 0.0, relative: float = 0.0
) -> pd.DataFrame:
    """What moved: one row a number, text or file that differs, with its file and place.

    `accuracy` is the absolute tolerance of columns that hold scores, `relative` that of all other
    numbers; both 0: exactly the same. With a tolerance texts that repeat numbers are left out.
    """
    reference, found = Path(reference), Path(found)
    rows: list[tuple[str, ...]] = []
    for path in _files(reference):
        name = path.relative_to(reference).as_posix()
        other = found / name
        if not other.is_file():
            rows.append((name, "", "is there", "is missing"))
            continue
        before, after = dict(_numbers(path)), dict(_numbers(other))
        for where in dict.fromkeys([*before, *after]):
            if (accuracy or relative) and where.endswith(", reason"):
                continue
            pair = before.get(where), after.get(where)
            if not _same(where, *pair, accuracy, relative):
                rows.append((name, where, *map(str, pair)))
    return pd.DataFrame(rows, columns=MOVED)


def write_checksums(folder: str | Path, file: str | Path) -> None:
    """A line for every file of a run's results, as sha256sum writes and checks them.

    Logs are not among them, nor the folders of other runs below, which have logs of their own, nor
    what is made afterwards. Raises UserError for a file that has changed since its job wrote it.
    """
    names = [name for name in _whole(Path(folder)) if name not in NOT_LISTED]
    for name in names:
        path = Path(folder, name)  # not every file is an input of a job that would miss it
        manifest = path.with_name("manifest.json")  # of the rule that makes a dataset's pixels
        made = manifest if manifest.is_file() else path
        also = "" if made == path else f"{made}, and "
        files.verify(path, f"{also}run the same command with `-- {made}`, then without")
    lines = [f"{files.digest(Path(folder, name))}  {name}\n" for name in names]
    write_text(file, "".join(lines))


def changed(folder: str | Path) -> pd.DataFrame:
    """Files that are no longer what they were when `checksums.txt` was written: one row each.

    Of those that are not in it, such as exported networks and the report, the seal decides.
    """
    folder = Path(folder)
    written, expected = folder / CHECKSUMS, {}
    for line in written.read_text().splitlines() if written.is_file() else []:
        checksum, _, name = line.partition("  ")
        expected[name] = (checksum, CHECKSUMS)
    for name in _whole(folder):
        seal = files.seal_of(folder / name)
        if name not in expected and seal.is_file():
            checksum = seal.read_bytes().partition(b" ")[0].decode(errors="replace")
            expected[name] = (checksum, seal.name)
    rows = []
    for name, (checksum, source) in expected.items():
        path = folder / name
        found = files.digest(path) if path.is_file() else "is missing"
        if found != checksum:
            told = found if found == "is missing" else "has changed since"
            rows.append((name, source, "as its run wrote it", told))
    return pd.DataFrame(rows, columns=MOVED)


def _whole(folder: Path) -> list[str]:
    """Files of a run by their names in the folder, which may have those of other runs below."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    runs = {name.parents[2] for name in names if name.match(f"{LOGS}/*/*.log")} - {Path()}
    return [
        name.as_posix()
        for name in names
        if name.parts[0] != LOGS
        and runs.isdisjoint(name.parents)
        and not files.is_beside(name.name)
    ]


def _files(folder: Path) -> list[Path]:
    return [
        folder / name
        for name in _whole(folder)
        if name.endswith((".csv", ".json"))
        and Path(name).name not in NOT_REPEATED_FILES
        and not name.startswith("benchmarks/")
    ]


def _numbers(path: Path) -> Iterator[tuple[str, Any]]:
    """Every value of a file by its place, such as `row 3, accuracy` or `groups.0.width`."""
    try:
        if path.suffix == ".json":
            yield from _leaves("", json.loads(path.read_text()))
            return
        frame = pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return
    except (OSError, ValueError):  # of pandas too: its ParserError is one
        yield "", "is not whole"
        return
    yield "rows", len(frame)
    for column in frame.columns.difference(list(NOT_REPEATED), sort=False):
        for row, value in enumerate(frame[column].tolist()):
            yield f"row {row + 1}, {column}", value


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in NOT_REPEATED:
                yield from _leaves(f"{where}.{key}" if where else key, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(f"{where}.{index}", inner)
    else:
        yield where, value


def _same(where: str, before: Any, after: Any, accuracy: float, relative: float) -> bool:
    if before == after or (before != before and after != after):  # both NaN
        return True
    numbers = all(isinstance(value, int | float) for value in (before, after))
    if not numbers:
        return False
    column = where.rpartition(", ")[2].rpartition(".")[2]
    if any(column == score or column.startswith(("accuracy", "area")) for score in SCORES):
        return bool(abs(before - after) <= accuracy)
    return bool(abs(before - after) <= relative * abs(before))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--accuracy", type=float, default=0.0, help="absolute, of scores")
    parser.add_argument("--relative", type=float, default=0.0, help="of all other numbers")
    given = parser.parse_args(arguments)
    for folder in (given.reference, given.found):
        if not folder.is_dir():
            print(f"{folder} is not there: run the workflow first", file=sys.stderr)
            return 2
    try:
        moved = compare(given.reference, given.found, given.accuracy, given.relative)
        moved = pd.concat([moved, *map(changed, (given.reference, given.found))])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for row in moved.itertuples(index=False):
        print(f"{row.file}: {row.where}: {row.reference} -> {row.found}")
    count = len(_files(given.reference))
    print(f"{count} files of {given.reference} compared with {given.found}: {len(moved)} moved")
    return 1 if len(moved) else 0


if __name__ == "__main__":
    sys.exit(main())
