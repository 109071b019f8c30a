"""The processor beside its energy, as Linux tells it: temperature, clock, heat, settings."""

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from ecc.measuring.interface import Status

UNKNOWN = "unknown"
CPUS = "sys/devices/system/cpu"
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")  # drivers of processors, in hwmon
LABELS = ("Package", "Tdie", "Tctl", "")  # the best one first: Tctl may have an offset
ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal")  # thermal zones: where hwmon has none


class Processor:
    """The processor of the machine whose file system begins at `root`.

    Nothing here raises: what cannot be read is NaN or "unknown".
    """

    def __init__(self, root: Path = Path("/")) -> None:
        cpus = root / CPUS
        self._cpus, self._root = cpus, root
        self._temperatures = _temperatures(root)
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        # Every core repeats the count of its package, and there may be hundreds.
        repeated = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/package_throttle_count"))
        packages = {
            text(path.parents[1] / "topology/physical_package_id"): path for path in repeated
        }
        self._throttles = list(packages.values())
        self._throttled = [number(path) for path in self._throttles]

    @property
    def name(self) -> str:
        board = text(self._root / "proc/device-tree/model").strip("\0")  # ARM names no model
        return self._told("model name") or board or UNKNOWN

    @property
    def amd(self) -> bool:
        return self._told("vendor_id") in ("AuthenticAMD", "HygonGenuine")

    def status(self) -> Status:
        """Throttled by heat where a package counted that since the last call."""
        before, self._throttled = self._throttled, [number(path) for path in self._throttles]
        hot = any(now > then for now, then in zip(self._throttled, before, strict=True))
        return Status(
            temperature_c=max(_told(self._temperatures), default=math.nan) / 1e3,
            clock_mhz=self._clock_mhz(),
            throttled=("heat",) if hot else (),
        )

    def provenance(self) -> dict[str, Any]:
        governors = {text(path) for path in self._cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")}
        return {
            "processor": self.name,
            "kernel": text(self._root / "proc/sys/kernel/osrelease") or UNKNOWN,
            "governor": ", ".join(sorted(governors - {""})) or UNKNOWN,
            "turbo": self._turbo(),
        }

    def _clock_mhz(self) -> float:
        """Mean over all cores, those that do not run the network among them."""
        if khz := _told(self._clocks):
            return fmean(khz) / 1e3
        lines = [line for line in self._cpuinfo() if line.startswith("cpu MHz")]
        return fmean(map(_value, lines)) if lines else math.nan

    def _turbo(self) -> str:
        for name, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
            if told := text(self._cpus / name):
                return "on" if told == on else "off"
        return UNKNOWN

    def _told(self, key: str) -> str:
        lines = [line for line in self._cpuinfo() if line.split(":")[0].strip() == key]
        return lines[0].partition(":")[2].strip() if lines else ""

    def _cpuinfo(self) -> list[str]:
        return text(self._root / "proc/cpuinfo").splitlines()


def text(path: Path) -> str:
    """What a file says, or nothing where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def number(path: Path) -> float:
    """NaN where there is none."""
    return _value(text(path))


def _value(told: str) -> float:
    try:
        return float(told.rpartition(":")[2])
    except ValueError:
        return math.nan


def _told(paths: Iterable[Path]) -> list[float]:
    return [value for value in map(number, paths) if not math.isnan(value)]


def _temperatures(root: Path) -> list[Path]:
    """Files with millidegrees, one a package; the highest of them counts."""
    inputs = [
        path
        for path in sorted(root.glob("sys/class/hwmon/hwmon*/temp*_input"))
        if text(path.parent / "name") in SENSORS
    ]
    labels = {path: text(path.with_name(path.name.replace("_input", "_label"))) for path in inputs}
    for label in LABELS:
        if chosen := [path for path in inputs if labels[path].startswith(label)]:
            return chosen
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*/temp"))
    return [path for path in zones if text(path.parent / "type") in ZONES]
