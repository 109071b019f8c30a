"""A sensor of one's own: an energy counter that Linux shows in /sys/class/hwmon.

Some drivers of boards and power meters have a file energy1_input there: microjoules since it was
loaded. docs/howto/own_platform.md says what makes it a platform. Tried on files alone.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecc.measuring.interface import Clock, Found, Reading, SensorError, Status
from ecc.metrics import Metric

METRIC: Metric = "energy_j"
DEVICE = "cpu"  # what runs the networks, unless the configuration names another


@dataclass(frozen=True)
class Settings:
    """`driver`: the name that the driver gives itself in hwmon."""

    driver: str = "powermeter"


@dataclass
class Hwmon:
    """The counter in a file; `EnergyMeter` says what each part is for."""

    file: Path
    clock: Clock
    last: int = 0

    metric: Metric = METRIC
    stepped = True  # windows begin and end where the counter moves
    settle_s = 0.0  # it adds up, and does not average
    limit_w = math.inf  # not known

    @property
    def name(self) -> str:
        return f"hwmon counter {self.file}"

    def read(self) -> Reading:
        try:
            told = int(self.file.read_text())
        except (OSError, ValueError) as error:
            raise SensorError(f"{self.file} cannot be read: {error}") from error
        if told < self.last:
            raise SensorError(f"{self.file} fell from {self.last} to {told}: it was reset")
        self.last = told
        return Reading(self.clock.now(), told / 1e6)

    def power_w(self) -> float:
        return math.nan  # there is no second way to ask

    def status(self) -> Status:
        return Status()

    def provenance(self) -> dict[str, Any]:
        return {"sensor": "hwmon", "file": str(self.file)}

    def close(self) -> None:
        """Nothing is held open."""


def meter(settings: Settings, device: str, clock: Clock, root: Path = Path("/")) -> Hwmon:
    """Opens the counter; raises SensorError, one line, where it is not there."""
    for file in sorted(root.glob("sys/class/hwmon/hwmon*/energy1_input")):
        if (file.parent / "name").read_text().strip() == settings.driver:
            return Hwmon(file, clock)
    raise SensorError(f"no {settings.driver} with an energy counter in {root}sys/class/hwmon")


def probe(root: Path = Path("/")) -> list[Found]:
    """What `python -m ecc.platforms` lists: a line a counter, or what is lacking."""
    files = sorted(root.glob("sys/class/hwmon/hwmon*/energy1_input"))
    lacks = "" if files else "no energy1_input in /sys/class/hwmon"
    return [Found("energy counters of hwmon", lacks)]
