"""Disks and clocks that fail under the workflow, files that change, and two runs at once.

Every fault works on a copy of a folder in which a run has ended. Its result is what was seen, in
words; it raises WrongError for anything silent, lost, or told by a traceback.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults import workspace
from tests.faults.kills import WrongError
from tests.faults.workspace import RESULTS, SMOKE

SOME = ("finetuned/erfnet", "tables")  # deleted, so that a run has something to do
FUTURE = ("in the future: set the clock", "find")
HOUR_S, YEAR_S = 3600.0, 365 * 86400.0
# Python runs it before anything else.
JUMP = """\
import os, time

def jumps(clock, unit):
    return lambda: clock() + unit * int({ahead_s} * os.path.exists({mark!r}))

time.time, time.time_ns = jumps(time.time, 1), jumps(time.time_ns, 10**9)
"""
# One of each of these is damaged; all but figures' PDF, slim weights and the page are read by jobs.
DAMAGED = (
    "networks/*.json",
    "samples/*/mobilenet/samples.csv",
    "energy_models/jetson_tx2/erfnet_embedded/*nnls.json",
    "energy_models/*/mobilenet/mlp*.safetensors",
    "budgets/*/*.json",
    "dense/*/model.safetensors",
    "data/*/manifest.json",
    "data/*/pixels.safetensors",
    "compressed/*/*/*/*/*/masked.safetensors",
    "compressed/*/*/*/*/*/history.csv",
    "compressed/*/*/*/*/*/closing.json",
    "finetuned/*/*/*/*/*/metrics.json",
    "finetuned/*/*/*/*/*/energy.json",
    "finetuned/*/*/*/*/*/slim.safetensors",
    "eap/*/*/*/*/rounds.csv",
    "evolution/*/*/*/networks.csv",
    "tables/*.csv",
    "figures/*.png",
    "figures/*.pdf",
    "index.html",
)
IMAGE = "data/*/train/*/*.png"  # kept as it was made: jobs read the pixels of all, in one file


@dataclass(frozen=True)
class Case:
    """A folder in which a run has ended, one to copy it to, draws, and the tables at the end."""

    finished: Path
    folder: Path
    rng: random.Random
    expected: dict[str, bytes]

    @property
    def results(self) -> Path:
        return self.folder / RESULTS

    def copied(self, *without: str) -> None:
        """A fresh copy of the finished folder, but for parts of its results."""
        workspace.copy(self.finished, self.folder)
        for part in without:
            shutil.rmtree(self.results / part)

    def refused(self, *words: str) -> str:
        """Runs the workflow, which has to fail in words; returns the line that holds them all."""
        code, output = workspace.snakemake(self.folder, *SMOKE)
        return told(code, output, *words)

    def ends(self) -> None:
        """Runs the workflow, which has to end with the right tables."""
        code, output = workspace.snakemake(self.folder, *SMOKE)
        if code:
            raise WrongError(f"the same command fails:\n{output[-3000:]}")
        if names := workspace.moved(self.folder, self.expected):
            raise WrongError(f"tables differ: {', '.join(names)}")
        if left := workspace.litter(self.folder):
            raise WrongError(f"left behind: {', '.join(left[:5])}")
        if gone := self.compared():
            raise WrongError(f"results differ:\n{gone[-3000:]}")

    def compared(self) -> str:
        """What `ecc.evidence.reproduction` finds to be moved; "" for nothing."""
        module = [sys.executable, "-m", "ecc.evidence.reproduction"]
        places = [str(self.finished / RESULTS), str(self.results)]
        done = subprocess.run(
            [*module, *places], cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.stderr:
            raise WrongError(f"the comparison fails:\n{done.stderr[-3000:]}")
        return done.stdout if done.returncode else ""


def told(code: int, output: str, *words: str) -> str:
    """The line of a failed run that holds all `words`."""
    if code == 0:
        raise WrongError(f"the run says that all is well; expected was '{' '.join(words)}'")
    if "Traceback" in output:
        raise WrongError(f"a traceback on the terminal:\n{output[-3000:]}")
    lines = [line for line in output.splitlines() if all(word in line for word in words)]
    if not lines:
        raise WrongError(f"no line has '{' '.join(words)}':\n{output[-3000:]}")
    return lines[-1]


@contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[None]:
    """A mount, until the end of the block."""
    subprocess.run(["mount", *arguments, str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


@contextmanager
def small_disk(place: Path, spare: int) -> Iterator[None]:
    """A disk with the content of `place` on it, and `spare` more bytes; then as it was, grown."""
    aside = place.with_name(f"{place.name}.aside")
    place.rename(aside)
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=8g", "tmpfs"):
        shutil.copytree(aside, place, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(aside)
        _resize(place, _used(place) + spare)
        yield
        grown = place.with_name(f"{place.name}.grown")
        shutil.copytree(place, grown, symlinks=True)
    place.rmdir()
    grown.rename(place)


def _used(place: Path) -> int:
    """Bytes on the disk mounted there."""
    found = os.statvfs(place)
    # A size of 0 would be no limit.
    return max(found.f_blocks - found.f_bfree, 1) * found.f_frsize


def _resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def full_disk(case: Case) -> str:
    """A disk of results that is full, or full a little later; then it is larger."""
    case.copied(*SOME)
    return _fills(case, case.results, (0, case.rng.randrange(20_000, 200_000)))


def full_working_folder(case: Case) -> str:
    """The same where Snakemake's own files are on that disk, too."""
    case.copied(*SOME)
    return _fills(case, case.folder, (0, case.rng.randrange(300_000, 900_000)))


def _fills(case: Case, place: Path, spares: Sequence[int]) -> str:
    """Each of the `spares` is the free bytes of one run, in the order given."""
    seen = []
    with small_disk(place, 2**30):
        for spare in spares:
            _resize(place, _used(place) + spare)
            line = case.refused("No space left on device")
            seen.append(f"{spare} bytes left: {line}")
        _resize(place, 8 * 2**30)
        workspace.unlock(case.folder)
        case.ends()
    return "\n".join(seen)


def read_only(case: Case) -> str:
    """Results that cannot be written from the begin, then from some moment of a run on."""
    case.copied(*SOME)
    with mounted(case.results, "--bind", str(case.results)):
        _remount(case.results, "ro")
        lines = [case.refused("Read-only file system", RESULTS)]
        _remount(case.results, "rw")
        log = case.folder.with_name("read_only.log")
        with workspace.started(case.folder, log) as run:
            _at_work(run, log, case.rng.randrange(1, 4))
            while run.poll() is None and not _remount(case.results, "ro"):
                time.sleep(0.05)  # a file is open for writing
            lines.append(told(run.wait(), log.read_text(), "Read-only file system"))
        _remount(case.results, "rw")
        case.ends()
    return "\n".join(lines)


def _at_work(run: subprocess.Popen[bytes], log: Path, jobs: int) -> None:
    """Waits until a run has begun so many jobs, however fast the machine is."""
    while workspace.begun(log) < jobs:
        if run.poll() is not None:
            raise WrongError(f"the run ends before {jobs} jobs:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)


def _remount(place: Path, how: str) -> bool:
    arguments = ["mount", "-o", f"remount,bind,{how}", str(place)]
    return subprocess.run(arguments, check=False, capture_output=True).returncode == 0


def damaged_files(case: Case) -> str:
    """Files of every kind, cut or with one bit flipped: first unnoticed by date, then dated now."""
    case.copied()
    odd = case.rng.randrange(2)
    hurt = {}
    for number, kind in enumerate((*DAMAGED, IMAGE)):
        there = [path for path in case.results.glob(kind) if path.name not in workspace.TOOK]
        path = case.rng.choice(sorted(there))
        hurt[path] = _damage(path, case.rng, cut=number % 2 == odd)
    code, output = workspace.snakemake(case.folder, *SMOKE)
    if code or "Nothing to be done" not in output:
        raise WrongError(f"what has the same date is run again:\n{output[-3000:]}")
    listed = case.compared()
    named = [str(path.relative_to(case.results)) for path in hurt]
    if silent := [name for name in named if f"{name}: checksums.txt" not in listed]:
        raise WrongError(f"the comparison does not list {', '.join(silent)}:\n{listed[-3000:]}")
    image = list(hurt)[-1]
    shutil.copy2(case.finished / image.relative_to(case.folder), image)
    del hurt[image]
    for path in hurt:
        os.utime(path)
    runs = 0
    while left := [path for path in hurt if path.is_file() and path.read_bytes() == hurt[path]]:
        code, output = workspace.snakemake(case.folder, *SMOKE)
        runs += 1
        inner = {path: str(path.relative_to(case.folder)) for path in left}
        told_of = [path for path in left if f"{inner[path]} is not what its job wrote" in output]
        if code == 0 or "Traceback" in output or not told_of:
            about = ", ".join(inner.values())
            raise WrongError(f"exit code {code}, still damaged: {about}:\n{output[-3000:]}")
        for path in told_of:
            path.unlink()
            advice = (
                rf"{inner[path]} is not .*?: delete it and (?:(\S+), and )?run the same command"
            )
            beside, target = next(re.finditer(rf"{advice}(?: with `-- (\S+)`)?", output)).groups()
            if beside:
                (case.folder / beside).unlink(missing_ok=True)
            if target:
                workspace.snakemake(case.folder, *SMOKE, "--", target)
    case.ends()
    if gone := [name for name in named if not (case.results / name).is_file()]:
        raise WrongError(f"lost: {', '.join(gone)}")
    return f"{len(named)} files cut or flipped, told of in {runs} runs and deleted"


def damaged_siblings(case: Case) -> str:
    """Files of one run of several that a job writes, cut, flipped or gone, one at a time, when the
    job that reads them is to run again."""
    lines = []
    table = "tables/accuracy_at_budget.csv"
    for kind, reading in (
        ("finetuned/mobilenet/*/reducible-0.4/*/*/energy.json", [table]),
        (
            "compressed/mobilenet/*/reducible-0.4/*/*/closing.json",
            [table, "finetuned/mobilenet/*/*/*/*/metrics.json"],
        ),
    ):
        case.copied()
        for harm in ("cut", "flipped", "gone"):
            path = case.rng.choice(sorted(case.results.glob(kind)))
            for read in [file for pattern in reading for file in case.results.glob(pattern)]:
                read.unlink()
            if harm == "gone":
                path.unlink()
            else:
                _damage(path, case.rng, cut=harm == "cut")
            inner = str(path.relative_to(case.folder))
            line = case.refused(
                inner, "is missing" if harm == "gone" else "is not what its job wrote"
            )
            path.unlink(missing_ok=True)
            if beside := re.search(r"delete (?:it and )?(\S+), and run the same command", line):
                (case.folder / beside[1]).unlink(missing_ok=True)
            case.ends()
            lines.append(line)
    return "\n".join(lines)


def _damage(path: Path, rng: random.Random, *, cut: bool) -> bytes:
    """Half of the file, or one bit of it another; it keeps its date. Returns its content now."""
    dated, content = path.stat(), bytearray(path.read_bytes())
    if cut:
        content = content[: len(content) // 2]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(dated.st_atime_ns, dated.st_mtime_ns))
    return bytes(content)


def wrong_clock(case: Case) -> str:
    """Dates as jumps of the clock leave them: results of the future, of long ago, during a run.

    Then a clock that jumps by an hour for all processes of a run, but not for the dates of files,
    which may be those of a server.
    """
    case.copied()
    for path in _results(case):
        _date(path, YEAR_S)
    lines = [case.refused(*FUTURE)]
    subprocess.run(lines[0].split("`")[1], shell=True, cwd=case.folder, check=True)
    source = case.folder / "ecc/evidence/figures.py"
    _date(source, YEAR_S)
    lines.append(case.refused("ecc/evidence/figures.py is dated", *FUTURE))
    os.utime(source)
    case.ends()
    for path in _results(case, "tables", "figures", "finetuned/erfnet"):
        _date(path, -case.rng.choice([HOUR_S, 10 * YEAR_S]))
    case.ends()
    case.copied(*SOME)
    log = case.folder.with_name("wrong_clock.log")
    with workspace.started(case.folder, log) as run:
        _at_work(run, log, case.rng.randrange(1, 6))
        for path in _results(case):
            with suppress(FileNotFoundError):
                _date(path, HOUR_S)
        code = run.wait()
    if code:
        lines.append(told(1, log.read_text(), "older modification time"))
    line = case.refused(*FUTURE)
    subprocess.run(line.split("`")[1], shell=True, cwd=case.folder, check=True)
    case.ends()
    for ahead_s in (HOUR_S, -HOUR_S):
        case.copied(*SOME)
        jump = jumping(case.folder, ahead_s)
        with workspace.started(case.folder, log, PYTHONPATH=str(case.folder)) as run:
            _at_work(run, log, case.rng.randrange(1, 6))
            jump.touch()
            if run.wait():
                raise WrongError(f"a clock that jumps ends the run:\n{log.read_text()[-3000:]}")
        jump.unlink()
        case.ends()
    return "\n".join(lines)


def jumping(folder: Path, ahead_s: float) -> Path:
    """A file: once it is there, the clock is `ahead_s` ahead for whoever has `folder` on
    PYTHONPATH, as the jobs of a run in it have.
    """
    mark = folder / "jumped"
    (folder / "sitecustomize.py").write_text(JUMP.format(mark=str(mark), ahead_s=ahead_s))
    return mark


def _results(case: Case, *parts: str) -> list[Path]:
    """Files that rules write, those in `parts` if some are given; no images of datasets."""
    found = [path for part in parts or ("",) for path in (case.results / part).rglob("*")]
    return [path for path in found if path.is_file() and not _image(path)]


def _image(path: Path) -> bool:
    return path.suffix == ".png" and "data" in path.parts


def _date(path: Path, ahead_s: float) -> None:
    then = time.time() + ahead_s
    os.utime(path, (then, then))


def two_at_once(case: Case) -> str:
    """A second run, its unlocking first, while another is at work: it is refused."""
    case.copied(*SOME)
    logs = [case.folder.with_name(f"two{number}.log") for number in (0, 1)]
    with ExitStack() as stack:
        runs = []
        for log in logs:
            runs.append(stack.enter_context(workspace.started(case.folder, log)))
            time.sleep(case.rng.choice([0, case.rng.uniform(0, 8)]))
        while not list(case.folder.glob(".snakemake/locks/*")) and runs[0].poll() is None:
            time.sleep(0.05)
        refusal = subprocess.run(
            [sys.executable, "profiles/unlock.py"],
            cwd=case.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        codes = [run.wait() for run in runs]
    ours = "another run is at work on"  # both had Snakemake's lock, which the one that ends removes
    is_ours = any(ours in log.read_text() for log in logs)
    if not is_ours and "snakemake runs here already" not in refusal.stderr:
        raise WrongError(f"the lock of a run at work is removed: {refusal.stderr}")
    if codes.count(0) != 1:
        texts = "\n".join(log.read_text()[-1500:] for log in logs)
        raise WrongError(f"exit codes {codes} of two runs at once:\n{texts}")
    refused = ours if is_ours else "Directory cannot be locked"
    line = told(1, logs[codes.index(1)].read_text(), refused)
    case.ends()
    return line


FAULTS: dict[str, Callable[[Case], str]] = {
    "full_disk": full_disk,
    "full_working_folder": full_working_folder,
    "read_only": read_only,
    "damaged_files": damaged_files,
    "damaged_siblings": damaged_siblings,
    "wrong_clock": wrong_clock,
    "two_at_once": two_at_once,
}
MOUNT = ("full_disk", "full_working_folder", "read_only")  # these need root
