"""A device and its sensor, simulated, so that what a protocol measures can be held against truth.

Nothing waits and nothing is integrated step by step: the true power is piecewise constant, and all
that the sensor sees of it has a closed form. A second of a campaign takes about ten milliseconds.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecc.errors import UserError
from ecc.measuring.interface import (
    Buildable,
    Reading,
    Rig,
    SensorError,
    Span,
    Status,
)
from ecc.metrics import Metric

Widths = NDArray[np.int64]
# Joules of one image and seconds of one iteration, for a network at widths (groups,).
Cost = Callable[[Buildable, Widths], tuple[float, float]]
Fault = Literal["", "dead", "zeros", "stuck", "jump", "fall", "nan"]

THROTTLED_J, THROTTLED_S = 0.85, 1.3  # of the energy and the seconds of an iteration


@dataclass(frozen=True)
class Simulation:
    """A device and its sensor; the defaults are a data-centre GPU with all that goes wrong there.

    Units: seconds, watts, joules; `swing`, `noise`, `drift`, `duty`, `gap` and `high_part` are
    parts of one. `sensor`: a "counter" of joules that moves every `period_s`, instant "power"
    summed between readings, or power "averaged" over `average_s` and summed.
    """

    batch: int = 1
    idle_w: float = 60.0
    swing: float = 0.3  # power in the first part of an iteration, above the mean
    high_part: float = 0.4  # length of that part
    queue_s: float = 0.02  # work that `feed` keeps queued; 0: `feed` runs an iteration and waits
    load_s: float = 0.05  # to put a network on the device, which is idle meanwhile
    gaps_from_s: float = 0.008  # iterations longer than this have random gaps between them
    gap: float = 0.03  # their mean as a part of the iteration; uniform from 0 to twice this
    throttle_every_s: float = 0.0  # too hot for the last `throttle_s` of every so many; 0: never
    throttle_s: float = 2.0

    sensor: Literal["counter", "power", "averaged"] = "counter"
    period_s: float = 0.1  # between two updates
    duty: float = 0.25  # the part of a period in which the sensor looks at the power
    lag_s: float = 0.05  # time constant of the sensor, of first order
    noise: float = 0.01  # standard deviation of one update
    drift: float = 0.05  # of the gain: reached after `drift_s`, or the height of a wave that long
    drift_s: float = 3600.0
    drift_from_s: float = 0.0  # nothing drifts before
    drift_shape: Literal["ramp", "wave"] = "wave"
    gain: float = 1.0  # of the counter alone: `power_w` has none
    average_s: float = 1.0
    resolution_j: float = 0.001
    query_s: float = 5e-5  # that one reading takes
    limit_w: float = math.inf
    fault: Fault = ""
    fault_read: int = 0  # the fault begins at this reading

    def __post_init__(self) -> None:
        above = ("batch", "period_s", "duty", "high_part", "drift_s", "average_s", "resolution_j")
        for name in above:
            if not getattr(self, name) > 0:
                raise UserError(f"{name} of a simulated device must be above 0")
        for name in ("duty", "high_part"):
            if getattr(self, name) > 1:
                raise UserError(f"{name} of a simulated device must not exceed 1")
        if self.throttle_every_s and not 0 < self.throttle_s < self.throttle_every_s:
            raise UserError("throttle_s of a simulated device must be below throttle_every_s")


class SimulatedClock:
    """A clock that moves where somebody waits, and at no other time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += max(0.0, seconds)


@dataclass
class _Block:
    """`count` equal iterations one after the other, then idle until the next block begins.

    `joules` and `lagged_w` are the energy so far and the sensor's lagged power at `start`.
    """

    start: float
    seconds: float
    count: int
    iteration_j: float
    joules: float
    lagged_w: float

    @property
    def end(self) -> float:
        return self.start + self.count * self.seconds


class SimulatedDevice:
    """What runs when, and the true energy that this takes."""

    def __init__(self, clock: SimulatedClock, simulation: Simulation):
        self.clock, self.simulation = clock, simulation
        self._blocks = [_Block(clock.now(), 1.0, 0, 0.0, 0.0, simulation.idle_w)]
        self._starts = [clock.now()]

    @property
    def end(self) -> float:
        """The time at which all that is queued is done."""
        return max(self.clock.now(), self._blocks[-1].end)

    def throttled(self, seconds: float) -> bool:
        every = self.simulation.throttle_every_s
        return every > 0 and seconds % every >= every - self.simulation.throttle_s

    def run(self, start: float, seconds: float, count: int, iteration_j: float) -> None:
        """Runs `count` iterations from `start`, which is not before the end of the last ones."""
        last = self._blocks[-1]
        same = (last.seconds, last.iteration_j) == (seconds, iteration_j)
        if same and start <= last.end + 1e-12:
            last.count += count
            return
        lagged_w = self.lagged_w(start)
        self._blocks.append(
            _Block(start, seconds, count, iteration_j, self.energy_j(start), lagged_w)
        )
        self._starts.append(start)

    def energy_j(self, seconds: float) -> float:
        """True joules since the clock's beginning."""
        block, whole, rest = self._at(seconds)
        joules = block.joules + whole * block.iteration_j
        if whole == block.count:
            return joules + self.simulation.idle_w * rest
        high_w, low_w, high_s = self._parts(block)
        return joules + high_w * min(rest, high_s) + low_w * max(0.0, rest - high_s)

    def lagged_w(self, seconds: float) -> float:
        """The true power behind a lag of first order: p' = (power - p) / lag."""
        lag_s = self.simulation.lag_s
        if lag_s == 0:
            return 0.0
        block, whole, rest = self._at(seconds)
        watts = block.lagged_w
        high_w, low_w, high_s = self._parts(block)
        if whole:
            once = _towards(high_w, 0.0, high_s / lag_s)
            once = _towards(low_w, once, (block.seconds - high_s) / lag_s)
            decay = math.exp(-block.seconds / lag_s)
            kept = decay**whole
            watts = watts * kept + once * (1 - kept) / (1 - decay)
        if whole == block.count:
            return _towards(self.simulation.idle_w, watts, rest / lag_s)
        watts = _towards(high_w, watts, min(rest, high_s) / lag_s)
        return _towards(low_w, watts, max(0.0, rest - high_s) / lag_s)

    def sensed_j(self, seconds: float) -> float:
        """The integral of the lagged power, but for a constant: that of p = power - lag p'."""
        return self.energy_j(seconds) - self.simulation.lag_s * self.lagged_w(seconds)

    def _at(self, seconds: float) -> tuple[_Block, int, float]:
        """The block at a time, whole iterations of it until then, and the seconds after them."""
        block = self._blocks[max(0, bisect_right(self._starts, seconds) - 1)]
        passed = max(0.0, seconds - block.start)
        whole = min(block.count, int(passed / block.seconds))
        return block, whole, passed - whole * block.seconds

    def _parts(self, block: _Block) -> tuple[float, float, float]:
        """Watts in the first and in the second part of an iteration; seconds of the first."""
        mean_w = block.iteration_j / block.seconds
        part, swing = self.simulation.high_part, self.simulation.swing
        if part == 1:
            return mean_w, mean_w, block.seconds
        low_w = mean_w * (1 - swing * part / (1 - part))
        return mean_w * (1 + swing), low_w, part * block.seconds


def _towards(watts: float, before: float, lags: float) -> float:
    """What a lag of first order shows, `lags` time constants after the power became `watts`."""
    return watts + (before - watts) * math.exp(-lags)


@dataclass(frozen=True)
class _Mark:
    seconds: float
    iterations: int
    gap_s: float


class SimulatedWorkload:
    """One network of known energy and time, which runs when it is fed."""

    def __init__(
        self,
        device: SimulatedDevice,
        image_j: float,
        iteration_s: float,
        random: np.random.Generator,
    ):
        self.device, self.batch = device, device.simulation.batch
        self._iteration_j, self._iteration_s = image_j * self.batch, iteration_s
        self._random = random
        self._iterations, self._gap_s = 0, 0.0

    def feed(self) -> None:
        device, clock = self.device, self.device.clock
        simulation = device.simulation
        if simulation.queue_s == 0:
            self._run(device.end, 1)
            self._wait(device.end)
            return
        missing_s = clock.now() + simulation.queue_s - device.end
        if missing_s <= simulation.queue_s / 2:
            return
        if self._iteration_s <= simulation.gaps_from_s:
            self._run(device.end, math.ceil(missing_s / self._iteration_s))
            return
        while device.end < clock.now() + simulation.queue_s:
            gap_s = self._random.uniform(0, 2 * simulation.gap) * self._iteration_s
            self._gap_s += gap_s
            self._run(device.end + gap_s, 1)

    def mark(self) -> _Mark:
        return _Mark(self.device.end, self._iterations, self._gap_s)

    def between(self, first: _Mark, last: _Mark) -> Span:
        self._wait(last.seconds)
        return Span(
            last.iterations - first.iterations,
            last.seconds - first.seconds,
            last.gap_s - first.gap_s,
        )

    def stop(self) -> None:
        self._wait(self.device.end)

    def _run(self, start: float, count: int) -> None:
        hot = self.device.throttled(start)
        seconds = self._iteration_s * (THROTTLED_S if hot else 1.0)
        self.device.run(start, seconds, count, self._iteration_j * (THROTTLED_J if hot else 1.0))
        self._iterations += count

    def _wait(self, until: float) -> None:
        self.device.clock.sleep(until - self.device.clock.now())


class SimulatedRunner:
    """Runs any network, none of which is built: what counts of it is its cost."""

    def __init__(self, device: SimulatedDevice, cost: Cost, seed: int = 0):
        self._device, self.cost = device, cost
        self._random = np.random.default_rng([seed, 0])

    @property
    def device(self) -> str:
        return "simulated device"

    def prepare(self, network: Buildable, widths: Widths) -> tuple[float, float]:
        return self.cost(network, widths)

    def load(self, prepared: tuple[float, float]) -> SimulatedWorkload:
        self._device.clock.sleep(
            self._device.end + self._device.simulation.load_s - self._device.clock.now()
        )
        return SimulatedWorkload(self._device, *prepared, self._random)

    def provenance(self) -> dict[str, Any]:
        return {"device": self.device, "batch": self._device.simulation.batch}

    def close(self) -> None:
        pass


class SimulatedMeter:
    """The sensor of a simulated device, as `Simulation` describes it."""

    def __init__(self, device: SimulatedDevice, seed: int = 0):
        self._device, self._clock = device, device.clock
        self.simulation = device.simulation
        self._random = np.random.default_rng([seed, 1])
        self._begun = self._clock.now()
        # The first update comes at any moment of the first period.
        self._due = self._begun + self._random.uniform(0, self.simulation.period_s)
        self._watts = self.simulation.idle_w
        self._joules, self._summed_until = 1000.0, self._begun  # of those who came before
        self._reads, self._stuck = 0, Reading(math.nan, math.nan)

    @property
    def name(self) -> str:
        return f"simulated {self.simulation.sensor}"

    @property
    def metric(self) -> Metric:
        return "energy_j"

    @property
    def stepped(self) -> bool:
        return self.simulation.sensor == "counter"

    @property
    def settle_s(self) -> float:
        averaged = self.simulation.sensor == "averaged"
        return self.simulation.average_s + self.simulation.period_s if averaged else 0.0

    @property
    def limit_w(self) -> float:
        return self.simulation.limit_w

    def read(self) -> Reading:
        self._clock.sleep(self.simulation.query_s)
        self._update()
        reads, self._reads = self._reads, self._reads + 1
        total = self._joules
        if self.stepped:
            total = math.floor(total / self.simulation.resolution_j) * self.simulation.resolution_j
        reading = Reading(self._clock.now(), total)
        if not self.simulation.fault or reads < self.simulation.fault_read:
            self._stuck = reading
            return reading
        return self._faulty(reading)

    def power_w(self) -> float:
        """What the sensor shows as its power: instant, or averaged where it is such a sensor."""
        self._clock.sleep(self.simulation.query_s)
        self._update()
        faulty = self._reads >= self.simulation.fault_read
        if faulty and self.simulation.fault in ("nan", "zeros"):
            return math.nan if self.simulation.fault == "nan" else 0.0
        return self._watts

    def status(self) -> Status:
        hot = self._device.throttled(self._clock.now())
        return Status(85.0, 1200.0, ("heat",)) if hot else Status(60.0, 1500.0)

    def provenance(self) -> dict[str, Any]:
        # Infinity is no JSON.
        return {"sensor": self.name} | {
            key: value
            for key, value in asdict(self.simulation).items()
            if not (isinstance(value, float) and math.isinf(value))
        }

    def close(self) -> None:
        pass

    def _faulty(self, reading: Reading) -> Reading:
        match self.simulation.fault:
            case "dead":
                raise SensorError("the simulated sensor does not answer: choose another fault")
            case "zeros":
                return Reading(reading.seconds, 0.0)
            case "stuck":
                stuck = self._stuck.total
                return Reading(reading.seconds, reading.total if math.isnan(stuck) else stuck)
            case "jump":
                return Reading(reading.seconds, reading.total + 1e6)
            case "fall":
                return Reading(reading.seconds, reading.total - 1e6)
            case _:
                return Reading(reading.seconds, math.nan)

    def _update(self) -> None:
        """Brings counter and power to the present."""
        now, simulation = self._clock.now(), self.simulation
        while self._due <= now:
            self._sum(self._due)
            look_s = (
                simulation.average_s
                if simulation.sensor == "averaged"
                else simulation.duty * simulation.period_s
            )
            sensed_j = self._device.sensed_j(self._due) - self._device.sensed_j(self._due - look_s)
            error = 1 + simulation.noise * self._random.standard_normal()
            self._watts = sensed_j / look_s * self._drift() * error
            if simulation.sensor == "counter":
                self._joules += self._watts * simulation.gain * simulation.period_s
            self._due += simulation.period_s
        self._sum(now)

    def _sum(self, until: float) -> None:
        if self.simulation.sensor != "counter":
            self._joules += self._watts * self.simulation.gain * (until - self._summed_until)
        self._summed_until = until

    def _drift(self) -> float:
        simulation = self.simulation
        passed = max(0.0, self._due - self._begun - simulation.drift_from_s) / simulation.drift_s
        shape = passed if simulation.drift_shape == "ramp" else math.sin(2 * math.pi * passed)
        return 1 + simulation.drift * shape


def by_macs(mac_j: float = 2e-11, mac_s: float = 1e-13, constant_s: float = 5e-4) -> Cost:
    """A cost that grows with arithmetic: joules and seconds of a MAC, and 100 W at any time."""

    def cost(network: Buildable, widths: Widths) -> tuple[float, float]:
        macs = float(network.structure.macs(widths).sum())
        seconds = constant_s + mac_s * macs
        return 100.0 * seconds + mac_j * macs, seconds

    return cost


def rig(simulation: Simulation, cost: Cost | None = None, seed: int = 0) -> Rig:
    """A simulated device with its sensor and clock; `runner.cost` is the truth.

    `cost` is `by_macs()` by default, `seed` that of the sensor's noise and of the gaps.
    """
    clock = SimulatedClock()
    device = SimulatedDevice(clock, simulation)
    return Rig(
        SimulatedMeter(device, seed), SimulatedRunner(device, cost or by_macs(), seed), clock
    )
