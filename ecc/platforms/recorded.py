"""Recorded campaigns as a platform: what was measured once is replayed, exactly and anywhere.

A folder holds one device. Every network has two files in it: `<network>.csv.gz`, the windows of
its campaign as they were taken, and `<network>.json`, how they were taken (`ecc.measuring`).
"""

import gzip
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecc import runs
from ecc.errors import UserError
from ecc.measuring.drift import corrected
from ecc.measuring.interface import Found
from ecc.measuring.journal import KINDS, WINDOWS, columns, read_provenance, width_columns
from ecc.metrics import WORDS, Metric
from ecc.platforms.interface import Array, Campaign, HasStructure, checked_widths
from ecc.structure import Structure

Widths = NDArray[np.int64]
MEASUREMENTS = Path("resources/measurements")
PROVENANCE = "campaign.json"
SUFFIX = ".csv.gz"
INTEGERS = ("window", "segment", "sample", "iterations", "batch", "attempts")
AGAIN = "record the campaign again"


@dataclass(frozen=True)
class Recorded:
    """The recorded campaigns of one device; `measure` knows the widths that they measured."""

    name: str
    folder: str | Path
    _read: dict[str, "_Replay"] = field(default_factory=dict, repr=False, compare=False)

    @property
    def emulated(self) -> bool:
        """Whether the campaigns are those of a simulated sensor."""
        return any(
            isinstance(about := provenance.get("about"), dict) and about.get("kind") == "simulated"
            for provenance in self._provenances.values()
        )

    @property
    def metric(self) -> Metric:
        metric: Metric = self._same("metric")
        return metric

    @property
    def description(self) -> str:
        how = "simulated, recorded" if self.emulated else "recorded"
        return f"{self._same('device')} ({how}, batch {self._same('batch')})"

    def measure(
        self,
        network: HasStructure,
        widths: ArrayLike,
        *,
        seed: int,
        first: int = 0,
        journal: Path | None = None,
    ) -> Array:
        """Recorded joules (or seconds) of one inference, (n,), for widths (n, groups), no drift.

        Where widths occur several times, each row takes the next recording of them, or the last
        again where there are fewer; `seed`, `first` and `journal` change nothing.
        Raises UserError for widths that were not recorded.
        """
        rows = checked_widths(network.structure, widths)
        replay = self._replay(network.structure)
        found = np.empty(len(rows))
        asked: defaultdict[bytes, int] = defaultdict(int)
        for row, own in enumerate(rows):
            recordings = replay.recordings.get(key := own.tobytes())
            if recordings is None:
                raise UserError(
                    f"widths {','.join(map(str, own))} (row {row}) were not recorded: {self.name} "
                    f"replays {self.folder}, so ask for recorded widths, or measure with a sensor"
                )
            found[row] = recordings[min(asked[key], len(recordings) - 1)]
            asked[key] += 1
        return found

    def sampled(self, structure: Structure) -> Widths:
        """The random widths (n, groups) of the campaign, in the order of their sample numbers.

        What a campaign measures beside them is left out: the dense and the smallest network, and
        sweeps, in which one group alone is narrowed.
        """
        windows = self._replay(structure).windows
        taken = windows[windows["kind"] == "sample"].sort_values(["sample", "window"])
        widths = taken[width_columns(len(structure.groups))].to_numpy(dtype=np.int64)
        narrowed = (widths < structure.full_widths).sum(axis=1)
        random: Widths = widths[(narrowed > 1) & (widths > 1).any(axis=1)]
        return random

    def known(self, structure: Structure, widths: ArrayLike) -> NDArray[np.bool_]:
        """Which of widths (n, groups) were recorded, (n,)."""
        recordings = self._replay(structure).recordings
        return np.array(
            [row.tobytes() in recordings for row in checked_widths(structure, widths)], dtype=bool
        )

    def campaign(self, structure: Structure, journal: Path) -> Campaign:
        """The recorded campaign of this network."""
        replay = self._replay(structure)
        return Campaign(replay.windows, dict(replay.provenance))

    @cached_property
    def _provenances(self) -> dict[Path, dict[str, Any]]:
        """By file. Raises UserError where there are none, or one without the other file."""
        folder = Path(self.folder)
        files = sorted(folder.glob("*.json"))
        for windows in sorted(folder.glob(f"*{SUFFIX}")):
            if (own := folder / f"{windows.name.removesuffix(SUFFIX)}.json") not in files:
                raise UserError(f"{windows}: {own.name} is missing beside it: {AGAIN}")
        if not files:
            raise UserError(
                f"platform {self.name}: no recorded campaigns in {folder}: correct the folder, or "
                "record one (python -m ecc.platforms record)"
            )
        return {file: read_provenance(file, AGAIN) for file in files}

    def _same(self, key: str) -> Any:
        """A value on which all campaigns agree; raises UserError where they do not."""
        values = {file.stem: provenance[key] for file, provenance in self._provenances.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{network} {value}" for network, value in values.items())
            raise UserError(
                f"{self.folder}: its campaigns have different values of {key} ({told}): "
                "keep them in different folders"
            )
        return next(iter(values.values()))

    def _replay(self, structure: Structure) -> "_Replay":
        if (own := structure.fingerprint) not in self._read:
            files = [f for f, about in self._provenances.items() if about["fingerprint"] == own]
            if len(files) != 1:
                listed = ", ".join(file.stem for file in files or self._provenances)
                raise UserError(
                    f"{self.folder}: this network ({len(structure.groups)} groups, fingerprint "
                    f"{own[:8]}) is recorded {len(files)} times, not once: recorded "
                    f"{'of it' if files else 'networks'} are {listed}"
                )
            self._read[own] = _Replay(files[0], self._provenances[files[0]], structure.full_widths)
        return self._read[own]


class _Replay:
    """One recorded campaign: its windows, and the recordings of every vector of widths."""

    def __init__(self, file: Path, provenance: Mapping[str, Any], full: Widths):
        path = file.with_name(f"{file.stem}{SUFFIX}")
        self.provenance = provenance
        self.windows = _windows(_unpacked(path), path, provenance, full)
        rows = _corrected(self.windows, path, provenance)
        rows = rows[rows["kind"] != "reference"]
        # A blind repeat is a second measurement, so it comes after all first ones.
        rows = rows.assign(again=rows["kind"] == "repeat").sort_values(
            ["again", "sample", "window"]
        )
        widths = rows[width_columns(len(full))].to_numpy(dtype=np.int64)
        found: defaultdict[bytes, list[float]] = defaultdict(list)
        for own, value in zip(widths, rows[provenance["metric"]].tolist(), strict=True):
            found[own.tobytes()].append(value)
        self.recordings = dict(found)


def record(
    campaign: str | Path, folder: str | Path, network: str, structure: Structure | None = None
) -> Path:
    """Keeps a campaign (a folder with windows.csv and campaign.json) as `network` in `folder`.

    Returns the file of the windows. Everything is checked first, widths against those of the
    network where its `structure` is given; the same campaign gives the same bytes.
    Raises UserError, one line that names the file, where something is wrong.
    """
    source, target = Path(campaign), Path(folder) / f"{network}{SUFFIX}"
    if not network or Path(network).name != network:
        raise UserError(f"'{network}' cannot be the name of a network's file: give a plain name")
    provenance = read_provenance(source / PROVENANCE, AGAIN)
    if structure is not None and provenance["fingerprint"] != structure.fingerprint:
        raise UserError(f"{source / PROVENANCE}: measured another network: choose its structure")
    path = source / WINDOWS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): give a campaign") from error
    data = data[: data.rfind(b"\n") + 1]  # a torn last line is one that was never taken
    full = None if structure is None else structure.full_widths
    _corrected(_windows(data, path, provenance, full), path, provenance)
    packed = BytesIO()
    # Neither date nor name, so that the bytes repeat.
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(data)
    with runs.temporary(target) as draft:
        draft.write_bytes(packed.getvalue())
    runs.write_json(target.with_name(f"{network}.json"), provenance)
    return target


def found(folder: str | Path = MEASUREMENTS) -> list[Found]:
    """Recorded campaigns of all devices in `folder`; never raises."""
    files = [(file, end) for end in (".json", SUFFIX) for file in Path(folder).glob(f"*/*{end}")]
    entries = sorted({(file.parent, file.name.removesuffix(end)) for file, end in files})
    return [_listed(parent, network) for parent, network in entries]


def write_widths(widths: ArrayLike, path: str | Path) -> None:
    """The file of widths (n, groups) that `collector/collect.py` measures."""
    rows = np.asarray(widths, dtype=np.int64)
    frame = pd.DataFrame(rows, columns=width_columns(rows.shape[1]))
    frame.insert(0, "sample", np.arange(len(rows)))
    runs.write_csv(path, frame)


def _listed(parent: Path, network: str) -> Found:
    try:
        provenance = read_provenance(parent / f"{network}.json", AGAIN)
        path = parent / f"{network}{SUFFIX}"
        windows = _windows(_unpacked(path), path, provenance, None)
    except UserError as error:
        return Found(f"{parent.name}: {network}", lacks=str(error))
    samples = int((windows["kind"] == "sample").sum())
    return Found(
        f"{parent.name}: {network}, {WORDS[provenance['metric']]} of {samples} samples on "
        f"{provenance['device']}, batch {provenance['batch']}"
    )


def _unpacked(path: Path) -> bytes:
    try:
        data = gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated, or not gzip ({error}): {AGAIN}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): {AGAIN}") from error
    if not data.endswith(b"\n"):
        raise UserError(f"{path}: it is empty or its end is cut off: {AGAIN}")
    return data


def _windows(
    data: bytes, path: Path, provenance: Mapping[str, Any], full: Widths | None
) -> pd.DataFrame:
    """Windows of a journal, checked; `full` (groups,) where the network is known.

    Raises UserError that names the file and line.
    """
    header = data.split(b"\n", 1)[0].decode(errors="replace").split(",")
    groups = sum(name.startswith("width_") for name in header) if full is None else len(full)
    metric: Metric = provenance["metric"]
    if header != columns(metric, groups):
        raise UserError(
            f"{path}: its columns are not those of windows of {groups} groups and the metric "
            f"{metric}: {AGAIN}"
        )
    lines = [line.split(",") for line in data.decode(errors="replace").splitlines()[1:]]
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise UserError(f"{path}: line {number} has not {len(header)} columns: {AGAIN}")
    if not lines:
        raise UserError(f"{path}: it has no samples: {AGAIN}")
    texts = pd.DataFrame(lines, columns=header, dtype=object)
    widths, raw = width_columns(groups), f"raw_{metric}"
    integers = [*INTEGERS, *widths]
    values = texts.apply(_numbers)
    given = texts.drop(columns=["kind", "capped", "throttled"]) != ""

    def refuse(wrong: pd.DataFrame, what: str) -> None:
        """The first that is wrong goes into the message."""
        if len(places := np.argwhere(wrong)):
            row, name = int(places[0][0]), wrong.columns[places[0][1]]
            raise UserError(
                f"{path}: line {row + 2}: {name} {what}, not '{texts[name].iloc[row]}': {AGAIN}"
            )

    refuse(~np.isfinite(values[[*integers, raw, "started_s"]]), "must be a finite number")
    refuse(values[given.columns].isna() & given, "must be a number or empty")
    refuse(values[integers] % 1 != 0, "must be a whole number")
    refuse(~texts[["kind"]].isin(KINDS), f"must be one of {', '.join(KINDS)}")
    refuse(values[[raw]] <= 0, "must be positive")
    refuse(values[widths] < 1, "must be at least 1")
    if full is not None:
        refuse(values[widths] > full, "must be at most this network's full width")
    refuse(values[["window"]].apply(pd.Series.duplicated), "must occur once")
    kept = {"kind": texts["kind"], "throttled": texts["throttled"]}
    return values.assign(**kept, capped=texts["capped"] == "True").astype(
        dict.fromkeys(integers, np.int64)
    )


def _numbers(texts: "pd.Series[str]") -> list[float]:
    """NaN for what is none. Not pandas' reader: not all its versions give the written floats."""
    try:
        return list(map(float, texts))
    except ValueError:
        return [_number(text) for text in texts]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _corrected(windows: pd.DataFrame, path: Path, provenance: Mapping[str, Any]) -> pd.DataFrame:
    if not (windows["kind"] == "sample").any():
        raise UserError(f"{path}: it has no samples: {AGAIN}")
    try:
        return corrected(windows, provenance["settings"]["baseline"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
