"""What every run leaves behind: files that are whole or absent, and what made them."""

import ctypes
import json
import os
import resource
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ecc import files, provenance, stopping
from ecc.errors import UserError, refused


@contextmanager
def temporary(path: str | Path) -> Iterator[Path]:
    """A path to write to; renamed to `path` only when the block succeeds.

    A killed run therefore leaves either the whole file or none; what it left half goes with the
    next one. Of processes that do the same work (`ecc.parallel`), only the first one's stays.
    Raises UserError, one line that names the file, where the disk takes nothing.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent.glob(f".{escape(path.name)}.*.part"))
        yield draft
        if _first():
            os.replace(draft, path)
    except Exception as error:
        if advice := refused(error):
            reason = " ".join(str(error).split())
            raise UserError(f"{path} cannot be written ({reason}): {advice}") from error
        raise
    finally:
        with suppress(OSError):  # of a read-only disk
            draft.unlink(missing_ok=True)


def _remove_abandoned(drafts: Iterable[Path]) -> None:
    """Removes drafts whose process, the number in the name, was killed."""
    for draft in drafts:
        number = draft.name.split(".")[-2]
        if number.isdigit() and not stopping.alive(int(number)):
            draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with temporary(path) as draft:
        draft.write_text(text)


def write_json(path: str | Path, values: Any) -> None:
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Raises UserError, one line that names the file, where it is missing or not whole."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the workflow so that it is made") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): delete or move it") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not whole: delete it and run the workflow again") from None


def sibling(path: str | Path, first: str | Path) -> Path:
    """`path`, checked: one of the files that a job writes for its runs.

    The `first` of them, or a stamp that waits for all, stands for them where jobs are planned: only
    when it is gone are they made again.
    Raises UserError, with what to delete, where one is missing or is not what was written.
    """
    path, first = Path(path), Path(first)
    again = "run the same command"
    if path != first:
        again = f"{first}, and {again}"
    if not path.is_file():
        raise UserError(f"{path} is missing: {'' if path == first else 'delete '}{again}")
    files.verify(path, again)
    return path


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    with temporary(path) as draft:
        frame.to_csv(draft, index=False, lineterminator="\n")


def start() -> float:
    """Begins a run: time.monotonic(), for its `record`; peaks of memory count from here.

    What earlier runs of the process freed goes back to the system first. That, and a new mark, are
    of Linux with glibc: elsewhere a peak is that of the whole process so far.
    """
    if _gpu():
        sys.modules["torch"].cuda.reset_peak_memory_stats()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): VmHWM starts again
    return time.monotonic()


def record(seed: int, started: float) -> dict[str, Any]:
    """What the metrics of every run hold; `started` is from `start`.

    The peak memory is that of the process during the run, with its libraries and data; on a GPU
    that of tensors is beside it, else None.
    """
    return {
        "seed": seed,
        "seconds": time.monotonic() - started,
        "peak_memory_mb": _peak_mb(),
        "peak_gpu_memory_mb": _gpu_peak_mb(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
    }


def _peak_mb() -> float:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _gpu() -> bool:
    """Whether this process has used a GPU so far; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _gpu_peak_mb() -> float | None:
    return float(sys.modules["torch"].cuda.max_memory_allocated()) / 2**20 if _gpu() else None


def checkpoint_of(output: str | Path) -> Path:
    """The checkpoint of the run that writes `output`, beside it."""
    return Path(output).with_name("checkpoint.safetensors")


def finished(checkpoint: Path) -> None:
    """Removes the checkpoints of a run whose results are written, those of its phases too."""
    if _first():
        for left in checkpoint.parent.glob(f"{checkpoint.stem}*{checkpoint.suffix}"):
            left.unlink()
        _remove_abandoned(checkpoint.parent.glob(f".{checkpoint.stem}*.part"))


def _first() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def named_seed(seed: int, name: str) -> int:
    """A seed that keeps the noise of what is called `name` apart from that of everything else."""
    return zlib.crc32(f"{seed}/{name}".encode())
