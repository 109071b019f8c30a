"""The journal of a campaign: one line a window in `windows.csv`, on the disk when it was taken.

Only the last line can ever be torn, and it is cut off. Values are raw: what is made of them
(`ecc.measuring.drift`) can be made again. Columns, beside those whose names say all:

- kind: "sample", "reference", or "repeat", a sample that is measured a second time.
- sample: the row of the widths asked for at that time; -1 for the reference.
- raw_energy_j (or raw_latency_s): joules (seconds) of one image, of which latency_s are seconds.
- attempts: windows that were tried; all but the last were thrown away, most for throttling.
- throttled: what throttled those that were thrown away, joined by "+".
- started_s: seconds since the first segment began, by the date from one segment to the next.
"""

import fcntl
import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.metrics import METRICS, Metric

WINDOWS = "windows.csv"
Kind = Literal["sample", "reference", "repeat"]
KINDS: tuple[Kind, ...] = ("sample", "reference", "repeat")
INTEGERS = ("window", "segment", "sample", "iterations", "batch", "attempts")

# What the provenance must hold, beside what is only shown.
NEEDED: dict[str, Callable[[Any], bool]] = {
    "fingerprint": lambda value: isinstance(value, str),
    "metric": lambda value: value in METRICS,
    "sensor": lambda value: isinstance(value, str),
    "device": lambda value: isinstance(value, str),
    "batch": lambda value: type(value) is int and value >= 1,
    "settings": lambda value: type(value["baseline"]) is int and value["baseline"] >= 1,
    "segments": lambda value: isinstance(value, list) and all(type(one) is dict for one in value),
}


def columns(metric: Metric, groups: int) -> list[str]:
    """Columns of `windows.csv`; a metric that is the latency itself has no second one."""
    return [
        *("window", "segment", "kind", "sample"),
        *width_columns(groups),
        *(f"raw_{metric}", "power_w"),
        *(["latency_s"] if metric != "latency_s" else []),
        *("window_s", "iterations", "batch", "idle_power_w", "temperature_c", "clock_mhz"),
        *("capped", "attempts", "throttled", "started_s"),
    ]


def width_columns(groups: int) -> list[str]:
    return [f"width_{group}" for group in range(groups)]


def metric_of(windows: pd.DataFrame) -> Metric:
    """Raises UserError for a table that is not one of windows."""
    for metric in METRICS:
        if f"raw_{metric}" in windows:
            return metric
    raise UserError("a table of windows has no column raw_energy_j or raw_latency_s")


def read(path: str | Path, groups: int) -> pd.DataFrame:
    """The windows of a journal, without a torn last line; no columns where there is no header.

    Raises UserError, naming the file, where it is another network's or no journal at all.
    """
    path = Path(path)
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): delete or move it") from error
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        return pd.DataFrame()
    header = whole.split(b"\n", 1)[0].decode(errors="replace").split(",")
    if header not in [columns(metric, groups) for metric in METRICS]:
        raise UserError(
            f"{path} has not the columns of windows of this network ({groups} groups): delete or "
            "move its folder, or choose another"
        )
    lines = [line.split(",") for line in whole.decode(errors="replace").splitlines()[1:]]
    for number, line in enumerate(lines, 2):
        if len(line) != len(header) or line[header.index("kind")] not in KINDS:
            raise _damaged(path, number)
    # Not pandas' reader, whose floats are not the written ones in every version.
    table = dict(zip(header, zip(*lines, strict=True), strict=True)) if lines else {}
    values = {name: _values(path, name, table.get(name, ())) for name in header}
    return pd.DataFrame(values)


def read_provenance(path: str | Path, advice: str) -> dict[str, Any]:
    """What `campaign.json`, or the file of a recorded campaign, tells of how it was measured.

    Raises UserError, which names the file and ends in `advice`, where it is not that of a campaign.
    """
    try:
        values = json.loads(Path(path).read_bytes())
        for key, holds in NEEDED.items():
            if not holds(values[key]):
                raise ValueError(f"its {key} is {json.dumps(values[key])[:40]}")
        if not isinstance(values.get("meter", {}), dict):
            raise ValueError("its meter is no mapping")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): {advice}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not the provenance of a campaign ({reason}): {advice}") from error
    provenance: dict[str, Any] = values
    return provenance


class Journal:
    """The journal of this process alone, from `with` until its end or the end of the process.

    Raises UserError where another process has it.
    """

    def __init__(self, folder: Path, groups: int):
        self.path, self.groups = folder / WINDOWS, groups
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UserError(
                f"{self.path.parent} belongs to a campaign that is running: wait for its end, or "
                "choose another folder"
            ) from error
        data = self.path.read_bytes()
        self._cut(data.rfind(b"\n") + 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # and with it the lock

    def read(self) -> pd.DataFrame:
        return read(self.path, self.groups)

    def begin(self, metric: Metric) -> None:
        """Writes the header where there is none."""
        if not self.path.stat().st_size:
            self._write(columns(metric, self.groups))

    def append(self, window: Mapping[str, Any]) -> None:
        """The values by column. Returns when the disk has them."""
        self._write(_text(value) for value in window.values())

    def withdraw(self, count: int) -> None:
        """Takes the last `count` windows back."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        self._cut(sum(map(len, lines[:-count])))

    def _write(self, values: Iterable[str]) -> None:
        line = (",".join(values) + "\n").encode()
        while line:  # a disk that is nearly full takes a part
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())

    def _cut(self, size: int) -> None:
        if size < self.path.stat().st_size:
            self._file.truncate(size)
            os.fsync(self._file.fileno())


def matched(
    rows: NDArray[np.int64], widths: NDArray[np.int64], windows: pd.DataFrame, kind: Kind
) -> NDArray[np.int64]:
    """Which window tells of each row: positions in `windows`, (n,), -1 where there is none yet.

    `widths` (rows asked for, groups); `rows` (n,) of them. A window serves one row, of the same
    widths, if possible that for which it was taken.
    """
    found = np.full(len(rows), -1, dtype=np.int64)
    if windows.empty:
        return found
    taken = np.flatnonzero((windows["kind"] == kind).to_numpy())
    values = windows[width_columns(widths.shape[1])].to_numpy(dtype=np.int64)[taken]
    samples = windows["sample"].to_numpy()[taken]
    place = {int(row): index for index, row in enumerate(rows)}
    left: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for position, sample, own in zip(taken, samples, values, strict=True):
        index = place.get(int(sample), -1)
        if index >= 0 and found[index] < 0 and (widths[sample] == own).all():
            found[index] = position
        else:
            left[own.tobytes()].append(int(position))
    for row, index in place.items():
        if found[index] < 0 and (fitting := left.get(widths[row].tobytes())):
            found[index] = fitting.popleft()
    return found


def _values(path: Path, name: str, texts: Sequence[str]) -> Any:
    """A column; raises UserError that names the line where it cannot be one."""
    if name in ("kind", "throttled"):
        return pd.Series(texts, dtype=object)
    if name == "capped":
        return np.array([text in ("True", "true", "1") for text in texts], dtype=bool)
    integer = name in INTEGERS or name.startswith("width_")
    needed = integer or name.startswith("raw_") or name == "started_s"
    values = np.empty(len(texts), dtype=np.int64 if integer else np.float64)
    for row, text in enumerate(texts):
        try:
            values[row] = int(text) if integer else float(text if text or needed else "nan")
        except (ValueError, OverflowError) as error:
            raise _damaged(path, row + 2) from error
        wrong = text and not np.isfinite(values[row])
        if wrong or (name.startswith("raw_") and values[row] <= 0):
            raise _damaged(path, row + 2)
    return values


def _damaged(path: Path, line: int) -> UserError:
    return UserError(f"{path}: line {line} is not that of a window: correct or delete it")


def _text(value: Any) -> str:
    """Every digit of a number, nothing for NaN."""
    if isinstance(value, float):
        return "" if value != value else repr(float(value))
    return str(value)
