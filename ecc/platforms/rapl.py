"""Intel and AMD processors: RAPL counts the joules of domains; Linux shows them as powercap.

A zone of `/sys/class/powercap` is a package (one a socket, or a die) or a part of it. Intel has
package, core, uncore (the graphics), dram and psys, the whole platform; AMD package and core. A
counter has 32 bits: at 61 uJ a step it wraps after 262 kJ, which is 22 minutes at 200 W, and two
readings must not lie further apart, or a wrap is missed. Modern kernels let only root read it,
because it tells secrets of other programs (CVE-2020-8694).

Source: drivers/powercap/intel_rapl_common.c and intel_rapl_msr.c of Linux.
"""

import errno
import math
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ecc.errors import UserError
from ecc.measuring.interface import Clock, Found, Reading, SensorError, Status, SystemClock
from ecc.metrics import Metric
from ecc.platforms.cpu_status import Processor, number

METRIC: Metric = "energy_j"
DEVICE = "cpu"

DOMAINS = ("package", "dram", "core", "uncore", "psys")
# dram lies beside the package, and within psys: what is wired to psys is up to the manufacturer.
WITHIN = {"package": ("core", "uncore"), "psys": ("package", "dram", "core", "uncore")}
POWERCAP = "sys/class/powercap"
# intel-rapl-mmio:0 shows the package a second time, by another way.
ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")

UPDATE_S = 0.001  # between two updates of the counter, about
WAKE_S = 0.2  # in which every counter must have moved when the sensor is opened
STILL_S = 1.0  # no package, memory or platform takes nothing for so long
HIGHEST_W = 10_000.0  # no domain takes more: the counter was reset
MARGIN = 2.0  # on the power limits, which a processor may exceed for milliseconds
LATENCY = "the platform kind latency needs no sensor"


@dataclass(frozen=True)
class Settings:
    """`domains` are summed, over all sockets; one that contains another is refused beside it."""

    domains: Sequence[str] = ("package",)

    def __post_init__(self) -> None:
        given, known = self.domains, ", ".join(DOMAINS)
        if isinstance(given, str) or not given:
            raise UserError(f"domains '{given}': give a list of some of {known}")
        for domain in given:
            if domain not in DOMAINS:
                raise UserError(f"domains: unknown '{domain}', known are {known}")
        if len(set(given)) < len(given):
            raise UserError(f"domains: name each of {', '.join(given)} once")
        for outer, inner in WITHIN.items():
            if outer in given and (twice := [domain for domain in given if domain in inner]):
                raise UserError(
                    f"domains: {outer} contains {', '.join(twice)}, whose energy would be added "
                    f"twice: leave out one or the other"
                )


@dataclass(frozen=True)
class _Zone:
    name: str  # package-0, package-0-die-1, dram, psys-1
    folder: Path

    @property
    def domain(self) -> str:
        return self.name.split("-")[0]

    @property
    def counter(self) -> Path:
        return self.folder / "energy_uj"

    def limit_w(self) -> float:
        """The highest of the zone's power limits; infinity where none is told."""
        names = ("constraint_*_max_power_uw", "constraint_*_power_limit_uw")
        limits = [number(path) for name in names for path in self.folder.glob(name)]
        return max((limit / 1e6 for limit in limits if limit > 0), default=math.inf)


class _Counter:
    """One zone's counter since it was opened, freed of wraps: `total_uj`."""

    def __init__(self, zone: _Zone, file: FileIO, clock: Clock) -> None:
        self.zone, self._file = zone, file
        self.range_uj = _integer(zone.folder / "max_energy_range_uj")
        if self.range_uj <= 0:
            path = zone.folder / "max_energy_range_uj"
            raise SensorError(f"{path} is {self.range_uj}: this counter is dead; {LATENCY}")
        self.total_uj = 0
        self._last = self.told()
        self._seconds = self._moved = clock.now()

    @property
    def moved(self) -> bool:
        return self.total_uj > 0

    @property
    def may_rest(self) -> bool:
        """Graphics that are switched off take nothing at all."""
        return self.zone.domain == "uncore"

    def told(self) -> int:
        """The counter in the moment; raises SensorError where it is not told or cannot be."""
        path = self.zone.counter
        try:
            told = os.pread(self._file.fileno(), 64, 0)
        except OSError as error:
            raise _unreadable(path, error) from error
        value = _whole(path, told)
        if not 0 <= value <= self.range_uj:
            raise SensorError(f"{path} says {value}, beyond its range of {self.range_uj}")
        return value

    def advance(self, value: int, seconds: float) -> None:
        """Takes what was told at a moment; raises SensorError where it cannot be true."""
        step = value - self._last
        if step < 0:
            step += self.range_uj  # of two readings, which at most one wrap separates
        passed = max(seconds - self._seconds, 10 * UPDATE_S)
        if step > HIGHEST_W * passed * 1e6:
            raise SensorError(
                f"{self.zone.counter} went from {self._last} to {value} in {passed:.3g} s, which "
                f"no processor does: it was reset, as by a suspend; measure again"
            )
        if step:
            self._moved = seconds
        elif seconds - self._moved > STILL_S and not self.may_rest:
            raise SensorError(
                f"{self.zone.counter} stands still at {value} for {seconds - self._moved:.1f} s: "
                f"this counter is dead; {LATENCY}"
            )
        self.total_uj += step
        self._last, self._seconds = value, seconds


class Rapl:
    """The summed counters of domains.

    They move about every millisecond, which is a thousandth of a window: every reading is new to
    one that polls every 2 ms, so there are no edges to wait for, and nothing lags behind but the
    last update.
    """

    def __init__(self, zones: Sequence[_Zone], clock: Clock, processor: Processor) -> None:
        self._clock, self._processor = clock, processor
        self._limit_w = MARGIN * sum(zone.limit_w() for zone in zones)
        with ExitStack() as held:
            self._counters = [
                _Counter(zone, held.enter_context(_open(zone)), clock) for zone in zones
            ]
            self._wake()
            self._held = held.pop_all()

    @property
    def name(self) -> str:
        zones = " + ".join(counter.zone.name for counter in self._counters)
        return f"RAPL {zones} of {self._processor.name}"

    @property
    def metric(self) -> Metric:
        return METRIC

    @property
    def stepped(self) -> bool:
        return False

    @property
    def settle_s(self) -> float:
        return 2 * UPDATE_S

    @property
    def limit_w(self) -> float:
        return self._limit_w

    def read(self) -> Reading:
        """All counters, at the moment in the middle of their readings."""
        begin = self._clock.now()
        values = [counter.told() for counter in self._counters]
        seconds = (begin + self._clock.now()) / 2
        for counter, value in zip(self._counters, values, strict=True):
            counter.advance(value, seconds)
        return Reading(seconds, sum(counter.total_uj for counter in self._counters) / 1e6)

    def power_w(self) -> float:
        return math.nan

    def status(self) -> Status:
        return self._processor.status()

    def provenance(self) -> dict[str, Any]:
        return {
            "sensor": "RAPL (powercap)",
            "domains": [
                {
                    "name": counter.zone.name,
                    "file": str(counter.zone.counter),
                    "range_j": counter.range_uj / 1e6,
                }
                for counter in self._counters
            ],
            **self._processor.provenance(),
        }

    def close(self) -> None:
        self._held.close()

    def _wake(self) -> None:
        """Waits until every counter has moved; raises SensorError for one that does not."""
        end = self._clock.now() + WAKE_S
        while still := [counter for counter in self._counters if not counter.moved]:
            # An idle part may rest beside others; alone it would be the whole measurement.
            if all(counter.may_rest for counter in still) and len(still) < len(self._counters):
                return
            if self._clock.now() > end:
                raise SensorError(
                    f"{still[0].zone.counter} stands still at {still[0].told()}: the processor or "
                    f"its hypervisor does not count {still[0].zone.name}; {LATENCY}"
                )
            self._clock.sleep(10 * UPDATE_S)
            self.read()


def meter(settings: Settings, device: str, clock: Clock, root: Path = Path("/")) -> Rapl:
    """The domains of `settings`, of all sockets; raises SensorError where one cannot be read."""
    if device.split(":")[0] != "cpu":
        raise SensorError(f"RAPL counts the processor's energy, not that of {device}: choose nvml")
    zones, processor = _zones(root), Processor(root)
    there = [domain for domain in DOMAINS if any(zone.domain == domain for zone in zones)]
    for domain in settings.domains:
        if domain not in there:
            raise SensorError(f"no RAPL domain {domain} here: choose from {', '.join(there)}")
    if "core" in settings.domains and processor.amd:
        raise SensorError("RAPL domain core is a single core on AMD processors: choose package")
    chosen = [zone for zone in zones if zone.domain in settings.domains]
    return Rapl(chosen, clock, processor)


def probe(root: Path = Path("/")) -> list[Found]:
    """Every domain that is there, and whether it can be read."""
    try:
        zones = _zones(root)
    except SensorError as error:
        return [Found("energy counters (RAPL) of Intel and AMD processors", str(error))]
    found = []
    for domain in DOMAINS:
        names = [zone.name for zone in zones if zone.domain == domain]
        if names:
            what = f"RAPL domain {domain} ({', '.join(names)})"
            found.append(Found(what, _lacks(domain, root)))
    return found


def _lacks(domain: str, root: Path) -> str:
    try:
        meter(Settings((domain,)), DEVICE, SystemClock(), root).close()
    except SensorError as error:
        return str(error)
    return ""


def _zones(root: Path) -> list[_Zone]:
    """Every zone but the twins; raises SensorError, never an empty list."""
    folder = root / POWERCAP
    try:
        folders = [path for path in folder.iterdir() if ZONE.fullmatch(path.name)]
    except FileNotFoundError:
        folders = []
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not folders:
        raise SensorError(
            f"no RAPL here, as in most virtual machines: {folder} has no intel-rapl; on hardware "
            f"try 'sudo modprobe intel_rapl_msr', elsewhere {LATENCY}"
        )
    folders.sort(key=lambda path: [int(part) for part in path.name.split(":")[1:]])
    zones = [_Zone(_read(path / "name").decode().strip(), path) for path in folders]
    known = [zone for zone in zones if zone.domain in DOMAINS]
    if not known:
        names = ", ".join(zone.name for zone in zones)
        raise SensorError(f"{folder} has only zones that are not known: {names}; {LATENCY}")
    return known


def _open(zone: _Zone) -> FileIO:
    """Kept open: thousands of readings a window must not disturb what is measured."""
    try:
        return zone.counter.open("rb", buffering=0)
    except OSError as error:
        raise _unreadable(zone.counter, error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _integer(path: Path) -> int:
    return _whole(path, _read(path))


def _whole(path: Path, told: bytes) -> int:
    try:
        return int(told)
    except ValueError:
        raise SensorError(f"{path} says {told!r} instead of a number: {LATENCY}") from None


def _unreadable(path: Path, error: OSError) -> SensorError:
    """What to do about a file that is there, or should be, and cannot be read."""
    if error.errno in (errno.EACCES, errno.EPERM):
        every = re.sub(r"intel-rapl:[\d:]+", "intel-rapl:*", str(path))
        return SensorError(
            f"{path} may be read by root alone (since Linux 5.10): 'sudo chmod a+r {every}' grants "
            f"it until the next boot, a udev rule for good"
        )
    if error.errno == errno.ENOENT:
        return SensorError(
            f"{path} is missing, as in containers: mount /sys/devices/virtual/powercap and "
            f"/{POWERCAP} into it, or run outside; {LATENCY}"
        )
    return SensorError(
        f"{path} is there but cannot be read ({error.strerror or error}): the processor or "
        f"its hypervisor masks it; {LATENCY}"
    )
