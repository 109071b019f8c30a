"""Result files on a disk that damages them, takes no more, or dates them by a wrong clock.

A seal is the SHA-256 of a file beside it, `.NAME.sha256`, as sha256sum writes it. A job seals what
it has written, and refuses to read what has changed since.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from ecc.errors import UserError, refused

LOCK = ".run"  # in a results folder
AHEAD_S = 60.0  # clocks of machines that share a disk differ by less


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_of(path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(f".{path.name}.sha256")


def seal(path: str | Path) -> None:
    """From now on `verify` refuses any other content."""
    seal_of(path).write_text(f"{digest(path)}  {Path(path).name}\n")


def unseal(path: str | Path) -> None:
    """Before a file is written anew: a kill in between leaves no seal of the old one."""
    seal_of(path).unlink(missing_ok=True)


def verify(path: str | Path, again: str = "run the same command") -> None:
    """Raises UserError where a file is not what was sealed. One without a seal passes.

    `again` says how a file that was deleted is made again.
    """
    try:
        sealed = seal_of(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    if Path(path).is_file() and sealed.split(b" ")[0] != digest(path).encode():
        raise UserError(
            f"{path} is not what its job wrote: delete it and {again}, or delete "
            f"{seal_of(path)} to use it as it is"
        )


def kept(folder: str | Path) -> list[Path]:
    """Files of a journal, from which a killed job goes on; none where there is no such folder."""
    found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [path for path in found if not path.name.startswith(".")]


def is_beside(name: str) -> bool:
    """Whether a file is no result but a seal, a lock, or what a killed job left half."""
    return name == LOCK or (name.startswith(".") and name.endswith((".sha256", ".part")))


def refuse_future(folders: Iterable[str | Path]) -> None:
    """Raises UserError for a file dated in the future: what is edited now would look older.

    Images of datasets, below `data/<name>/`, are not looked at: no date of theirs decides anything.
    """
    limit = time.time() + AHEAD_S
    for top in folders:
        for folder, inner, names in os.walk(top):
            if Path(folder).parent.name == "data":
                inner.clear()
            for path in (Path(folder, name) for name in names):
                try:
                    dated = path.stat().st_mtime
                except OSError:  # removed meanwhile, or a dangling link
                    continue
                if dated > limit:
                    raise UserError(
                        f"{path} is dated {datetime.fromtimestamp(dated):%Y-%m-%d %H:%M}, in the "
                        f"future: set the clock; if it is right, `find {top} -newermt now -exec "
                        "touch -d $(date -Is) {} +` keeps such files; deleted, they are made again"
                    )


def refuse_unwritable(folder: str | Path) -> None:
    """Raises UserError where nothing can be written to `folder`, now rather than job by job."""
    probe = Path(folder) / f".{os.getpid()}.part"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(4096))
    except OSError as error:
        told = refused(error) or "see to it, or set `results` to another folder"
        raise UserError(f"{folder} cannot be written ({error.strerror}): {told}") from error
    finally:
        with suppress(OSError):  # of a read-only disk
            probe.unlink(missing_ok=True)


def hold(folder: str | Path) -> BinaryIO | None:
    """Takes `folder` for this process, as long as what is returned is open; however it ends.

    None where the disk has no such locks. Raises UserError where another process has it.
    """
    path = Path(folder) / LOCK
    try:
        file = path.open("ab")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): delete it where no run is at work"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"another run is at work on {folder}: wait for it, or stop it") from error
    except OSError:
        file.close()
        return None
    return file
