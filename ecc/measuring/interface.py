"""What measuring needs: a clock, a meter, and a device on which a network runs again and again."""

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.metrics import Metric
from ecc.structure import Structure


class SensorError(UserError):
    """A sensor that is not there, may not be read, died, or tells what cannot be true."""


class Clock(Protocol):
    """Time as measuring sees it; simulated where there is no hardware."""

    def now(self) -> float:
        """Seconds since any fixed moment; never falls."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of this machine, which no change of the date moves."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Reading:
    """What a meter tells at a moment.

    `seconds` is the clock's time of the reading; `total` the joules since any fixed moment (the
    seconds, where the metric is latency). Only differences of either mean anything.
    """

    seconds: float
    total: float


@dataclass(frozen=True)
class Status:
    """The state of the device beside its energy; NaN where it cannot be told.

    `throttled` names what has slowed the device down against its will (heat, a power brake): the
    window is measured again. `capped` is the device at its power limit, which is how it runs this
    network.
    """

    temperature_c: float = math.nan
    clock_mhz: float = math.nan
    throttled: tuple[str, ...] = ()
    capped: bool = False


class EnergyMeter(Protocol):
    """A sensor as a counter of joules: one that integrates power does so between its readings."""

    @property
    def name(self) -> str:
        """The sensor in words, as in "NVML energy counter of NVIDIA H200"."""
        ...

    @property
    def metric(self) -> Metric: ...

    @property
    def stepped(self) -> bool:
        """Whether `total` moves in steps, at whose edges windows are cut."""
        ...

    @property
    def settle_s(self) -> float:
        """Seconds after which a reading no longer tells of what ran before; 0 if at once."""
        ...

    @property
    def limit_w(self) -> float:
        """Watts that the device can never take; infinity where that is not known."""
        ...

    def read(self) -> Reading:
        """Raises SensorError, one line, where the sensor does not answer or contradicts itself."""
        ...

    def power_w(self) -> float:
        """Watts now by a second, independent way; NaN where there is none."""
        ...

    def status(self) -> Status: ...

    def provenance(self) -> dict[str, Any]:
        """Sensor, device, driver, rails or domains: plain values for JSON, no serial numbers."""
        ...

    def close(self) -> None: ...


class Buildable(Protocol):
    """A network that can be built at any widths, at its deployment size (height, width)."""

    @property
    def structure(self) -> Structure: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def build(self, widths: NDArray[np.int64]) -> Any:
        """A torch module at widths (groups,)."""
        ...


class Workload(Protocol):
    """One network that runs on a device, again and again."""

    @property
    def batch(self) -> int:
        """Images of one iteration."""
        ...

    def feed(self) -> None:
        """Keeps the device busy: queues work (GPU) or runs one iteration (CPU).

        To be called every few milliseconds; never waits for longer than one iteration.
        """
        ...

    def mark(self) -> Any:
        """Marks the place behind all work fed so far."""
        ...

    def between(self, first: Any, last: Any) -> "Span":
        """What lies between two marks; waits until the second is reached."""
        ...

    def stop(self) -> None:
        """Waits for what is queued and gives the memory back. The workload is used no more."""
        ...


@dataclass(frozen=True)
class Span:
    """A stretch of work on the device: `seconds` hold `iterations` and the gaps between them."""

    iterations: int
    seconds: float
    gap_s: float = 0.0


class Runner(Protocol):
    """A device that runs networks."""

    @property
    def device(self) -> str:
        """The device in words."""
        ...

    def prepare(self, network: Buildable, widths: NDArray[np.int64]) -> Any:
        """What can be done for widths (groups,) while another network runs (in another thread)."""
        ...

    def load(self, prepared: Any) -> Workload:
        """The prepared network on the device: warmed up, and captured where that is possible."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Device, precision, batch, libraries: plain values for JSON."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Rig:
    """All that a campaign needs: a meter at a device that runs networks, and their clock."""

    meter: EnergyMeter
    runner: Runner
    clock: Clock


@dataclass(frozen=True)
class Settings:
    """The protocol of a campaign; seconds unless the name says otherwise.

    A sample takes `sample_s`: `settle_s` under load, then a window from the first edge of the
    counter to the last that fits. A window holds at least `iterations` iterations, however long
    that takes.
    """

    sample_s: float = 1.0
    settle_s: float = 0.3
    poll_s: float = 0.002
    iterations: int = 10
    warm_up_s: float = 20.0  # under load, before anything counts
    period_check_s: float = 5.0  # under load, to find the counter's period
    cross_check_s: float = 10.0  # the counter against instant power, where there is both
    idle_s: float = 2.0  # with the device ready and nothing running
    reference_every: int = 20  # samples between two windows of the reference network
    baseline: int = 5  # windows of the reference at the start, to which all others are brought
    repeats: float = 0.02  # part of the samples that is measured a second time, blindly
    attempts: int = 3  # windows tried where the device throttles


@dataclass(frozen=True)
class Found:
    """A sensor as `python -m ecc.platforms` lists it: `lacks` is empty where it can be used."""

    what: str
    lacks: str = ""
