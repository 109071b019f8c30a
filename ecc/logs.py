"""The one helper for the scripts of jobs: logging, errors in one line, no orphans."""

import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ecc import files, provenance, stopping
from ecc.errors import UserError, refused

PARENT = "ECC_PARENT"  # environment variable: process without which a job has no purpose
POLL_S = 0.5
GRACE_S = 10.0


@contextmanager
def job(
    log: str | Path,
    inputs: Iterable[str | Path] = (),
    outputs: Iterable[str | Path] = (),
    journals: Iterable[str | Path] = (),
) -> Iterator[None]:
    """Runs a job's work: what it logs goes to the file `log` and to the terminal.

    An error ends the process with exit code 1 and one line on the terminal; the traceback of an
    unexpected error is in the log. The job stops when the process named by ECC_PARENT is gone.
    An input that has changed since its job wrote it is an error; outputs are sealed (`ecc.files`).
    So are the files of `journals`, folders that a job goes on from when it was killed. What made
    the outputs (`ecc.provenance`) is written beside the log.
    """
    path, inputs, outputs, journals = Path(log), list(inputs), list(outputs), list(journals)
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter(f"{path.parent.name} {path.stem}: %(message)s"))
    terminal.addFilter(_ours)
    terminal.addFilter(lambda record: record.name != "py.warnings")
    logging.basicConfig(level=logging.INFO, handlers=[terminal], force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log on a full disk would print a traceback a line
    stopping.listen()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        _begin(path)
        before = [file for folder in journals for file in files.kept(folder)]
        for file in [*inputs, *before]:
            files.verify(file)
        for file in [*outputs, *before]:
            files.unseal(file)
        yield
        for file in [*outputs, *(file for folder in journals for file in files.kept(folder))]:
            files.seal(file)
        provenance.write(path, outputs)
    except UserError as error:
        logging.error(_one_line(error))
        sys.exit(1)
    except Exception as error:
        if advice := refused(error):
            logging.error(f"{_one_line(error)}: {advice}")
            sys.exit(1)
        with suppress(OSError), path.open("a") as details:
            traceback.print_exc(file=details)
        name = type(error).__name__
        logging.error(f"unexpected {name}: {_one_line(error)} (traceback in {path})")
        sys.exit(1)


def _begin(path: Path) -> None:
    """A log of this job alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    provenance.record_of(path).unlink(missing_ok=True)
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    file.addFilter(_ours)
    logging.getLogger().addHandler(file)


def errors(folder: str | Path, since: float) -> list[str]:
    """The last words of the jobs that failed since a time: one line each, from their logs."""
    found = []
    for path in sorted(Path(folder).rglob("*.log")):
        if path.stat().st_mtime >= since:
            said = [line for line in path.read_text().splitlines() if " ERROR " in line]
            found += [f"{path}: {line.split(' ERROR ', 1)[1]}" for line in said[-1:]]
    return found


def of_disks(record: logging.LogRecord) -> bool:
    """A filter for whoever starts jobs: tells in one line of a disk that takes nothing.

    It leaves the last line of a traceback, with what to do, and lets every record pass.
    """
    said = record.getMessage().rstrip()
    last = said.rpartition("\n")[2]
    number = re.match(r"OSError: \[Errno (\d+)\]", last)
    if number and "Traceback" in said and (advice := refused(OSError(int(number[1]), ""))):
        record.msg, record.args = f"{last}: {advice}", ()
    return True


def _ours(record: logging.LogRecord) -> bool:
    """Other libraries are heard only when they warn."""
    return record.levelno >= logging.WARNING or record.name.split(".")[0] in ("ecc", "root")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _stop_with_parent() -> None:
    """Whoever kills the workflow outright leaves its jobs as orphans that still write."""
    starter, parent = os.getppid(), int(os.environ.get(PARENT, os.getppid()))
    while os.getppid() == starter and stopping.alive(parent):
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)  # the main thread is deep in a computation that no signal interrupts
