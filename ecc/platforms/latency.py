"""Seconds instead of joules: the clock as a sensor, for every device that runs networks."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecc.measuring.interface import Clock, Found, Reading, Status
from ecc.metrics import Metric
from ecc.platforms.cpu_status import Processor

METRIC: Metric = "latency_s"
DEVICE = "cpu"


@dataclass(frozen=True)
class Settings:
    """A clock has none."""


@dataclass
class Latency:
    """A counter of seconds: what it "takes" in a second is one, so one image takes its latency.

    The time of an iteration itself is the workload's: events of the GPU, or the processor's clock.
    Temperature, clock and heat are the processor's; of a GPU nothing is told.
    """

    device: str
    clock: Clock
    processor: Processor

    @property
    def name(self) -> str:
        return f"clock of the machine, for {self._what}"

    @property
    def metric(self) -> Metric:
        return METRIC

    @property
    def stepped(self) -> bool:
        return False

    @property
    def settle_s(self) -> float:
        return 0.0

    @property
    def limit_w(self) -> float:
        return math.inf

    def read(self) -> Reading:
        now = self.clock.now()
        return Reading(now, now)

    def power_w(self) -> float:
        return math.nan

    def status(self) -> Status:
        return self.processor.status() if self._on_cpu else Status()

    def provenance(self) -> dict[str, Any]:
        return {
            "sensor": "clock",
            "device": self.device,
            "resolution_s": time.get_clock_info("perf_counter").resolution,
            **self.processor.provenance(),
        }

    def close(self) -> None:
        """Nothing is held."""

    @property
    def _on_cpu(self) -> bool:
        return self.device.split(":")[0] == "cpu"

    @property
    def _what(self) -> str:
        return self.processor.name if self._on_cpu else self.device


def meter(settings: Settings, device: str, clock: Clock, root: Path = Path("/")) -> Latency:
    """The clock, beside a torch device such as cpu or cuda:0."""
    return Latency(device, clock, Processor(root))


def probe(root: Path = Path("/")) -> list[Found]:
    """There is always a clock."""
    return [Found("seconds by the clock, for processors and GPUs")]
