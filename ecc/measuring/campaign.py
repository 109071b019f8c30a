"""A campaign: thousands of networks, measured in random order on a device that drifts.

Between the samples runs one fixed reference network, by which `ecc.measuring.drift` divides. Every
window is on the disk when it was taken (`ecc.measuring.journal`): a campaign that was killed, at
any moment, goes on where it was.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from ecc import provenance, runs
from ecc.errors import UserError
from ecc.measuring import window
from ecc.measuring.drift import corrected
from ecc.measuring.interface import Buildable, EnergyMeter, Rig, SensorError, Settings, Workload
from ecc.measuring.journal import (
    WINDOWS,
    Journal,
    Kind,
    columns,
    matched,
    metric_of,
    read,
    read_provenance,
    width_columns,
)

PROVENANCE = "campaign.json"
DISAGREES = 0.05  # the counter and instant power
JUMPS = 0.3  # of the reference, from one of its windows to the next
REPEATS_ITSELF = 3  # windows in a row of the same power or energy
ROUNDING = 1e-9  # relative: what is left of one power that was summed, and divided by its time
SAME = ("metric", "sensor", "device")  # in all segments of a campaign
SAME_RUNNER = ("precision", "graphs", "channels_last", "threads")
COOL_S = 10.0  # idle, before a window in which the device throttled is measured again

Widths = NDArray[np.int64]
logger = logging.getLogger(__name__)


def run(
    rig: Callable[[], Rig],
    network: Buildable,
    widths: Widths,
    *,
    settings: Settings,
    seed: int,
    folder: Path,
    stop_after_s: float = math.inf,
    about: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Measures a network at widths (n, groups), which may repeat; keeps the windows in `folder`.

    Returns, in the order of `widths`, the columns sample (its row), width_0 .. and energy_j (or
    latency_s): joules (seconds) of one image, without the drift. Rows that are in the folder, from
    a run that was killed or asked for fewer, are not measured again; `rig` is opened only where
    some are missing, and its meter closed. After `stop_after_s` seconds the campaign ends with a
    last reference, but not before one sample was taken; then the rows measured so far are returned.

    The order of the samples follows from `seed`. `about` says what the folder is for, as plain
    values: one whose campaign was for something else is refused.

    Raises SensorError where the sensor fails, with all windows kept that were taken; UserError for
    impossible settings and for a folder of another network, sensor, device or batch, or in use.
    """
    check_settings(settings)
    widths = np.ascontiguousarray(widths, dtype=np.int64)
    asked = _Asked(network, widths, settings, seed, folder, json.loads(json.dumps(about or {})))
    windows = read(folder / WINDOWS, widths.shape[1])
    known = asked.known(windows)
    if asked.plan(windows):
        with Journal(folder, widths.shape[1]) as journal:
            windows = journal.read()
            known = asked.known(windows)  # whoever had the journal may have gone on
            if asked.plan(windows):
                _measure(rig, asked, journal, known, stop_after_s)
                windows = journal.read()
                known = asked.known(windows)
    return asked.result(windows, known)


def check(rig: Callable[[], Rig], settings: Settings) -> dict[str, Any]:
    """Opens sensor and device, and reads once: raises what a campaign would raise at its begin.

    Returns what there is, as `campaign.json` has it.
    """
    check_settings(settings)
    opened = rig()
    try:
        _check_sensor(settings, opened.meter)
        opened.meter.read()
        return {
            "metric": opened.meter.metric,
            "sensor": opened.meter.name,
            "device": opened.runner.device,
            "meter": _plain(opened.meter.provenance()),
            "runner": _plain(opened.runner.provenance()),
        }
    finally:
        opened.meter.close()
        opened.runner.close()


@dataclass(frozen=True)
class _Asked:
    """What is asked of a campaign, and what of it is there."""

    network: Buildable
    widths: Widths
    settings: Settings
    seed: int
    folder: Path
    about: dict[str, Any]

    @property
    def rows(self) -> Widths:
        return np.arange(len(self.widths))

    @property
    def repeated(self) -> Widths:
        """Rows to be measured a second time: evenly spread, and the same where more are asked."""
        begin = np.random.default_rng([self.seed, 4]).random()
        counts = np.floor(begin + self.settings.repeats * np.arange(len(self.widths) + 1))
        return np.flatnonzero(np.diff(counts) > 0)

    def known(self, windows: pd.DataFrame) -> dict[str, Any]:
        """The provenance of the windows, empty where there are none."""
        if windows.empty:
            return {}
        path = self.folder / PROVENANCE
        if not path.exists():
            raise UserError(f"{path} is missing: delete or move the folder, or restore the file")
        known = read_provenance(path, "delete or move the folder, or restore the file")
        fingerprint = self.network.structure.fingerprint
        _refuse_others(path, known, {"fingerprint": fingerprint, "about": self.about})
        return known

    def plan(self, windows: pd.DataFrame) -> list["_Step"]:
        """What is missing: samples in random order, each repeat at a random place behind its own.

        Repeats count as done by their number: where other rows were asked for, others have them.
        """
        random = np.random.default_rng([self.seed, 3])
        order = random.permutation(len(self.widths))
        order = order[matched(order, self.widths, windows, "sample") < 0]
        places = dict(zip(order.tolist(), range(len(order)), strict=True))
        steps = [
            (float(place), _Step("sample", row, self.widths[row])) for row, place in places.items()
        ]
        done = 0 if windows.empty else int((windows["kind"] == "repeat").sum())
        repeated = self.repeated
        left = repeated[matched(repeated, self.widths, windows, "repeat") < 0]
        for row in left[: max(0, len(repeated) - done)].tolist():
            place = random.uniform(places.get(row, 0), len(order))
            steps.append((place, _Step("repeat", row, self.widths[row])))
        steps.sort(key=lambda step: step[0])
        return [step for _, step in steps]

    def result(self, windows: pd.DataFrame, known: Mapping[str, Any]) -> pd.DataFrame:
        found = matched(self.rows, self.widths, windows, "sample")
        names = ["sample", *width_columns(self.widths.shape[1])]
        frame = pd.DataFrame(np.column_stack([self.rows, self.widths])[found >= 0], columns=names)
        if windows.empty:
            return frame.assign(energy_j=np.empty(0))
        metric = metric_of(windows)
        values = corrected(windows, known["settings"]["baseline"])[metric].to_numpy()
        return frame.assign(**{metric: values[found[found >= 0]]})


@dataclass(frozen=True)
class _Step:
    kind: Kind
    sample: int
    widths: Widths


def _measure(
    rig: Callable[[], Rig],
    asked: _Asked,
    journal: Journal,
    known: dict[str, Any],
    stop_after_s: float,
) -> None:
    """One segment: everything from a start to an end, or to a failure."""
    opened = rig()
    try:
        _check_sensor(asked.settings, opened.meter)
        segment = _Segment(opened, asked, journal, known)
        try:
            segment.take(stop_after_s)
        finally:
            segment.save()
    except SensorError as error:
        windows = journal.read()
        samples = 0 if windows.empty else int((windows["kind"] == "sample").sum())
        if not samples:
            raise
        raise SensorError(
            f"{error}; {samples} samples are kept in {asked.folder}, and the same command goes on "
            "from there"
        ) from error
    finally:
        opened.meter.close()
        opened.runner.close()


class _Segment:
    """One stretch of a campaign without a restart. Begins with all checks of sensor and device.

    Raises UserError where the windows that are there come from another sensor or device.
    """

    def __init__(self, rig: Rig, asked: _Asked, journal: Journal, known: dict[str, Any]):
        self.meter, self.runner, self.clock = rig.meter, rig.runner, rig.clock
        self.asked, self.settings, self.journal = asked, asked.settings, journal
        self.opened_s = self.clock.now()
        full = asked.network.structure.full_widths
        self.reference = _Step("reference", -1, np.maximum(1, full // 2))
        provenance = self._provenance()
        path = asked.folder / PROVENANCE
        _refuse_others(path, known, {key: provenance[key] for key in SAME})
        how = {key: value for key, value in provenance["runner"].items() if key in SAME_RUNNER}
        _refuse_others(path, known.get("runner", {}), how)
        workload = self.runner.load(self._prepare(self.reference))
        try:
            self.batch = provenance["batch"] = workload.batch
            _refuse_others(path, known, {"batch": self.batch})
            self._check(workload)
        finally:
            workload.stop()
        self.provenance = known or provenance
        for part in ("meter", "runner", "versions"):
            if changed := _others(self.provenance[part], provenance[part]):
                logger.warning("not as when the campaign began: %s (%s)", ", ".join(changed), part)
        self._begin(provenance["settings"])

    def take(self, stop_after_s: float) -> None:
        """Measures what is missing, or as much of it as fits into `stop_after_s` seconds."""
        plan = self.asked.plan(self.journal.read())
        steps = self._with_references(plan)
        seconds = len(steps) * self.settings.sample_s
        samples = sum(step.kind == "sample" for step in plan)
        logger.info("%d samples in %d windows: about %s", samples, len(steps), _duration(seconds))
        progress, stopped = _Progress(samples), False
        with closing(progress), closing(self._prepared(steps)) as prepared:
            for step, model in prepared:
                self._append(step, model)
                progress.step(step.kind == "sample")
                late = self.clock.now() - self.opened_s >= stop_after_s
                if stopped := late and step.kind != "reference":
                    break
        if stopped:
            self._append(self.reference, self._prepare(self.reference))

    def save(self) -> None:
        """Writes the provenance, with the samples of every segment so far."""
        windows = self.journal.read()
        for number, segment in enumerate(self.provenance["segments"]):
            own = (windows["segment"] == number) & (windows["kind"] == "sample")
            segment["samples"] = int(own.sum())
        runs.write_json(self.asked.folder / PROVENANCE, self.provenance)

    def _provenance(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.settings),
            "seed": self.asked.seed,
            "about": self.asked.about,
            "fingerprint": self.asked.network.structure.fingerprint,
            "metric": self.meter.metric,
            "sensor": self.meter.name,
            "device": self.runner.device,
            "meter": _plain(self.meter.provenance()),
            "runner": _plain(self.runner.provenance()),
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "segments": [],
        }

    def _check(self, workload: Workload) -> None:
        """The counter's period, how far the sensor agrees with itself, and idle power.

        Idle power comes last: it stands for that in the gaps of a network, at clocks that are up.
        """
        meter, clock, settings = self.meter, self.clock, self.settings
        warm_s = clock.now() + settings.warm_up_s
        while clock.now() < warm_s:
            workload.feed()
            clock.sleep(settings.poll_s)
        self.period_s = window.update_period(meter, workload, clock, settings)
        self.cross_check = window.cross_check(meter, workload, clock, settings)
        workload.between(workload.mark(), workload.mark())  # nothing is queued behind this
        self.idle_w = math.nan
        if meter.metric == "energy_j":
            self.idle_w = window.idle_power(meter, clock, settings, period_s=self.period_s)
        if abs(self.cross_check) > DISAGREES:
            logger.warning(
                "the counter tells %+.1f %% of what instant power sums up to: energies may be "
                "wrong by as much",
                100 * self.cross_check,
            )
        facts = {
            "updates every {:.1f} ms": 1000 * self.period_s or math.nan,
            "idle power {:.1f} W": self.idle_w,
            "counter against instant power {:+.1f} %": 100 * self.cross_check,
        }
        known = [text.format(value) for text, value in facts.items() if not math.isnan(value)]
        logger.info("; ".join([meter.name, f"{self.runner.device}, batch {self.batch}", *known]))

    def _begin(self, settings: dict[str, Any]) -> None:
        self.journal.begin(self.meter.metric)
        windows, segments = self.journal.read(), self.provenance["segments"]
        now, self.begun_s, self.number = datetime.now(UTC), self.clock.now(), len(segments)
        first = datetime.fromisoformat(segments[0]["started"]) if segments else now
        self.before_s = (now - first).total_seconds()
        segment = {
            "started": now.isoformat(),
            "period_s": _plain(self.period_s),
            "cross_check": _plain(self.cross_check),
            "idle_power_w": _plain(self.idle_w),
        }
        if settings != self.provenance["settings"]:
            segment["settings"] = settings
        segments.append(segment)
        self.save()
        self.windows = len(windows)
        raw, self.widths = f"raw_{self.meter.metric}", width_columns(len(self.reference.widths))
        self.tail: list[Mapping[Any, Any]] = windows.tail(REPEATS_ITSELF - 1).to_dict("records")
        references = windows.loc[windows["kind"] == "reference", raw]
        self.last_reference = float(references.iloc[-1]) if len(references) else math.nan
        missing = self.provenance["settings"]["baseline"] - len(references)
        self.references = max(1, missing)

    def _with_references(self, plan: list[_Step]) -> list[_Step]:
        steps = [self.reference] * self.references
        for start in range(0, len(plan), self.settings.reference_every):
            steps += [*plan[start : start + self.settings.reference_every], self.reference]
        return steps

    def _prepare(self, step: _Step) -> Any:
        return self.runner.prepare(self.asked.network, step.widths)

    def _prepared(self, steps: list[_Step]) -> Generator[tuple[_Step, Any], None, None]:
        """Every step with its model, which is built while the one before runs."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = pool.submit(self._prepare, steps[0])
            for step, following in zip(steps, [*steps[1:], None], strict=True):
                model = ahead.result()
                if following is not None:
                    ahead = pool.submit(self._prepare, following)
                yield step, model

    def _append(self, step: _Step, model: Any) -> None:
        """Measures a step and keeps its window."""
        workload = self.runner.load(model)
        try:
            values = self._measured(step, workload)
        finally:
            workload.stop()
        self._refuse_stuck(values)
        self.journal.append(values)
        self.windows += 1
        if step.kind == "reference":
            self.last_reference = values[f"raw_{self.meter.metric}"]

    def _measured(self, step: _Step, workload: Workload) -> dict[str, Any]:
        """The row of the journal; a window in which something went wrong is measured again."""
        threw: list[str] = []
        reason = ""
        for attempt in range(1, self.settings.attempts + 1):
            if reason:
                self.clock.sleep(COOL_S)
            started_s = self.clock.now() - self.begun_s + self.before_s
            taken = window.measure(
                self.meter,
                workload,
                self.clock,
                self.settings,
                period_s=self.period_s,
                gap_w=self.idle_w,
            )
            throttled = taken.status.throttled
            change = taken.raw_energy_j / self.last_reference - 1
            if throttled:
                threw += [name for name in throttled if name not in threw]
                reason = (
                    f"the device throttles ({', '.join(throttled)}): cool it, or lower its clocks "
                    "or its power limit"
                )
            elif step.kind == "reference" and abs(change) > JUMPS:
                self._refuse_stuck(self._row(step, taken, attempt, "", started_s))
                reason = (
                    f"the reference network takes {change:+.0%} of what it took before: end what "
                    "else runs on the device, and set its clocks as they were; where it was that "
                    f"one that was disturbed, delete {self.asked.folder}"
                )
            else:
                return self._row(step, taken, attempt, "+".join(threw), started_s)
            logger.warning("window %d, attempt %d: %s", self.windows, attempt, reason)
        if step.kind == "reference" and not throttled:
            self._withdraw_unproven()
        raise SensorError(f"{reason} ({self.settings.attempts} windows tried)")

    def _withdraw_unproven(self) -> None:
        """Takes the windows back that lie between a reference that was kept and one that was not.

        What changed did so at any moment between them, and nothing corrects it.
        """
        windows = self.journal.read()
        proven = (windows["kind"] == "reference") | (windows["segment"] != self.number)
        count = len(windows) - 1 - int(max(np.flatnonzero(proven), default=-1))
        if count:
            self.journal.withdraw(count)
            self.windows -= count
            logger.warning("the %d windows since the last reference are not kept", count)

    def _row(
        self, step: _Step, taken: window.Window, attempts: int, throttled: str, started_s: float
    ) -> dict[str, Any]:
        metric = self.meter.metric
        values = {
            "window": self.windows,
            "segment": self.number,
            "kind": step.kind,
            "sample": step.sample,
            **dict(zip(width_columns(len(step.widths)), step.widths.tolist(), strict=True)),
            f"raw_{metric}": taken.raw_energy_j,
            "power_w": taken.power_w,
            "latency_s": taken.latency_s,
            "window_s": taken.window_s,
            "iterations": taken.iterations,
            "batch": self.batch,
            "idle_power_w": self.idle_w,
            "temperature_c": taken.status.temperature_c,
            "clock_mhz": taken.status.clock_mhz,
            "capped": taken.status.capped,
            "attempts": attempts,
            "throttled": throttled,
            "started_s": started_s,
        }
        return {name: values[name] for name in columns(metric, len(step.widths))}

    def _refuse_stuck(self, values: Mapping[str, Any]) -> None:
        """Takes the windows back that no sensor tells of different networks, if there are such.

        With them goes the one before, in the midst of which the sensor may have stopped.
        """
        last = [*self.tail, values]
        self.tail = last[1 - REPEATS_ITSELF :]
        networks = {tuple(taken[name] for name in self.widths) for taken in last}
        if len(last) < REPEATS_ITSELF or len(networks) == 1:
            return
        for name in (f"raw_{self.meter.metric}", "power_w"):
            if all(math.isclose(taken[name], values[name], rel_tol=ROUNDING) for taken in last):
                told = self.journal.read()[name].to_numpy(dtype=np.float64)
                other = np.flatnonzero(~np.isclose(told, values[name], rtol=ROUNDING, atol=0))
                self.journal.withdraw(self.windows - max(0, int(max(other, default=-1))))
                raise SensorError(
                    f"{self.meter.name} repeats itself: {REPEATS_ITSELF} windows in a row have "
                    f"{name} {values[name]:.6g}, and are not kept; see whether it has stopped"
                )


class _Progress:
    """A bar on a terminal; a plain line every minute where there is none."""

    SECONDS = 60.0

    def __init__(self, total: int):
        self.bar = tqdm(total=total, desc="sampling", unit="sample", disable=None, leave=False)
        self.done, self.total = 0, total
        self.begun = self.said = time.monotonic()

    def step(self, sample: bool) -> None:
        self.done += sample
        if not self.bar.disable:
            self.bar.update(int(sample))
        elif (now := time.monotonic()) - self.said >= self.SECONDS and self.done:
            self.said = now
            rate = self.done / (now - self.begun)
            left = _duration((self.total - self.done) / rate)
            logger.info(
                "sampling: %d/%d, %.0f an hour, %s left", self.done, self.total, 3600 * rate, left
            )

    def close(self) -> None:
        self.bar.close()


def check_settings(settings: Settings) -> None:
    """Raises UserError for settings under which nothing can be measured."""
    for name in ("sample_s", "poll_s", "iterations", "period_check_s", "idle_s"):
        if not 0 < getattr(settings, name) < math.inf:
            raise UserError(f"{name} is {getattr(settings, name)}: it must be above 0")
    for name in ("reference_every", "baseline", "attempts"):
        if getattr(settings, name) < 1:
            raise UserError(f"{name} is {getattr(settings, name)}: it must be at least 1")
    if not 0 <= settings.repeats <= 1:
        raise UserError(f"repeats is {settings.repeats}: it must be a part, from 0 to 1")
    if settings.sample_s <= settings.settle_s:
        raise UserError(
            f"sample_s is {settings.sample_s}: it must be above settle_s ({settings.settle_s})"
        )


def _check_sensor(settings: Settings, meter: EnergyMeter) -> None:
    if settings.settle_s < meter.settle_s:
        raise SensorError(
            f"{meter.name}: the averaged reading needs at least {meter.settle_s:g} s to settle: "
            f"raise settle_s ({settings.settle_s})"
        )


def _refuse_others(path: Path, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises UserError where the provenance `known`, if there is one, is of something else."""
    if known and (others := _others(known, asked)):
        name = others[0]
        raise UserError(
            f"{path}: its windows have {name} {_short(known.get(name))}, asked for is "
            f"{_short(asked[name])}: delete or move the folder, or choose another"
        )


def _others(known: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Names of what is asked for, and known as something else."""
    return [name for name, value in asked.items() if known.get(name) != value]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:12]}.."


def _plain(value: Any) -> Any:
    """The same for JSON, which knows no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
